// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/virtio/blk_fixture.hpp"

#include <algorithm>

namespace {

using namespace hv;
using namespace hv::test;
using namespace hv::virtio;

constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr BlockGeometry kGeometry{1 << 15, 512, false, true};

VirtioBlk::Options limited(std::uint64_t bytes_per_second, std::uint64_t requests_per_second,
                           unsigned queues = 1) {
    return {queues, "", bytes_per_second, requests_per_second};
}

/// Lets time pass in small steps; returns how many requests of each queue came back.
std::vector<unsigned> pass(BlkMachine& machine, std::uint64_t milliseconds) {
    std::vector<unsigned> used(machine.driver->queues.size());
    for (std::uint64_t i = 0; i < milliseconds * 10; ++i) {
        machine.board.clock.advance(kMillisecond / 10);
        for (unsigned queue = 0; queue < used.size(); ++queue)
            used[queue] += machine.take_all_used(queue);
    }
    return used;
}

void add_reads(BlkMachine& machine, unsigned count, std::uint32_t size, unsigned queue = 0) {
    for (unsigned i = 0; i < count; ++i)
        machine.add(kIn, 0, {{BlkMachine::kData, size, true}}, queue);
    machine.driver->kick(queue);
}

}  // namespace

TEST_CASE("requests per second are limited, after a burst of a tenth of a second", "[virtio]") {
    BlkMachine machine{kGeometry, kRing, limited(0, 100), 256};
    machine.indirect = true;
    pass(machine, 1);
    add_reads(machine, 200, 512);
    CHECK(machine.take_all_used() == 10);
    CHECK(machine.board.clock.armed() == 1);
    const unsigned first = pass(machine, 500)[0];
    CHECK(first >= 49);
    CHECK(first <= 51);
    CHECK(pass(machine, 2000)[0] == 190 - first);
    CHECK(machine.board.clock.armed() == 0);
    CHECK(machine.disk.extents.size() == 200);
}

TEST_CASE("bytes per second are limited, and a request of any size passes", "[virtio]") {
    BlkMachine machine{kGeometry, kRing, limited(1'024'000, 0), 256};
    machine.indirect = true;
    pass(machine, 1);
    // The burst is 100 KiB: one request overdraws it tenfold, the next waits for that.
    add_reads(machine, 2, 1'024'000);
    CHECK(machine.take_all_used() == 1);
    CHECK(pass(machine, 890)[0] == 0);
    CHECK(pass(machine, 20)[0] == 1);
    pass(machine, 2000);
    add_reads(machine, 100, 102'400);
    const unsigned used = machine.take_all_used() + pass(machine, 1000)[0];
    CHECK(used >= 10);
    CHECK(used <= 12);
}

TEST_CASE("what moves no data costs no bytes, but zeroes do", "[virtio]") {
    BlkMachine machine{kGeometry, kRing, limited(1'024'000, 0), 256};
    machine.indirect = true;
    pass(machine, 1);
    for (unsigned i = 0; i < 100; ++i) {
        CHECK(machine.request(kFlush, 0, {}) == kOk);
        CHECK(machine.request(kGetId, 0, {{BlkMachine::kData, 20, true}}) == kOk);
        CHECK(machine.request(kIn, 1 << 20, {{BlkMachine::kData, 1 << 20, true}}) == kIoError);
        machine.board.put(BlkMachine::kData, BlkRange{0, 2000, 0});
        CHECK(machine.request(kDiscard, 0, {{BlkMachine::kData, 16, false}}) == kOk);
    }
    CHECK(machine.request(kWriteZeroes, 0, {{BlkMachine::kData, 16, false}}) == kOk);
    const Gpa status = machine.add(kFlush, 0, {});
    machine.driver->kick(0);
    pass(machine, 890);
    CHECK(machine.status_at(status) == kUntouched);
    pass(machine, 20);
    CHECK(machine.status_at(status) == kOk);
}

TEST_CASE("queues share a limit, each in its turn", "[virtio]") {
    BlkMachine machine{kGeometry, kRing, limited(0, 1000, 3), 256};
    machine.indirect = true;
    for (unsigned queue = 0; queue < 3; ++queue)
        add_reads(machine, 200, 512, queue);
    for (unsigned queue = 0; queue < 3; ++queue)
        machine.take_all_used(queue);
    const auto used = pass(machine, 150);
    const unsigned total = used[0] + used[1] + used[2];
    CHECK(total >= 145);
    CHECK(total <= 155);
    CHECK(*std::max_element(used.begin(), used.end()) - *std::min_element(used.begin(), used.end()) <= 2);
}

TEST_CASE("a queue that is reset while it waits holds up nobody", "[virtio]") {
    BlkMachine machine{kGeometry, kRing, limited(0, 100, 2), 64};
    machine.indirect = true;
    for (unsigned queue = 0; queue < 2; ++queue)
        add_reads(machine, 30, 512, queue);
    CHECK(machine.board.clock.armed() == 2);
    machine.driver->start(kRing);
    CHECK(machine.board.clock.armed() == 0);
    add_reads(machine, 30, 512, 0);
    const auto used = pass(machine, 200);
    CHECK(used[0] >= 19);
    CHECK(used[1] == 0);
}

TEST_CASE("doorbells of a queue that waits neither pass it nor arm more than a timer", "[virtio]") {
    BlkMachine machine{kGeometry, kRing, limited(0, 100), 64};
    machine.indirect = true;
    add_reads(machine, 30, 512);
    const unsigned used = machine.take_all_used();
    for (unsigned i = 0; i < 1000; ++i)
        machine.driver->notify(0);
    CHECK(machine.take_all_used() == 0);
    CHECK(used <= 11);
    CHECK(machine.board.clock.armed() == 1);
}

TEST_CASE("a doorbell moves a few MiB, a timer the rest, with as much time for others", "[virtio]") {
    BlkMachine machine{kGeometry, kRing, limited(0, 0), 256};
    machine.indirect = true;
    machine.disk.takes = [&] { fake::advance_tsc(machine.board.clock.from_nanoseconds(kMillisecond)); };
    add_reads(machine, 200, 1 << 16);
    CHECK(machine.take_all_used() == 64);
    CHECK(machine.board.clock.armed() == 1);
    machine.board.clock.advance(60 * kMillisecond);
    CHECK(machine.take_all_used() == 0);
    machine.board.clock.advance(4 * kMillisecond);
    CHECK(machine.take_all_used() == 64);
    pass(machine, 300);
    CHECK(machine.disk.extents.size() == 200);
    CHECK(machine.board.clock.armed() == 0);
}

TEST_CASE("a disk without limits uses no timer", "[virtio]") {
    BlkMachine machine{kGeometry, kRing, limited(0, 0), 256};
    machine.indirect = true;
    add_reads(machine, 200, 1 << 14);
    CHECK(machine.take_all_used() == 200);
    CHECK(machine.board.clock.armed() == 0);
}
