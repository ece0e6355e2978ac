// SPDX-License-Identifier: MIT
// What the scheduler schedules: a vCPU is one, and belongs to its VM's group.
#pragma once

#include "vmm/base/list.hpp"
#include "vmm/sched/cpu_set.hpp"
#include "vmm/sched/sched_group.hpp"

#include <atomic>
#include <cstdint>

namespace hv {

class SchedEntity {
public:
    enum class State : std::uint8_t {
        blocked,    ///< nobody's: the first who wakes it makes it `moving`
        moving,     ///< owned by the CPU that is placing it
        queued,     ///< waits in the run queue of cpu()
        throttled,  ///< waits there for the next period of its group's cap
        running,    ///< on cpu()
        retired,    ///< never runs again
    };

    /// Blocked at first. `affinity` is where it may run, not empty; the group outlives it.
    explicit SchedEntity(SchedGroup& group, const CpuSet& affinity = CpuSet::all());
    SchedEntity(const SchedEntity&) = delete;
    SchedEntity& operator=(const SchedEntity&) = delete;
    /// It is blocked or retired, and nobody wakes it any more.
    ~SchedEntity();

    [[nodiscard]] State state() const { return state_.load(std::memory_order_acquire); }
    /// The CPU that it runs or waits on, or ran on last.
    [[nodiscard]] std::uint32_t cpu() const { return cpu_.load(std::memory_order_relaxed); }
    [[nodiscard]] SchedGroup& group() const { return group_; }
    /// TSC ticks that it ran, up to when it was charged last, and that it waited although it wanted to run.
    /// Scheduler::times() counts up to now.
    [[nodiscard]] std::uint64_t run_ticks() const { return run_ticks_.load(std::memory_order_relaxed); }
    [[nodiscard]] std::uint64_t wait_ticks() const { return wait_ticks_.load(std::memory_order_relaxed); }
    /// How often it ran after a wake-up, and the ticks from the one to the other: of all, and the most.
    [[nodiscard]] std::uint64_t wakes() const { return wakes_.load(std::memory_order_relaxed); }
    [[nodiscard]] std::uint64_t wake_ticks() const { return wake_ticks_.load(std::memory_order_relaxed); }
    [[nodiscard]] std::uint64_t most_wake_ticks() const {
        return most_wake_ticks_.load(std::memory_order_relaxed);
    }
    /// Whether another of its group waits for the same CPU: what it spins for may be there. For whoever runs
    /// it, from one pick_next() to the next, which comes soon after a sibling has begun to wait.
    [[nodiscard]] bool sibling_waits() const { return sibling_waits_; }
    /// How often it changed the CPU.
    [[nodiscard]] std::uint64_t migrations() const { return migrations_.load(std::memory_order_relaxed); }

protected:
    /// Whoever runs it looks around before the next step: also set when its CPU asks itself for pick_next().
    std::atomic<bool> look_{false};

private:
    friend class RunQueue;
    friend class Scheduler;

    SchedGroup& group_;
    std::atomic<State> state_{State::blocked};
    std::atomic<std::uint32_t> cpu_;
    // Under the lock of cpu()'s run queue, or its owner's while it is moving.
    CpuSet affinity_;
    ListLink link_;
    VirtualTime virtual_time_{0};  ///< on the scale of cpu()'s run queue
    std::uint64_t since_{0};       ///< when it began to run or to wait
    std::uint64_t woken_{0};       ///< when it was woken, if it has not run since; else 0
    std::uint64_t release_{0};     ///< throttled: until when
    std::uint32_t load_{0};        ///< what it counts in cpu()'s load
    bool sibling_waits_{false};
    bool yields_{false};  ///< somebody else shall run first
    std::atomic<std::uint64_t> run_ticks_{0};
    std::atomic<std::uint64_t> wait_ticks_{0};
    std::atomic<std::uint64_t> wakes_{0};
    std::atomic<std::uint64_t> wake_ticks_{0};
    std::atomic<std::uint64_t> most_wake_ticks_{0};
    std::atomic<std::uint64_t> migrations_{0};
};

}  // namespace hv
