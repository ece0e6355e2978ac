// SPDX-License-Identifier: MIT
#include "vmm/net/switch_port.hpp"

#include "vmm/net/offload.hpp"
#include "vmm/net/sender_check.hpp"
#include "vmm/net/switch.hpp"
#include "vmm/net/vlan.hpp"

#include <algorithm>
#include <bit>

namespace hv::net {
namespace {

void count(std::atomic<std::uint64_t>& counter, std::uint64_t amount = 1) {
    counter.fetch_add(amount, std::memory_order_relaxed);
}

/// Whether the bucket lets a frame pass; if not, it does at `ready_at`.
bool ready(Guarded<TokenBucket, Rank::leaf>& guarded, const Clock& clock, std::uint64_t& ready_at) {
    return guarded.with([&](TokenBucket& bucket) {
        const bool passes = bucket.ready(clock, clock.now());
        if (!passes)
            ready_at = bucket.ready_at(clock);
        return passes;
    });
}

/// How much of its payload has been taken.
std::uint32_t progress_of(const Frame& frame) {
    return frame.progress != nullptr ? *frame.progress : 0;
}

/// Spends what of a frame was taken since `before`: of one that waits a part, else all the rest. A sender may
/// have changed it meanwhile into one that is smaller than what was taken.
void charge(Guarded<TokenBucket, Rank::leaf>& guarded, const Frame& frame, bool waits, std::uint32_t before) {
    const std::uint32_t until = waits ? progress_of(frame) : frame.size;
    if (until > before)
        guarded.with([&](TokenBucket& bucket) { bucket.spend(until - before); });
}

}  // namespace

void SwitchPort::open(Station& station, const PortOptions& options) {
    station_ = &station;
    options_ = options;
    vlans_ = options.vlans;
    if (!is_uplink())
        vlans_.add(options.vlan);
    else if (vlans_.empty())
        vlans_ = VlanSet::all();
    full_since_ = 0;
    most_patience_ = switch_.clock_.from_nanoseconds(kPatienceNs);
    earned_patience_ = switch_.clock_.from_nanoseconds(kEarnedPatienceNs);
    patience_ = most_patience_;
    has_waiters_ = false;
    for (auto& word : waiters_)
        word = 0;
    // A hundredth of a second's worth, and a few large frames at least.
    const auto limit = [](auto& guarded, std::uint64_t bits_per_second) {
        const std::uint64_t rate = bits_per_second / 8;
        guarded.with([&](TokenBucket& bucket) {
            bucket = TokenBucket{rate, std::max(rate / 100, kMinBurst)};
        });
    };
    limit(sent_, options.bits_per_second);
    limit(received_, options.receive_bits_per_second);
    const std::uint64_t storm_limit = switch_.options_.storm_limit;
    flooded_.with([&](TokenBucket& bucket) { bucket = TokenBucket{storm_limit, storm_limit}; });
    counters_.clear();
    open_ = true;
}

std::optional<Refusal> SwitchPort::refusal(const Frame& frame, bool tagged, std::uint16_t vlan) const {
    // What has a second tag would come out of the switch as a frame of that VLAN where the first is left out.
    if (!carries(vlan) || (tagged && (is_tagged(frame, kTagSize) || (!is_uplink() && vlan == options_.vlan))))
        return Refusal::vlan;
    if (learns())
        return std::nullopt;
    const auto* source = reinterpret_cast<const std::uint8_t*>(frame.header.data()) + kSourceAddress;
    if (!std::equal(options_.mac.begin(), options_.mac.end(), source))
        return Refusal::source;
    const std::size_t type_at = kTypeField + (tagged ? kTagSize : 0);
    if ((options_.addresses.count != 0 || number_at(frame, type_at) == kTypeArp) &&
        !speaks_for_itself(frame, type_at, options_.mac, options_.addresses.span()))
        return Refusal::sender;
    return std::nullopt;
}

Delivery SwitchPort::refuse(Refusal reason) {
    count(counters_.refused[static_cast<std::size_t>(reason)]);
    return Delivery::dropped;
}

bool SwitchPort::may_send(std::uint64_t& ready_at) {
    return options_.bits_per_second == 0 || ready(sent_, switch_.clock_, ready_at);
}

bool SwitchPort::may_flood(const Frame& frame) {
    if (switch_.options_.storm_limit == 0)
        return true;
    const bool passes = flooded_.with([&](TokenBucket& bucket) {
        const bool has_credit = bucket.ready(switch_.clock_, switch_.clock_.now());
        bucket.spend(has_credit ? segment_count(frame) : 0);
        return has_credit;
    });
    if (!passes)
        count(counters_.storm);
    return passes;
}

void SwitchPort::tap(FrameTap::Direction direction, const Frame& frame) {
    if (FrameTap* tap = switch_.tap_.load(std::memory_order_acquire)) [[unlikely]]
        tap->see(index_, direction, frame);
}

Delivery SwitchPort::send(const Frame& frame, std::uint64_t& retry_at) {
    const bool tagged = is_tagged(frame);
    const std::uint16_t vlan = tagged ? vlan_of(frame) : options_.vlan;
    if (const auto reason = refusal(frame, tagged, vlan))
        return refuse(*reason);
    if (!may_send(retry_at)) {
        count(counters_.rate_waits);
        return is_uplink() ? Delivery::dropped : Delivery::no_room;
    }
    Delivery delivery = Delivery::dropped;
    const std::uint32_t before = progress_of(frame);
    if (tagged) {
        Retagged inner;
        if (inner.strip(frame))
            delivery = switch_.forward(*this, inner.frame(), vlan, retry_at);
    } else {
        delivery = switch_.forward(*this, frame, vlan, retry_at);
    }
    if (options_.bits_per_second != 0)
        charge(sent_, frame, delivery == Delivery::no_room, before);
    if (delivery == Delivery::no_room) {
        count(counters_.waits);
        return delivery;
    }
    tap(FrameTap::Direction::from_station, frame);
    if (delivery == Delivery::taken) {
        count(counters_.frames_in);
        count(counters_.bytes_in, frame.size);
    }
    return delivery;
}

Delivery SwitchPort::offer(const Frame& frame, std::uint16_t vlan, std::uint64_t& ready_at) {
    if (options_.receive_bits_per_second != 0 && !ready(received_, switch_.clock_, ready_at))
        return Delivery::no_room;
    if (vlan == options_.vlan)
        return give(frame);
    Retagged outer;
    return outer.insert(frame, vlan) ? give(outer.frame()) : Delivery::dropped;
}

Delivery SwitchPort::give(const Frame& frame) {
    const std::uint32_t before = progress_of(frame);
    const Delivery delivery = station_->receive(frame);
    const bool partly = delivery == Delivery::partly;
    if (!partly && delivery != Delivery::taken)
        return delivery;
    if (options_.receive_bits_per_second != 0)
        charge(received_, frame, partly, before);
    earn_patience();
    if (partly)
        return Delivery::no_room;
    count(counters_.frames_out);
    count(counters_.bytes_out, frame.size);
    tap(FrameTap::Direction::to_station, frame);
    return delivery;
}

// CPUs that race in the next two functions may credit or charge a little too much or too little, never
// without bound.
void SwitchPort::earn_patience() {
    std::uint64_t patience = patience_.load(std::memory_order_relaxed);
    if (full_since_.load(std::memory_order_relaxed) != 0) {
        const std::uint64_t since = full_since_.exchange(0);
        const std::uint64_t now = switch_.clock_.now();
        const std::uint64_t waited = since != 0 && now > since ? now - since : 0;
        patience -= std::min(patience, waited);
    }
    if (patience < most_patience_)
        patience_.store(std::min(patience + earned_patience_, most_patience_), std::memory_order_relaxed);
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
    std::uint64_t ready_at = 0;  // not 0: it is the station's rate that the frame has to wait for
    Delivery delivery = offer(frame, vlan, ready_at);
    if (delivery == Delivery::no_room && patient_sender != nullptr) {
        const std::uint64_t now = switch_.clock_.now();
        retry_at = waits_until(now);
        if (now < retry_at) {
            if (ready_at != 0) {
                retry_at = std::min(retry_at, ready_at);
                return delivery;
            }
            waiters_[patient_sender->index_ / 64].fetch_or(std::uint64_t{1} << patient_sender->index_ % 64);
            has_waiters_ = true;
            // Room that was made before we were on the list is found now; of room made later we are told.
            delivery = offer(frame, vlan, ready_at);
            if (delivery == Delivery::no_room)
                return delivery;
        }
    }
    if (delivery == Delivery::taken)
        return delivery;
    count(ready_at != 0 ? counters_.over_rate : counters_.lost);
    return Delivery::dropped;
}

void SwitchPort::network_changed() {
    switch_.for_each_from(*this, [&](SwitchPort& to) {
        if (to.vlans_.meets(vlans_))
            to.station_->network_changed();
    });
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
