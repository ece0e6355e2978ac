// SPDX-License-Identifier: MIT
#include "vmm/virtio/virtio_net.hpp"

#include "vmm/net/frame_segments.hpp"
#include "vmm/virtio/piece_list.hpp"

#include <algorithm>
#include <cstddef>

namespace hv::virtio {
namespace {

constexpr std::uint16_t kMinMtu =
    68;  ///< [virtio1.2 5.1.4.1 Device Requirements: Device configuration layout]
constexpr std::uint32_t kMtuOverhead = 18;  ///< Ethernet header and a VLAN tag

constexpr std::uint64_t kGuestTso = VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_TSO6;
constexpr std::uint64_t kHostTso = VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_HOST_TSO6;

/// What a driver with these features may leave to us.
bool may_ask(const FrameOffload& offload, std::uint64_t features) {
    const auto has = [&](std::uint64_t wanted) { return (features & wanted) != 0; };
    if (offload.needs_checksum && !has(VIRTIO_NET_F_CSUM))
        return false;
    if (offload.gso_type == net::kGsoNone)
        return true;
    const bool ipv6 = (offload.gso_type & ~net::kGsoEcn) == net::kGsoTcpV6;
    const bool ecn = (offload.gso_type & net::kGsoEcn) != 0;
    return has(ipv6 ? VIRTIO_NET_F_HOST_TSO6 : VIRTIO_NET_F_HOST_TSO4) &&
           (!ecn || has(VIRTIO_NET_F_HOST_ECN));
}

FrameOffload offload_of(const NetHeader& header) {
    FrameOffload offload{};
    offload.needs_checksum = (header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0;
    offload.gso_type = header.gso_type;
    offload.header_length = header.hdr_len;
    offload.gso_size = header.gso_size;
    offload.checksum_start = header.csum_start;
    offload.checksum_offset = header.csum_offset;
    return offload;
}

}  // namespace

VirtioNet::VirtioNet(const GuestMemory& memory, Clock& clock, const Options& options)
    : clock_{clock}, mac_{options.mac}, mtu_{options.mtu}, transmit_ring_{memory}, receive_ring_{memory} {}

Expected<std::unique_ptr<VirtioNet>> VirtioNet::create(const GuestMemory& memory, Clock& clock,
                                                       const Options& options) {
    if (options.mtu < kMinMtu || (options.mac[0] & 1) != 0)
        return Unexpected{Error::invalid_argument};
    std::unique_ptr<VirtioNet> device{new (std::nothrow) VirtioNet{memory, clock, options}};
    if (device == nullptr)
        return Unexpected{Error::no_memory};
    return device;
}

VirtioNet::~VirtioNet() {
    stop();
}

void VirtioNet::connect(net::SwitchPort* port) {
    port_.store(port);
    transmit_turn_.wait();
    if (has_transport())
        transport().config_changed();
}

std::uint64_t VirtioNet::features() const {
    return VIRTIO_NET_F_CSUM | VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_MTU | VIRTIO_NET_F_MAC | kGuestTso |
           VIRTIO_NET_F_GUEST_ECN | kHostTso | VIRTIO_NET_F_HOST_ECN | VIRTIO_NET_F_MRG_RXBUF |
           VIRTIO_NET_F_STATUS;
}

bool VirtioNet::accepts(std::uint64_t features) const {
    // [virtio1.2 5.1.3.1 Feature bit requirements]
    const auto implies = [&](std::uint64_t feature, std::uint64_t any_of) {
        return (features & feature) == 0 || (features & any_of) != 0;
    };
    return implies(kGuestTso, VIRTIO_NET_F_GUEST_CSUM) && implies(kHostTso, VIRTIO_NET_F_CSUM) &&
           implies(VIRTIO_NET_F_GUEST_ECN, kGuestTso) && implies(VIRTIO_NET_F_HOST_ECN, kHostTso);
}

std::uint64_t VirtioNet::read_config(std::uint64_t offset, unsigned size) const {
    NetConfig config{};
    config.mac = mac_;
    config.status = port_.load(std::memory_order_relaxed) != nullptr ? VIRTIO_NET_S_LINK_UP : 0;
    config.max_virtqueue_pairs = 1;
    config.mtu = mtu_;
    return read_bytes(std::as_bytes(std::span{&config, 1}), offset, size);
}

bool VirtioNet::start(std::uint64_t features, std::span<const QueueLayout> layouts) {
    const bool can_receive = receive_ring_.with(
        [&](NetReceiveRing& ring) { return ring.start(layouts[kReceiveQueue], features).has_value(); });
    if (layouts[kTransmitQueue].size == 0)
        return can_receive;
    const bool can_transmit = transmit_ring_.start(layouts[kTransmitQueue], features).has_value();
    negotiated_ = features;
    if (can_transmit)
        transmit_turn_.open();
    return can_receive && can_transmit;
}

void VirtioNet::stop() {
    transmit_turn_.close();
    clock_.disarm(*this);
    receive_ring_.with([](NetReceiveRing& ring) { ring.stop(); });
}

void VirtioNet::queue_notified(unsigned queue) {
    if (queue == kTransmitQueue)
        return transmit();
    if (net::SwitchPort* port = port_.load(std::memory_order_acquire))
        port->room_made();
}

// --- from the switch
// --------------------------------------------------------------------------------------------------------

net::Delivery VirtioNet::receive(const Frame& frame) {
    const auto result = receive_ring_.with([&](NetReceiveRing& ring) { return ring.put(frame); });
    if (result.broken)
        transport().needs_reset();
    if (result.interrupt)
        transport().queue_interrupt(kReceiveQueue);
    return result.delivery;
}

// --- to the switch
// ----------------------------------------------------------------------------------------------------------

void VirtioNet::transmit() {
    if (!transmit_turn_.enter())
        return;
    for (unsigned round = 0; round < kRounds; ++round) {
        if (transmit_ring_.has_work()) {
            std::uint64_t retry_at = 0;
            const Progress progress = transmit_ring(retry_at);
            if (transmit_ring_.publish())
                transport().queue_interrupt(kTransmitQueue);
            if (progress == Progress::more)
                break;
            if (progress == Progress::waits)
                clock_.arm(*this, retry_at);
        }
        // A note may say that there is room now for what waits.
        if (!transmit_turn_.leave())
            return;
    }
    clock_.arm(*this, clock_.now());
    transmit_turn_.abandon();
}

VirtioNet::Progress VirtioNet::transmit_ring(std::uint64_t& retry_at) {
    Chain chain{};
    transmit_ring_.suppress_notifications();
    std::uint64_t bytes = 0;
    for (unsigned frames = 0; frames < kFrameBudget && bytes < kByteBudget; ++frames) {
        const auto popped = transmit_ring_.pop(pieces_, chain);
        if (popped == Virtqueue::Pop::empty) {
            if (!transmit_ring_.request_notifications())
                return Progress::done;
            transmit_ring_.suppress_notifications();
            continue;
        }
        if (popped == Virtqueue::Pop::broken || chain.readable_size < sizeof(NetHeader)) {
            transmit_ring_.set_broken();
            transport().needs_reset();
            return Progress::done;
        }
        bytes += chain.readable_size;
        if (send(chain, retry_at) == net::Delivery::no_room) {
            transmit_ring_.unpop(1);
            return Progress::waits;
        }
        transmit_ring_.push(chain.head, 0);
    }
    return Progress::more;
}

net::Delivery VirtioNet::send(Chain& chain, std::uint64_t& retry_at) {
    NetHeader header{};
    const auto malformed = [&] {
        counters_.malformed.fetch_add(1, std::memory_order_relaxed);
        return net::Delivery::dropped;
    };
    const std::uint64_t size = chain.readable_size - sizeof header;
    if (chain.oversized || size < net::kMinFrameSize || size > net::kMaxFrameSize)
        return malformed();
    take_front(chain.readable, std::as_writable_bytes(std::span{&header, 1}));
    const FrameOffload offload = offload_of(header);
    if (!net::is_valid(offload, static_cast<std::uint32_t>(size)) || !may_ask(offload, negotiated_) ||
        (offload.gso_type == net::kGsoNone && size > mtu_ + kMtuOverhead))
        return malformed();
    net::SwitchPort* port = port_.load();
    if (port == nullptr)
        return net::Delivery::dropped;

    // The switch decides on the beginning of the frame: what it sees is what the receiver gets.
    decltype(Frame::header) start;
    const std::size_t start_size = take_front(chain.readable, start);
    net::FrameBuilder builder;
    builder.append(std::span{start}.first(start_size));
    for (const Piece& piece : chain.readable)
        builder.append(std::span<const std::byte>{piece.data, piece.size});
    return port->send(builder.frame(offload), retry_at);
}

}  // namespace hv::virtio
