// SPDX-License-Identifier: MIT
// Armed timers ordered by deadline: an intrusive pairing heap, so that arming allocates nothing and costs a
// few instructions while few timers are armed.
#pragma once

#include "vmm/base/assert.hpp"
#include "vmm/base/guarded.hpp"
#include "vmm/base/timer.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace hv {

/// Any CPU may call anything at any time, with interrupts masked, for the same timer too: the last arm() or
/// disarm() wins.
class TimerQueue {
public:
    static constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();

    TimerQueue() = default;
    TimerQueue(const TimerQueue&) = delete;
    TimerQueue& operator=(const TimerQueue&) = delete;
    /// No timer is armed any more.
    ~TimerQueue() { HV_ASSERT(root_ == nullptr); }

    /// Arms `timer` here, wherever it was armed before.
    void arm(Timer& timer, std::uint64_t deadline) {
        lock_.lock();
        if (!claim(timer)) [[unlikely]] {
            lock_.unlock();
            move_here(timer, deadline);
            return;
        }
        if (root_ == nullptr || is_alone(timer)) {
            timer.deadline_ = deadline;
            root_ = &timer;
            armed_ = 1;
            earliest_.store(deadline, std::memory_order_relaxed);
        } else {
            rearm(timer, deadline);
        }
        lock_.unlock();
    }
    /// arm() where that is least work: `timer` is the only one here and is to fire later than so far. False:
    /// it is not so, or the queue is in use.
    [[nodiscard]] bool postpone(Timer& timer, std::uint64_t deadline) {
        if (!lock_.try_lock()) [[unlikely]]
            return false;
        const bool possible = is_alone(timer) && deadline >= timer.deadline_;
        if (possible) {
            timer.deadline_ = deadline;
            earliest_.store(deadline, std::memory_order_relaxed);
        }
        lock_.unlock();
        return possible;
    }
    /// Takes `timer` out of the queue that it is in, if any.
    static void disarm(Timer& timer);
    /// Deadline of the first timer, or kNever.
    [[nodiscard]] std::uint64_t earliest() const { return earliest_.load(std::memory_order_relaxed); }
    /// Calls fire(), without the lock, for what is due at `now`: for as many timers at most as were armed at
    /// the start, so that one which arms itself in the past does not hold the CPU.
    void expire(std::uint64_t now) {
        lock_.lock();
        Timer* const first = root_;
        if (first == nullptr || first->deadline_ > now) {
            lock_.unlock();
            return;
        }
        if (!is_alone(*first)) [[unlikely]] {
            expire_several(now);
            return;
        }
        root_ = nullptr;
        armed_ = 0;
        earliest_.store(kNever, std::memory_order_relaxed);
        unlock_and_fire(*first);
    }

private:
    /// Makes this queue the timer's if it is in no other one. A timer belongs to the queue that queue_ names
    /// and is touched under that queue's lock only.
    bool claim(Timer& timer) {
        TimerQueue* queue = timer.queue_.load(std::memory_order_acquire);
        return queue == this || (queue == nullptr && timer.queue_.compare_exchange_strong(
                                                         queue, this, std::memory_order_acq_rel));
    }
    [[nodiscard]] bool is_alone(const Timer& timer) const {
        return root_ == &timer && timer.child_ == nullptr;
    }
    void move_here(Timer& timer, std::uint64_t deadline);
    /// expire() with the lock held, which it releases, when one timer at least is due.
    [[gnu::noinline]] void expire_several(std::uint64_t now);
    /// `timer` has just been taken out.
    void unlock_and_fire(Timer& timer) {
        timer.queue_.store(nullptr, std::memory_order_release);
        lock_.unlock();
        timer.fire();
    }
    void rearm(Timer& timer, std::uint64_t deadline);
    void remove(Timer& timer);
    static Timer* meld(Timer* a, Timer* b);
    static Timer* meld_all(Timer* first);

    Spinlock lock_{Rank::timer};
    std::atomic<std::uint64_t> earliest_{kNever};
    Timer* root_{nullptr};  ///< the earliest; its previous_ is nullptr
    std::size_t armed_{0};
};

}  // namespace hv
