// SPDX-License-Identifier: MIT
#include "drivers/net/virtio_net_transmitter.hpp"

#include "vmm/base/bytes.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <span>

namespace hv::netdrv {
namespace {

using namespace hv::virtio;

NetHeader header_of(const FrameOffload& offload) {
    NetHeader header{};
    if (offload.needs_checksum) {
        header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        header.csum_start = offload.checksum_start;
        header.csum_offset = offload.checksum_offset;
    }
    if (offload.gso_type != 0) {
        header.gso_type = offload.gso_type;
        header.gso_size = offload.gso_size;
        header.hdr_len = offload.header_length;
    }
    return header;
}

/// Copies `frame` to `to`, where it fits: the beginning as it was when decisions were made on it.
void copy(const Frame& frame, std::byte* to) {
    std::size_t skip = std::min<std::size_t>(frame.header.size(), frame.size);
    std::size_t left = frame.size - skip;
    std::memcpy(to, frame.header.data(), skip);
    to += skip;
    for (const FrameSegment& segment : frame.segments) {
        const std::size_t skipped = std::min<std::size_t>(skip, segment.size);
        const std::size_t size = std::min(segment.size - skipped, left);
        if (size > 0)
            std::memcpy(to, segment.data + skipped, size);
        skip -= skipped;
        left -= size;
        to += size;
    }
    // What is looked at from now on is the copy.
    std::atomic_signal_fence(std::memory_order_seq_cst);
}

}  // namespace

Expected<VirtioNetTransmitter> VirtioNetTransmitter::create(DmaPool& pool, std::uint16_t queue_size,
                                                            std::uint64_t features) {
    HV_ASSERT(queue_size <= kMaxQueueSize);
    DriverQueue queue = HV_TRY(DriverQueue::create(pool, {queue_size, 1, features}));
    DmaBuffer small = HV_TRY(pool.allocate(kSmall * queue_size));
    DmaBuffer large;
    if ((features & (VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_HOST_TSO6)) != 0)
        large = HV_TRY(pool.allocate(kLarge * kLargeCount));
    return VirtioNetTransmitter{std::move(queue), std::move(small), std::move(large), features};
}

void VirtioNetTransmitter::start() {
    queue_.start();
    queue_.suppress_interrupts();
    small_.count = large_.count = 0;
    for (std::uint16_t i = 0; i < queue_.size(); ++i)
        small_.push(i);
    for (std::uint16_t i = 0; large_buffers_ && i < kLargeCount; ++i)
        large_.push(static_cast<std::uint16_t>(kFirstLarge + i));
    lacked_room_ = progressed_ = false;
}

bool VirtioNetTransmitter::may_send(const Frame& frame) const {
    const FrameOffload& offload = frame.offload;
    if (frame.size < net::kMinFrameSize ||
        frame.size > (offload.gso_type != 0 ? net::kMaxFrameSize : net::kMaxWireFrameSize))
        return false;
    if (offload.needs_checksum &&
        (!has(VIRTIO_NET_F_CSUM) ||
         std::uint32_t{offload.checksum_start} + offload.checksum_offset + 2 > frame.size))
        return false;
    if (offload.gso_type == 0)
        return true;
    const std::uint8_t type = offload.gso_type & static_cast<std::uint8_t>(~net::kGsoEcn);
    if (!offload.needs_checksum || ((offload.gso_type & net::kGsoEcn) != 0 && !has(VIRTIO_NET_F_HOST_ECN)))
        return false;
    return (type == net::kGsoTcpV4 && has(VIRTIO_NET_F_HOST_TSO4)) ||
           (type == net::kGsoTcpV6 && has(VIRTIO_NET_F_HOST_TSO6));
}

VirtioNetTransmitter::Put VirtioNetTransmitter::put(const Frame& frame) {
    if (!may_send(frame))
        return Put::refused;
    reclaim();
    const std::size_t size = sizeof(NetHeader) + frame.size;
    const bool is_small = size <= kSmall;
    const std::size_t count = is_small ? small_.count : large_.count;
    if (count == 0 || queue_.in_flight() == queue_.size() || queue_.broken()) {
        lacked_room_ = true;
        return Put::no_room;
    }
    const std::uint16_t token = is_small ? small_.tokens[count - 1] : large_.tokens[count - 1];
    const std::size_t offset = is_small ? kSmall * token : kLarge * (token - kFirstLarge);
    const DmaBuffer& buffers = is_small ? small_buffers_ : large_buffers_;
    std::byte* const at = buffers.bytes().subspan(offset, size).data();
    // One buffer holds both: where the header ends is the driver's choice [virtio1.2 2.7.4 Message Framing].
    store(at, header_of(frame.offload));
    copy(frame, at + sizeof(NetHeader));
    const QueueBuffer buffer{buffers.address() + offset, static_cast<std::uint32_t>(size)};
    if (!queue_.add(std::span{&buffer, 1}, 1, token))
        return Put::no_room;
    --(is_small ? small_.count : large_.count);
    return Put::queued;
}

void VirtioNetTransmitter::give_back(std::uint16_t token) {
    if (token < kFirstLarge)
        small_.push(token);
    else
        large_.push(token);
}

void VirtioNetTransmitter::reclaim() {
    while (const auto used = queue_.reap()) {
        give_back(used->token);
        progressed_ = true;
    }
}

bool VirtioNetTransmitter::stalled() {
    reclaim();
    const bool stalled = lacked_room_ && !progressed_;
    lacked_room_ = progressed_ = false;
    return stalled;
}

}  // namespace hv::netdrv
