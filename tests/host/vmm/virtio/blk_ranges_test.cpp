// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/virtio/blk_fixture.hpp"
#include "vmm/virtio/blk_ranges.hpp"

#include <initializer_list>

namespace {

using namespace hv;
using namespace hv::test;
using namespace hv::virtio;
using Operation = BlockRequest::Operation;
using Extents = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

/// Puts the ranges where a request's data is.
std::vector<fake::DriverBuffer> ranges(BlkMachine& machine, std::initializer_list<BlkRange> list) {
    Gpa at = BlkMachine::kData;
    for (const BlkRange& range : list) {
        machine.board.put(at, range);
        at += sizeof range;
    }
    return {{BlkMachine::kData, static_cast<std::uint32_t>(list.size() * sizeof(BlkRange)), false}};
}

constexpr BlockGeometry kNoDiscard{2048, 512, false, false};

}  // namespace

TEST_CASE("discard and write-zeroes take ranges that are checked", "[virtio]") {
    BlkMachine machine;
    const auto request = [&](std::uint32_t type, std::initializer_list<BlkRange> list) {
        return machine.request(type, 0, ranges(machine, list));
    };
    machine.disk.bytes[512 * 4] = std::byte{1};
    CHECK(request(kWriteZeroes, {{4, 1, 1}}) == kOk);
    CHECK(machine.disk.unmapped);
    CHECK(request(kWriteZeroes, {{4, 1, 1}, {4, 1, 0}}) == kOk);
    CHECK_FALSE(machine.disk.unmapped);
    machine.disk.operations.erase(machine.disk.operations.begin(), machine.disk.operations.begin() + 2);
    CHECK(machine.disk.bytes[512 * 4] == std::byte{0});
    CHECK(machine.length == 1);
    CHECK(request(kDiscard, {{0, 2048, 0}}) == kOk);
    CHECK(machine.disk.operations == std::vector{Operation::write_zeroes, Operation::discard});
    machine.disk.operations.clear();
    CHECK(request(kDiscard, {{0, 2049, 0}}) == kIoError);
    CHECK(request(kDiscard, {{~0ull, 2, 0}}) == kIoError);
    CHECK(request(kDiscard, {{0, 1, 1}}) == kUnsupported);
    CHECK(request(kWriteZeroes, {{0, 1, 2}}) == kUnsupported);
    CHECK(request(kWriteZeroes, {{0, 1, 0}, {0, 1, 0}, {2048, 1, 0}}) == kIoError);
    CHECK(request(kWriteZeroes, {{0, 0, 0}, {7, 0, 0}}) == kOk);
    CHECK(machine.request(kDiscard, 0, {{BlkMachine::kData, 15, false}}) == kIoError);
    CHECK(machine.request(kDiscard, 0, {{BlkMachine::kData, 17 * 16, false}}) == kIoError);
    CHECK(machine.request(kDiscard, 0, {}) == kIoError);
    CHECK(machine.disk.operations.empty());

    BlkMachine large{{1ull << 23, 512, false, true}};
    large.disk.answer = BlockStatus::unsupported;
    CHECK(large.request(kDiscard, 0, ranges(large, {{0, BlkRanges::kMaxRangeSectors + 1, 0}})) == kIoError);
    CHECK(large.request(kDiscard, 0, ranges(large, {{0, BlkRanges::kMaxRangeSectors, 0}})) == kUnsupported);
}

TEST_CASE("ranges go to the disk one after the other, until one fails", "[virtio]") {
    for (const bool deferred : {false, true}) {
        BlkMachine machine;
        machine.disk.deferred = deferred;
        const auto run = [&](std::uint32_t type, std::initializer_list<BlkRange> list) {
            machine.disk.extents.clear();
            const Gpa status = machine.add(type, 0, ranges(machine, list));
            machine.driver->kick(0);
            while (!machine.disk.waiting.empty()) {
                CHECK(machine.disk.waiting.size() == 1);
                CHECK(machine.status_at(status) == kUntouched);
                machine.disk.finish_all();
            }
            CHECK(machine.take_all_used() == 1);
            return machine.status_at(status);
        };
        CHECK(run(kDiscard, {{8, 4, 0}, {0, 0, 0}, {100, 1, 0}, {2000, 48, 0}}) == kOk);
        CHECK(machine.disk.extents == Extents{{8, 4}, {100, 1}, {2000, 48}});
        machine.disk.answer = BlockStatus::io_error;
        CHECK(run(kWriteZeroes, {{8, 4, 0}, {100, 1, 1}}) == kIoError);
        CHECK(machine.disk.extents == Extents{{8, 4}});
    }
}

TEST_CASE("sixteen ranges may be in a request, and eight such requests under way", "[virtio]") {
    BlkMachine machine{{2048, 512, false, true}, kRing, 1, 256};
    machine.disk.deferred = true;
    for (unsigned i = 0; i < 16; ++i)
        machine.board.put(BlkMachine::kData + 16 * i, BlkRange{i, 1, 0});
    for (unsigned i = 0; i < 20; ++i)
        machine.add(kWriteZeroes, 0, {{BlkMachine::kData, 256, false}});
    machine.driver->kick(0);
    CHECK(machine.disk.waiting.size() == 8);
    unsigned used = 0;
    for (unsigned i = 0; i < 100 && used < 20; ++i) {
        machine.disk.finish_all();
        used += machine.take_all_used();
        CHECK(machine.disk.waiting.size() <= 8);
    }
    CHECK(used == 20);
    CHECK(machine.disk.extents.size() == 20 * 16);
}

TEST_CASE("zeroes can be written to every disk that can be written", "[virtio]") {
    BlkMachine plain{kNoDiscard};
    CHECK((plain.driver->offered() & VIRTIO_BLK_F_WRITE_ZEROES) != 0);
    CHECK((plain.driver->offered() & VIRTIO_BLK_F_DISCARD) == 0);
    CHECK(plain.driver->device_config(48, 4) == BlkRanges::kMaxRangeSectors);
    CHECK(plain.driver->device_config(52, 4) == 16);
    CHECK(plain.driver->device_config(56, 1) == 0);  // never unmaps
    CHECK(plain.request(kWriteZeroes, 0, ranges(plain, {{0, 1, 1}})) == kOk);
    CHECK(plain.request(kDiscard, 0, ranges(plain, {{0, 1, 0}})) == kUnsupported);

    BlkMachine discarding;
    CHECK((discarding.driver->offered() & VIRTIO_BLK_F_DISCARD) != 0);
    CHECK(discarding.driver->device_config(40, 4) == 16);
    CHECK(discarding.driver->device_config(56, 1) == 0);  // of zeroes it does not say so

    BlkMachine read_only{{64, 512, true, true}};
    CHECK((read_only.driver->offered() & (VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES)) == 0);
    CHECK(read_only.request(kWriteZeroes, 0, ranges(read_only, {{0, 1, 0}})) == kUnsupported);
    CHECK(read_only.disk.operations.empty());
}

TEST_CASE("a reset waits for all ranges of a request", "[virtio]") {
    BlkMachine machine;
    machine.disk.deferred = true;
    machine.add(kDiscard, 0, ranges(machine, {{0, 1, 0}, {1, 1, 0}}));
    machine.driver->kick(0);
    machine.driver->set_status(0);
    CHECK(machine.driver->status() != 0);
    machine.disk.finish_all();
    CHECK(machine.driver->status() != 0);
    machine.disk.finish_all();
    CHECK(machine.driver->status() == 0);
}
