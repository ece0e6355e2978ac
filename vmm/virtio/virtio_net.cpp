// SPDX-License-Identifier: MIT
#include "vmm/virtio/virtio_net.hpp"

#include <cstddef>

namespace hv::virtio {
namespace {

constexpr std::uint16_t kMinMtu =
    68;  ///< [virtio1.2 5.1.4.1 Device Requirements: Device configuration layout]

constexpr std::uint64_t kGuestTso = VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_TSO6;
constexpr std::uint64_t kHostTso = VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_HOST_TSO6;
/// What takes the control queue.
constexpr std::uint64_t kControlled =
    VIRTIO_NET_F_CTRL_RX | VIRTIO_NET_F_CTRL_VLAN | VIRTIO_NET_F_GUEST_ANNOUNCE | VIRTIO_NET_F_CTRL_MAC_ADDR;

}  // namespace

Expected<std::unique_ptr<VirtioNet>> VirtioNet::create(const GuestMemory& memory, Clock& clock,
                                                       const Options& options) {
    if (options.mtu < kMinMtu || (options.mac[0] & 1) != 0 || options.pairs == 0 || options.pairs > kMaxPairs)
        return Unexpected{Error::invalid_argument};
    std::unique_ptr<VirtioNet> device{new (std::nothrow) VirtioNet{memory, clock, options}};
    if (device == nullptr)
        return Unexpected{Error::no_memory};
    for (unsigned i = 0; i < options.pairs; ++i) {
        auto pair = HV_TRY(make<NetQueuePair>(*device, i, memory, clock));
        HV_TRY(device->pairs_.push(std::move(pair)));
    }
    return device;
}

VirtioNet::~VirtioNet() {
    stop();
}

void VirtioNet::connect(net::SwitchPort* port) {
    cable_ = port;
    port_.store(link_ == Link::up ? port : nullptr);
    if (port == nullptr)
        clock_.disarm(announcement_);
    for (const auto& pair : pairs_)
        pair->transmit.wait();
    if (has_transport())
        transport().config_changed();
}

void VirtioNet::set_link(Link link) {
    if (link == link_)
        return;
    link_ = link;
    port_.store(link == Link::up ? cable_ : nullptr);
    // Frames that wait for room here go on: to be lost.
    if (cable_ != nullptr)
        cable_->room_made();
    transport().config_changed();
    if (link == Link::up)
        clock_.arm_after(announcement_, kAnnounceDelayNs);
}

void VirtioNet::network_changed() {
    if (port_.load() != nullptr)
        announce();
}

void VirtioNet::announce() {
    if ((negotiated_.load() & VIRTIO_NET_F_GUEST_ANNOUNCE) == 0)
        return;
    announce_.store(true);
    transport().config_changed();
}

std::uint64_t VirtioNet::features() const {
    return VIRTIO_NET_F_CSUM | VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_MTU | VIRTIO_NET_F_MAC | kGuestTso |
           VIRTIO_NET_F_GUEST_ECN | kHostTso | VIRTIO_NET_F_HOST_ECN | VIRTIO_NET_F_MRG_RXBUF |
           VIRTIO_NET_F_STATUS | VIRTIO_NET_F_CTRL_VQ | VIRTIO_NET_F_CTRL_RX_EXTRA | kControlled |
           (pairs_.size() > 1 ? VIRTIO_NET_F_MQ : 0);
}

bool VirtioNet::accepts(std::uint64_t features) const {
    // [virtio1.2 5.1.3.1 Feature bit requirements]
    const auto implies = [&](std::uint64_t feature, std::uint64_t any_of) {
        return (features & feature) == 0 || (features & any_of) != 0;
    };
    return implies(kGuestTso, VIRTIO_NET_F_GUEST_CSUM) && implies(kHostTso, VIRTIO_NET_F_CSUM) &&
           implies(VIRTIO_NET_F_GUEST_ECN, kGuestTso) && implies(VIRTIO_NET_F_HOST_ECN, kHostTso) &&
           implies(kControlled | VIRTIO_NET_F_MQ, VIRTIO_NET_F_CTRL_VQ);
}

std::uint64_t VirtioNet::read_config(std::uint64_t offset, unsigned size) const {
    NetConfig config{};
    config.mac = filter_.own();
    if (port_.load(std::memory_order_relaxed) != nullptr)
        config.status |= VIRTIO_NET_S_LINK_UP;
    if (announce_.load(std::memory_order_relaxed))
        config.status |= VIRTIO_NET_S_ANNOUNCE;
    config.max_virtqueue_pairs = static_cast<std::uint16_t>(pairs_.size());
    config.mtu = mtu_;
    return read_bytes(std::as_bytes(std::span{&config, 1}), offset, size);
}

bool VirtioNet::start(std::uint64_t features, std::span<const QueueLayout> layouts) {
    // Without multiqueue the control queue follows the first pair [virtio1.2 5.1.2 Virtqueues].
    const auto pairs = static_cast<unsigned>((features & VIRTIO_NET_F_MQ) != 0 ? pairs_.size() : 1);
    control_index_.store(2 * pairs);
    filter_.reset(features);
    steering_.reset();
    const std::uint32_t max_frame =
        (features & VIRTIO_NET_F_MTU) != 0 ? max_frame_size() : net::kMaxFrameSize;
    bool usable = true;
    for (unsigned i = 0; i < pairs; ++i) {
        NetQueuePair& pair = *pairs_[i];
        const bool can_receive = pair.receive.with([&](NetReceiveRing& ring) {
            return ring.start(layouts[receive_queue(i)], features, max_frame).has_value();
        });
        const bool can_transmit = pair.transmit.start(layouts[transmit_queue(i)], features).has_value();
        usable = usable && can_receive && can_transmit;
    }
    if ((features & VIRTIO_NET_F_CTRL_VQ) != 0)
        usable =
            control_.start(control_queue(), layouts[control_queue()], features, transport()).has_value() &&
            usable;
    negotiated_.store(features);
    return usable;
}

void VirtioNet::stop() {
    negotiated_.store(0);
    filter_.reset(0);
    control_.stop();
    for (const auto& pair : pairs_) {
        pair->transmit.stop();
        pair->receive.with([](NetReceiveRing& ring) { ring.stop(); });
    }
    announce_.store(false);
}

bool VirtioNet::use_pairs(unsigned count) {
    if (count == 0 || count > pairs_.size())
        return false;
    for (unsigned i = 0; i < count; ++i)
        if (!pairs_[i]->receive.with([](NetReceiveRing& ring) { return ring.live(); }))
            return false;
    steering_.set_pairs(count);
    // Nothing is received on the others once the driver has the answer [virtio1.2 5.1.6.5.6.2 Device
    // Requirements: Automatic receive steering in multiqueue mode]: who is at it ends that now.
    for (std::size_t i = count; i < pairs_.size(); ++i)
        pairs_[i]->receive.with([](NetReceiveRing&) {});
    // What waited for room there finds it elsewhere.
    if (net::SwitchPort* port = port_.load(std::memory_order_acquire))
        port->room_made();
    return true;
}

void VirtioNet::queue_notified(unsigned queue) {
    if (queue % 2 != 0)
        return pairs_[queue / 2]->transmit.process();
    if (queue == control_queue())
        return control_.process();
    if (queue / 2 < pairs_.size())
        pairs_[queue / 2]->receive.with([](NetReceiveRing& ring) { ring.note_buffers(); });
    if (net::SwitchPort* port = port_.load(std::memory_order_acquire))
        port->room_made();
}

net::Delivery VirtioNet::receive(const Frame& frame) {
    if (port_.load(std::memory_order_acquire) == nullptr)
        return net::Delivery::dropped;
    if (!filter_.passes(frame)) {
        counters_.filtered.fetch_add(1, std::memory_order_relaxed);
        return net::Delivery::dropped;
    }
    const unsigned pair = steering_.pair_for(frame);
    const auto result = pairs_[pair]->receive.with([&](NetReceiveRing& ring) {
        // Whether the pair is in use still: use_pairs() takes this lock.
        return pair < steering_.pairs() ? ring.put(frame)
                                        : NetReceiveRing::Result{net::Delivery::dropped, false, false};
    });
    if (result.broken)
        report_broken();
    if (result.interrupt)
        interrupt(receive_queue(pair));
    return result.delivery;
}

void VirtioNet::resume() {
    for (const auto& pair : pairs_)
        pair->transmit.process();
}

}  // namespace hv::virtio
