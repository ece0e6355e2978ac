// SPDX-License-Identifier: MIT
// The host's physical memory: a buddy allocator over blocks of 4 KiB to 1 GiB. Free blocks are linked through
// their own first bytes, in the direct map; one byte for each frame says what begins there, so that a double
// free, a free with the wrong order and a foreign address are caught in every build. Contents are the
// caller's: who held secrets (a guest's RAM) zeroes before it frees. Memory below 4 GiB, which is all that
// some devices reach, is handed out when there is no other.
#pragma once

#include "vmm/base/guarded.hpp"
#include "vmm/mm/frame_source.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace hv {

struct FrameRange {
    Hpa start;
    std::uint64_t length;
    [[nodiscard]] constexpr Hpa end() const { return start + length; }
};

struct FrameStatistics {
    std::uint64_t total_bytes;  ///< that can be handed out
    std::uint64_t free_bytes;
    /// Of the largest free block; nothing: no memory is free.
    std::optional<unsigned> largest_free_order;
};

class FrameAllocator final : public FrameSource {
public:
    static constexpr unsigned kMaxOrder = 18;  ///< 1 GiB
    static constexpr std::size_t kMaxRegions = 64;

    /// Makes an allocator of the `usable` ranges, all in the direct map, without the `reserved` ones. Ranges
    /// may have any alignment, order and overlap with reserved ones, but usable ones do not overlap each
    /// other. The allocator itself lies in memory that it takes from them, and is never destroyed.
    /// Error::no_memory: there is no room for it.
    static Expected<FrameAllocator*> create(std::span<const FrameRange> usable,
                                            std::span<const FrameRange> reserved);
    FrameAllocator(const FrameAllocator&) = delete;
    FrameAllocator& operator=(const FrameAllocator&) = delete;

    /// Adds what is not `reserved` of a range that no earlier region overlaps. Error::no_memory: it is too
    /// small to hold its own state, or there are kMaxRegions already; it stays unused.
    Expected<void> add_region(FrameRange usable, std::span<const FrameRange> reserved = {});

    /// Error::invalid_argument: order > kMaxOrder.
    Expected<Hpa> allocate(unsigned order) override;
    void free(Hpa frame, unsigned order) override;
    /// The order of the allocated block that begins at `frame`; nothing: none does.
    [[nodiscard]] std::optional<unsigned> allocated_order(Hpa frame) const;
    [[nodiscard]] FrameStatistics statistics() const;

private:
    struct FreeBlock {
        FreeBlock* next;
        FreeBlock* previous;
    };
    struct Region {
        std::uint64_t first;  ///< frame number
        std::uint64_t frames;
        std::uint8_t* state;  ///< one byte for each frame
    };
    /// Free blocks on one side of 4 GiB, which no block crosses.
    struct Zone {
        std::array<FreeBlock*, kMaxOrder + 1> free{};
        std::uint32_t nonempty{0};  ///< bit `order`: free[order] has blocks
    };
    // A frame's state: the order of the block that begins there and what it is, or kInside (a block, or
    // reserved).
    static constexpr std::uint8_t kInside = 0;
    static constexpr std::uint8_t kFree = 0x80;
    static constexpr std::uint8_t kAllocated = 0x40;

    FrameAllocator() = default;
    [[nodiscard]] const Region* region_of(std::uint64_t frame) const;
    [[nodiscard]] std::uint8_t& state_of(std::uint64_t frame) const;
    [[nodiscard]] Zone& zone_of(std::uint64_t frame);
    Hpa take(Zone& zone, unsigned order, std::uint32_t enough);
    void link(std::uint64_t frame, unsigned order);
    void unlink(std::uint64_t frame, unsigned order);
    void release(std::uint64_t frame, unsigned order);
    void release_run(FrameRange run);

    mutable Spinlock lock_{Rank::frames};
    std::array<Region, kMaxRegions> regions_{};
    std::size_t region_count_{0};
    Zone low_, high_;
    std::uint64_t total_frames_{0};
    std::uint64_t free_frames_{0};
};

}  // namespace hv
