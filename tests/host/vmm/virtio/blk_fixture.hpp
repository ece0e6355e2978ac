// SPDX-License-Identifier: MIT
// A virtio disk with its driver, and requests as the driver makes them.
#pragma once

#include "catch.hpp"
#include "fakes/virtio_driver.hpp"
#include "vmm/virtio/virtio_blk.hpp"
#include "vmm/virtio/virtio_pci.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace hv::test {

using namespace hv::virtio;

/// With FLUSH, without which each write is followed by a flush.
inline constexpr std::uint64_t kRing =
    VIRTIO_BLK_F_FLUSH | VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;
inline constexpr std::uint32_t kIn = 0, kOut = 1, kFlush = 4, kGetId = 8, kDiscard = 11, kWriteZeroes = 13;
inline constexpr std::uint8_t kOk = 0, kIoError = 1, kUnsupported = 2, kUntouched = 0xee;

/// A disk in memory that completes at once, or when the test says so.
class BlkDisk final : public BlockDevice {
public:
    /// What lies beyond the first 32 MiB must not be transferred.
    explicit BlkDisk(BlockGeometry geometry)
        : geometry_{geometry}, bytes(std::min<std::uint64_t>(geometry.sectors, 1 << 16) * kSectorSize) {}
    [[nodiscard]] BlockGeometry geometry() const override { return geometry_; }
    void submit(BlockRequest& request) override {
        if (deferred) {
            std::lock_guard guard{mutex_};
            waiting.push_back(&request);
        } else {
            finish(request);
        }
    }
    void finish(BlockRequest& request) {
        std::byte* at = bytes.data() + request.sector * kSectorSize;
        std::uint64_t total = 0;
        for (const BlockSegment& segment : request.segments) {
            if (request.operation == BlockRequest::Operation::read)
                std::memcpy(segment.data, at, segment.size);
            else
                std::memcpy(at, segment.data, segment.size);
            at += segment.size;
            total += segment.size;
        }
        using enum BlockRequest::Operation;
        if (request.operation == read || request.operation == write)
            REQUIRE(total == request.sector_count * kSectorSize);
        if (request.operation == write_zeroes)
            std::memset(at, 0, request.sector_count * kSectorSize);
        if (takes)
            takes();
        operations.push_back(request.operation);
        unmapped = request.may_unmap;
        extents.emplace_back(request.sector, request.sector_count);
        request.complete(request, answer);
    }
    std::vector<BlockRequest*> take_waiting() {
        std::lock_guard guard{mutex_};
        return std::exchange(waiting, {});
    }
    void finish_all() {
        for (BlockRequest* request : std::exchange(waiting, {}))
            finish(*request);
    }

    BlockGeometry geometry_;
    std::vector<std::byte> bytes;
    std::vector<BlockRequest*> waiting;
    std::vector<BlockRequest::Operation> operations;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> extents;  ///< sector and count of each
    BlockStatus answer{BlockStatus::ok};
    bool unmapped{false};  ///< might be what the last request named
    bool deferred{false};
    std::function<void()> takes;  ///< time, say

private:
    std::mutex mutex_;
};

/// A board with a disk and its driver.
struct BlkMachine {
    static constexpr Gpa kData{0x40'0000};

    explicit BlkMachine(BlockGeometry geometry = {2048, 512, false, true}, std::uint64_t features = kRing,
                        unsigned queues = 1, std::uint16_t queue_size = 64)
        : BlkMachine{geometry, features, {queues, "serial-0123456789-overlong"}, queue_size} {}
    BlkMachine(BlockGeometry geometry, std::uint64_t features, const VirtioBlk::Options& options,
               std::uint16_t queue_size = 64, fake::Board::Ram ram = fake::Board::Ram::contiguous)
        : board{0, ram}, disk{geometry} {
        device = std::move(VirtioBlk::create(disk, board.memory, board.clock, options)).value();
        transport = std::make_unique<VirtioPciTransport>(*device, board.interrupts, &board.line);
        REQUIRE(board.bridge.attach(1, *transport));
        driver = std::make_unique<fake::VirtioDriver>(board, 1);
        driver->start(features, queue_size);
    }
    /// Adds a request of `data` between header and status.
    Gpa add(std::uint32_t type, std::uint64_t sector, std::vector<fake::DriverBuffer> data,
            unsigned queue = 0) {
        const Gpa header = board.allocate(16);
        const Gpa status = board.allocate(1, 1);
        board.put(header, type);
        board.put<std::uint32_t>(header + 4, 0);
        board.put(header + 8, sector);
        board.put(status, kUntouched);
        data.insert(data.begin(), {header, 16, false});
        data.push_back({status, 1, true});
        driver->queues.at(queue).add(data, indirect);
        return status;
    }
    [[nodiscard]] std::uint8_t status_at(Gpa status) { return board.get<std::uint8_t>(status); }
    /// Requests that a queue handed back.
    unsigned take_all_used(unsigned queue = 0) {
        unsigned used = 0;
        while (driver->queues.at(queue).take_used())
            ++used;
        return used;
    }
    std::uint8_t request(std::uint32_t type, std::uint64_t sector,
                         const std::vector<fake::DriverBuffer>& data) {
        const Gpa status = add(type, sector, data);
        driver->kick(0);
        const auto used = driver->queues.at(0).take_used();
        length = used ? used->length : ~0u;
        return board.get<std::uint8_t>(status);
    }
    bool needs_reset() { return (driver->status() & DEVICE_NEEDS_RESET) != 0; }

    fake::Board board;
    BlkDisk disk;
    std::unique_ptr<VirtioBlk> device;
    std::unique_ptr<VirtioPciTransport> transport;
    std::unique_ptr<fake::VirtioDriver> driver;
    bool indirect{false};
    std::uint32_t length{0};
};

inline void fill(BlkMachine& machine, Gpa gpa, std::size_t size, std::uint8_t seed) {
    for (std::size_t i = 0; i < size; ++i)
        machine.board.put<std::uint8_t>(gpa + i, static_cast<std::uint8_t>(seed + i * 7));
}

}  // namespace hv::test
