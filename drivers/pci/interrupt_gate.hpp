// SPDX-License-Identifier: MIT
// Between a device's interrupt and its driver. A device that interrupts without end gets a bounded share of
// each CPU: it is masked then, and looked after by a timer. A device whose interrupts may not arrive at
// all (INTx whose routing was guessed) can be looked after all the time.
#pragma once

#include "vmm/base/machine.hpp"
#include "vmm/base/timer.hpp"

#include <array>
#include <atomic>
#include <cstdint>

namespace hv::pci {

class InterruptGate final : private Timer {
public:
    /// The device's own means to be silent.
    class Source {
    public:
        /// Unmasked, it interrupts again for what happened meanwhile, or the driver is asked to look.
        virtual void mask(bool masked) = 0;
        /// It has just been masked for interrupting without end. Any CPU, in its interrupt.
        virtual void note_storm() = 0;

    protected:
        ~Source() = default;
    };
    using Handler = void (*)(void* context);

    /// As many interrupts may come to a CPU in a window of this length.
    static constexpr std::uint64_t kWindowNs = 250'000;
    static constexpr std::uint32_t kMostInWindow = 64;

    /// All outlive the gate, which lives as long as the host runs. `handler` runs on any CPU, without a lock.
    /// `poll_ns` > 0: it also runs that long after it ran last.
    InterruptGate(Clock& clock, Source& source, Handler handler, void* context, std::uint64_t poll_ns = 0)
        : clock_{clock}, source_{source}, handler_{handler}, context_{context}, poll_ns_{poll_ns} {
        if (poll_ns_ != 0)
            clock_.arm_after(*this, poll_ns_);
    }

    /// The device's interrupt came.
    void raise() {
        const std::uint64_t now = clock_.now();
        // CPUs that share a window and race here may let a few more through, never without bound.
        Window& window = windows_[machine::cpu_index() % kWindows];
        if (now - window.start.load(std::memory_order_relaxed) > clock_.from_nanoseconds(kWindowNs)) {
            window.start.store(now, std::memory_order_relaxed);
            window.count.store(0, std::memory_order_relaxed);
        }
        if (window.count.fetch_add(1, std::memory_order_relaxed) >= kMostInWindow) {
            // A poll that fires here unmasks after us, or finds nothing to unmask and we are armed anew.
            source_.mask(true);
            if (!masked_.exchange(true))
                source_.note_storm();
            clock_.arm(*this, now + clock_.from_nanoseconds(kWindowNs));
        }
        handler_(context_);
    }

private:
    static constexpr unsigned kWindows = 64;
    /// Of a CPU: vectors of a busy device that come to many are no storm, and share no cache line.
    struct alignas(64) Window {
        std::atomic<std::uint64_t> start{0};
        std::atomic<std::uint32_t> count{0};
    };

    void fire() override {
        if (masked_.exchange(false))
            source_.mask(false);
        handler_(context_);
        if (poll_ns_ != 0)
            clock_.arm_after(*this, poll_ns_);
    }

    Clock& clock_;
    Source& source_;
    const Handler handler_;
    void* const context_;
    const std::uint64_t poll_ns_;
    std::array<Window, kWindows> windows_{};
    std::atomic<bool> masked_{false};
};

}  // namespace hv::pci
