// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/virtio/blk_fixture.hpp"

#include <cstdint>
#include <random>
#include <thread>

namespace {

using namespace hv;
using namespace hv::test;
using namespace hv::virtio;
using TestDisk = BlkDisk;
using Machine = BlkMachine;

}  // namespace

TEST_CASE("what is written is read back, through any ring features", "[virtio]") {
    for (const std::uint64_t features :
         {VIRTIO_F_VERSION_1, VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX, kRing}) {
        Machine machine{{2048, 512, false, true}, features};
        machine.indirect = (features & VIRTIO_F_INDIRECT_DESC) != 0;
        fill(machine, Machine::kData, 4096, 3);
        CHECK(machine.request(kOut, 8, {{Machine::kData, 4096, false}}) == kOk);
        CHECK(machine.length == 1);
        CHECK(machine.request(kIn, 8, {{Machine::kData + 0x10000, 4096, true}}) == kOk);
        CHECK(machine.length == 4097);
        CHECK(std::memcmp(machine.board.memory.at(Machine::kData, 4096),
                          machine.board.memory.at(Machine::kData + 0x10000, 4096), 4096) == 0);
        CHECK(machine.driver->interrupts(0) == 2);
        CHECK(machine.request(kFlush, 0, {}) == kOk);
        CHECK(machine.disk.operations.back() == BlockRequest::Operation::flush);
    }
}

TEST_CASE("header, data and status may be split over descriptors anyhow", "[virtio]") {
    Machine machine;
    std::mt19937 random{5};
    fill(machine, Gpa{0x50'0000}, 1024, 9);
    for (unsigned round = 0; round < 300; ++round) {
        const bool write = round % 2 == 0;
        // One run of bytes holds the header and what is written, another what is read and the status.
        const Gpa readable{0x40'0000};
        const Gpa writable{0x48'0000};
        const std::uint32_t out_size = 16 + (write ? 1024 : 0);
        const std::uint32_t in_size = 1 + (write ? 0 : 1024);
        machine.board.put<std::uint32_t>(readable, write ? kOut : kIn);
        machine.board.put<std::uint64_t>(readable + 8, 2);
        std::memcpy(machine.board.memory.at(readable + 16, 1024),
                    machine.board.memory.at(Gpa{0x50'0000}, 1024), 1024);
        std::memset(machine.board.memory.at(writable, 1025), kUntouched, 1025);
        std::vector<fake::DriverBuffer> buffers;
        const auto split = [&](Gpa start, std::uint32_t size, bool is_write) {
            for (std::uint32_t at = 0; at < size;) {
                const std::uint32_t piece =
                    std::min(size - at, static_cast<std::uint32_t>(random() % (size / 4 + 8)));
                buffers.push_back({start + at, piece, is_write});
                at += piece;
            }
        };
        split(readable, out_size, false);
        split(writable, in_size, true);
        if (buffers.size() > 60)
            continue;
        machine.driver->queues.at(0).add(buffers, random() % 2 == 0);
        machine.driver->kick(0);
        REQUIRE(machine.driver->queues.at(0).take_used()->length == in_size);
        REQUIRE(machine.board.get<std::uint8_t>(writable + (in_size - 1)) == kOk);
        if (!write)
            REQUIRE(std::memcmp(machine.board.memory.at(writable, 1024),
                                machine.board.memory.at(Gpa{0x50'0000}, 1024), 1024) == 0);
    }
}

TEST_CASE("requests beyond the disk, of odd length or unknown are answered with an error", "[virtio]") {
    Machine machine{{2048, 4096, false, true}, kRing | VIRTIO_BLK_F_BLK_SIZE};
    const std::vector<fake::DriverBuffer> in{{Machine::kData, 4096, true}};
    const std::vector<fake::DriverBuffer> out{{Machine::kData, 4096, false}};
    CHECK(machine.request(kIn, 2040, in) == kOk);
    CHECK(machine.request(kIn, 2048, in) == kIoError);
    CHECK(machine.request(kIn, 2048, {}) == kOk);
    CHECK(machine.request(kIn, ~0ull, in) == kIoError);
    CHECK(machine.request(kIn, ~0ull << 3, in) == kIoError);
    CHECK(machine.request(kIn, 1, in) == kIoError);  // not a multiple of the logical block
    CHECK(machine.request(kIn, 0, {{Machine::kData, 512, true}}) == kIoError);
    CHECK(machine.request(kIn, 0, {{Machine::kData, 4095, true}}) == kIoError);
    CHECK(machine.length == 1);
    CHECK(machine.request(kOut, 2041, out) == kIoError);
    CHECK(machine.request(99, 0, out) == kUnsupported);
    machine.disk.answer = BlockStatus::io_error;
    CHECK(machine.request(kIn, 0, in) == kIoError);
    machine.disk.answer = BlockStatus::unsupported;
    CHECK(machine.request(kFlush, 0, {}) == kUnsupported);
    CHECK_FALSE(machine.needs_reset());
    CHECK(machine.device->counters().errors == 10);
}

TEST_CASE("a read-only disk says so and refuses to be written", "[virtio]") {
    Machine machine{{64, 512, true, false}};
    CHECK((machine.driver->offered() & feature(5)) != 0);
    CHECK((machine.driver->offered() & (feature(13) | feature(14))) == 0);
    CHECK(machine.request(kOut, 0, {{Machine::kData, 512, false}}) == kIoError);
    CHECK(machine.request(kIn, 0, {{Machine::kData, 512, true}}) == kOk);
    CHECK(machine.request(kDiscard, 0, {{Machine::kData, 16, false}}) == kUnsupported);
}

TEST_CASE("the serial number is given as far as there is room", "[virtio]") {
    Machine machine;
    CHECK(machine.request(kGetId, 0, {{Machine::kData, 20, true}}) == kOk);
    CHECK(std::memcmp(machine.board.memory.at(Machine::kData, 20), "serial-0123456789-ov", 20) == 0);
    CHECK(machine.length == 21);
    CHECK(machine.request(kGetId, 0, {{Machine::kData, 4, true}}) == kOk);
    CHECK(machine.length == 5);
}

TEST_CASE("the configuration space tells the geometry", "[virtio]") {
    Machine machine{{2048, 512, false, true}, kRing, 3};
    CHECK(machine.driver->device_config(0, 8) == 2048);
    CHECK(machine.driver->device_config(0, 4) == 2048);
    CHECK(machine.driver->device_config(12, 4) == 254);
    CHECK(machine.driver->device_config(20, 4) == 512);
    CHECK(machine.driver->device_config(24, 1) == 3);
    CHECK(machine.driver->device_config(34, 2) == 3);
    CHECK(machine.driver->device_config(0xff8, 8) == 0);
    CHECK(machine.driver->device_config(56, 1) == 0);
    CHECK(machine.driver->read_config(pci::kDevice, 2) == 0x1042);
    CHECK(machine.driver->read_config(pci::kRevision, 1) == 1);
}

TEST_CASE("who has a disk of large blocks must know their size", "[virtio]") {
    BlkMachine machine{{2048, 4096, false, true}, kRing | VIRTIO_BLK_F_BLK_SIZE};
    CHECK(machine.driver->device_config(20, 4) == 4096);
    CHECK_FALSE(machine.driver->negotiate(kRing));
    CHECK(machine.driver->negotiate(kRing | VIRTIO_BLK_F_BLK_SIZE));
    BlkMachine small;
    CHECK(small.driver->negotiate(kRing));
}

TEST_CASE("topology and unmapping are the disk's own", "[virtio]") {
    const BlkMachine machine{{2048, 512, false, true, true, 16384}};
    CHECK(machine.driver->device_config(24, 1) == 5);   // physical_block_exp
    CHECK(machine.driver->device_config(26, 2) == 32);  // min_io_size
    CHECK(machine.driver->device_config(44, 4) == 32);  // discard_sector_alignment
    CHECK(machine.driver->device_config(56, 1) == 1);   // write_zeroes_may_unmap
    const BlkMachine plain{{2048, 512, false, true, false, 512}};
    CHECK(plain.driver->device_config(24, 1) == 0);
    CHECK(plain.driver->device_config(26, 2) == 1);
    CHECK(plain.driver->device_config(44, 4) == 1);
}

TEST_CASE("a request without header or status breaks the queue, until a reset", "[virtio]") {
    Machine machine;
    const auto expect_broken = [&](const std::vector<fake::DriverBuffer>& buffers) {
        machine.driver->queues.at(0).add(buffers);
        machine.driver->kick(0);
        CHECK(machine.needs_reset());
        CHECK(machine.driver->config_interrupts() > 0);
        CHECK_FALSE(machine.driver->queues.at(0).take_used());
        machine.driver->start(kRing);
        CHECK_FALSE(machine.needs_reset());
        CHECK(machine.request(kIn, 0, {{Machine::kData, 512, true}}) == kOk);
    };
    expect_broken({{Machine::kData, 16, false}});
    expect_broken({{Machine::kData, 15, false}, {Machine::kData, 1, true}});
    expect_broken({{Machine::kData, 1, true}});
    expect_broken({{Gpa{fake::Board::kRam}, 16, false}, {Machine::kData, 1, true}});
}

TEST_CASE("many requests are under way at once, and more wait in the ring", "[virtio]") {
    Machine machine{{2048, 512, false, true}, kRing, 1, 256};
    machine.indirect = true;
    machine.disk.deferred = true;
    std::vector<Gpa> statuses;
    for (unsigned i = 0; i < 200; ++i)
        statuses.push_back(machine.add(kIn, i, {{Machine::kData + 512 * i, 512, true}}));
    machine.driver->kick(0);
    CHECK(machine.disk.waiting.size() == 64);
    std::mt19937 random{1};
    unsigned used = 0;
    while (!machine.disk.waiting.empty()) {
        std::shuffle(machine.disk.waiting.begin(), machine.disk.waiting.end(), random);
        BlockRequest* request = machine.disk.waiting.back();
        machine.disk.waiting.pop_back();
        machine.disk.finish(*request);
        while (machine.driver->queues.at(0).take_used())
            ++used;
    }
    CHECK(used == 200);
    for (const Gpa status : statuses)
        CHECK(machine.board.get<std::uint8_t>(status) == kOk);
}

TEST_CASE("large requests share the room for segments", "[virtio]") {
    Machine machine{{8192, 512, false, true}, kRing, 1, 256};
    machine.indirect = true;
    machine.disk.deferred = true;
    machine.board.next = 0x10'0000;
    for (unsigned i = 0; i < 4; ++i) {
        std::vector<fake::DriverBuffer> data;
        for (unsigned j = 0; j < 254; ++j)  // with gaps, so that nothing merges
            data.push_back({Machine::kData + 1024 * j, 512, true});
        machine.add(kIn, 0, data);
    }
    machine.driver->kick(0);
    CHECK(machine.disk.waiting.size() == 2);
    unsigned used = 0;
    for (unsigned i = 0; i < 4; ++i) {
        machine.disk.finish_all();
        while (machine.driver->queues.at(0).take_used())
            ++used;
    }
    CHECK(used == 4);
}

TEST_CASE("a reset waits for the disk, and late completions touch nothing", "[virtio]") {
    Machine machine;
    machine.disk.deferred = true;
    const Gpa status = machine.add(kIn, 0, {{Machine::kData, 512, true}});
    machine.driver->kick(0);
    REQUIRE(machine.disk.waiting.size() == 1);
    machine.driver->set_status(0);
    CHECK(machine.driver->status() != 0);
    machine.driver->set_common(16, 2, 0);  // without effect while resetting
    machine.driver->set_status(ACKNOWLEDGE);
    const auto interrupts = machine.driver->interrupts(0);
    const auto used_index = machine.board.get<std::uint16_t>(machine.driver->queues.at(0).used + 2);
    machine.disk.finish_all();
    CHECK(machine.driver->status() == 0);
    CHECK(machine.board.get<std::uint8_t>(status) == kUntouched);
    CHECK(machine.board.get<std::uint16_t>(machine.driver->queues.at(0).used + 2) == used_index);
    CHECK(machine.driver->interrupts(0) == interrupts);
    CHECK(machine.driver->common(16, 2) == 0xffff);
    machine.disk.deferred = false;
    machine.driver->start(kRing);
    CHECK(machine.request(kIn, 0, {{Machine::kData, 512, true}}) == kOk);
}

namespace {

/// The driver's other vCPU: each completed request is made available again at once, so often.
struct Feeder final : BlockDevice {
    [[nodiscard]] BlockGeometry geometry() const override { return {64, 512, false, false}; }
    void submit(BlockRequest& request) override {
        ++count;
        if (count < most)
            make_available();
        request.complete(request, BlockStatus::ok);
    }
    void make_available() const {
        driver->queues.at(0).put_head(0);
        driver->queues.at(0).publish();
    }
    fake::VirtioDriver* driver{};
    unsigned count{0};
    unsigned most{~0u};
};

struct FedMachine {
    explicit FedMachine(std::uint64_t features = kRing) {
        REQUIRE(board.bridge.attach(1, transport));
        driver = std::make_unique<fake::VirtioDriver>(board, 1);
        disk.driver = driver.get();
        driver->start(features);
        driver->queues.at(0).add(
            {{Gpa{0x40'0000}, 16, false}, {Gpa{0x40'0100}, 512, true}, {Gpa{0x40'0400}, 1, true}});
    }
    Feeder disk;
    fake::Board board;
    std::unique_ptr<VirtioBlk> device{VirtioBlk::create(disk, board.memory, board.clock, {1, ""}).value()};
    VirtioPciTransport transport{*device, board.interrupts, nullptr};
    std::unique_ptr<fake::VirtioDriver> driver;
};

}  // namespace

TEST_CASE("a guest that feeds the ring without end does not keep the CPU", "[virtio]") {
    FedMachine machine;
    machine.driver->kick(0);
    const unsigned first = machine.disk.count;
    CHECK(first < 2000);
    CHECK(machine.board.clock.armed() == 1);
    machine.board.clock.run();
    CHECK(machine.disk.count > first);
}

TEST_CASE("a turn that ends with the last request still asks for the next doorbell", "[virtio]") {
    for (const std::uint64_t features : {kRing, kRing & ~VIRTIO_F_EVENT_IDX}) {
        unsigned of_a_turn = 0;
        {
            FedMachine endless{features};
            endless.driver->kick(0);
            of_a_turn = endless.disk.count;
        }
        for (const unsigned count : {of_a_turn - 1, of_a_turn, of_a_turn + 1}) {
            FedMachine machine{features};
            machine.disk.most = count;
            machine.driver->kick(0);
            machine.board.clock.run();
            CHECK(machine.disk.count == count);
            machine.driver->queues.at(0).put_head(0);
            machine.driver->kick(0);
            CHECK(machine.disk.count == count + 1);
        }
    }
}

TEST_CASE("doorbells, completions and resets race on several CPUs without harm", "[virtio]") {
    Machine machine{{2048, 512, false, true}, kRing, 2};
    machine.disk.deferred = true;
    std::atomic<bool> done{false};
    std::thread completer{[&] {
        fake::set_cpu(1);
        while (!done) {
            for (BlockRequest* request : machine.disk.take_waiting())
                request->complete(*request, BlockStatus::ok);
            std::this_thread::yield();
        }
    }};
    std::thread ringer{[&] {
        fake::set_cpu(2);
        while (!done) {
            machine.driver->notify(0);
            machine.driver->notify(1);
        }
    }};
    for (unsigned round = 0; round < 30; ++round) {
        machine.board.next = 0x10'0000;
        for (unsigned i = 0; i < 10; ++i)
            machine.add(kIn, i, {{Machine::kData + 512 * i, 512, true}}, i % 2);
        machine.driver->queues.at(0).publish();
        machine.driver->queues.at(1).publish();
        machine.driver->notify(round % 2);
        machine.driver->set_status(0);
        while (machine.driver->status() != 0)
            std::this_thread::yield();
        machine.driver->start(kRing);
    }
    done = true;
    completer.join();
    ringer.join();
    machine.disk.finish_all();
    CHECK_FALSE(machine.needs_reset());
}

TEST_CASE("a device is made in full or not at all", "[virtio]") {
    fake::Board board;
    TestDisk disk{{64, 512, false, false}};
    CHECK(VirtioBlk::create(disk, board.memory, board.clock, {0, ""}).error() == Error::invalid_argument);
    const unsigned too_many = VirtioDevice::kMaxQueues + 1;
    CHECK(VirtioBlk::create(disk, board.memory, board.clock, {too_many, ""}).error() ==
          Error::invalid_argument);
}
