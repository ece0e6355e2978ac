// SPDX-License-Identifier: MIT
#include "vmm/sched/scheduler.hpp"

#include <algorithm>
#include <new>
#include <utility>

namespace hv {
namespace {

using State = SchedEntity::State;

constexpr std::uint64_t kSliceMicroseconds = 3'000;

}  // namespace

Expected<std::unique_ptr<Scheduler>> Scheduler::create(std::uint32_t cpu_count) {
    if (cpu_count == 0 || cpu_count > CpuSet::kMaxCpus)
        return Unexpected{Error::invalid_argument};
    std::unique_ptr<Cpu[]> cpus{new (std::nothrow) Cpu[cpu_count]};
    if (cpus == nullptr)
        return Unexpected{Error::no_memory};
    std::unique_ptr<Scheduler> scheduler{new (std::nothrow) Scheduler{std::move(cpus), cpu_count}};
    if (scheduler == nullptr)
        return Unexpected{Error::no_memory};
    return scheduler;
}

Scheduler::Scheduler(std::unique_ptr<Cpu[]> cpus, std::uint32_t cpu_count)
    : cpus_{std::move(cpus)},
      cpu_count_{cpu_count},
      slice_{machine::tsc_hz() * kSliceMicroseconds / 1'000'000},
      wake_credit_{slice_ / 2},
      pull_lag_{2 * slice_},
      window_{32 * slice_},
      online_{cpu_count},
      idle_{cpu_count},
      waiting_{cpu_count},
      alone_{cpu_count} {}

// --- on the CPU that it is about
// --------------------------------------------------------------------------------------

SchedEntity* Scheduler::pick_next(std::uint32_t index) {
    const std::uint64_t now = machine::tsc();
    Cpu& cpu = at(index);
    if (!online_.contains(index))
        online_.add(index);

    cpu.lock.lock();
    SchedEntity* const previous = cpu.queue.current();
    const Yielding yielding =
        previous != nullptr && previous->yields_ ? Yielding{previous, &previous->group_} : Yielding{};
    RunQueue::Waiting leaving;
    settle(index, now, leaving);
    if (!leaving.empty() || waiting_.has_other_than(index)) {
        // Two run queues are never locked at once: who moves between them belongs to no queue meanwhile.
        const std::optional<VirtualTime> best = best_waiting(index, yielding);
        cpu.lock.unlock();
        while (SchedEntity* const entity = leaving.pop_front())
            place(*entity, now);
        SchedEntity* const stolen = steal(index, best);
        cpu.lock.lock();
        if (stolen != nullptr)
            admit(index, *stolen, now, window_);
    }
    cpu.resched.store(false, std::memory_order_relaxed);  // who asks from now on comes after what is chosen
    SchedEntity* const next = choose(index, now, yielding);
    if (previous != nullptr)
        keep_even(index);
    publish(index);
    const std::optional<std::uint32_t> helper = idle_cpu_for_waiting(index);
    cpu.lock.unlock();
    if (helper)
        request(*helper);
    return next;
}

void Scheduler::yield(SchedEntity& current) {
    current.yields_ = true;
    at(current.cpu()).resched.store(true, std::memory_order_relaxed);
}

void Scheduler::stop_to_block(SchedEntity& current) {
    const std::uint32_t index = current.cpu();
    {
        const LockGuard guard{at(index).lock};
        HV_ASSERT(at(index).queue.current() == &current);
        at(index).queue.stop(machine::tsc());
        publish(index);
    }
    current.group_.member_blocked();
    // From here on a wake-up takes effect. The exchange comes before idle() looks, as the waker's change
    // comes before its look at the state: at least one of the two sees the other.
    current.state_.exchange(State::blocked, std::memory_order_seq_cst);
}

/// Takes back a block. False: a wake-up was faster, and somebody places the entity.
bool Scheduler::go_on(SchedEntity& current) {
    State expected = State::blocked;
    if (!current.state_.compare_exchange_strong(expected, State::moving, std::memory_order_seq_cst))
        return false;
    current.group_.member_woke();
    const LockGuard guard{at(current.cpu()).lock};
    at(current.cpu()).queue.resume(current, machine::tsc());
    publish(current.cpu());
    return true;
}

void Scheduler::request(std::uint32_t cpu) {
    at(cpu).resched.store(true, std::memory_order_release);
    if (cpu == machine::cpu_index()) {
        if (SchedEntity* current = at(cpu).queue.current())
            current->look_.store(true, std::memory_order_relaxed);
    }
    machine::kick_cpu(cpu);
}

// --- on any CPU
// -------------------------------------------------------------------------------------------------------

bool Scheduler::claim_blocked(SchedEntity& entity) {
    State expected = State::blocked;
    if (!entity.state_.compare_exchange_strong(expected, State::moving, std::memory_order_seq_cst))
        return false;
    entity.group_.member_woke();
    entity.virtual_time_ += at(entity.cpu()).offset.load(std::memory_order_relaxed);
    return true;
}

void Scheduler::wake(SchedEntity& entity) {
    if (!claim_blocked(entity))
        return;
    const std::uint64_t now = machine::tsc();
    entity.woken_ = now;
    place(entity, now);
}

Scheduler::Times Scheduler::times(const SchedEntity& entity) const {
    for (;; machine::pause()) {
        const std::uint32_t index = entity.cpu();
        const LockGuard guard{at(index).lock};
        const State state = entity.state();
        if (entity.cpu() != index || state == State::moving)
            continue;
        const std::uint64_t asleep = at(index).asleep_since.load(std::memory_order_relaxed);
        const std::uint64_t until = state == State::running && asleep != 0 ? asleep : machine::tsc();
        const std::uint64_t since = until > entity.since_ ? until - entity.since_ : 0;
        return {entity.run_ticks() + (state == State::running ? since : 0),
                entity.wait_ticks() + (state == State::queued ? since : 0)};
    }
}

Expected<void> Scheduler::set_affinity(SchedEntity& entity, const CpuSet& affinity) {
    CpuSet existing;
    for (std::uint32_t cpu = 0; cpu < cpu_count_; ++cpu)
        existing.add(cpu);
    if ((affinity & existing).empty())
        return Unexpected{Error::invalid_argument};
    for (;; machine::pause()) {
        if (claim_blocked(entity)) {
            // Whoever wakes it meanwhile finds it moving, so it has to run; it blocks again if there is
            // nothing to do.
            entity.affinity_ = affinity;
            place(entity, machine::tsc());
            return {};
        }
        const std::uint32_t index = entity.cpu();
        bool move = false;
        {
            const LockGuard guard{at(index).lock};
            const State state = entity.state();
            if (entity.cpu() != index || state == State::moving || state == State::blocked)
                continue;
            entity.affinity_ = affinity;
            move = state == State::queued && !affinity.contains(index);
            if (move)
                take_out(index, entity);
        }
        if (move)
            place(entity, machine::tsc());
        else if (!affinity.contains(index))
            request(index);
        return {};
    }
}

bool Scheduler::retire(SchedEntity& entity) {
    for (;; machine::pause()) {
        State expected = State::blocked;
        if (entity.state_.compare_exchange_strong(expected, State::retired, std::memory_order_seq_cst) ||
            expected == State::retired)
            return true;
        const std::uint32_t index = entity.cpu();
        const LockGuard guard{at(index).lock};
        const State state = entity.state();
        if (entity.cpu() != index || state == State::moving || state == State::blocked)
            continue;
        if (state == State::running) {
            request(index);
            return false;
        }
        if (state == State::queued)
            take_out(index, entity);
        else
            at(index).queue.release(entity);
        entity.group_.member_blocked();
        entity.state_.store(State::retired, std::memory_order_release);
        return true;
    }
}

// --- with `entity` moving
// ---------------------------------------------------------------------------------------------

void Scheduler::place(SchedEntity& entity, std::uint64_t now) {
    const std::uint32_t target = choose_cpu(entity);
    bool asks = false;
    bool contends = false;
    {
        const LockGuard guard{at(target).lock};
        RunQueue& queue = at(target).queue;
        contends = !queue.idle();
        admit(target, entity, now, wake_credit_);
        const SchedEntity* const current = queue.current();
        const bool preempts = current == nullptr || ahead(entity.virtual_time_, queue.current_time(now)) <= 0;
        const bool is_news = !preempts && &current->group_ == &entity.group_ && !current->sibling_waits_;
        asks = preempts || is_news;
        publish(target);
    }
    if (asks) {
        alone_.remove(target);
        request(target);
    }
    if (contends)
        end_solitude();
}

/// Somebody waits: CPUs that run without slices look around again.
void Scheduler::end_solitude() {
    alone_.for_each([&](std::uint32_t cpu) {
        if (alone_.remove(cpu))
            request(cpu);
    });
}

std::uint32_t Scheduler::choose_cpu(const SchedEntity& entity) {
    const std::uint32_t last = entity.cpu();
    if (entity.affinity_.contains(last) && idle_.remove(last))
        return last;
    std::optional<std::uint32_t> best;
    idle_.for_each_of(entity.affinity_, [&](std::uint32_t cpu) {
        if (!best && idle_.remove(cpu))
            best = cpu;
    });
    if (best)
        return *best;
    const auto load = [&](std::uint32_t cpu) { return at(cpu).load.load(std::memory_order_relaxed); };
    if (online_.contains(last) && entity.affinity_.contains(last))
        best = last;
    online_.for_each_of(entity.affinity_, [&](std::uint32_t cpu) {
        if (!best || load(cpu) < load(*best))
            best = cpu;
    });
    // Before any of its CPUs is online, it waits for one.
    return best ? *best : std::min(entity.affinity_.first().value_or(0), cpu_count_ - 1);
}

/// Takes over one who waits on another CPU: well behind `best`, the first of those who wait here, or anybody
/// if nobody does.
SchedEntity* Scheduler::steal(std::uint32_t index, std::optional<VirtualTime> best) {
    CpuSet victims = waiting_.snapshot();
    victims.remove(index);
    while (!victims.empty()) {
        std::optional<std::uint32_t> victim;
        const auto first = [&](std::uint32_t cpu) {
            return at(cpu).first_waiting.load(std::memory_order_relaxed);
        };
        victims.for_each([&](std::uint32_t cpu) {
            if (!victim || ahead(first(cpu), first(*victim)) < 0)
                victim = cpu;
        });
        if (best && ahead(*best, first(*victim)) <= static_cast<std::int64_t>(pull_lag_))
            return nullptr;
        if (SchedEntity* const entity = steal_from(*victim, index, best ? &*best : nullptr))
            return entity;
        victims.remove(*victim);  // all who wait there are pinned
    }
    return nullptr;
}

SchedEntity* Scheduler::steal_from(std::uint32_t victim, std::uint32_t index, const VirtualTime* best) {
    const LockGuard guard{at(victim).lock};
    const VirtualTime offset = at(victim).offset.load(std::memory_order_relaxed);
    for (SchedEntity& entity : at(victim).queue.waiting()) {
        if (best != nullptr &&
            ahead(*best, entity.virtual_time_ + offset) <= static_cast<std::int64_t>(pull_lag_))
            return nullptr;
        if (entity.affinity_.contains(index)) {
            take_out(victim, entity);
            return &entity;
        }
    }
    return nullptr;
}

// --- under the lock of a CPU
// ------------------------------------------------------------------------------------------

/// Queues a moving entity. One that is far behind, after a sleep, gets `credit` at most: it does not make the
/// others wait for what it did not want.
void Scheduler::admit(std::uint32_t index, SchedEntity& entity, std::uint64_t now, std::uint64_t credit) {
    Cpu& cpu = at(index);
    VirtualTime offset = cpu.offset.load(std::memory_order_relaxed);
    if (cpu.queue.idle()) {
        // While it was idle its virtual time stood still: it goes on where the others are.
        const VirtualTime slowest = slowest_.load(std::memory_order_relaxed);
        const std::int64_t lead = ahead(cpu.queue.progress() + offset, slowest);
        const auto most = static_cast<std::int64_t>(window_);
        offset -= static_cast<VirtualTime>(lead - std::clamp<std::int64_t>(lead, 0, most));
        cpu.offset.store(offset, std::memory_order_relaxed);
    }
    entity.virtual_time_ -= offset;
    const VirtualTime floor = cpu.queue.progress() - credit;
    if (ahead(entity.virtual_time_, floor) < 0)
        entity.virtual_time_ = floor;
    if (entity.cpu() != index) {
        entity.cpu_.store(index, std::memory_order_relaxed);
        entity.migrations_.store(entity.migrations() + 1, std::memory_order_relaxed);
    }
    cpu.queue.add(entity, now);
}

/// Makes an entity that waits a moving one.
void Scheduler::take_out(std::uint32_t index, SchedEntity& entity) {
    at(index).queue.remove(entity, machine::tsc());
    entity.virtual_time_ += at(index).offset.load(std::memory_order_relaxed);
    entity.state_.store(State::moving, std::memory_order_release);
    publish(index);
}

/// Puts back who ran, and takes out as moving who may not stay here and whose wait for a cap is over.
void Scheduler::settle(std::uint32_t index, std::uint64_t now, RunQueue::Waiting& leaving) {
    Cpu& cpu = at(index);
    RunQueue& queue = cpu.queue;
    SchedEntity* const previous = queue.stop(now);
    if (std::exchange(cpu.unsliced, false)) {
        alone_.remove(index);
        // Nobody waited meanwhile, so nobody has a claim: it goes on where the others are.
        const VirtualTime own = queue.progress() + cpu.offset.load(std::memory_order_relaxed);
        const std::int64_t lead = ahead(own, slowest_.load(std::memory_order_relaxed));
        if (lead > 0)
            cpu.offset.fetch_sub(static_cast<VirtualTime>(lead), std::memory_order_relaxed);
    }
    if (previous != nullptr) {
        queue.add(*previous, now);
        if (!previous->affinity_.contains(index)) {
            take_out(index, *previous);
            leaving.push_back(*previous);
        }
    }
    while (queue.next_release() <= now) {
        for (SchedEntity& entity : queue.throttled()) {
            if (entity.release_ > now)
                continue;
            queue.release(entity);
            entity.virtual_time_ += at(index).offset.load(std::memory_order_relaxed);
            entity.state_.store(State::moving, std::memory_order_release);
            leaving.push_back(entity);
            break;  // the iterator is no longer valid
        }
    }
}

/// The virtual time, comparable among CPUs, of the first who waits and does not give way.
std::optional<VirtualTime> Scheduler::best_waiting(std::uint32_t index, Yielding yielding) {
    for (const SchedEntity& entity : at(index).queue.waiting()) {
        if (&entity != yielding.entity)
            return entity.virtual_time_ + at(index).offset.load(std::memory_order_relaxed);
    }
    return std::nullopt;
}

/// The first who waits; after a yield, the first of the same group, or else of any, who did not yield.
/// Siblings that yield to each other get ahead of the others by a slice at most.
SchedEntity* Scheduler::first_to_run(std::uint32_t index, Yielding yielding) {
    RunQueue::Waiting& waiting = at(index).queue.waiting();
    SchedEntity* other = nullptr;
    for (SchedEntity& entity : waiting) {
        if (yielding.entity == nullptr)
            return &entity;
        if (&entity == yielding.entity)
            continue;
        if (other == nullptr)
            other = &entity;
        if (&entity.group_ == yielding.group &&
            ahead(entity.virtual_time_, other->virtual_time_) <= static_cast<std::int64_t>(slice_))
            return &entity;
    }
    return other != nullptr ? other : waiting.front();
}

SchedEntity* Scheduler::choose(std::uint32_t index, std::uint64_t now, Yielding yielding) {
    Cpu& cpu = at(index);
    RunQueue& queue = cpu.queue;
    while (SchedEntity* const next = first_to_run(index, yielding)) {
        const std::uint64_t allowance = next->group_.allowance(now);
        if (allowance == 0) {
            queue.throttle(*next, now);
            continue;
        }
        queue.start(*next, now);
        next->sibling_waits_ = next->group_.active() > 1 && sibling_waits(index, next->group_);
        idle_.remove(index);
        cpu.busy.store(true, std::memory_order_relaxed);
        const std::uint64_t longest = std::min(allowance, may_run_alone(index) ? kNever - now : slice_);
        cpu.deadline.store(std::min(now + longest, queue.next_release()), std::memory_order_relaxed);
        return next;
    }
    cpu.busy.store(false, std::memory_order_relaxed);
    cpu.deadline.store(queue.next_release(), std::memory_order_relaxed);
    idle_.add(index);
    return nullptr;
}

bool Scheduler::sibling_waits(std::uint32_t index, const SchedGroup& group) const {
    for (const SchedEntity& entity : at(index).queue.waiting()) {
        if (&entity.group_ == &group)
            return true;
    }
    return false;
}

/// Whether nobody waits anywhere, so that slices need not end. Who begins to wait later finds the CPU in
/// alone_.
bool Scheduler::may_run_alone(std::uint32_t index) {
    Cpu& cpu = at(index);
    if (!cpu.queue.waiting().empty() || waiting_.has_other_than(index))
        return false;
    alone_.add(index);
    if (waiting_.has_other_than(index) && alone_.remove(index))
        return false;
    cpu.unsliced = true;
    return true;
}

/// Keeps a CPU whose few entities nobody else can share from running away from the others, so that
/// comparisons mean something again once they can.
void Scheduler::keep_even(std::uint32_t index) {
    Cpu& cpu = at(index);
    if (!cpu.busy.load(std::memory_order_relaxed))
        return;
    const VirtualTime own = cpu.queue.progress() + cpu.offset.load(std::memory_order_relaxed);
    VirtualTime slowest = own;
    online_.for_each([&](std::uint32_t other) {
        if (other == index || !at(other).busy.load(std::memory_order_relaxed) || alone_.contains(other))
            return;
        const VirtualTime progress = at(other).progress.load(std::memory_order_relaxed);
        if (ahead(progress, slowest) < 0)
            slowest = progress;
    });
    slowest_.store(slowest, std::memory_order_relaxed);
    const std::int64_t lead = ahead(own, slowest);
    if (lead > static_cast<std::int64_t>(window_))
        cpu.offset.fetch_sub(static_cast<VirtualTime>(lead) - window_, std::memory_order_relaxed);
}

/// Claims an idle CPU that can take over one who waits here.
std::optional<std::uint32_t> Scheduler::idle_cpu_for_waiting(std::uint32_t index) {
    if (idle_.empty())
        return std::nullopt;
    for (const SchedEntity& entity : at(index).queue.waiting()) {
        std::optional<std::uint32_t> helper;
        idle_.for_each_of(entity.affinity_, [&](std::uint32_t cpu) {
            if (!helper && cpu != index && idle_.remove(cpu))
                helper = cpu;
        });
        if (helper)
            return helper;
    }
    return std::nullopt;
}

/// Tells the other CPUs what changed here.
void Scheduler::publish(std::uint32_t index) {
    Cpu& cpu = at(index);
    const VirtualTime offset = cpu.offset.load(std::memory_order_relaxed);
    cpu.progress.store(cpu.queue.progress() + offset, std::memory_order_relaxed);
    cpu.load.store(cpu.queue.load(), std::memory_order_relaxed);
    if (const SchedEntity* const first = cpu.queue.waiting().front()) {
        cpu.first_waiting.store(first->virtual_time_ + offset, std::memory_order_relaxed);
        if (!waiting_.contains(index))
            waiting_.add(index);
    } else {
        waiting_.remove(index);
    }
}

}  // namespace hv
