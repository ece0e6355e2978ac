// SPDX-License-Identifier: MIT
// Memory that the guest gives up while a disk still works on it: it must not serve another VM before the
// request is over, however that ends.
#include "catch.hpp"
#include "vmm/virtio/blk_fixture.hpp"

#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using namespace hv;
using namespace hv::test;
using namespace hv::virtio;

/// A disk that answers late, and the host that wants its guest's memory back.
struct Machine : BlkMachine {
    explicit Machine(std::uint64_t features = kRing)
        : BlkMachine{{2048, 512, false, true}, features, {1, "serial"}, 256, fake::Board::Ram::releasable} {
        disk.deferred = true;
    }
    /// A device waits for its requests before it goes, also where a test ends early.
    ~Machine() {
        while (!disk.waiting.empty())
            disk.finish_all();
    }
    Machine(const Machine&) = delete;
    /// Gives the device a request; returns where its status goes.
    Gpa start_request(std::uint32_t type, const std::vector<fake::DriverBuffer>& data,
                      std::uint64_t sector = 0) {
        const Gpa status = add(type, sector, data);
        driver->kick(0);
        return status;
    }
    /// The oldest one.
    void finish_one() {
        BlockRequest& request = *disk.waiting.front();
        disk.waiting.erase(disk.waiting.begin());
        disk.finish(request);
    }
    Gpa start_read() { return start_request(kIn, {{kData, 512, true}}); }
    /// The granule with the requests' data leaves; from here on only they keep it.
    std::byte* detach_data() {
        std::byte* const where = board.memory.detach(kData);
        REQUIRE(where != nullptr);
        board.memory.next_epoch();
        return where;
    }
    /// Whether what has left may go back to the host.
    [[nodiscard]] bool may_go() const { return board.memory.drained(); }
    /// It has.
    void release_data(std::byte* where) {
        REQUIRE(may_go());
        std::memset(where, 0, GuestMemory::kGranule);
        board.memory.release(kData, where);
    }
    /// Whether no request from before or after the last epoch's beginning is left.
    bool nothing_is_used() {
        if (!board.memory.drained())
            return false;
        board.memory.next_epoch();
        return board.memory.drained();
    }
};

/// A range for discard and write_zeroes in the guest's memory.
std::vector<fake::DriverBuffer> range(Machine& machine, std::uint64_t sector, std::uint32_t count) {
    machine.board.put(Machine::kData, BlkRange{sector, count, 0});
    return {{Machine::kData, sizeof(BlkRange), false}};
}

}  // namespace

TEST_CASE("what a disk reads into or writes from goes back once the request is complete", "[virtio]") {
    for (const std::uint32_t type : {kIn, kOut}) {
        Machine machine;
        machine.disk.bytes[0] = std::byte{0x5a};
        machine.board.put<std::uint8_t>(Machine::kData, 0xa5);
        const Gpa status = machine.start_request(type, {{Machine::kData, 512, type == kIn}});
        REQUIRE(machine.disk.waiting.size() == 1);
        std::byte* const where = machine.detach_data();
        CHECK_FALSE(machine.may_go());
        CHECK(machine.board.memory.presence(Machine::kData) == GuestMemory::Presence::leaving);
        machine.disk.finish_all();
        CHECK(machine.may_go());
        // It was still the request's.
        CHECK(*where == (type == kIn ? std::byte{0x5a} : std::byte{0xa5}));
        CHECK(machine.disk.bytes[0] == *where);
        CHECK(machine.status_at(status) == kOk);
        const auto out = machine.board.frames.outstanding();
        machine.release_data(where);
        CHECK(machine.board.frames.outstanding() == out - 1);
        CHECK(machine.board.get<std::uint8_t>(Machine::kData) == 0);
        CHECK(machine.nothing_is_used());
    }
}

TEST_CASE("a request that fails gives its memory up as well", "[virtio]") {
    for (const BlockStatus answer : {BlockStatus::io_error, BlockStatus::unsupported}) {
        Machine machine;
        machine.disk.answer = answer;
        const Gpa status = machine.start_read();
        std::byte* const where = machine.detach_data();
        CHECK_FALSE(machine.may_go());
        machine.disk.finish_all();
        CHECK(machine.status_at(status) == (answer == BlockStatus::io_error ? kIoError : kUnsupported));
        machine.release_data(where);
        CHECK(machine.nothing_is_used());
    }
}

TEST_CASE("a reset takes no memory from the disk", "[virtio]") {
    Machine machine;
    machine.disk.bytes[0] = std::byte{0x5a};
    const Gpa status = machine.start_read();
    std::byte* const where = machine.detach_data();
    machine.driver->set_status(0);
    CHECK(machine.driver->status() != 0);
    CHECK_FALSE(machine.may_go());
    machine.disk.finish_all();
    CHECK(*where == std::byte{0x5a});
    CHECK(machine.driver->status() == 0);
    CHECK(machine.status_at(status) == kUntouched);
    machine.release_data(where);
    CHECK(machine.nothing_is_used());
    machine.disk.deferred = false;
    machine.driver->start(kRing);
    CHECK(machine.request(kIn, 0, {{Machine::kData, 512, true}}) == kOk);
    CHECK(machine.nothing_is_used());
}

TEST_CASE("each of several requests keeps memory, those from after it left do not", "[virtio]") {
    Machine machine;
    const Gpa other{Machine::kData + GuestMemory::kGranule};
    machine.start_read();
    machine.start_read();
    std::byte* const where = machine.detach_data();
    const Gpa later = machine.start_request(kIn, {{other, 512, true}});
    REQUIRE(machine.disk.waiting.size() == 3);
    machine.finish_one();
    CHECK_FALSE(machine.may_go());
    machine.finish_one();
    CHECK(machine.may_go());
    CHECK(machine.status_at(later) == kUntouched);
    machine.release_data(where);
    // The later one keeps what leaves next.
    std::byte* const next = machine.board.memory.detach(other);
    REQUIRE(next != nullptr);
    machine.board.memory.next_epoch();
    CHECK_FALSE(machine.may_go());
    machine.finish_one();
    CHECK(machine.may_go());
    machine.board.memory.release(other, next);
    CHECK(machine.nothing_is_used());
}

TEST_CASE("a write that is made stable keeps its memory until it is", "[virtio]") {
    for (const BlockStatus answer : {BlockStatus::ok, BlockStatus::io_error}) {
        Machine machine{kRing & ~VIRTIO_BLK_F_FLUSH};
        const Gpa status = machine.start_request(kOut, {{Machine::kData, 512, false}});
        std::byte* const where = machine.detach_data();
        machine.disk.finish_all();
        REQUIRE(machine.disk.waiting.size() == 1);
        CHECK_FALSE(machine.may_go());
        machine.disk.answer = answer;
        machine.disk.finish_all();
        CHECK(machine.disk.operations.back() == BlockRequest::Operation::flush);
        CHECK(machine.status_at(status) == (answer == BlockStatus::ok ? kOk : kIoError));
        machine.release_data(where);
        CHECK(machine.nothing_is_used());
    }
}

TEST_CASE("what moves no data keeps the memory that its status goes to", "[virtio]") {
    Machine machine;
    machine.board.next = Machine::kData.raw + 0x1000;
    Gpa status{};
    SECTION("flush") {
        status = machine.start_request(kFlush, {});
    }
    SECTION("discard") {
        status = machine.start_request(kDiscard, range(machine, 8, 8));
    }
    SECTION("zeroes") {
        status = machine.start_request(kWriteZeroes, range(machine, 8, 8));
    }
    std::byte* const where = machine.detach_data();
    CHECK_FALSE(machine.may_go());
    machine.disk.finish_all();
    CHECK(where[status - Machine::kData] == std::byte{kOk});
    machine.release_data(where);
    CHECK(machine.nothing_is_used());
}

TEST_CASE("what is answered at once, or finds no room, keeps nothing", "[virtio]") {
    Machine machine;
    SECTION("beyond the disk") {
        CHECK(machine.status_at(machine.start_request(kIn, {{Machine::kData, 512, true}}, 2048)) == kIoError);
    }
    SECTION("unknown") {
        CHECK(machine.status_at(machine.start_request(99, {})) == kUnsupported);
    }
    SECTION("the serial number") {
        CHECK(machine.status_at(machine.start_request(kGetId, {{Machine::kData, 20, true}})) == kOk);
    }
    SECTION("a range beyond the disk") {
        CHECK(machine.status_at(machine.start_request(kDiscard, range(machine, 2048, 8))) == kIoError);
    }
    SECTION("more requests than the device takes at once") {
        machine.indirect = true;
        for (unsigned i = 0; i < 200; ++i)
            machine.add(kIn, i, {{Machine::kData + 512 * i, 512, true}});
        machine.driver->kick(0);
        CHECK_FALSE(machine.nothing_is_used());
        while (!machine.disk.waiting.empty())
            machine.disk.finish_all();
        CHECK(machine.take_all_used() == 200);
    }
    CHECK(machine.nothing_is_used());
}
