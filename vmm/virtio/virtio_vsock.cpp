// SPDX-License-Identifier: MIT
#include "vmm/virtio/virtio_vsock.hpp"

#include "vmm/virtio/piece_list.hpp"

#include <new>

namespace hv::virtio {

VirtioVsock::VirtioVsock(const GuestMemory& memory, Clock& clock, std::uint64_t guest_cid,
                         VsockEndpoint endpoint)
    : guest_cid_{guest_cid},
      clock_{clock},
      host_{memory, std::move(endpoint)},
      transmit_{*this, kTurnBytes, memory, clock} {}

Expected<std::unique_ptr<VirtioVsock>> VirtioVsock::create(const GuestMemory& memory, Clock& clock,
                                                           const Options& options) {
    if (options.guest_cid < kVsockFirstGuestCid || options.guest_cid > kVsockLastGuestCid)
        return Unexpected{Error::invalid_argument};
    VsockEndpoint endpoint = HV_TRY(VsockEndpoint::create(options.guest_cid, options.services));
    std::unique_ptr<VirtioVsock> device{
        new (std::nothrow) VirtioVsock{memory, clock, options.guest_cid, std::move(endpoint)}};
    if (device == nullptr)
        return Unexpected{Error::no_memory};
    return device;
}

VirtioVsock::~VirtioVsock() {
    stop();
}

bool VirtioVsock::start(std::uint64_t features, std::span<const QueueLayout> layouts) {
    const QueueLayout& receive = layouts[kReceiveQueue];
    const bool can_receive = host_.with([&](HostSide& host) {
        host.live = receive.size != 0 && host.ring.start(receive, features).has_value();
        return host.live || receive.size == 0;
    });
    return transmit_.start(kTransmitQueue, layouts[kTransmitQueue], features, transport()).has_value() &&
           can_receive;
}

void VirtioVsock::stop() {
    transmit_.stop();
    host_.with([](HostSide& host) {
        host.live = false;
        host.ring.stop();
        host.endpoint.clear();
    });
    clock_.disarm(*this);
    clock_.disarm(answers_);
}

void VirtioVsock::queue_notified(unsigned queue) {
    if (queue == kTransmitQueue)
        transmit_.process();
    else if (queue == kReceiveQueue)
        pump();
}

Expected<void> VirtioVsock::connect(std::uint32_t port, VsockService& service) {
    Expected<void> begun = Unexpected{Error::not_found};
    conclude(host_.with([&](HostSide& host) -> Outcome {
        if (!host.live || host.ring.broken())
            return {};
        begun = host.endpoint.connect(port, service, clock_.now() + clock_.from_nanoseconds(kAnswerNs));
        expire(host);
        return deliver(host);
    }));
    transmit_.process();
    return begun;
}

void VirtioVsock::serve(VsockService& service) {
    conclude(host_.with([&](HostSide& host) {
        host.endpoint.serve(service);
        return deliver(host);
    }));
    transmit_.process();
}

void VirtioVsock::expire() {
    host_.with([this](HostSide& host) { expire(host); });
}

void VirtioVsock::expire(HostSide& host) {
    if (const std::uint64_t next = host.endpoint.expire(clock_.now()); next != VsockEndpoint::kNever)
        clock_.arm(answers_, next);
}

unsigned VirtioVsock::connections() {
    return host_.with([](const HostSide& host) { return host.endpoint.connections(); });
}

QueueClient::Step VirtioVsock::next(unsigned, Virtqueue& ring, Effort& effort) {
    Chain chain{};
    if (const auto popped = ring.pop(pieces_, chain); popped != Virtqueue::Pop::ready)
        return step_without(popped);
    VsockHeader header{};
    if (take_front(chain.readable, std::as_writable_bytes(std::span{&header, 1})) != sizeof header)
        return Step::broken;
    // What answers find no buffers must be bounded: the guest's packets wait until it has taken some
    // [virtio1.2 5.10.6.1 Virtqueue Flow Control].
    bool taken = false;
    conclude(host_.with([&](HostSide& host) -> Outcome {
        Outcome outcome;
        if (!host.endpoint.has_room())
            outcome = deliver(host);  // there may be some then
        taken = host.endpoint.has_room();
        if (!taken)
            return outcome;
        host.endpoint.receive(header, chain.readable);
        const Outcome answered = deliver(host);
        return {outcome.interrupt || answered.interrupt, outcome.broken || answered.broken};
    }));
    if (!taken) {
        ring.unpop(1);
        return Step::waits;
    }
    effort.spent += sizeof header + header.len;
    ring.push(chain.head, 0);
    return Step::handled;
}

void VirtioVsock::pump() {
    conclude(host_.with([&](HostSide& host) { return deliver(host); }));
    transmit_.process();
}

VirtioVsock::Outcome VirtioVsock::deliver(HostSide& host) {
    if (!host.live || host.ring.broken())
        return {};
    Chain chain{};
    host.ring.suppress_notifications();
    for (unsigned packets = 0; host.endpoint.has_output(); ++packets) {
        if (packets == kPackets) {
            clock_.arm(*this, clock_.now());
            break;
        }
        const auto popped = host.ring.pop(host.pieces, chain);
        if (popped == Virtqueue::Pop::empty) {
            if (!host.ring.request_notifications())
                break;
            continue;
        }
        if (popped == Virtqueue::Pop::absent) {
            clock_.arm_after(*this, Virtqueue::kRetryNs);
            break;
        }
        if (popped == Virtqueue::Pop::broken || chain.writable_size <= sizeof(VsockHeader)) {
            host.ring.set_broken();
            return {host.ring.publish(), true};
        }
        host.ring.push(chain.head, host.endpoint.send(chain.writable));
    }
    return {host.ring.publish(), false};
}

void VirtioVsock::conclude(Outcome outcome) {
    if (outcome.broken)
        transport().needs_reset();
    if (outcome.interrupt)
        transport().queue_interrupt(kReceiveQueue);
}

}  // namespace hv::virtio
