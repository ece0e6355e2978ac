// SPDX-License-Identifier: MIT
// One-shot timers against the host's time-stamp counter, as device models use them.
#pragma once

#include <atomic>
#include <cstdint>

namespace hv {

class TimerQueue;

class Timer;

/// What a timer's queue keeps in it.
class TimerLinks {
public:
    [[nodiscard]] std::uint64_t deadline() const { return deadline_; }

private:
    friend class TimerQueue;
    std::uint64_t deadline_{0};
    std::atomic<TimerQueue*> queue_{nullptr};  ///< where it is armed
    Timer* child_{nullptr};                    ///< links of the queue's heap
    Timer* sibling_{nullptr};
    Timer* previous_{nullptr};
};

/// Embedded in its user, who disarms it before dying.
class Timer : public TimerLinks {
public:
    /// Called on some CPU with interrupts masked and no lock held, at or after the deadline. May arm again.
    virtual void fire() = 0;

protected:
    Timer() = default;
    ~Timer() = default;
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;
};

/// Calls a member of its owner, who may have several.
template <class Owner, void (Owner::*Member)()>
class MemberTimer final : public Timer {
public:
    explicit MemberTimer(Owner& owner) : owner_{owner} {}
    void fire() override { (owner_.*Member)(); }

private:
    Owner& owner_;
};

/// Arms timers, and tells the time they run on.
class Clock {
public:
    /// Host TSC ticks.
    [[nodiscard]] virtual std::uint64_t now() const = 0;
    /// Ticks per second.
    [[nodiscard]] virtual std::uint64_t hz() const = 0;
    /// fire() is called once `deadline` (in ticks) has passed, at once if it has already. Replaces an earlier
    /// deadline.
    virtual void arm(Timer& timer, std::uint64_t deadline) = 0;
    /// The same, `nanoseconds` from now.
    void arm_after(Timer& timer, std::uint64_t nanoseconds) {
        arm(timer, now() + from_nanoseconds(nanoseconds));
    }
    /// No effect if not armed. A fire() already under way on another CPU may still finish after this returns.
    virtual void disarm(Timer& timer) = 0;

    /// a * b / c without overflow of the product; c != 0. For conversions between ticks and other units.
    static constexpr std::uint64_t scale(std::uint64_t a, std::uint64_t b, std::uint64_t c) {
        return static_cast<std::uint64_t>(static_cast<unsigned __int128>(a) * b / c);
    }
    [[nodiscard]] std::uint64_t from_nanoseconds(std::uint64_t ns) const {
        return scale(ns, hz(), 1'000'000'000);
    }
    [[nodiscard]] std::uint64_t to_nanoseconds(std::uint64_t ticks) const {
        return scale(ticks, 1'000'000'000, hz());
    }

protected:
    ~Clock() = default;
};

/// Work that goes on from a timer once it has had enough of a CPU at a time: others get as much before.
class Stint {
public:
    explicit Stint(const Clock& clock) : clock_{clock}, began_{clock.now()} {}
    /// When the work that ends now may go on: host TSC.
    [[nodiscard]] std::uint64_t next() const {
        const std::uint64_t now = clock_.now();
        return now + (now - began_);
    }

private:
    const Clock& clock_;
    const std::uint64_t began_;
};

}  // namespace hv
