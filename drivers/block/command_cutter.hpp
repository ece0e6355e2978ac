// SPDX-License-Identifier: MIT
// Cuts the data of a request into pieces that one command of the hardware can name.
#pragma once

#include "drivers/block/block_device.hpp"
#include "vmm/base/address.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace hv::block {

/// A physically contiguous piece of memory.
struct DmaRun {
    Hpa address;
    std::uint32_t size;
};

/// What a disk's commands may be.
struct CommandLimits {
    std::uint32_t max_blocks;        ///< logical blocks of a read or write
    std::uint64_t max_range_blocks;  ///< of a discard or write_zeroes; > 0 if it can do either
    std::uint32_t max_runs;
    std::uint32_t max_run_bytes;  ///< a multiple of 4096
    /// Addresses and sizes of runs are multiples of this power of two.
    std::uint32_t run_alignment;
    /// Not 0: all runs but the first begin at, all but the last end at a multiple of this power of two, at
    /// most 4096 and at least a logical block: NVMe's PRP lists [nvme2 4.1.1 Physical Region Page Entry and
    /// List].
    std::uint32_t run_boundary;
    bool can_flush;  ///< false: it has no volatile write cache, flushes complete at once
    bool can_discard;
    bool can_write_zeroes;          ///< false: zeroes are written to it as data
    bool can_unmap_zeroes = false;  ///< and give their space up
};

/// A place in the data of a request.
struct SegmentPosition {
    std::uint32_t segment;
    std::uint32_t offset;  ///< bytes into it
};

/// The data of one command.
struct Cut {
    std::size_t runs;     ///< of the storage; 0: the hardware cannot address the next block where it is
    std::uint64_t bytes;  ///< a multiple of the logical block, at least one
    SegmentPosition end;
};

/// Cuts as much as one command takes from `segments` at `from`, of at most `max_bytes`, which is a multiple
/// of `block` and lies in the segments. `runs` holds at least limits.max_runs.
Cut cut(std::span<const BlockSegment> segments, SegmentPosition from, std::uint64_t max_bytes,
        const CommandLimits& limits, std::uint32_t block, std::span<DmaRun> runs);

/// Calls `visit(std::byte*, std::uint32_t)` for the pieces of the next `bytes` bytes, which exist; returns
/// where they end.
template <class Visit>
SegmentPosition advance(std::span<const BlockSegment> segments, SegmentPosition from, std::uint64_t bytes,
                        Visit&& visit) {
    while (bytes > 0) {
        const BlockSegment& segment = segments[from.segment];
        const std::uint64_t left = segment.size - from.offset;
        const auto step = static_cast<std::uint32_t>(bytes < left ? bytes : left);
        if (step > 0)
            visit(segment.data + from.offset, step);
        bytes -= step;
        from.offset += step;
        if (from.offset == segment.size)
            from = {from.segment + 1, 0};
    }
    return from;
}

}  // namespace hv::block
