// SPDX-License-Identifier: MIT
// What each host CPU does all the time: run the vCPU that the scheduler picks, let interrupts in, sleep when
// there is nothing to do. There are no threads: a vCPU is a state that a CPU enters and leaves on its one
// stack.
#pragma once

#include "vmm/base/timer.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/sched/scheduler.hpp"

#include <atomic>
#include <cstdint>
#include <memory>

namespace hv {

class Vcpu;

/// Jobs that are done between vCPUs on the boot CPU: console input, VMs that stopped, the monitor.
class Housekeeping {
public:
    /// Whether service() shall be called. Any CPU, interrupt handlers too: who makes it true kicks the boot
    /// CPU.
    [[nodiscard]] virtual bool pending() const = 0;
    virtual void service() = 0;

protected:
    ~Housekeeping() = default;
};

class CpuLoop {
public:
    /// `jobs` nullptr: a CPU that does nothing but run vCPUs.
    CpuLoop(Scheduler& scheduler, Clock& clock, std::uint32_t cpu, Housekeeping* jobs)
        : scheduler_{scheduler},
          resched_{scheduler.resched_flag(cpu)},
          clock_{clock},
          slice_end_{slice_over_},
          cpu_{cpu},
          jobs_{jobs} {}
    CpuLoop(const CpuLoop&) = delete;
    CpuLoop& operator=(const CpuLoop&) = delete;

    /// On its own CPU, interrupts masked.
    [[noreturn]] void run();
    /// One round: a vCPU's turn, or a sleep.
    void turn();
    /// Whether the vCPU that runs shall leave the CPU. On its own CPU.
    [[nodiscard]] bool wants_cpu() const {
        return slice_over_ || must_pick() || (jobs_ != nullptr && jobs_->pending());
    }
    /// Whether the scheduler has somebody better, part of the above.
    [[nodiscard]] bool must_pick() const { return resched_.load(std::memory_order_acquire); }
    /// Lets the CPU sleep until its next interrupt, with the vCPU that runs in its place. False, and nothing
    /// happens: the CPU is needed for something else. On its own CPU.
    bool nap() const;
    /// What runs there, or nullptr; a momentary picture.
    [[nodiscard]] const Vcpu* running() const { return running_.load(std::memory_order_relaxed); }

private:
    class SliceEnd final : public Timer {
    public:
        explicit SliceEnd(bool& over) : over_{over} {}
        void fire() override { over_ = true; }

    private:
        bool& over_;
    };

    Scheduler& scheduler_;
    const std::atomic<bool>& resched_;
    Clock& clock_;
    bool slice_over_{false};
    SliceEnd slice_end_;
    const std::uint32_t cpu_;
    Housekeeping* jobs_;
    std::atomic<const Vcpu*> running_{nullptr};
};

}  // namespace hv
