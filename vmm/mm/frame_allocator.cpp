// SPDX-License-Identifier: MIT
#include "vmm/mm/frame_allocator.hpp"

#include "vmm/base/machine.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

namespace hv {
namespace {

/// What 32 bits address ends here; a multiple of the largest block.
constexpr Hpa kLowEnd{4 * kGiB};
static_assert(kLowEnd.aligned(kPageSize << FrameAllocator::kMaxOrder));

constexpr std::uint64_t frame_number(Hpa address) {
    return address.raw >> kPageShift;
}
constexpr Hpa frame_address(std::uint64_t frame) {
    return Hpa{frame << kPageShift};
}

/// The whole frames of a range.
constexpr FrameRange whole_frames(FrameRange range) {
    const std::uint64_t start = align_up(range.start.raw, kPageSize);
    const std::uint64_t end = align_down(range.end().raw, kPageSize);
    return {Hpa{start}, end > start ? end - start : 0};
}

/// The first run of frames in [start, end) that touches no reserved range; empty if there is none.
FrameRange next_run(Hpa start, Hpa end, std::span<const FrameRange> reserved) {
    Hpa stop = end;
    for (std::size_t i = 0; i < reserved.size() && start < end; ++i) {
        const FrameRange& range = reserved[i];
        if (range.length == 0 || range.end() <= start)
            continue;
        if (range.start.page() <= start) {
            start = Hpa{align_up(range.end().raw, kPageSize)};
            stop = end;
            i = ~std::size_t{0};  // from the first one again: they are in no order
        } else {
            stop = std::min(stop, range.start.page());
        }
    }
    return {start, start < stop ? stop - start : 0};
}

/// Calls `visit(FrameRange)` for each run of usable frames until it returns false.
template <class Visit>
void for_each_run(FrameRange usable, std::span<const FrameRange> reserved, Visit&& visit) {
    const FrameRange range = whole_frames(usable);
    for (Hpa cursor = range.start; cursor < range.end();) {
        const FrameRange run = next_run(cursor, range.end(), reserved);
        if (run.length == 0 || !visit(run))
            return;
        cursor = run.end();
    }
}

}  // namespace

Expected<FrameAllocator*> FrameAllocator::create(std::span<const FrameRange> usable,
                                                 std::span<const FrameRange> reserved) {
    // The allocator takes the end of the first run that has room for it, which is then no longer usable.
    constexpr std::uint64_t kSize = align_up(sizeof(FrameAllocator), kPageSize);
    FrameAllocator* allocator = nullptr;
    for (std::size_t i = 0; i < usable.size() && allocator == nullptr; ++i) {
        for_each_run(usable[i], reserved, [&](FrameRange run) {
            if (run.length < kSize)
                return true;
            allocator = new (machine::hva(run.end() - kSize)) FrameAllocator;
            return false;
        });
    }
    if (allocator == nullptr)
        return Unexpected{Error::no_memory};
    const FrameRange own{machine::hpa(allocator), kSize};
    for (const FrameRange& range : usable) {
        // A range that the allocator cuts in two becomes two regions; a part without room for its state stays
        // unused.
        const Hpa end = range.end();
        if (own.start < range.start || own.start >= end) {
            static_cast<void>(allocator->add_region(range, reserved));
        } else {
            static_cast<void>(allocator->add_region({range.start, own.start - range.start}, reserved));
            static_cast<void>(allocator->add_region({own.end(), end - own.end()}, reserved));
        }
    }
    return allocator;
}

Expected<void> FrameAllocator::add_region(FrameRange usable, std::span<const FrameRange> reserved) {
    const FrameRange range = whole_frames(usable);
    const Region region{frame_number(range.start), frame_number(Hpa{range.length}), nullptr};
    const std::uint64_t state_bytes = align_up(region.frames, kPageSize);
    // The state takes the end of the first run that has room for it.
    FrameRange own{};
    for_each_run(range, reserved, [&](FrameRange run) {
        if (run.length > state_bytes)
            own = {run.end() - state_bytes, state_bytes};
        return own.length == 0;
    });
    if (own.length == 0)
        return Unexpected{Error::no_memory};
    auto* state = machine::hva<std::uint8_t>(own.start);
    std::memset(state, kInside, state_bytes);

    LockGuard guard{lock_};
    if (region_count_ == kMaxRegions)
        return Unexpected{Error::no_memory};
    for (std::size_t i = 0; i < region_count_; ++i)
        HV_ASSERT(region.first >= regions_[i].first + regions_[i].frames ||
                  regions_[i].first >= region.first + region.frames);
    regions_[region_count_++] = {region.first, region.frames, state};
    for_each_run(range, reserved, [&](FrameRange run) {
        if (own.start >= run.start && own.start < run.end())
            run.length = own.start - run.start;
        release_run(run);
        return true;
    });
    return {};
}

Expected<Hpa> FrameAllocator::allocate(unsigned order) {
    if (order > kMaxOrder)
        return Unexpected{Error::invalid_argument};
    LockGuard guard{lock_};
    for (Zone* zone : {&high_, &low_}) {
        if (const std::uint32_t enough = zone->nonempty >> order << order; enough != 0)
            return take(*zone, order, enough);
    }
    return Unexpected{Error::no_memory};
}

/// Takes the smallest block of the orders in `enough`, and gives back what is more than asked for.
Hpa FrameAllocator::take(Zone& zone, unsigned order, std::uint32_t enough) {
    auto found = static_cast<unsigned>(std::countr_zero(enough));
    const std::uint64_t frame = frame_number(machine::hpa(zone.free[found]));
    unlink(frame, found);
    while (found > order) {  // the upper halves stay free
        --found;
        link(frame + (std::uint64_t{1} << found), found);
    }
    state_of(frame) = static_cast<std::uint8_t>(kAllocated | order);
    free_frames_ -= std::uint64_t{1} << order;
    return frame_address(frame);
}

void FrameAllocator::free(Hpa address, unsigned order) {
    HV_ASSERT(order <= kMaxOrder && address.aligned(kPageSize << order));
    LockGuard guard{lock_};
    std::uint8_t& state = state_of(frame_number(address));
    HV_ASSERT(state == (kAllocated | order));
    state = kInside;
    release(frame_number(address), order);
}

std::optional<unsigned> FrameAllocator::allocated_order(Hpa address) const {
    LockGuard guard{lock_};
    const Region* region = region_of(frame_number(address));
    if (region == nullptr || !address.aligned(kPageSize))
        return std::nullopt;
    const std::uint8_t state = region->state[frame_number(address) - region->first];
    return (state & kAllocated) != 0 ? std::optional<unsigned>{state & ~unsigned{kAllocated}} : std::nullopt;
}

FrameStatistics FrameAllocator::statistics() const {
    LockGuard guard{lock_};
    FrameStatistics statistics{total_frames_ * kPageSize, free_frames_ * kPageSize, std::nullopt};
    if (const std::uint32_t nonempty = low_.nonempty | high_.nonempty; nonempty != 0)
        statistics.largest_free_order = static_cast<unsigned>(std::bit_width(nonempty)) - 1;
    return statistics;
}

const FrameAllocator::Region* FrameAllocator::region_of(std::uint64_t frame) const {
    for (std::size_t i = 0; i < region_count_; ++i) {
        if (frame - regions_[i].first < regions_[i].frames)
            return &regions_[i];
    }
    return nullptr;
}

std::uint8_t& FrameAllocator::state_of(std::uint64_t frame) const {
    const Region* region = region_of(frame);
    HV_ASSERT(region != nullptr);
    return region->state[frame - region->first];
}

FrameAllocator::Zone& FrameAllocator::zone_of(std::uint64_t frame) {
    return frame < frame_number(kLowEnd) ? low_ : high_;
}

void FrameAllocator::link(std::uint64_t frame, unsigned order) {
    Zone& zone = zone_of(frame);
    auto* block = machine::hva<FreeBlock>(frame_address(frame));
    block->next = zone.free[order];
    block->previous = nullptr;
    if (block->next != nullptr)
        block->next->previous = block;
    zone.free[order] = block;
    zone.nonempty |= std::uint32_t{1} << order;
    state_of(frame) = static_cast<std::uint8_t>(kFree | order);
}

void FrameAllocator::unlink(std::uint64_t frame, unsigned order) {
    Zone& zone = zone_of(frame);
    const auto* block = machine::hva<FreeBlock>(frame_address(frame));
    if (block->next != nullptr)
        block->next->previous = block->previous;
    (block->previous != nullptr ? block->previous->next : zone.free[order]) = block->next;
    if (zone.free[order] == nullptr)
        zone.nonempty &= ~(std::uint32_t{1} << order);
    state_of(frame) = kInside;
}

/// Makes a block free, joined with its free neighbours. Blocks of different regions are not joined.
void FrameAllocator::release(std::uint64_t frame, unsigned order) {
    free_frames_ += std::uint64_t{1} << order;
    const Region* region = region_of(frame);
    for (; order < kMaxOrder; ++order) {
        const std::uint64_t buddy = frame ^ (std::uint64_t{1} << order);
        if (buddy - region->first >= region->frames ||
            region->state[buddy - region->first] != (kFree | order))
            break;
        unlink(buddy, order);
        frame = std::min(frame, buddy);
    }
    link(frame, order);
}

/// Hands a run over to the free lists, in the largest blocks that fit.
void FrameAllocator::release_run(FrameRange run) {
    std::uint64_t frame = frame_number(run.start);
    const std::uint64_t end = frame_number(run.end());
    total_frames_ += end - frame;
    while (frame < end) {
        const auto alignment = static_cast<unsigned>(std::countr_zero(frame));  // 64 for frame 0
        const auto fits = static_cast<unsigned>(std::bit_width(end - frame)) - 1;
        const unsigned order = std::min({alignment, fits, kMaxOrder});
        release(frame, order);
        frame += std::uint64_t{1} << order;
    }
}

}  // namespace hv
