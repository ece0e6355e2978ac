// SPDX-License-Identifier: MIT
// Reads a disk while the host starts, when there is nothing else to do than to wait.
#pragma once

#include "drivers/block/block_device.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/machine.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

namespace hv {

/// Fills `out`, which lies in the direct map, from `sector` on (512 bytes each). No lock held; ends as late
/// as the disk's driver gives up. Error::io_error.
inline Expected<void> read_sync(BlockDevice& disk, std::uint64_t sector, std::span<std::byte> out) {
    enum Progress : std::uint8_t { waiting, done, failed };
    std::atomic<Progress> progress{waiting};
    const BlockSegment segment{out.data(), static_cast<std::uint32_t>(out.size())};
    BlockRequest request{};
    request.operation = BlockRequest::Operation::read;
    request.sector = sector;
    request.sector_count = out.size() / kSectorSize;
    request.segments = {&segment, 1};
    request.context = &progress;
    request.complete = [](BlockRequest& ended, BlockStatus status) {
        static_cast<std::atomic<Progress>*>(ended.context)
            ->store(status == BlockStatus::ok ? done : failed, std::memory_order_release);
    };
    disk.submit(request);
    while (progress.load(std::memory_order_acquire) == waiting)
        machine::sleep_until_interrupt();
    if (progress.load(std::memory_order_acquire) == failed)
        return Unexpected{Error::io_error};
    return {};
}

}  // namespace hv
