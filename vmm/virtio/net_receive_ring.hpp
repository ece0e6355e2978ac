// SPDX-License-Identifier: MIT
// A network device's receive queue: puts frames into the driver's buffers, over several of them where the
// driver negotiated that. Needs its user's lock. [virtio1.2 5.1.6.4 Processing of Incoming Packets]
#pragma once

#include "vmm/mm/guest_memory.hpp"
#include "vmm/net/offload.hpp"
#include "vmm/net/station.hpp"
#include "vmm/virtio/virtqueue.hpp"

#include <array>
#include <cstdint>

namespace hv::virtio {

// Features of the network device [virtio1.2 5.1.3 Feature bits].
inline constexpr std::uint64_t VIRTIO_NET_F_CSUM = feature(0);
inline constexpr std::uint64_t VIRTIO_NET_F_GUEST_CSUM = feature(1);
inline constexpr std::uint64_t VIRTIO_NET_F_MTU = feature(3);
inline constexpr std::uint64_t VIRTIO_NET_F_MAC = feature(5);
inline constexpr std::uint64_t VIRTIO_NET_F_GUEST_TSO4 = feature(7);
inline constexpr std::uint64_t VIRTIO_NET_F_GUEST_TSO6 = feature(8);
inline constexpr std::uint64_t VIRTIO_NET_F_GUEST_ECN = feature(9);
inline constexpr std::uint64_t VIRTIO_NET_F_HOST_TSO4 = feature(11);
inline constexpr std::uint64_t VIRTIO_NET_F_HOST_TSO6 = feature(12);
inline constexpr std::uint64_t VIRTIO_NET_F_HOST_ECN = feature(13);
inline constexpr std::uint64_t VIRTIO_NET_F_MRG_RXBUF = feature(15);
inline constexpr std::uint64_t VIRTIO_NET_F_STATUS = feature(16);

/// struct virtio_net_hdr [virtio1.2 5.1.6 Device Operation].
struct NetHeader {
    std::uint8_t flags;
    std::uint8_t gso_type;
    std::uint16_t hdr_len;
    std::uint16_t gso_size;
    std::uint16_t csum_start;
    std::uint16_t csum_offset;
    std::uint16_t num_buffers;
};
static_assert(sizeof(NetHeader) == 12);
inline constexpr std::uint8_t VIRTIO_NET_HDR_F_NEEDS_CSUM = 1;
inline constexpr std::uint8_t VIRTIO_NET_HDR_F_DATA_VALID = 2;

class NetReceiveRing final : private net::FrameReceiver {
public:
    explicit NetReceiveRing(const GuestMemory& memory) : ring_{memory} {}

    Expected<void> start(const QueueLayout& layout, std::uint64_t features);
    void stop() { live_ = false; }
    struct Result {
        net::Delivery delivery;
        bool interrupt;
        bool broken;
    };
    /// Puts a frame, of a valid offload, into the ring.
    Result put(const Frame& frame);

private:
    /// A frame in a form that the driver takes.
    net::Delivery receive(const Frame& frame) override;
    /// Where bytes go: the writable pieces of one chain after another.
    class Writer;

    Virtqueue ring_;
    bool live_{false};
    bool mergeable_{false};
    net::OffloadSupport support_{};
    std::array<Piece, net::kMaxSegments> pieces_{};  ///< the chain at hand
};

}  // namespace hv::virtio
