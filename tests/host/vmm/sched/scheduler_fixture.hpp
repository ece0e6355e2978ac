// SPDX-License-Identifier: MIT
// Host CPUs with vCPUs that spin or sleep, in simulated time.
#pragma once

#include "catch.hpp"
#include "fakes/machine.hpp"
#include "vmm/sched/scheduler.hpp"

#include <algorithm>
#include <deque>
#include <memory>
#include <vector>

namespace hv::test {

inline constexpr std::uint64_t kMicrosecond = 1'000;  // the fake machine has 1 GHz
inline constexpr std::uint64_t kMillisecond = 1'000 * kMicrosecond;
inline constexpr std::uint64_t kSecond = 1'000 * kMillisecond;

/// A vCPU that runs for `burst` and then sleeps for `sleep`, or spins.
struct Task {
    Task(SchedGroup& group, const CpuSet& affinity = CpuSet::all()) : entity{group, affinity} {}
    SchedEntity entity;
    std::uint64_t burst{~std::uint64_t{0} / 4};
    std::uint64_t sleep{0};
    std::uint64_t left{0};     ///< of the burst
    std::uint64_t wake_at{0};  ///< while it sleeps
    std::uint64_t woken_at{0};
    std::uint64_t worst_wait{0};  ///< from wake-up until it runs
    std::uint64_t mark{0};        ///< run_ticks() when the measurement began
    bool sleeping{true};

    [[nodiscard]] double share(std::uint64_t of) const {
        return static_cast<double>(entity.run_ticks() - mark) / static_cast<double>(of);
    }
};

/// Host CPUs that run the loop that scheduler.hpp describes, in simulated time.
class Simulation {
public:
    explicit Simulation(std::uint32_t cpus)
        : scheduler{Scheduler::create(cpus).value()}, running_(cpus), since_(cpus) {
        fake::set_tsc(now_);
    }
    ~Simulation() {
        for (auto& task : tasks)
            retire(*task);
        fake::set_cpu(0);
    }

    SchedGroup& group(std::uint32_t weight = 100, std::uint32_t cap = 0) {
        return groups_.emplace_back(weight, cap);
    }
    Task& task(SchedGroup& group, const CpuSet& affinity = CpuSet::all()) {
        return *tasks.emplace_back(std::make_unique<Task>(group, affinity));
    }
    Task& spinner(std::uint32_t weight = 100, const CpuSet& affinity = CpuSet::all()) {
        return task(group(weight), affinity);
    }

    /// Runs for `duration`; the measurement covers it.
    void run(std::uint64_t duration) {
        const std::uint64_t end = now_ + duration;
        charge();
        for (auto& task : tasks)
            task->mark = task->entity.run_ticks();
        for (;;) {
            std::uint64_t next = end;
            for (auto& task : tasks) {
                if (task->sleeping)
                    next = std::min(next, task->wake_at);
            }
            for (std::uint32_t cpu = 0; cpu < running_.size(); ++cpu)
                next = std::min(next, event(cpu));
            advance(std::max(next, now_));
            for (auto& task : tasks) {
                if (task->sleeping && task->wake_at <= now_)
                    wake(*task);
            }
            for (std::uint32_t cpu = 0; cpu < running_.size(); ++cpu) {
                if (event(cpu) <= now_)
                    step(cpu);
            }
            if (now_ == end)
                break;
        }
        charge();
    }
    void wake(Task& task) {
        task.sleeping = false;
        task.woken_at = now_;
        task.left = task.burst;
        scheduler->wake(task.entity);
    }
    Task* running(std::uint32_t cpu) { return running_[cpu]; }

    std::unique_ptr<Scheduler> scheduler;
    std::deque<std::unique_ptr<Task>> tasks;
    std::vector<std::uint64_t> idle_ticks = std::vector<std::uint64_t>(256);

private:
    std::uint64_t event(std::uint32_t cpu) {
        if (scheduler->need_resched(cpu) || !started_.contains(cpu))
            return now_;
        std::uint64_t next = scheduler->deadline(cpu);
        if (running_[cpu] != nullptr)
            next = std::min(next, since_[cpu] + running_[cpu]->left);
        return next;
    }
    void advance(std::uint64_t to) {
        for (std::uint32_t cpu = 0; cpu < running_.size(); ++cpu) {
            if (running_[cpu] == nullptr)
                idle_ticks[cpu] += to - now_;
        }
        now_ = to;
        fake::set_tsc(now_);
    }
    void step(std::uint32_t cpu) {
        fake::set_cpu(cpu);
        started_.add(cpu);
        if (Task* task = running_[cpu]; task != nullptr) {
            task->left -= std::min(task->left, now_ - since_[cpu]);
            if (task->left == 0) {
                task->sleeping = true;
                task->wake_at = now_ + task->sleep;
                REQUIRE(scheduler->block(task->entity, [] { return true; }));
            }
        }
        SchedEntity* const entity = scheduler->pick_next(cpu);
        running_[cpu] = nullptr;
        for (auto& task : tasks) {
            if (&task->entity == entity)
                running_[cpu] = task.get();
        }
        since_[cpu] = now_;
        if (Task* task = running_[cpu]; task != nullptr && task->woken_at != 0) {
            task->worst_wait = std::max(task->worst_wait, now_ - task->woken_at);
            task->woken_at = 0;
        }
    }
    /// Brings run_ticks() up to date.
    void charge() {
        for (std::uint32_t cpu = 0; cpu < running_.size(); ++cpu)
            step(cpu);
    }
    void retire(Task& task) {
        while (!scheduler->retire(task.entity)) {
            fake::set_cpu(task.entity.cpu());
            REQUIRE(scheduler->block(task.entity, [] { return true; }));
        }
    }

    std::uint64_t now_{kSecond};
    std::deque<SchedGroup> groups_;
    std::vector<Task*> running_;
    std::vector<std::uint64_t> since_;
    CpuSet started_;
};

inline auto near(double value, double margin = 0.03) {
    return Catch::Matchers::WithinAbs(value, margin * value);
}

}  // namespace hv::test
