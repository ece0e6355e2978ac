// SPDX-License-Identifier: MIT
#include "drivers/net/virtio_net_receiver.hpp"

#include "drivers/virtio/virtio_net_defs.hpp"
#include "vmm/base/bytes.hpp"

#include <atomic>

namespace hv::netdrv {
namespace {

using namespace hv::virtio;

/// A device may leave the FCS or a second VLAN tag in a frame.
constexpr std::size_t kMaxFrame = net::kMaxWireFrameSize + 4;

/// What the header says of a frame of `size` bytes, if it can be.
std::optional<FrameOffload> offload_of(const NetHeader& header, std::size_t size, bool checksum) {
    FrameOffload offload{};
    if (header.gso_type != 0)
        return std::nullopt;  // nobody asked for unsegmented ones
    if ((header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0) {
        if (!checksum || std::size_t{header.csum_start} + header.csum_offset + 2 > size)
            return std::nullopt;
        offload.needs_checksum = true;
        offload.checksum_start = header.csum_start;
        offload.checksum_offset = header.csum_offset;
    }
    offload.data_valid = checksum && (header.flags & VIRTIO_NET_HDR_F_DATA_VALID) != 0;
    return offload;
}

}  // namespace

Expected<VirtioNetReceiver> VirtioNetReceiver::create(DmaPool& pool, std::uint16_t queue_size,
                                                      std::uint64_t features) {
    DriverQueue queue = HV_TRY(DriverQueue::create(pool, {queue_size, 1, features}));
    DmaBuffer buffers = HV_TRY(pool.allocate(kBufferSize * queue_size));
    return VirtioNetReceiver{std::move(queue), std::move(buffers), features};
}

void VirtioNetReceiver::start() {
    queue_.start();
    for (std::uint16_t i = 0; i < queue_.size(); ++i)
        release(i);
}

void VirtioNetReceiver::release(std::uint16_t buffer) {
    const QueueBuffer whole{buffers_.address() + kBufferSize * buffer, kBufferSize};
    // There is room: the queue has a descriptor for each buffer.
    const bool added = queue_.add(std::span{&whole, 1}, 0, buffer);
    HV_ASSERT(added);
}

std::optional<VirtioNetReceiver::Arrival> VirtioNetReceiver::next() {
    const auto used = queue_.reap();
    if (!used)
        return std::nullopt;
    Arrival arrival{used->token, true, {}, {}};
    if (used->written < sizeof(NetHeader) + net::kMinFrameSize ||
        used->written > sizeof(NetHeader) + kMaxFrame)
        return arrival;
    const auto buffer = buffers_.bytes().subspan(kBufferSize * used->token, used->written);
    const auto header = load<NetHeader>(buffer.data());
    std::atomic_signal_fence(std::memory_order_seq_cst);  // the device's memory is not looked at again
    arrival.data = buffer.subspan(sizeof(NetHeader));
    const auto offload = offload_of(header, arrival.data.size(), (features_ & VIRTIO_NET_F_GUEST_CSUM) != 0);
    if (offload) {
        arrival.offload = *offload;
        arrival.damaged = false;
    }
    return arrival;
}

}  // namespace hv::netdrv
