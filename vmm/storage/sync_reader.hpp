// SPDX-License-Identifier: MIT
// Reads a disk where there is nothing better to do than to wait: while the host starts, or for a command.
#pragma once

#include "drivers/block/block_device.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/machine.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

namespace hv {

/// Fills `out`, which lies in the direct map, from `sector` on (512 bytes each). No lock held, between vCPUs:
/// the CPU lets interrupts in, and does nothing else. Ends as late as the disk's driver gives up.
/// Error::io_error.
inline Expected<void> read_sync(BlockDevice& disk, std::uint64_t sector, std::span<std::byte> out) {
    enum Progress : std::uint8_t { waiting, done, failed };
    struct Wait {
        std::atomic<Progress> progress{waiting};
        const std::uint32_t cpu{machine::cpu_index()};
    } wait;
    const BlockSegment segment{out.data(), static_cast<std::uint32_t>(out.size())};
    BlockRequest request{};
    request.operation = BlockRequest::Operation::read;
    request.sector = sector;
    request.sector_count = out.size() / kSectorSize;
    request.segments = {&segment, 1};
    request.context = &wait;
    request.complete = [](BlockRequest& ended, BlockStatus status) {
        auto& its = *static_cast<Wait*>(ended.context);
        const std::uint32_t cpu = its.cpu;
        its.progress.store(status == BlockStatus::ok ? done : failed, std::memory_order_release);
        // From here on it may be gone. Its sleep ends with an interrupt, and this may be another CPU's.
        if (cpu != machine::cpu_index())
            machine::kick_cpu(cpu);
    };
    disk.submit(request);
    while (wait.progress.load(std::memory_order_acquire) == waiting)
        machine::sleep_until_interrupt();
    if (wait.progress.load(std::memory_order_acquire) == failed)
        return Unexpected{Error::io_error};
    return {};
}

}  // namespace hv
