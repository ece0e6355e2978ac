// SPDX-License-Identifier: MIT
#include "vmm/x86/local_apic_timer.hpp"

#include "vmm/x86/local_apic_registers.hpp"

#include <algorithm>

namespace hv {

LocalApicTimer::LocalApicTimer(Clock& clock, Client& client)
    : clock_{clock},
      client_{client},
      bus_{clock.hz(), kBusHz},
      shortest_wakeup_{clock.from_nanoseconds(kShortestWakeupNs)} {}

bool LocalApicTimer::advance_period(std::uint64_t now) {
    const std::uint64_t counts = std::max<std::uint64_t>(bus_.clocks(now - start_) >> shift_, first_);
    const std::uint64_t since_start = (counts - first_) / initial_ + 1;
    expiry_ = start_ + bus_.ticks((first_ + since_start * initial_) << shift_);
    if (!masked_)
        clock_.arm(*this, std::max(next_event(), now + shortest_wakeup_));
    return true;
}

std::uint64_t LocalApicTimer::expiries(std::uint64_t now) const {
    return bus_.clocks(now - expiry_) / (std::uint64_t{initial_} << shift_) + 1;
}

void LocalApicTimer::resume(bool lost) {
    if (!running_ || masked_ || mode_ != Mode::periodic)
        return;
    const std::uint64_t now = clock_.now();
    if (now >= expiry_)
        owe(expiries(now) - (lost ? 0 : 1));
}

/// No more than those of a second: who was away for longer has more to catch up with than ticks.
void LocalApicTimer::owe(std::uint64_t expiries) {
    const std::uint64_t length = period();
    if (expiries == 0 || length < 2 * clock_.from_nanoseconds(kShortestOwedNs))
        return;
    const bool first = owed_ == 0;
    owed_ = std::min(owed_ + expiries, std::max<std::uint64_t>(clock_.hz() / length, 1));
    if (first)
        postpone();
}

bool LocalApicTimer::pay() {
    if (owed_ == 0 || clock_.now() < pay_at_)
        return false;
    --owed_;
    postpone();
    return true;
}

void LocalApicTimer::postpone() {
    pay_at_ = clock_.now() + std::min(clock_.from_nanoseconds(kOwedDistanceNs), period() / 2);
    arm();
}

void LocalApicTimer::reset() {
    stop();
    mode_ = Mode::one_shot;
    masked_ = true;
    shift_ = 1;
    divide_ = 0;
    initial_ = 0;
}

void LocalApicTimer::configure(std::uint32_t lvt) {
    const auto mode = static_cast<Mode>(apic::Lvt::TimerMode::get(lvt));
    const bool counting = mode == Mode::one_shot || mode == Mode::periodic;
    const bool was_counting = mode_ == Mode::one_shot || mode_ == Mode::periodic;
    const bool masked = apic::Lvt::Masked::test(lvt);
    if (mode == mode_ && masked == masked_)
        return;
    masked_ = masked;
    owed_ = 0;
    if (mode == mode_) {
        arm();
    } else if (counting && was_counting) {
        // The count goes on in the new mode.
        const std::uint32_t count = current_count();
        mode_ = mode;
        if (running_)
            start(count, clock_.now());
    } else {
        stop();
        mode_ = mode;
    }
}

void LocalApicTimer::set_initial_count(std::uint32_t count) {
    if (mode_ == Mode::tsc_deadline || mode_ == Mode::reserved)
        return;
    const std::uint64_t now = clock_.now();
    if (running_ && now >= expiry_)
        client_.timer_expired();
    initial_ = count;
    if (count == 0)
        stop();
    else
        start(count, now);
}

std::uint32_t LocalApicTimer::current_count() const {
    if (!running_ || mode_ == Mode::tsc_deadline)
        return 0;
    const std::uint64_t counts = bus_.clocks(clock_.now() - start_) >> shift_;
    if (counts < first_)
        return first_ - static_cast<std::uint32_t>(counts);
    if (mode_ == Mode::periodic)
        return initial_ - static_cast<std::uint32_t>((counts - first_) % initial_);
    return 1;  // rounded: the expiry is less than a tick away
}

void LocalApicTimer::set_divide(std::uint32_t value) {
    const std::uint32_t count = current_count();
    divide_ = value & 0xb;
    // [sdm3 Figure 11-10. Divide Configuration Register]: 0 is 2, 6 is 128, 7 is 1.
    const std::uint32_t encoded = (divide_ >> 1 & 4) | (divide_ & 3);
    shift_ = static_cast<std::uint8_t>((encoded + 1) & 7);
    if (running_ && mode_ != Mode::tsc_deadline)
        start(count, clock_.now());
}

void LocalApicTimer::set_tsc_offset(std::int64_t offset) {
    tsc_offset_ = offset;
    if (deadline_ != 0)
        place_deadline(clock_.now());
}

void LocalApicTimer::start(std::uint32_t count, std::uint64_t now) {
    start_ = now;
    first_ = count;
    expiry_ = start_ + bus_.ticks(std::uint64_t{count} << shift_);
    running_ = true;
    owed_ = 0;
    arm();
}

void LocalApicTimer::stop() {
    if (running_)
        clock_.disarm(*this);
    running_ = false;
    deadline_ = 0;
    owed_ = 0;
}

void LocalApicTimer::arm() {
    if (masked_)
        clock_.disarm(*this);
    else if (running_)
        clock_.arm(*this, next_event());
}

}  // namespace hv
