// SPDX-License-Identifier: MIT
// What a disk does beyond single requests: its write cache, its size, several queues.
#include "catch.hpp"
#include "vmm/virtio/blk_fixture.hpp"

#include <thread>

namespace {

using namespace hv;
using namespace hv::test;
using namespace hv::virtio;
using Operation = BlockRequest::Operation;
using Operations = std::vector<Operation>;

constexpr std::uint64_t kPlainRing = kRing & ~VIRTIO_BLK_F_FLUSH;
constexpr BlockGeometry kGeometry{2048, 512, false, true};
constexpr std::uint64_t kWriteback = 32;  // offsetof(BlkConfig, writeback)

std::uint8_t write(BlkMachine& machine) {
    machine.disk.operations.clear();
    return machine.request(kOut, 0, {{BlkMachine::kData, 512, false}});
}

std::uint8_t write_zeroes(BlkMachine& machine) {
    machine.disk.operations.clear();
    machine.board.put(BlkMachine::kData, BlkRange{0, 1, 0});
    return machine.request(kWriteZeroes, 0, {{BlkMachine::kData, 16, false}});
}

void set_writeback(BlkMachine& machine, std::uint8_t value) {
    const std::uint64_t at = machine.driver->bar(0) + VirtioPciTransport::kDeviceOffset + kWriteback;
    machine.board.memory_bus.write(at, 1, value);
}

}  // namespace

TEST_CASE("a driver that does not flush finds its writes stable", "[virtio]") {
    for (const std::uint64_t features : {kPlainRing, kPlainRing | VIRTIO_BLK_F_CONFIG_WCE}) {
        BlkMachine machine{kGeometry, features};
        CHECK(machine.driver->device_config(kWriteback, 1) == 0);
        CHECK(write(machine) == kOk);
        CHECK(machine.disk.operations == Operations{Operation::write, Operation::flush});
        CHECK(machine.length == 1);
        CHECK(write_zeroes(machine) == kOk);
        CHECK(machine.disk.operations == Operations{Operation::write_zeroes, Operation::flush});
        machine.disk.operations.clear();
        CHECK(machine.request(kIn, 0, {{BlkMachine::kData, 512, true}}) == kOk);
        CHECK(machine.disk.operations == Operations{Operation::read});
    }
    BlkMachine machine;
    CHECK(machine.driver->device_config(kWriteback, 1) == 1);
    CHECK(write(machine) == kOk);
    CHECK(machine.disk.operations == Operations{Operation::write});
}

TEST_CASE("the write cache can be switched off and on by a driver that negotiated it", "[virtio]") {
    BlkMachine machine{kGeometry, kRing | VIRTIO_BLK_F_CONFIG_WCE};
    CHECK(machine.driver->device_config(kWriteback, 1) == 1);
    CHECK(write(machine) == kOk);
    CHECK(machine.disk.operations == Operations{Operation::write});
    set_writeback(machine, 0);
    CHECK(machine.driver->device_config(kWriteback, 1) == 0);
    CHECK(write(machine) == kOk);
    CHECK(machine.disk.operations == Operations{Operation::write, Operation::flush});
    set_writeback(machine, 1);
    CHECK(write(machine) == kOk);
    CHECK(write_zeroes(machine) == kOk);
    CHECK(machine.disk.operations == Operations{Operation::write_zeroes});

    set_writeback(machine, 0);
    machine.driver->start(kRing);  // another driver, which knows nothing of it
    CHECK(machine.driver->device_config(kWriteback, 1) == 1);
    set_writeback(machine, 0);
    CHECK(machine.driver->device_config(kWriteback, 1) == 1);
    REQUIRE(machine.driver->negotiate(kPlainRing));  // read before DRIVER_OK
    CHECK(machine.driver->device_config(kWriteback, 1) == 0);

    BlkMachine read_only{{64, 512, true, false}};
    CHECK((read_only.driver->offered() & VIRTIO_BLK_F_CONFIG_WCE) == 0);
}

TEST_CASE("a write is acknowledged after the flush behind it, with its failure", "[virtio]") {
    BlkMachine machine{kGeometry, kPlainRing};
    machine.disk.deferred = true;
    const Gpa status = machine.add(kOut, 0, {{BlkMachine::kData, 512, false}});
    machine.driver->kick(0);
    machine.disk.finish_all();
    REQUIRE(machine.disk.waiting.size() == 1);
    CHECK(machine.disk.waiting[0]->operation == Operation::flush);
    CHECK(machine.status_at(status) == kUntouched);
    machine.disk.answer = BlockStatus::io_error;
    machine.disk.finish_all();
    CHECK(machine.status_at(status) == kIoError);

    // A write that failed is not flushed, and what its slot does next neither.
    machine.disk.deferred = false;
    machine.take_all_used();
    CHECK(write(machine) == kIoError);
    CHECK(machine.disk.operations == Operations{Operation::write});
    machine.disk.answer = BlockStatus::ok;
    machine.disk.operations.clear();
    CHECK(machine.request(kIn, 0, {{BlkMachine::kData, 512, true}}) == kOk);
    CHECK(machine.disk.operations == Operations{Operation::read});
}

TEST_CASE("a disk may grow and shrink, and its driver hears of it", "[virtio]") {
    BlkMachine machine;
    const std::vector<fake::DriverBuffer> in{{BlkMachine::kData, 512, true}};
    CHECK(machine.request(kIn, 2048, in) == kIoError);
    const auto generation = machine.driver->common(21, 1);
    machine.disk.bytes.resize(4096 * 512);
    machine.device->capacity_changed(4096);
    CHECK(machine.driver->config_interrupts() == 1);
    CHECK(machine.driver->common(21, 1) != generation);
    CHECK(machine.driver->device_config(0, 8) == 4096);
    CHECK(machine.request(kIn, 4095, in) == kOk);
    machine.device->capacity_changed(4096);
    CHECK(machine.driver->config_interrupts() == 1);
    machine.device->capacity_changed(100);
    CHECK(machine.driver->config_interrupts() == 2);
    machine.disk.operations.clear();
    CHECK(machine.request(kIn, 100, in) == kIoError);
    machine.board.put(BlkMachine::kData, BlkRange{99, 2, 0});
    CHECK(machine.request(kDiscard, 0, {{BlkMachine::kData, 16, false}}) == kIoError);
    CHECK(machine.disk.operations.empty());
    CHECK(machine.request(kIn, 99, in) == kOk);
}

TEST_CASE("each queue works by itself and has an interrupt of its own", "[virtio]") {
    BlkMachine machine{kGeometry, kRing | VIRTIO_BLK_F_MQ, 4};
    CHECK(machine.driver->common(18, 2) == 4);
    machine.disk.deferred = true;
    for (unsigned queue = 0; queue < 4; ++queue) {
        machine.add(kIn, queue, {{BlkMachine::kData + 512 * queue, 512, true}}, queue);
        machine.driver->kick(queue);
    }
    REQUIRE(machine.disk.waiting.size() == 4);
    for (unsigned done = 4; done > 0; --done) {
        BlockRequest* request = machine.disk.waiting.back();
        machine.disk.waiting.pop_back();
        machine.disk.finish(*request);
        for (unsigned queue = 0; queue < 4; ++queue) {
            CHECK(machine.driver->interrupts(queue) == (queue >= done - 1 ? 1u : 0u));
            CHECK(machine.take_all_used(queue) == (queue == done - 1 ? 1u : 0u));
        }
    }
    BlkMachine single;
    CHECK((single.driver->offered() & VIRTIO_BLK_F_MQ) == 0);
}

TEST_CASE("a queue without room does not hold up another", "[virtio]") {
    BlkMachine machine{kGeometry, kRing | VIRTIO_BLK_F_MQ, 2, 256};
    machine.indirect = true;
    machine.disk.deferred = true;
    for (unsigned i = 0; i < 200; ++i)
        machine.add(kIn, 0, {{BlkMachine::kData, 512, true}}, 0);
    machine.driver->kick(0);
    REQUIRE(machine.disk.waiting.size() == 64);
    machine.disk.deferred = false;
    machine.add(kIn, 0, {{BlkMachine::kData, 512, true}}, 1);
    machine.driver->kick(1);
    CHECK(machine.take_all_used(1) == 1);
    machine.disk.finish_all();
    CHECK(machine.take_all_used(0) == 200);
}

TEST_CASE("a queue that its driver broke leaves the others at work until the reset", "[virtio]") {
    BlkMachine machine{kGeometry, kRing | VIRTIO_BLK_F_MQ, 2};
    machine.driver->queues.at(0).put_head(77);
    machine.driver->kick(0);
    CHECK(machine.needs_reset());
    machine.add(kIn, 0, {{BlkMachine::kData, 512, true}}, 1);
    machine.driver->kick(1);
    CHECK(machine.take_all_used(1) == 1);
}

TEST_CASE("requests in more pieces than can be followed are answered, and the queue goes on", "[virtio]") {
    // Each 8 MiB descriptor lies in four pieces of host memory.
    BlkMachine machine{
        {1 << 23, 512, false, true}, kRing, VirtioBlk::Options{}, 256, fake::Board::Ram::scattered};
    machine.indirect = true;
    const auto huge = [](bool write) {
        return std::vector<fake::DriverBuffer>(200, {Gpa{0}, fake::Board::kRam, write});
    };
    CHECK(machine.request(kIn, 0, huge(true)) == kIoError);
    CHECK(machine.length == 1);
    CHECK(machine.request(kOut, 0, huge(false)) == kIoError);
    CHECK(machine.request(kDiscard, 0, huge(false)) == kIoError);
    CHECK(machine.disk.operations.empty());
    CHECK_FALSE(machine.needs_reset());
    CHECK(machine.request(kIn, 0, {{BlkMachine::kData, 512, true}}) == kOk);

    machine.indirect = true;
    std::vector<fake::DriverBuffer> most;
    for (unsigned i = 0; i < 254; ++i)
        most.push_back({BlkMachine::kData + 1024 * i, 512, true});
    CHECK(machine.request(kIn, 0, most) == kOk);  // seg_max of them
}

TEST_CASE("a request may be as large as seg_max and size_max allow, and no larger", "[virtio]") {
    BlkMachine machine{{1 << 18, 512, false, true}};
    machine.disk.deferred = true;
    machine.indirect = true;
    const auto seg_max = static_cast<unsigned>(machine.driver->device_config(12, 4));
    const auto size_max = static_cast<std::uint32_t>(machine.driver->device_config(8, 4));
    std::vector<fake::DriverBuffer> most;
    for (unsigned i = 0; i < seg_max; ++i)  // never next to each other
        most.push_back({BlkMachine::kData + (i % 2) * size_max, size_max, true});
    machine.add(kIn, 0, most);
    machine.driver->kick(0);
    REQUIRE(machine.disk.waiting.size() == 1);
    CHECK(machine.disk.waiting[0]->sector_count == std::uint64_t{seg_max} * size_max / 512);
    machine.board.clock.run();  // the first was more than a doorbell does
    most[seg_max / 2].size += 512;
    const Gpa status = machine.add(kIn, 0, most);
    machine.driver->kick(0);
    CHECK(machine.disk.waiting.size() == 1);
    CHECK(machine.status_at(status) == kIoError);
    BlockRequest* request = machine.disk.take_waiting()[0];
    request->complete(*request, BlockStatus::ok);
}

TEST_CASE("any type that is not known is unsupported", "[virtio]") {
    BlkMachine machine;
    for (const std::uint32_t type : {2u, 3u, 5u, 7u, 9u, 10u, 12u, 14u, 99u, 0x8000'0000u, ~0u}) {
        CHECK(machine.request(type, 0, {{BlkMachine::kData, 512, true}}) == kUnsupported);
        CHECK(machine.length == 1);
    }
}

TEST_CASE("queues, write cache, size and limits change under load without harm", "[virtio]") {
    BlkMachine machine{kGeometry, kPlainRing | VIRTIO_BLK_F_MQ | VIRTIO_BLK_F_CONFIG_WCE,
                       VirtioBlk::Options{2, "", 0, 1'000'000'000}};
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
        for (unsigned i = 0; !done; ++i) {
            machine.driver->notify(i % 2);
            machine.device->capacity_changed(1024 + i % 2);
            set_writeback(machine, i / 2 % 2);
            machine.board.clock.run();
        }
    }};
    for (unsigned i = 0; i < 4; ++i)
        machine.board.put(BlkMachine::kData + 16 * i, BlkRange{i, 1, 0});
    for (unsigned round = 0; round < 30; ++round) {
        machine.board.next = 0x10'0000;
        for (unsigned i = 0; i < 5; ++i) {
            machine.add(kOut, i, {{BlkMachine::kData + 512 * i, 512, false}}, i % 2);
            machine.add(kWriteZeroes, 0, {{BlkMachine::kData, 64, false}}, i % 2);
        }
        machine.driver->queues.at(0).publish();
        machine.driver->queues.at(1).publish();
        machine.driver->notify(round % 2);
        machine.driver->set_status(0);
        while (machine.driver->status() != 0)
            std::this_thread::yield();
        machine.driver->start(kPlainRing | VIRTIO_BLK_F_MQ | VIRTIO_BLK_F_CONFIG_WCE);
    }
    done = true;
    completer.join();
    ringer.join();
    machine.disk.finish_all();
    CHECK_FALSE(machine.needs_reset());
}
