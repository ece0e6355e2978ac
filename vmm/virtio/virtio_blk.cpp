// SPDX-License-Identifier: MIT
#include "vmm/virtio/virtio_blk.hpp"

#include "vmm/virtio/blk_queue.hpp"
#include "vmm/virtio/blk_ranges.hpp"

#include <algorithm>
#include <cstring>

namespace hv::virtio {
VirtioBlk::VirtioBlk(BlockDevice& disk, const BlockGeometry& geometry, const Options& options)
    : disk_{disk},
      geometry_{geometry},
      sectors_{geometry.sectors},
      throttle_{options.bytes_per_second, options.requests_per_second} {
    if (const std::size_t length = std::min(options.serial.size(), serial_.size()); length != 0)
        std::memcpy(serial_.data(), options.serial.data(), length);
}

VirtioBlk::~VirtioBlk() = default;

Expected<std::unique_ptr<VirtioBlk>> VirtioBlk::create(BlockDevice& disk, const GuestMemory& memory,
                                                       Clock& clock, const Options& options) {
    const BlockGeometry geometry = disk.geometry();
    if (options.queues == 0 || options.queues > kMaxQueues || geometry.logical_block_size < kSectorSize)
        return Unexpected{Error::invalid_argument};
    std::unique_ptr<VirtioBlk> device{new (std::nothrow) VirtioBlk{disk, geometry, options}};
    if (device == nullptr)
        return Unexpected{Error::no_memory};
    for (unsigned i = 0; i < options.queues; ++i) {
        auto queue = HV_TRY(make<BlkQueue>(*device, i, memory, clock));
        HV_TRY(device->queues_.push(std::move(queue)));
    }
    return device;
}

std::uint64_t VirtioBlk::features() const {
    std::uint64_t features = VIRTIO_BLK_F_SIZE_MAX | VIRTIO_BLK_F_SEG_MAX | VIRTIO_BLK_F_BLK_SIZE |
                             VIRTIO_BLK_F_TOPOLOGY | VIRTIO_BLK_F_FLUSH;
    if (geometry_.read_only)
        features |= VIRTIO_BLK_F_RO;
    else
        features |= VIRTIO_BLK_F_CONFIG_WCE | VIRTIO_BLK_F_WRITE_ZEROES |
                    (geometry_.can_discard ? VIRTIO_BLK_F_DISCARD : 0);
    if (queues_.size() > 1)
        features |= VIRTIO_BLK_F_MQ;
    return features;
}

/// A driver that does not read blk_size takes blocks to be of 512 bytes, and would hear of errors alone.
bool VirtioBlk::accepts(std::uint64_t features) const {
    return geometry_.logical_block_size == kSectorSize || (features & VIRTIO_BLK_F_BLK_SIZE) != 0;
}

void VirtioBlk::negotiated(std::uint64_t features) {
    // A driver that does not flush expects its writes to be stable [virtio1.2 5.2.5.2 Device Requirements:
    // Device Initialization, 5.2.6.2 Device Requirements: Device Operation].
    writeback_ = (features & VIRTIO_BLK_F_FLUSH) != 0;
    writeback_writable_ = (features & VIRTIO_BLK_F_CONFIG_WCE) != 0;
}

std::uint64_t VirtioBlk::read_config(std::uint64_t offset, unsigned size) const {
    BlkConfig config{};
    config.capacity = sectors_;
    config.size_max = kSizeMax;
    config.seg_max = kSegMax;
    config.blk_size = geometry_.logical_block_size;
    for (std::uint32_t block = geometry_.logical_block_size; block < geometry_.physical_block_size;
         block *= 2)
        ++config.physical_block_exp;
    config.min_io_size = static_cast<std::uint16_t>(1u << config.physical_block_exp);
    config.writeback = writeback_ ? 1 : 0;
    config.num_queues = static_cast<std::uint16_t>(queues_.size());
    config.max_discard_sectors = config.max_write_zeroes_sectors = BlkRanges::kMaxRangeSectors;
    config.max_discard_seg = config.max_write_zeroes_seg = BlkRanges::kMaxRanges;
    config.write_zeroes_may_unmap = geometry_.can_unmap_zeroes ? 1 : 0;
    config.discard_sector_alignment = geometry_.physical_block_size / kSectorSize;
    return read_bytes(std::as_bytes(std::span{&config, 1}), offset, size);
}

void VirtioBlk::write_config(std::uint64_t offset, unsigned size, std::uint64_t value) {
    if (offset == offsetof(BlkConfig, writeback) && size == 1 && writeback_writable_)
        writeback_ = value != 0;
}

void VirtioBlk::capacity_changed(std::uint64_t sectors) {
    if (sectors_.exchange(sectors) != sectors && has_transport())
        transport().config_changed();
}

bool VirtioBlk::start(std::uint64_t features, std::span<const QueueLayout> layouts) {
    bool usable = true;
    for (unsigned i = 0; i < queues_.size(); ++i)
        usable = queues_[i]->start(layouts[i], features).has_value() && usable;
    return usable;
}

void VirtioBlk::stop() {
    writeback_writable_ = false;
    for (auto& queue : queues_)
        queue->stop();
}

bool VirtioBlk::drained() const {
    return std::all_of(queues_.begin(), queues_.end(),
                       [](const auto& queue) { return queue->in_flight() == 0; });
}

void VirtioBlk::queue_notified(unsigned queue) {
    queues_[queue]->process();
}

}  // namespace hv::virtio
