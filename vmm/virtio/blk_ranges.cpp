// SPDX-License-Identifier: MIT
#include "vmm/virtio/blk_ranges.hpp"

#include "vmm/virtio/piece_list.hpp"

#include <utility>

namespace hv::virtio {
namespace {

/// Whether a range is allowed: VIRTIO_BLK_S_OK. [virtio1.2 5.2.6.2 Device Requirements: Device Operation]
std::uint8_t check(const BlkRange& range, bool discard, const BlockGeometry& geometry) {
    // To a disk that does not unmap, the flag says nothing.
    const std::uint32_t flags = discard ? 0 : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
    if ((range.flags & ~flags) != 0 || geometry.read_only || (discard && !geometry.can_discard))
        return VIRTIO_BLK_S_UNSUPP;
    return range.num_sectors <= BlkRanges::kMaxRangeSectors &&
                   lies_on_disk(geometry, range.sector, range.num_sectors)
               ? VIRTIO_BLK_S_OK
               : VIRTIO_BLK_S_IOERR;
}

}  // namespace

std::optional<std::uint8_t> BlkRanges::read(std::uint32_t type, std::span<Piece> data, std::uint64_t size,
                                            const BlockGeometry& geometry) {
    const bool discard = type == VIRTIO_BLK_T_DISCARD;
    request_.operation = discard ? BlockRequest::Operation::discard : BlockRequest::Operation::write_zeroes;
    count_ = next_ = 0;
    if (size == 0 || size > sizeof ranges_ || size % sizeof(BlkRange) != 0)
        return VIRTIO_BLK_S_IOERR;
    for (std::uint64_t left = size / sizeof(BlkRange); left > 0; --left) {
        BlkRange range{};
        take_front(data, std::as_writable_bytes(std::span{&range, 1}));
        if (const std::uint8_t status = check(range, discard, geometry); status != VIRTIO_BLK_S_OK)
            return status;
        if (range.num_sectors != 0)
            ranges_[count_++] = range;
    }
    return count_ == 0 ? std::optional{VIRTIO_BLK_S_OK} : std::nullopt;
}

std::uint64_t BlkRanges::sectors() const {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < count_; ++i)
        sum += ranges_[i].num_sectors;
    return sum;
}

void BlkRanges::start(BlockDevice& disk, Then then, Done done, void* context) {
    disk_ = &disk;
    then_ = then;
    done_ = done;
    context_ = context;
    status_ = BlockStatus::ok;
    request_.complete = on_step_complete;
    request_.context = this;
    run();
}

void BlkRanges::run() {
    while (advance()) {
        meeting_.store(nobody, std::memory_order_relaxed);
        disk_->submit(request_);
        if (meeting_.exchange(returned, std::memory_order_acq_rel) != completed)
            return;
    }
    done_(*this, status_);
}

bool BlkRanges::advance() {
    if (status_ != BlockStatus::ok)
        return false;
    if (next_ < count_) {
        const BlkRange& range = ranges_[next_++];
        request_.sector = range.sector;
        request_.sector_count = range.num_sectors;
        request_.may_unmap = (range.flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP) != 0;
        return true;
    }
    if (std::exchange(then_, Then::nothing) == Then::nothing)
        return false;
    request_.operation = BlockRequest::Operation::flush;
    request_.sector = request_.sector_count = 0;
    return true;
}

void BlkRanges::on_step_complete(BlockRequest& request, BlockStatus status) {
    auto& ranges = *static_cast<BlkRanges*>(request.context);
    ranges.status_ = status;
    if (ranges.meeting_.exchange(completed, std::memory_order_acq_rel) == returned)
        ranges.run();
}

}  // namespace hv::virtio
