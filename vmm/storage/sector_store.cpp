// SPDX-License-Identifier: MIT
#include "vmm/storage/sector_store.hpp"

#include "vmm/base/machine.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace hv {
namespace {

constexpr std::uint64_t address_of(std::uint64_t entry) {
    return align_down(entry, kPageSize);
}

}  // namespace

Expected<SectorStore> SectorStore::create(FrameSource& frames, std::uint64_t sectors,
                                          std::uint64_t most_frames) {
    SectorStore store{frames, most_frames};
    constexpr std::uint64_t kSectorsPerTop = kPageSectors * kFanout * kFanout;
    HV_TRY(store.top_.resize(sectors / kSectorsPerTop + (sectors % kSectorsPerTop != 0 ? 1 : 0)));
    return store;
}

SectorStore::SectorStore(SectorStore&& other) noexcept
    : frames_{other.frames_},
      most_frames_{other.most_frames_},
      top_{std::move(other.top_)},
      used_{other.used_.load()} {}

SectorStore::~SectorStore() {
    for (const std::uint64_t entry : top_)
        free_level(entry, 2);
}

void SectorStore::free_level(std::uint64_t entry, unsigned level) {
    if (address_of(entry) == 0)
        return;
    const Hpa frame{address_of(entry)};
    if (level > 0) {
        const auto* table = machine::hva<std::uint64_t>(frame);
        for (std::uint64_t i = 0; i < kFanout; ++i)
            free_level(table[i], level - 1);
    } else {
        std::memset(machine::hva(frame), 0, kPageSize);  // a guest's data
    }
    frames_->free(frame, 0);
}

SectorStore::Part SectorStore::part_at(std::uint64_t sector, std::uint64_t limit) {
    const std::uint64_t first = sector % kPageSectors;
    const std::uint64_t count = std::min(limit, kPageSectors - first);
    return {first, count, ((std::uint64_t{1} << count) - 1) << first};
}

Expected<Hpa> SectorStore::take_frame() {
    // Several CPUs at the limit may count more than there are, and all be refused.
    auto frame = used_.fetch_add(1, std::memory_order_relaxed) < most_frames_
                     ? frames_->allocate(0)
                     : Expected<Hpa>{Unexpected{Error::out_of_range}};
    if (frame)
        std::memset(machine::hva(*frame), 0, kPageSize);
    else
        used_.fetch_sub(1, std::memory_order_relaxed);
    return frame;
}

Expected<std::byte*> SectorStore::page_of(std::atomic_ref<std::uint64_t> slot) {
    std::uint64_t value = slot.load(std::memory_order_acquire);
    if (address_of(value) == 0) [[unlikely]] {
        const auto taken = take_frame();
        if (!taken) {
            // Another CPU may have had the last one, for this.
            if (value = slot.load(std::memory_order_acquire); address_of(value) != 0)
                return machine::hva(Hpa{address_of(value)});
            return Unexpected{taken.error()};
        }
        const Hpa frame = *taken;
        while (address_of(value) == 0 &&
               !slot.compare_exchange_weak(value, frame.raw | value, std::memory_order_acq_rel)) {
        }
        if (address_of(value) == 0) {
            value |= frame.raw;
        } else {
            frames_->free(frame, 0);  // another CPU was first
            used_.fetch_sub(1, std::memory_order_relaxed);
        }
    }
    return machine::hva(Hpa{address_of(value)});
}

Expected<std::uint64_t*> SectorStore::make_leaf(std::uint64_t page) {
    std::atomic_ref<std::uint64_t> top{top_[page / (kFanout * kFanout)]};
    auto* middle = reinterpret_cast<std::uint64_t*>(HV_TRY(page_of(top)));
    std::atomic_ref<std::uint64_t> in_middle{middle[page / kFanout % kFanout]};
    return reinterpret_cast<std::uint64_t*>(HV_TRY(page_of(in_middle)));
}

std::uint64_t* SectorStore::leaf_of(std::uint64_t page) const {
    auto& top = const_cast<std::uint64_t&>(top_[page / (kFanout * kFanout)]);  // atomic_ref<const T> is C++26
    const std::uint64_t middle = std::atomic_ref<std::uint64_t>{top}.load(std::memory_order_acquire);
    if (address_of(middle) == 0)
        return nullptr;
    auto* table = machine::hva<std::uint64_t>(Hpa{address_of(middle)});
    std::atomic_ref<std::uint64_t> in_table{table[page / kFanout % kFanout]};
    const std::uint64_t leaf = in_table.load(std::memory_order_acquire);
    return address_of(leaf) == 0 ? nullptr : machine::hva<std::uint64_t>(Hpa{address_of(leaf)});
}

SectorStore::Run SectorStore::run_in(std::uint64_t entry, const Part& part) {
    const std::uint64_t written = (entry & kWritten) >> part.first;
    if ((written & 1) == 0) {
        const auto gap = static_cast<std::uint64_t>(std::countr_zero(written));
        return {Run::Kind::absent, std::min(gap, part.count), nullptr};
    }
    const std::uint64_t count =
        std::min<std::uint64_t>(static_cast<unsigned>(std::countr_one(written)), part.count);
    if (address_of(entry) == 0)
        return {Run::Kind::zero, count, nullptr};
    return {Run::Kind::data, count, machine::hva(Hpa{address_of(entry)}) + part.first * kSector};
}

SectorStore::Run SectorStore::find(std::uint64_t sector, std::uint64_t limit) const {
    std::uint64_t page = sector / kPageSectors;
    std::uint64_t* leaf = leaf_of(page);
    const auto entry = [&] {
        return leaf == nullptr
                   ? 0
                   : std::atomic_ref<std::uint64_t>{leaf[page % kFanout]}.load(std::memory_order_acquire);
    };
    const std::uint64_t first = entry();
    Run run = run_in(first, part_at(sector, limit));
    const bool is_data = run.kind == Run::Kind::data;
    // The entry of a page that continues the run from its first sector to its last.
    std::uint64_t whole = (is_data ? address_of(first) : 0) | (run.kind == Run::Kind::absent ? 0 : kWritten);
    while (run.sectors < limit && (sector + run.sectors) % kPageSectors == 0) {
        if (++page % kFanout == 0) [[unlikely]]
            leaf = leaf_of(page);
        const std::uint64_t next = entry();
        whole += is_data ? kPageSize : 0;
        if (next == whole && limit - run.sectors >= kPageSectors) [[likely]] {
            run.sectors += kPageSectors;
            continue;
        }
        const Run more = run_in(next, part_at(page * kPageSectors, limit - run.sectors));
        if (more.kind != run.kind || (is_data && address_of(next) != address_of(whole)))
            break;
        run.sectors += more.sectors;
    }
    return run;
}

Expected<void> SectorStore::zero(std::uint64_t sector, std::uint64_t count) {
    std::uint64_t* leaf = nullptr;
    while (count > 0) {
        const Part part = part_at(sector, count);
        const std::uint64_t page = sector / kPageSectors;
        if (leaf == nullptr || page % kFanout == 0)
            leaf = HV_TRY(make_leaf(page));
        std::atomic_ref<std::uint64_t> entry{leaf[page % kFanout]};
        const std::uint64_t before = entry.fetch_or(part.mask, std::memory_order_acq_rel);
        if (address_of(before) != 0)
            std::memset(machine::hva(Hpa{address_of(before)}) + part.first * kSector, 0,
                        part.count * kSector);
        sector += part.count;
        count -= part.count;
    }
    return {};
}

}  // namespace hv
