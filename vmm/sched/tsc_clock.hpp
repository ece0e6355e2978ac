// SPDX-License-Identifier: MIT
// The Clock of device models: a timer queue for each CPU, driven by that CPU's one-shot hardware timer. A
// timer fires on the CPU that armed it.
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/sched/timer_queue.hpp"

#include <memory>

namespace hv {

/// The executing CPU's one-shot timer.
class TimerHardware {
public:
    /// Raises the interrupt whose handler calls TscClock::expire() once the TSC has reached `deadline`: at
    /// once if it has already. Replaces what was set; TimerQueue::kNever stops it.
    virtual void set_deadline(std::uint64_t deadline) = 0;

protected:
    ~TimerHardware() = default;
};

class TscClock final : public Clock {
public:
    /// For CPUs 0 to cpu_count - 1. Error::no_memory.
    static Expected<std::unique_ptr<TscClock>> create(TimerHardware& hardware, std::uint32_t cpu_count);

    [[nodiscard]] std::uint64_t now() const override { return machine::tsc(); }
    [[nodiscard]] std::uint64_t hz() const override { return machine::tsc_hz(); }
    void arm(Timer& timer, std::uint64_t deadline) override;
    void disarm(Timer& timer) override { TimerQueue::disarm(timer); }

    /// Fires what is due on the executing CPU and sets its hardware for the rest. For the timer interrupt's
    /// handler, with interrupts masked.
    void expire();
    /// The executing CPU's next deadline, or TimerQueue::kNever.
    [[nodiscard]] std::uint64_t earliest() const { return cpu().queue.earliest(); }

private:
    /// Only the CPU itself touches its copy, but for the queue.
    struct alignas(64) Cpu {
        TimerQueue queue;
        std::uint64_t programmed{TimerQueue::kNever};  ///< what the hardware is set to
        bool expiring{false};                          ///< the hardware is set at the end
    };

    TscClock(TimerHardware& hardware, std::unique_ptr<Cpu[]> cpus)
        : hardware_{hardware}, cpus_{std::move(cpus)} {}
    [[nodiscard]] Cpu& cpu() const {
        const std::uint32_t index = machine::cpu_index();  // first: nothing else has to outlive the call
        return cpus_.get()[index];
    }
    [[gnu::noinline]] void arm_anywhere(Cpu& self, Timer& timer, std::uint64_t deadline);
    void program(Cpu& cpu);

    TimerHardware& hardware_;
    std::unique_ptr<Cpu[]> cpus_;
};

}  // namespace hv
