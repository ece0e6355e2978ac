// SPDX-License-Identifier: MIT
#include "vmm/virtio/balloon_pages.hpp"

#include <algorithm>
#include <bit>

namespace hv::virtio {

Expected<BalloonPages> BalloonPages::create(const GuestMemory& memory, BalloonMemory& host) {
    BalloonPages pages{memory, host};
    const std::uint64_t end =
        memory.high_size() != 0 ? GuestMemory::kHighStart + memory.high_size() : memory.low_size();
    HV_TRY(pages.granules_.resize(end / GuestMemory::kGranule));
    return pages;
}

BalloonPages::Place BalloonPages::find(std::uint32_t page_frame) {
    // Page frames are of 4 KiB whatever the guest's pages are [virtio1.2 5.5.6 Device Operation].
    const Gpa gpa{std::uint64_t{page_frame} * kPageSize};
    if (!memory_->contains(gpa, kPageSize))
        return {};
    const std::uint64_t index = gpa.raw / GuestMemory::kGranule;
    const auto page = static_cast<unsigned>(gpa.raw % GuestMemory::kGranule / kPageSize);
    return {&granules_[index], Gpa{index * GuestMemory::kGranule}, page / 64, std::uint64_t{1} << page % 64};
}

BalloonPages::Result BalloonPages::inflate(std::uint32_t page_frame) {
    const Place place = find(page_frame);
    if (place.granule == nullptr)
        return Result::not_ram;
    Granule& granule = *place.granule;
    if ((granule.inside[place.word] & place.bit) == 0) {
        granule.inside[place.word] |= place.bit;
        ++pages_;
    }
    const bool whole = std::all_of(granule.inside.begin(), granule.inside.end(),
                                   [](std::uint64_t word) { return word == ~std::uint64_t{0}; });
    if (!whole || granule.offered)
        return Result::done;
    const auto release = host_->release(place.start);
    if (release == BalloonMemory::Release::pending)
        return Result::waits;
    granule.offered = true;
    granule.released = release == BalloonMemory::Release::done;
    released_ += granule.released ? 1 : 0;
    return Result::done;
}

BalloonPages::Result BalloonPages::deflate(std::uint32_t page_frame) {
    const Place place = find(page_frame);
    if (place.granule == nullptr)
        return Result::not_ram;
    Granule& granule = *place.granule;
    if ((granule.inside[place.word] & place.bit) == 0)
        return Result::done;
    if (granule.released && !host_->reclaim(place.start))
        return Result::waits;
    released_ -= granule.released ? 1 : 0;
    granule.offered = granule.released = false;
    granule.inside[place.word] &= ~place.bit;
    --pages_;
    return Result::done;
}

void BalloonPages::clear() {
    for (std::size_t i = 0; i < granules_.size() && pages_ != 0; ++i) {
        for (const std::uint64_t word : granules_[i].inside)
            pages_ -= static_cast<unsigned>(std::popcount(word));
        granules_[i] = {};
    }
    released_ = 0;
}

}  // namespace hv::virtio
