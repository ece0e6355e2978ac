// SPDX-License-Identifier: MIT
#include "drivers/net/virtio_net_driver.hpp"

#include "drivers/net/received_frame.hpp"
#include "drivers/virtio/virtio_net_defs.hpp"
#include "vmm/base/log.hpp"
#include "vmm/base/text.hpp"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <new>
#include <utility>

namespace hv::netdrv {
namespace {

using namespace hv::virtio;

constexpr std::uint64_t kWanted = VIRTIO_NET_F_CSUM | VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_MAC |
                                  VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_HOST_TSO6 | VIRTIO_NET_F_HOST_ECN |
                                  VIRTIO_NET_F_STATUS | VIRTIO_NET_F_CTRL_VQ | VIRTIO_NET_F_CTRL_RX |
                                  VIRTIO_F_EVENT_IDX | VIRTIO_F_ACCESS_PLATFORM;

// [virtio1.2 5.1.2 Virtqueues]
constexpr std::uint16_t kReceiveQueue = 0;
constexpr std::uint16_t kTransmitQueue = 1;
constexpr std::uint16_t kControlQueue = 2;
constexpr std::uint16_t kControlQueueSize = 4;

constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr std::uint64_t kWatchPeriod = 1'000 * kMillisecond;
constexpr unsigned kMaxStalledLooks = 5;

/// The command to be promiscuous, as it lies in memory, and what the device answers.
struct PromiscuousCommand {
    NetControlHeader header;
    std::uint8_t on;
    std::uint8_t ack;
};

constinit log::RateLimit reset_log;

/// Locally administered, and another one at each boot: two hosts whose NICs have none may share a network.
MacAddress make_up_mac(pci::Bdf where, std::uint64_t ticks) {
    std::uint64_t bits = ticks ^ std::uint64_t{where.bus} << 48 ^ std::uint64_t{where.device} << 40 ^
                         std::uint64_t{where.function} << 32;
    bits = (bits ^ bits >> 30) * 0xbf58'476d'1ce4'e5b9;
    bits = (bits ^ bits >> 27) * 0x94d0'49bb'1331'11eb;
    MacAddress mac{};
    for (std::uint8_t& byte : mac) {
        byte = static_cast<std::uint8_t>(bits >> 56);
        bits <<= 8;
    }
    mac[0] = static_cast<std::uint8_t>((mac[0] & ~3U) | 2);
    return mac;
}

/// The device's address, if it has one that a station can have.
Expected<MacAddress> read_mac(PciTransport& transport, std::uint64_t features, const Clock& clock) {
    MacAddress mac{};
    if ((features & VIRTIO_NET_F_MAC) != 0) {
        HV_TRY(transport.read_config([&] {
            for (std::size_t i = 0; i < mac.size(); ++i)
                mac[i] = transport.config8(offsetof(NetConfig, mac) + i);
        }));
    }
    if (!is_station_address(mac))
        mac = make_up_mac(transport.function().address, clock.now());
    return mac;
}

/// Error::unsupported: there is no such queue.
Expected<std::uint16_t> queue_size(PciTransport& transport, std::uint16_t index, std::uint16_t wanted) {
    const std::uint16_t size = std::bit_floor(std::min(transport.max_queue_size(index), wanted));
    if (size == 0)
        return Unexpected{Error::unsupported};
    return size;
}

}  // namespace

// --- set-up
// -----------------------------------------------------------------------------------------------------------

Expected<std::unique_ptr<VirtioNetDriver>>
VirtioNetDriver::create(const PciTransport& transport, DmaPool& pool, Clock& clock, const Options& options) {
    PciTransport device = transport;
    auto parts = prepare(device, pool, clock);
    if (!parts) {
        device.shut_down();
        return Unexpected{parts.error()};
    }
    std::unique_ptr<VirtioNetDriver> driver{new (std::nothrow)
                                                VirtioNetDriver{device, clock, options, std::move(*parts)}};
    if (driver == nullptr) {
        device.shut_down();
        return Unexpected{Error::no_memory};
    }
    HV_TRY(driver->open());
    return driver;
}

Expected<VirtioNetDriver::Parts> VirtioNetDriver::prepare(PciTransport& transport, DmaPool& pool,
                                                          const Clock& clock) {
    HV_TRY(transport.reset(clock));
    const std::uint64_t features = HV_TRY(transport.negotiate(kWanted));
    const MacAddress mac = HV_TRY(read_mac(transport, features, clock));
    const std::uint16_t transmit_size =
        HV_TRY(queue_size(transport, kTransmitQueue, VirtioNetTransmitter::kMaxQueueSize));
    const std::uint16_t receive_size =
        HV_TRY(queue_size(transport, kReceiveQueue, VirtioNetReceiver::kMaxQueueSize));
    auto transmitter = HV_TRY(VirtioNetTransmitter::create(pool, transmit_size, features));
    auto receiver = HV_TRY(VirtioNetReceiver::create(pool, receive_size, features));
    Parts parts{features, mac, std::move(transmitter), std::move(receiver), std::nullopt};
    constexpr std::uint64_t kPromiscuous = VIRTIO_NET_F_CTRL_VQ | VIRTIO_NET_F_CTRL_RX;
    if ((features & kPromiscuous) == kPromiscuous) {
        const std::uint16_t size = HV_TRY(queue_size(transport, kControlQueue, kControlQueueSize));
        if (size < 2)
            return Unexpected{Error::unsupported};
        auto queue = HV_TRY(DriverQueue::create(pool, {size, 2, features}));
        auto memory = HV_TRY(pool.allocate(sizeof(PromiscuousCommand)));
        parts.control.emplace(Control{std::move(queue), std::move(memory)});
    }
    return parts;
}

VirtioNetDriver::VirtioNetDriver(const PciTransport& transport, Clock& clock, const Options& options,
                                 Parts&& parts)
    : transport_{transport},
      clock_{clock},
      options_{options},
      features_{parts.features},
      mac_{parts.mac},
      sender_{Sender{std::move(parts.transmitter), {}, false}},
      receiver_{std::move(parts.receiver)},
      control_{std::move(parts.control)} {}

VirtioNetDriver::~VirtioNetDriver() {
    clock_.disarm(watch_);
    clock_.disarm(again_);
    transport_.shut_down();
}

Expected<void> VirtioNetDriver::open() {
    const std::uint16_t vector = options_.vectors > 0 ? std::uint16_t{0} : VIRTIO_MSI_NO_VECTOR;
    receiver_.start();
    receive_doorbell_ = HV_TRY(transport_.enable_queue(kReceiveQueue, receiver_.queue(), vector));
    Doorbell control_doorbell;
    if (control_) {
        control_->queue.start();
        control_->queue.suppress_interrupts();
        control_doorbell =
            HV_TRY(transport_.enable_queue(kControlQueue, control_->queue, VIRTIO_MSI_NO_VECTOR));
    }
    HV_TRY(sender_.with([&](Sender& sender) -> Expected<void> {
        sender.ring.start();
        sender.doorbell =
            HV_TRY(transport_.enable_queue(kTransmitQueue, sender.ring.queue(), VIRTIO_MSI_NO_VECTOR));
        transport_.set_driver_ok();
        sender.open = true;
        return {};
    }));
    if (control_)
        send_promiscuous(control_doorbell);
    update_link();
    return {};
}

void VirtioNetDriver::send_promiscuous(const Doorbell& doorbell) {
    // [virtio1.2 5.1.6.5.1 Packet Receive Filtering]; the answer is looked at by the watch.
    const DmaBuffer& memory = control_->memory;
    *memory.at<PromiscuousCommand>() = {{VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC}, 1, VIRTIO_NET_ERR};
    constexpr std::size_t kAck = offsetof(PromiscuousCommand, ack);
    const std::array<QueueBuffer, 2> buffers{
        {{memory.address(), kAck}, {memory.address() + kAck, sizeof(PromiscuousCommand::ack)}}};
    const bool added = control_->queue.add(buffers, 1, 0);  // the queue is empty
    HV_ASSERT(added);
    if (control_->queue.publish())
        doorbell.ring();
}

OffloadSupport VirtioNetDriver::offloads() const {
    const bool checksum = has(VIRTIO_NET_F_CSUM);
    return {.checksum = checksum,
            .tcp4 = checksum && has(VIRTIO_NET_F_HOST_TSO4),
            .tcp6 = checksum && has(VIRTIO_NET_F_HOST_TSO6),
            .ecn = checksum && has(VIRTIO_NET_F_HOST_ECN)};
}

// --- sending
// -----------------------------------------------------------------------------------------------------------

bool VirtioNetDriver::transmit(const Frame& frame) {
    using Put = VirtioNetTransmitter::Put;
    bool notify = false;
    Doorbell doorbell;
    const Put put = sender_.with([&](Sender& sender) {
        if (!sender.open)
            return Put::no_room;
        const Put result = sender.ring.put(frame);
        notify = result == Put::queued && sender.ring.publish();
        doorbell = sender.doorbell;
        return result;
    });
    if (notify)
        doorbell.ring();
    if (put == Put::no_room)
        counters_.no_room();
    if (put != Put::queued)
        return false;
    counters_.sent(frame.size);
    return true;
}

// --- receiving
// -----------------------------------------------------------------------------------------------------------

void VirtioNetDriver::start(NetUser& user) {
    user_.store(&user, std::memory_order_release);
    clock_.arm_after(watch_, kWatchPeriod);
    service();
}

void VirtioNetDriver::service() {
    FrameSink* const sink = user_.load(std::memory_order_acquire);
    if (sink == nullptr || !turn_.enter())
        return;
    unsigned left = kReceiveBudget;
    do {
        if (watch_due_.exchange(false))
            look_after();
        if (state_ == State::working)
            left -= receive(left, *sink);
        if (left == 0) {
            // In this order: a timer that finds us still at work would be lost.
            turn_.abandon();
            return clock_.arm_after(again_, 0);
        }
    } while (turn_.leave());
    sender_.with([](Sender& sender) { sender.ring.reclaim(); });
}

unsigned VirtioNetDriver::receive(unsigned budget, FrameSink& sink) {
    unsigned looked_at = 0;
    receiver_.suppress_interrupts();
    while (looked_at < budget) {
        const auto arrival = receiver_.next();
        if (!arrival) {
            if (receiver_.request_interrupts())
                continue;
            break;
        }
        deliver(*arrival, sink);
        receiver_.release(arrival->buffer);
        if (++looked_at % kReceiveBatch == 0)
            give_back_buffers();
    }
    give_back_buffers();
    return looked_at;
}

void VirtioNetDriver::deliver(const VirtioNetReceiver::Arrival& arrival, FrameSink& sink) {
    if (arrival.damaged)
        return counters_.error();
    counters_.received(static_cast<std::uint32_t>(arrival.data.size()));
    hand_on(arrival.data, arrival.offload, sink);
}

void VirtioNetDriver::give_back_buffers() {
    if (receiver_.publish())
        receive_doorbell_.ring();
}

// --- the device's health
// ---------------------------------------------------------------------------------------------------

void VirtioNetDriver::watch() {
    watch_due_ = true;
    service();
}

void VirtioNetDriver::look_after() {
    if (state_ == State::resetting)
        continue_reset();
    else if (state_ == State::working) {
        if (const char* why = check())
            begin_reset(why);
    }
    if (state_ != State::gone)
        clock_.arm_after(watch_, state_ == State::resetting ? kMillisecond : kWatchPeriod);
}

const char* VirtioNetDriver::check() {
    update_link();
    check_control();
    bool broken = receiver_.queue().broken() || (control_ && control_->queue.broken());
    const bool stalled = sender_.with([&](Sender& sender) {
        const bool result = sender.ring.stalled();
        broken = broken || sender.ring.queue().broken();
        return result;
    });
    stalled_looks_ = stalled ? stalled_looks_ + 1 : 0;
    if (broken)
        return "it broke the rules of its queues";
    if (stalled_looks_ >= kMaxStalledLooks)
        return "it sends nothing";
    return transport_.needs_reset() ? "it stopped" : nullptr;
}

void VirtioNetDriver::check_control() {
    if (!control_ || !control_->queue.reap())
        return;
    if (control_->memory.at<PromiscuousCommand>()->ack != VIRTIO_NET_OK)
        log::warning(log::Topic::net, "%.*s: the device does not receive what is for others",
                     width(options_.name), options_.name.data());
}

void VirtioNetDriver::update_link() {
    const bool up = !has(VIRTIO_NET_F_STATUS) ||
                    (transport_.config16(offsetof(NetConfig, status)) & VIRTIO_NET_S_LINK_UP) != 0;
    if (link_up_.exchange(up) == up)
        return;
    if (!up)
        return log::warning(log::Topic::net, "%.*s: link down", width(options_.name), options_.name.data());
    log::info(log::Topic::net, "%.*s: link up", width(options_.name), options_.name.data());
    if (NetUser* const user = user_.load(std::memory_order_acquire))
        user->link_restored();
}

void VirtioNetDriver::begin_reset(const char* why) {
    counters_.device_reset();
    if (reset_log.admit())
        log::warning(log::Topic::net, "%.*s: %s: reset", width(options_.name), options_.name.data(), why);
    sender_.with([](Sender& sender) { sender.open = false; });
    state_ = State::resetting;
    stalled_looks_ = 0;
    transport_.begin_reset();
}

void VirtioNetDriver::continue_reset() {
    const PciTransport::Reset progress = transport_.poll_reset(features_);
    if (progress == PciTransport::Reset::pending)
        return;
    if (progress == PciTransport::Reset::done && open()) {
        state_ = State::working;
        return;
    }
    transport_.shut_down();
    state_ = State::gone;
    link_up_ = false;
    log::error(log::Topic::net, "%.*s: the device does not answer any more and is given up",
               width(options_.name), options_.name.data());
}

}  // namespace hv::netdrv
