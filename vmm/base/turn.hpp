// SPDX-License-Identifier: MIT
// A job that one CPU does at a time, without a lock: whoever asks while it is being done leaves a note and
// goes on, and the one at work looks once more. So nobody waits for a neighbour's work, and the worker holds
// no lock when it calls out.
#pragma once

#include "vmm/base/machine.hpp"

#include <atomic>
#include <cstdint>

namespace hv {

class Turn {
public:
    enum class Initially : std::uint8_t { open, closed };
    explicit constexpr Turn(Initially state) : state_{state == Initially::closed ? kClosed : 0u} {}

    /// True: the caller is now at work and ends it with leave() or abandon(). False: another CPU is, and will
    /// look again, or the turn is closed.
    bool enter() {
        std::uint32_t state = state_.load(std::memory_order_relaxed);
        std::uint32_t next{};
        do {
            if ((state & kClosed) != 0)
                return false;
            next = (state & kWorking) != 0 ? state | kNote : state | kWorking;
        } while (!state_.compare_exchange_weak(state, next, std::memory_order_acq_rel));
        return (state & kWorking) == 0;
    }
    /// True: someone asked meanwhile, the caller is still at work and looks again. False: the work is over.
    bool leave() {
        std::uint32_t state = state_.load(std::memory_order_relaxed);
        std::uint32_t next{};
        do {
            const bool again = (state & (kNote | kClosed)) == kNote;
            next = again ? state & ~kNote : state & kClosed;
        } while (!state_.compare_exchange_weak(state, next, std::memory_order_acq_rel));
        return (next & kWorking) != 0;
    }
    /// Ends the work whatever was asked meanwhile; the caller has arranged for a later enter().
    void abandon() { state_.fetch_and(kClosed, std::memory_order_acq_rel); }

    /// Waits until, at some moment, nobody is at work. Must not be called by the one at work.
    void wait() const {
        while ((state_.load(std::memory_order_acquire) & kWorking) != 0)
            machine::pause();
    }
    /// Lets nobody in any more and waits until nobody is at work. Must not be called by the one at work.
    void close() {
        state_.fetch_or(kClosed, std::memory_order_acq_rel);
        wait();
    }
    void open() { state_.fetch_and(~kClosed, std::memory_order_acq_rel); }

private:
    static constexpr std::uint32_t kWorking = 1;
    static constexpr std::uint32_t kNote = 2;
    static constexpr std::uint32_t kClosed = 4;
    std::atomic<std::uint32_t> state_;
};

}  // namespace hv
