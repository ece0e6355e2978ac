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

bool BalloonPages::inflate(std::uint32_t page_frame) {
    const Place place = find(page_frame);
    if (place.granule == nullptr)
        return false;
    Granule& granule = *place.granule;
    if ((granule.inside[place.word] & place.bit) != 0)
        return true;
    granule.inside[place.word] |= place.bit;
    ++pages_;
    const bool whole = std::all_of(granule.inside.begin(), granule.inside.end(),
                                   [](std::uint64_t word) { return word == ~std::uint64_t{0}; });
    if (whole && host_->release(place.start, GuestMemory::kGranule)) {
        granule.released = true;
        ++released_;
    }
    return true;
}

bool BalloonPages::deflate(std::uint32_t page_frame) {
    const Place place = find(page_frame);
    if (place.granule == nullptr)
        return false;
    std::uint64_t& word = place.granule->inside[place.word];
    if ((word & place.bit) == 0)
        return true;
    word &= ~place.bit;
    --pages_;
    reclaim(*place.granule, place.start);
    return true;
}

void BalloonPages::reclaim(Granule& granule, Gpa start) {
    if (!granule.released)
        return;
    granule.released = false;
    --released_;
    host_->reclaim(start, GuestMemory::kGranule);
}

void BalloonPages::clear() {
    for (std::size_t i = 0; i < granules_.size() && pages_ != 0; ++i) {
        Granule& granule = granules_[i];
        for (std::uint64_t& word : granule.inside) {
            pages_ -= static_cast<unsigned>(std::popcount(word));
            word = 0;
        }
        reclaim(granule, Gpa{i * GuestMemory::kGranule});
    }
}

}  // namespace hv::virtio
