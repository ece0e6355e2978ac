// SPDX-License-Identifier: MIT
#include "vmm/net/switch_port.hpp"

#include "vmm/net/switch.hpp"
#include "vmm/net/vlan.hpp"

#include <algorithm>
#include <bit>

namespace hv::net {
namespace {

void count(std::atomic<std::uint64_t>& counter, std::uint64_t amount = 1) {
    counter.fetch_add(amount, std::memory_order_relaxed);
}

}  // namespace

void SwitchPort::open(Station& station, const PortOptions& options) {
    const std::uint64_t rate = options.bits_per_second / 8;
    station_ = &station;
    options_ = options;
    full_since_ = 0;
    patience_ = switch_.clock_.from_nanoseconds(kPatienceNs);
    has_waiters_ = false;
    for (auto& word : waiters_)
        word = 0;
    // A hundredth of a second's worth, and a few large frames at least.
    bucket_.with([&](TokenBucket& bucket) { bucket = TokenBucket{rate, std::max(rate / 100, kMinBurst)}; });
    open_ = true;
}

bool SwitchPort::admits(const Frame& frame, std::uint16_t& vlan) const {
    const bool tagged = is_tagged(frame);
    if (options_.kind == PortOptions::Kind::uplink) {
        vlan = tagged ? vlan_of(frame) : std::uint16_t{0};
        return true;
    }
    vlan = options_.vlan;
    const auto* source = reinterpret_cast<const std::uint8_t*>(frame.header.data()) + 6;
    return !tagged && std::equal(options_.mac.begin(), options_.mac.end(), source);
}

Delivery SwitchPort::send(const Frame& frame, std::uint64_t& retry_at) {
    std::uint16_t vlan = 0;
    if (!admits(frame, vlan)) {
        count(counters_.refused);
        return Delivery::dropped;
    }
    Clock& clock = switch_.clock_;
    if (options_.bits_per_second != 0) {
        const bool ready = bucket_.with([&](TokenBucket& bucket) {
            const bool passes = bucket.ready(clock, clock.now());
            if (!passes)
                retry_at = bucket.ready_at(clock);
            return passes;
        });
        if (!ready) {
            count(counters_.waits);
            return options_.kind == PortOptions::Kind::access ? Delivery::no_room : Delivery::dropped;
        }
    }
    Delivery delivery = Delivery::dropped;
    if (options_.kind == PortOptions::Kind::uplink && is_tagged(frame)) {
        Retagged inner;
        if (inner.strip(frame))
            delivery = switch_.forward(*this, inner.frame(), vlan, retry_at);
    } else {
        delivery = switch_.forward(*this, frame, vlan, retry_at);
    }
    if (delivery == Delivery::no_room) {
        count(counters_.waits);
        return delivery;
    }
    if (options_.bits_per_second != 0)
        bucket_.with([&](TokenBucket& bucket) { bucket.spend(frame.size); });
    if (delivery == Delivery::taken) {
        count(counters_.frames_in);
        count(counters_.bytes_in, frame.size);
    }
    return delivery;
}

Delivery SwitchPort::offer(const Frame& frame, std::uint16_t vlan) {
    Delivery delivery = Delivery::dropped;
    if (options_.kind == PortOptions::Kind::uplink && vlan != 0) {
        Retagged outer;
        if (outer.insert(frame, vlan))
            delivery = station_->receive(outer.frame());
    } else {
        delivery = station_->receive(frame);
    }
    if (delivery == Delivery::taken)
        note_taken(frame.size);
    return delivery;
}

// CPUs that race in the next two functions may credit or charge a little too much or too little, never
// without bound.
void SwitchPort::note_taken(std::uint32_t size) {
    const Clock& clock = switch_.clock_;
    const std::uint64_t most = clock.from_nanoseconds(kPatienceNs);
    std::uint64_t patience = patience_.load(std::memory_order_relaxed);
    if (full_since_.load(std::memory_order_relaxed) != 0) {
        const std::uint64_t since = full_since_.exchange(0);
        const std::uint64_t now = clock.now();
        const std::uint64_t waited = since != 0 && now > since ? now - since : 0;
        patience -= std::min(patience, waited);
    }
    if (patience < most)
        patience_.store(std::min(patience + clock.from_nanoseconds(kEarnedPatienceNs), most),
                        std::memory_order_relaxed);
    count(counters_.frames_out);
    count(counters_.bytes_out, size);
}

std::uint64_t SwitchPort::waits_until(std::uint64_t now) {
    std::uint64_t since = 0;
    now = std::max<std::uint64_t>(now, 1);  // 0 says that there is room
    if (full_since_.compare_exchange_strong(since, now))
        since = now;
    return since + patience_.load(std::memory_order_relaxed);
}

Delivery SwitchPort::deliver(const Frame& frame, std::uint16_t vlan, SwitchPort* patient_sender,
                             std::uint64_t& retry_at) {
    Delivery delivery = offer(frame, vlan);
    if (delivery == Delivery::no_room && patient_sender != nullptr) {
        const std::uint64_t now = switch_.clock_.now();
        retry_at = waits_until(now);
        if (now < retry_at) {
            waiters_[patient_sender->index_ / 64].fetch_or(std::uint64_t{1} << patient_sender->index_ % 64);
            has_waiters_ = true;
            // Room that was made before we were on the list is found now; of room made later we are told.
            delivery = offer(frame, vlan);
            if (delivery == Delivery::no_room)
                return delivery;
        }
    }
    if (delivery == Delivery::taken)
        return delivery;
    count(counters_.lost);
    return Delivery::dropped;
}

void SwitchPort::room_made() {
    if (!has_waiters_.exchange(false))
        return;
    for (std::size_t i = 0; i < waiters_.size(); ++i) {
        for (std::uint64_t left = waiters_[i].exchange(0); left != 0; left &= left - 1) {
            const auto waiter = switch_.use(i * 64 + static_cast<std::size_t>(std::countr_zero(left)));
            if (waiter.get() != nullptr)
                waiter.get()->station_->resume();
        }
    }
}

}  // namespace hv::net
