// SPDX-License-Identifier: MIT
// Periodic interrupts that came due while the processor which takes them wanted to run and another vCPU had
// its CPU: on a real machine it would have taken each of them. They are owed, and come one after the other at
// a bounded rate once it runs again. What a guest misses by itself, its interrupts off, merges as on a real
// machine.
#pragma once

#include <algorithm>
#include <cstdint>

namespace hv {

/// The processor that takes the board's periodic interrupts. Any CPU may ask.
class TickTarget {
public:
    /// Changes whenever it begins to run.
    [[nodiscard]] virtual std::uint32_t turn() const = 0;
    /// It wants to run and has no CPU.
    [[nodiscard]] virtual bool away() const = 0;

protected:
    ~TickTarget() = default;
};

/// The debt of one periodic source, in its own clocks.
class LateTicks {
public:
    /// Of a source with `hz` clocks per second.
    explicit LateTicks(std::uint64_t hz)
        : distance_{std::max<std::uint64_t>(hz / kPerSecond, 1)}, shortest_{hz / kFastest}, hz_{hz} {}

    /// nullptr: whoever it is, it is never away.
    void set_target(const TickTarget* target) { target_ = target; }
    /// The source was programmed anew: nothing is owed.
    void forgive() { owed_ = 0; }
    /// `count` ticks are due at `now`. True: one of them is to be raised.
    bool tick(std::uint64_t count, std::uint64_t period, std::uint64_t now) {
        if (target_ == nullptr || period < shortest_)
            return true;
        const std::uint32_t turn = target_->turn();
        const bool waits = turn == raised_in_ && target_->away();  // it has not seen the last one
        owe(waits ? count : count - 1, period, now);
        raised_in_ = turn;
        if (!waits)
            pay_at_ = std::max(pay_at_, now + std::min(distance_, period / 2));  // not on top of this one
        return !waits;
    }
    void owe(std::uint64_t count, std::uint64_t period, std::uint64_t now) {
        if (count == 0 || period < shortest_)
            return;
        if (owed_ == 0)
            pay_at_ = now + std::min(distance_, period / 2);
        owed_ = std::min(owed_ + count, std::max<std::uint64_t>(hz_ / period, 1));
    }
    /// When pay() is to be asked next, if at all; `next`: the source's next tick, and its limit.
    [[nodiscard]] std::uint64_t next_event(std::uint64_t next) const {
        return owed_ != 0 && target_ != nullptr && !target_->away() ? std::min(pay_at_, next) : next;
    }
    /// True: raise one that is owed. Not just before the `next` one, which might find it still pending.
    bool pay(std::uint64_t now, std::uint64_t next) {
        if (owed_ == 0 || now < pay_at_ || target_ == nullptr || target_->away())
            return false;
        pay_at_ = now + distance_;
        if (next - now <= distance_ / 2) {
            pay_at_ = next + distance_ / 2;
            return false;
        }
        raised_in_ = target_->turn();
        --owed_;
        return true;
    }
    /// Whether it began to run since the last tick was raised.
    [[nodiscard]] bool ran_since() const { return target_ != nullptr && target_->turn() != raised_in_; }

private:
    static constexpr std::uint64_t kPerSecond = 10'000;  ///< owed ticks at most
    static constexpr std::uint64_t kFastest = 25'000;    ///< sources that tick more often are not made up for

    const TickTarget* target_{nullptr};
    std::uint64_t distance_;
    std::uint64_t shortest_;
    std::uint64_t hz_;
    std::uint64_t owed_{0};
    std::uint64_t pay_at_{0};
    std::uint32_t raised_in_{~0U};
};

}  // namespace hv
