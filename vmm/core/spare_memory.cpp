// SPDX-License-Identifier: MIT
#include "vmm/core/spare_memory.hpp"

#include "vmm/base/machine.hpp"

#include <algorithm>
#include <cstring>
#include <span>

namespace hv {
namespace {

Gpa granule_of(Gpa gpa) {
    return Gpa{align_down(gpa.raw, GuestMemory::kGranule)};
}

}  // namespace

virtio::BalloonMemory::Release SpareMemory::release(Gpa granule) {
    if (memory_.presence(granule) == GuestMemory::Presence::absent)
        return Release::done;
    if (memory_.pinned(granule))
        return Release::refused;
    list_.with([&](List& list) {
        const auto listed = std::span{list.granules}.first(list.count);
        if (memory_.presence(granule) == GuestMemory::Presence::present &&
            list.count < list.granules.size() &&
            std::find(listed.begin(), listed.end(), granule) == listed.end())
            list.granules[list.count++] = granule;
    });
    call_soon();
    return Release::pending;
}

bool SpareMemory::reclaim(Gpa granule) {
    return memory_.at(granule, 1) != nullptr;
}

void SpareMemory::cancel() {
    list_.with([](List& list) { list.count = 0; });
}

void SpareMemory::call_soon() {
    if (!wanted_.exchange(true))
        clock_.arm(*this, std::max(clock_.now(), not_before_.load(std::memory_order_relaxed)));
}

bool SpareMemory::resolve(Gpa gpa) {
    const Gpa granule = granule_of(gpa);
    if (memory_.at(granule, 1) == nullptr)
        return false;
    return list_.with([&](List&) {
        if (memory_.presence(granule) != GuestMemory::Presence::present)
            return false;
        // Another vCPU may have been faster.
        return space_.translate(granule).has_value() ||
               space_
                   .map(granule, machine::hpa(memory_.at(granule, 1)), GuestMemory::kGranule,
                        GuestAccess::read_write_execute)
                   .has_value();
    });
}

bool SpareMemory::service() {
    const Stint stint{clock_};
    if (leaving_count_ == 0) {
        if (!wanted_.exchange(false))
            return false;
        begin();
        if (leaving_count_ == 0)
            return true;  // pinned meanwhile, or cancelled
        owner_.memory_leaves();
        machine::synchronize();
        memory_.next_epoch();
    }
    const std::uint64_t pause = clock_.from_nanoseconds(kPauseNs);
    if (!memory_.drained()) {
        clock_.arm(*this, clock_.now() + pause);
        return false;
    }
    if (finish_some()) {
        clock_.arm(*this, stint.next());
        return false;
    }
    const std::uint64_t next = clock_.now() + pause;
    not_before_.store(next, std::memory_order_relaxed);
    if (wanted_)
        clock_.arm(*this, next);
    return true;
}

void SpareMemory::begin() {
    list_.with([&](List& list) {
        for (const Gpa granule : std::span{list.granules}.first(list.count)) {
            std::byte* const where = memory_.detach(granule);
            if (where == nullptr)
                continue;
            if (space_.unmap(granule, GuestMemory::kGranule))
                leaving_[leaving_count_++] = {granule, where};
            else
                memory_.attach(granule, where);
        }
        list.count = 0;
    });
}

bool SpareMemory::finish_some() {
    if (leaving_count_ == 0)
        return false;
    const Leaving& last = leaving_[leaving_count_ - 1];
    if (zeroed_ < GuestMemory::kGranule) {
        std::memset(last.where + zeroed_, 0, kZeroedAtATime);
        zeroed_ += kZeroedAtATime;
        return true;
    }
    memory_.release(last.granule, last.where);
    zeroed_ = 0;
    if (--leaving_count_ == 0)
        space_.reclaim(space_.generation());
    return leaving_count_ != 0;
}

void SpareMemory::finish() {
    while (finish_some()) {
    }
}

}  // namespace hv
