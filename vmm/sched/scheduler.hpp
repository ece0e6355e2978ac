// SPDX-License-Identifier: MIT
// Shares the host's CPUs among vCPUs: each CPU has a run queue ordered by virtual time, and runs the one that
// is furthest behind for a slice. CPUs keep each other even: one that is about to run somebody who is well
// ahead of a vCPU that waits elsewhere takes that one over, and an idle CPU takes over whoever waits. Caps
// are enforced by period. docs/scheduling.md tells the theory.
//
// A CPU's loop: pick_next(); arm its timer to deadline(); run the vCPU until need_resched(), which it looks
// at after each exit, or until block(); again. Without a vCPU it sleeps until need_resched() (it is kicked)
// or deadline().
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/base/machine.hpp"
#include "vmm/sched/run_queue.hpp"

#include <atomic>
#include <memory>
#include <optional>

namespace hv {

class Scheduler {
public:
    static constexpr std::uint64_t kNever = ~std::uint64_t{0};

    /// For CPUs 0 to cpu_count - 1 (at most CpuSet::kMaxCpus); each takes part from its first pick_next() on.
    /// Error::no_memory, Error::invalid_argument.
    static Expected<std::unique_ptr<Scheduler>> create(std::uint32_t cpu_count);

    // --- on the CPU that it is about
    // ----------------------------------------------------------------------------------

    /// Who runs on `cpu` from now on, or nullptr: idle. Whoever ran and did not block goes back to the queue.
    SchedEntity* pick_next(std::uint32_t cpu);
    /// Whether pick_next() shall be called soon: somebody better waits, the current one yielded, or `cpu` was
    /// idle.
    [[nodiscard]] bool need_resched(std::uint32_t cpu) const {
        return resched_flag(cpu).load(std::memory_order_acquire);
    }
    /// What need_resched() looks at, for who looks often; lives as long as the scheduler.
    [[nodiscard]] const std::atomic<bool>& resched_flag(std::uint32_t cpu) const {
        return cpus_.get()[cpu].resched;
    }
    /// When pick_next() shall be called at the latest: the end of the slice, or of somebody's wait for his
    /// cap; or kNever, as while nobody waits.
    [[nodiscard]] std::uint64_t deadline(std::uint32_t cpu) const {
        return cpus_.get()[cpu].deadline.load(std::memory_order_relaxed);
    }
    /// Blocks `current` until wake(), unless `idle()` returns false, which it is asked after a wake() would
    /// find it blocked. False: there is something to do, it goes on. True: call pick_next(). No wake-up is
    /// lost: who wakes makes the reason visible to idle() before calling wake().
    template <class Idle>
    bool block(SchedEntity& current, Idle&& idle) {
        if (!idle())
            return false;
        stop_to_block(current);
        return idle() || !go_on(current);
    }
    /// Whether nobody waits on any CPU, so that whoever runs on `cpu` may sleep in its place instead of
    /// blocking. Somebody who begins to wait kicks it.
    [[nodiscard]] bool alone(std::uint32_t cpu) const { return alone_.contains(cpu); }
    /// Who runs on `cpu` sleeps in its place from `now` on,
    void sleeps(std::uint32_t cpu, std::uint64_t now) {
        at(cpu).asleep_since.store(now, std::memory_order_relaxed);
    }
    /// and until `now`: that was no time of a processor.
    void slept(std::uint32_t cpu, std::uint64_t now) {
        const LockGuard guard{at(cpu).lock};
        at(cpu).queue.slept(now - at(cpu).asleep_since.load(std::memory_order_relaxed));
        at(cpu).asleep_since.store(0, std::memory_order_relaxed);
    }
    /// Lets others run before `current`, which only waits for them: one of its own group if possible.
    void yield(SchedEntity& current);

    // --- on any CPU
    // ---------------------------------------------------------------------------------------------------

    /// Makes a blocked entity want to run: on the CPU it ran on last if that is idle, else on an idle one,
    /// else on the one with the least load. Nothing happens if it is not blocked.
    void wake(SchedEntity& entity);
    /// Where `entity` may run from now on. Error::invalid_argument: nowhere.
    Expected<void> set_affinity(SchedEntity& entity, const CpuSet& affinity);
    /// Takes `entity` out for good. False: it runs; it has been asked to stop, try again. Nobody wakes it any
    /// more.
    bool retire(SchedEntity& entity);

    /// TSC ticks that `entity` has run, and waited although it wanted to run.
    struct Times {
        std::uint64_t ran;
        std::uint64_t waited;
    };
    [[nodiscard]] Times times(const SchedEntity& entity) const;

    [[nodiscard]] std::uint32_t cpu_count() const { return cpu_count_; }
    [[nodiscard]] bool idle(std::uint32_t cpu) const { return idle_.contains(cpu); }

private:
    struct alignas(64) Cpu {
        Spinlock lock{Rank::scheduler};
        RunQueue queue;
        bool unsliced{false};  ///< its current entity runs without a slice's end: under the lock, see alone_
        std::atomic<bool> resched{false};
        std::atomic<std::uint64_t> deadline{kNever};
        std::atomic<std::uint64_t> asleep_since{0};  ///< or 0: see sleeps()
        // What others look at without the lock. A virtual time of this queue plus `offset` is comparable
        // among CPUs.
        std::atomic<VirtualTime> offset{0};
        std::atomic<VirtualTime> first_waiting{0};  ///< while in waiting_
        std::atomic<VirtualTime> progress{0};       ///< while busy
        std::atomic<bool> busy{false};
        std::atomic<std::uint32_t> load{0};
    };

    /// Who gives way, if anybody; never dereferenced, as it may be elsewhere by now.
    struct Yielding {
        const SchedEntity* entity{nullptr};
        const SchedGroup* group{nullptr};
    };

    Scheduler(std::unique_ptr<Cpu[]> cpus, std::uint32_t cpu_count);
    [[nodiscard]] Cpu& at(std::uint32_t cpu) const { return cpus_.get()[cpu]; }
    void stop_to_block(SchedEntity& current);
    bool go_on(SchedEntity& current);
    void end_solitude();
    /// Asks `cpu` to call pick_next().
    void request(std::uint32_t cpu);

    // --- with `entity` moving: then its virtual time is the one that is comparable among CPUs
    // -------------------------

    bool claim_blocked(SchedEntity& entity);
    void place(SchedEntity& entity, std::uint64_t now);
    std::uint32_t choose_cpu(const SchedEntity& entity);
    SchedEntity* steal(std::uint32_t cpu, std::optional<VirtualTime> best);
    SchedEntity* steal_from(std::uint32_t victim, std::uint32_t cpu, const VirtualTime* best);

    // --- under the lock of `cpu`
    // --------------------------------------------------------------------------------------

    void admit(std::uint32_t cpu, SchedEntity& entity, std::uint64_t now, std::uint64_t credit);
    void take_out(std::uint32_t cpu, SchedEntity& entity);
    void settle(std::uint32_t cpu, std::uint64_t now, RunQueue::Waiting& leaving);
    std::optional<VirtualTime> best_waiting(std::uint32_t cpu, Yielding yielding);
    SchedEntity* first_to_run(std::uint32_t cpu, Yielding yielding);
    SchedEntity* choose(std::uint32_t cpu, std::uint64_t now, Yielding yielding);
    void keep_even(std::uint32_t cpu);
    [[nodiscard]] bool sibling_waits(std::uint32_t cpu, const SchedGroup& group) const;
    bool may_run_alone(std::uint32_t cpu);
    std::optional<std::uint32_t> idle_cpu_for_waiting(std::uint32_t cpu);
    void publish(std::uint32_t cpu);

    std::unique_ptr<Cpu[]> cpus_;
    std::uint32_t cpu_count_;
    std::uint64_t slice_;        ///< how long one runs while others wait
    std::uint64_t wake_credit_;  ///< how far behind a sleeper may wake
    std::uint64_t pull_lag_;     ///< how far behind somebody elsewhere must be to be taken over
    std::uint64_t window_;       ///< how far CPUs' virtual times drift apart at most
    AtomicCpuSet online_;
    AtomicCpuSet idle_;
    AtomicCpuSet waiting_;  ///< CPUs where somebody waits
    AtomicCpuSet alone_;    ///< CPUs that run without slices, and do not know of anybody who waits
    std::atomic<VirtualTime> slowest_{0};  ///< progress of the busy CPU that is furthest behind, as last seen
};

}  // namespace hv
