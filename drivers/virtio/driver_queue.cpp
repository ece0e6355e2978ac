// SPDX-License-Identifier: MIT
#include "drivers/virtio/driver_queue.hpp"

#include "vmm/base/assert.hpp"
#include "vmm/base/log.hpp"

#include <bit>

namespace hv::virtio {
namespace {

// Offsets in the rings [virtio1.2 2.7.6 The Virtqueue Available Ring, 2.7.8 The Virtqueue Used Ring].
constexpr std::size_t kFlags = 0;
constexpr std::size_t kIndex = 2;
constexpr std::size_t kRing = 4;
constexpr std::size_t kAvailElement = 2;
constexpr std::size_t kUsedElement = 8;
constexpr std::size_t kEvent = 2;  ///< used_event, avail_event: behind the ring

constinit log::RateLimit broken_device_log;

VirtqDescriptor descriptor_of(const QueueBuffer& buffer, bool writable, std::optional<std::uint16_t> next) {
    return {buffer.address.raw, buffer.size,
            static_cast<std::uint16_t>((writable ? VIRTQ_DESC_F_WRITE : 0) | (next ? VIRTQ_DESC_F_NEXT : 0)),
            next.value_or(0)};
}

}  // namespace

std::size_t DriverQueue::device_offset() const {
    return align_up(driver_offset() + kRing + kAvailElement * size_ + kEvent, 4);
}

Expected<DriverQueue> DriverQueue::create(DmaPool& pool, const Options& options) {
    HV_ASSERT(std::has_single_bit(options.size) && options.max_chain > 0 &&
              options.max_chain <= options.size);
    const std::size_t size = options.size;
    DmaBuffer rings = HV_TRY(pool.allocate((sizeof(VirtqDescriptor) + kAvailElement + kUsedElement) * size +
                                           2 * (kRing + kEvent) + 4));
    DmaBuffer tables;
    if ((options.features & VIRTIO_F_INDIRECT_DESC) != 0 && options.max_chain > 1)
        tables = HV_TRY(pool.allocate(sizeof(VirtqDescriptor) * size * options.max_chain));
    Vec<Descriptor> descriptors;
    HV_TRY(descriptors.resize(size));
    return DriverQueue{std::move(rings), std::move(tables), std::move(descriptors), options};
}

DriverQueue::DriverQueue(DmaBuffer rings, DmaBuffer tables, Vec<Descriptor> descriptors,
                         const Options& options)
    : rings_{std::move(rings)},
      tables_{std::move(tables)},
      descriptors_{std::move(descriptors)},
      size_{options.size},
      max_chain_{options.max_chain},
      event_idx_{(options.features & VIRTIO_F_EVENT_IDX) != 0},
      indirect_{static_cast<bool>(tables_)} {
    start();
}

void DriverQueue::start() {
    std::memset(rings_.bytes().data(), 0, rings_.bytes().size());
    for (std::uint16_t i = 0; i < size_; ++i)
        descriptors_[i] = {static_cast<std::uint16_t>(i + 1), 0, 0};
    broken_ = false;
    free_head_ = 0;
    free_count_ = size_;
    in_flight_ = next_avail_ = published_ = next_used_ = used_index_ = 0;
}

bool DriverQueue::add(std::span<const QueueBuffer> buffers, std::size_t readable, std::uint16_t token) {
    HV_ASSERT(!buffers.empty() && buffers.size() <= max_chain_ && readable <= buffers.size());
    const bool indirect = indirect_ && buffers.size() > 1;
    const auto count = static_cast<std::uint16_t>(indirect ? 1 : buffers.size());
    if (count > free_count_)
        return false;
    const std::uint16_t head = free_head_;
    if (indirect)
        write_indirect(buffers, readable);
    else
        write_chain(buffers, readable);
    free_count_ = static_cast<std::uint16_t>(free_count_ - count);
    descriptors_[head].token = token;
    descriptors_[head].count = count;
    ++in_flight_;
    driver_word<std::uint16_t>(kRing + kAvailElement * slot(next_avail_))
        .store(head, std::memory_order_relaxed);
    ++next_avail_;
    return true;
}

void DriverQueue::write_chain(std::span<const QueueBuffer> buffers, std::size_t readable) {
    for (std::size_t i = 0; i < buffers.size(); ++i) {
        const std::uint16_t index = free_head_;
        free_head_ = descriptors_[index].next;
        const bool last = i + 1 == buffers.size();
        *rings_.at<VirtqDescriptor>(sizeof(VirtqDescriptor) * index) =
            descriptor_of(buffers[i], i >= readable, last ? std::nullopt : std::optional{free_head_});
    }
}

void DriverQueue::write_indirect(std::span<const QueueBuffer> buffers, std::size_t readable) {
    const std::uint16_t head = free_head_;
    free_head_ = descriptors_[head].next;
    const std::size_t table = sizeof(VirtqDescriptor) * max_chain_ * head;
    for (std::size_t i = 0; i < buffers.size(); ++i) {
        const bool last = i + 1 == buffers.size();
        *tables_.at<VirtqDescriptor>(table + sizeof(VirtqDescriptor) * i) =
            descriptor_of(buffers[i], i >= readable,
                          last ? std::nullopt : std::optional{static_cast<std::uint16_t>(i + 1)});
    }
    *rings_.at<VirtqDescriptor>(sizeof(VirtqDescriptor) * head) = {
        (tables_.address() + table).raw, static_cast<std::uint32_t>(sizeof(VirtqDescriptor) * buffers.size()),
        VIRTQ_DESC_F_INDIRECT, 0};
}

bool DriverQueue::publish() {
    const std::uint16_t old = published_;
    if (next_avail_ == old)
        return false;
    published_ = next_avail_;
    // The device asks for a notification, then reads the index; we write the index, then look whether it
    // asked: one of us sees the other's word if all four accesses have one order [virtio1.2 2.7.10 Available
    // Buffer Notification Suppression].
    driver_word<std::uint16_t>(kIndex).store(published_, std::memory_order_seq_cst);
    if (!event_idx_)
        return (device_word<std::uint16_t>(kFlags).load(std::memory_order_seq_cst) &
                VIRTQ_USED_F_NO_NOTIFY) == 0;
    const auto event =
        device_word<std::uint16_t>(kRing + kUsedElement * size_).load(std::memory_order_seq_cst);
    return static_cast<std::uint16_t>(published_ - event - 1) < static_cast<std::uint16_t>(published_ - old);
}

bool DriverQueue::refresh() {
    if (broken_)
        return false;
    if (next_used_ != used_index_)
        return true;
    used_index_ = device_word<std::uint16_t>(kIndex).load(std::memory_order_acquire);
    if (static_cast<std::uint16_t>(used_index_ - next_used_) > in_flight_) [[unlikely]]
        break_off("more buffers used than it has");
    return next_used_ != used_index_ && !broken_;
}

std::optional<DriverQueue::Used> DriverQueue::reap() {
    if (!refresh())
        return std::nullopt;
    const std::size_t element = kRing + kUsedElement * slot(next_used_);
    const auto id = device_word<std::uint32_t>(element).load(std::memory_order_relaxed);
    const auto written = device_word<std::uint32_t>(element + 4).load(std::memory_order_relaxed);
    if (id >= size_ || descriptors_[id].count == 0) [[unlikely]] {
        break_off("a buffer used that it does not have");
        return std::nullopt;
    }
    ++next_used_;
    --in_flight_;
    Descriptor& head = descriptors_[id];
    std::uint16_t last = static_cast<std::uint16_t>(id);
    for (std::uint16_t left = head.count; left > 1; --left)
        last = descriptors_[last].next;
    descriptors_[last].next = free_head_;
    free_head_ = static_cast<std::uint16_t>(id);
    free_count_ = static_cast<std::uint16_t>(free_count_ + head.count);
    head.count = 0;
    return Used{head.token, written};
}

bool DriverQueue::request_interrupts() {
    // As in publish(), with the roles exchanged [virtio1.2 2.7.7 Used Buffer Notification Suppression].
    if (event_idx_)
        driver_word<std::uint16_t>(kRing + kAvailElement * size_)
            .store(next_used_, std::memory_order_seq_cst);
    else
        driver_word<std::uint16_t>(kFlags).store(0, std::memory_order_seq_cst);
    return refresh();
}

void DriverQueue::suppress_interrupts() {
    // With the event index by an event that lies behind, and comes once in 65536 buffers.
    if (event_idx_)
        driver_word<std::uint16_t>(kRing + kAvailElement * size_)
            .store(static_cast<std::uint16_t>(next_used_ - 1), std::memory_order_relaxed);
    else
        driver_word<std::uint16_t>(kFlags).store(VIRTQ_AVAIL_F_NO_INTERRUPT, std::memory_order_relaxed);
}

void DriverQueue::break_off(const char* why) {
    broken_ = true;
    if (broken_device_log.admit())
        log::error(log::Topic::virtio, "a device broke the rules of its queue: %s", why);
}

}  // namespace hv::virtio
