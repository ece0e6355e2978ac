// SPDX-License-Identifier: MIT
#include "vmm/storage/cow_overlay.hpp"

#include "vmm/base/log.hpp"
#include "vmm/base/text.hpp"

#include <algorithm>
#include <bit>
#include <utility>

namespace hv {

using Run = SectorStore::Run;

CowOverlay::CowOverlay(BlockDevice& base, const BlockGeometry& geometry, SectorStore store,
                       const Options& options)
    : base_{base}, store_{std::move(store)}, options_{options}, geometry_{geometry} {
    geometry_.read_only = false;
    geometry_.can_discard = true;
    geometry_.can_unmap_zeroes = false;  // as SectorStore
    geometry_.physical_block_size = std::max<std::uint32_t>(geometry_.physical_block_size, kPageSize);
    for (Split& split : splits_) {
        split.owner = this;
        split.part.operation = BlockRequest::Operation::read;
        split.part.complete = on_part_complete;
        split.part.context = &split;
    }
}

Expected<std::unique_ptr<CowOverlay>> CowOverlay::create(BlockDevice& base, FrameSource& frames,
                                                         const Options& options) {
    const std::uint64_t most = options.limit == 0 ? SectorStore::kNoLimit : options.limit / kPageSize;
    const BlockGeometry geometry = base.geometry();  // once: its size may change at any time
    auto store = HV_TRY(SectorStore::create(frames, geometry.sectors, most));
    std::unique_ptr<CowOverlay> overlay{new (std::nothrow)
                                            CowOverlay{base, geometry, std::move(store), options}};
    if (overlay == nullptr)
        return Unexpected{Error::no_memory};
    return overlay;
}

void CowOverlay::submit(BlockRequest& request) {
    if (!is_valid(request, geometry_))
        return request.complete(request, BlockStatus::io_error);
    if (request.operation != BlockRequest::Operation::read)
        return request.complete(request, change(request));
    if (request.sector_count == 0)
        return request.complete(request, BlockStatus::ok);
    read(request);
}

BlockStatus CowOverlay::change(const BlockRequest& request) {
    Expected<void> done{};
    if (request.operation == BlockRequest::Operation::write) {
        SegmentCursor data{request.segments};
        done = store_.write(request.sector, request.sector_count,
                            [&](std::span<std::byte> to) { data.copy_to(to); });
    } else if (request.operation != BlockRequest::Operation::flush) {
        done = store_.zero(request.sector, request.sector_count);
    }
    if (done)
        return BlockStatus::ok;
    report(done.error());
    return BlockStatus::io_error;
}

void CowOverlay::report(Error error) {
    if (reported_.exchange(true, std::memory_order_relaxed))
        return;
    log::error(log::Topic::block, "%.*s: writes to its copy of \"%.*s\" fail: %s", width(options_.user),
               options_.user.data(), width(options_.disk), options_.disk.data(),
               error == Error::out_of_range ? "it has reached its limit" : "the host has no memory for them");
}

void CowOverlay::read(BlockRequest& request) {
    const Run first = store_.find(request.sector, request.sector_count);
    if (first.kind == Run::Kind::absent && first.sectors == request.sector_count)
        return base_.submit(request);
    Split* split = state_.with([&](Splits& splits) -> Split* {
        if (splits.free == 0) {
            splits.waiting.push_back(request);
            return nullptr;
        }
        const auto index = static_cast<unsigned>(std::countr_zero(splits.free));
        splits.free &= splits.free - 1;
        return &splits_[index];
    });
    if (split == nullptr)
        return;
    begin(*split, request);
    run(split);
}

void CowOverlay::begin(Split& split, BlockRequest& request) {
    split.original = &request;
    split.done = split.in_page = 0;
    split.data = SegmentCursor{request.segments};
}

void CowOverlay::run(Split* split) {
    while (split != nullptr) {
        const auto status = advance(*split);
        if (!status)
            return;
        split = finish(*split, *status);
    }
}

std::optional<BlockStatus> CowOverlay::advance(Split& split) {
    while (!read_overlay(split)) {
        const BlockRequest& original = *split.original;
        const Run gap = store_.find(original.sector + split.done, original.sector_count - split.done);
        if (gap.kind != Run::Kind::absent)
            continue;  // written meanwhile
        prepare_part(split, gap.sectors);
        split.meeting.store(Split::nobody, std::memory_order_relaxed);
        base_.submit(split.part);
        if (split.meeting.exchange(Split::returned, std::memory_order_acq_rel) != Split::completed)
            return std::nullopt;
        if (split.part_status != BlockStatus::ok)
            return split.part_status;
    }
    return BlockStatus::ok;
}

bool CowOverlay::read_overlay(Split& split) {
    const BlockRequest& original = *split.original;
    split.data.fill_from(split.page.data(), std::exchange(split.in_page, 0) * kSectorSize);
    while (split.done < original.sector_count) {
        const Run run = store_.find(original.sector + split.done, original.sector_count - split.done);
        if (run.kind == Run::Kind::absent)
            return false;
        if (run.kind == Run::Kind::data)
            split.data.fill_from(run.data, run.sectors * kSectorSize);
        else
            split.data.fill_zero(run.sectors * kSectorSize);
        split.done += run.sectors;
    }
    return true;
}

void CowOverlay::prepare_part(Split& split, std::uint64_t limit) {
    Gathered part = gather(split, limit);
    if (part.sectors == 0) {
        part = {1, std::min<std::uint64_t>(geometry_.logical_block_size / kSectorSize, limit)};
        split.segments[0] = {split.page.data(), static_cast<std::uint32_t>(part.sectors * kSectorSize)};
        split.in_page = part.sectors;
    }
    split.part.sector = split.original->sector + split.done;
    split.part.sector_count = part.sectors;
    split.part.segments = std::span{split.segments}.first(part.segments);
    split.done += part.sectors;
}

CowOverlay::Gathered CowOverlay::gather(Split& split, std::uint64_t limit) const {
    const std::uint64_t unit = geometry_.logical_block_size / kSectorSize;
    std::uint64_t sectors = 0;
    std::size_t count = 0;
    while (sectors < limit) {
        SegmentCursor ahead = split.data;
        std::size_t needed = count;
        const std::uint32_t last_size = count == 0 ? 0 : split.segments[count - 1].size;
        bool fits = true;
        const std::uint64_t step = std::min(unit, limit - sectors);
        ahead.advance(step * kSectorSize, [&](std::byte* data, std::size_t size) {
            BlockSegment* last = needed == 0 ? nullptr : &split.segments[needed - 1];
            if (last != nullptr && last->data + last->size == data && size <= ~last->size)
                last->size += static_cast<std::uint32_t>(size);
            else if (needed < kSegments)
                split.segments[needed++] = {data, static_cast<std::uint32_t>(size)};
            else
                fits = false;
        });
        if (!fits) {
            if (count != 0)
                split.segments[count - 1].size = last_size;
            break;
        }
        count = needed;
        split.data = ahead;
        sectors += step;
    }
    return {count, sectors};
}

CowOverlay::Split* CowOverlay::finish(Split& split, BlockStatus status) {
    BlockRequest& original = *split.original;
    Split* next = state_.with([&](Splits& splits) -> Split* {
        if (BlockRequest* waiting = splits.waiting.pop_front()) {
            begin(split, *waiting);
            return &split;
        }
        splits.free |= 1u << (&split - splits_.data());
        return nullptr;
    });
    original.complete(original, status);  // with the last one the overlay may be gone
    return next;
}

void CowOverlay::on_part_complete(BlockRequest& part, BlockStatus status) {
    Split& split = *static_cast<Split*>(part.context);
    CowOverlay& owner = *split.owner;
    split.part_status = status;
    if (split.meeting.exchange(Split::completed, std::memory_order_acq_rel) != Split::returned)
        return;
    owner.run(status == BlockStatus::ok ? &split : owner.finish(split, status));
}

}  // namespace hv
