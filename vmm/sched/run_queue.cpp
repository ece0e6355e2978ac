// SPDX-License-Identifier: MIT
#include "vmm/sched/run_queue.hpp"

#include <algorithm>

namespace hv {
namespace {

/// Only the CPU that runs an entity writes its counters; any may read them.
void count(std::atomic<std::uint64_t>& counter, std::uint64_t amount) {
    counter.store(counter.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
}

/// CPUs' time-stamp counters may differ by a few ticks.
std::uint64_t elapsed(std::uint64_t since, std::uint64_t now) {
    return now > since ? now - since : 0;
}

}  // namespace

SchedEntity::SchedEntity(SchedGroup& group, const CpuSet& affinity)
    : group_{group}, cpu_{affinity.first().value_or(0)}, affinity_{affinity} {
    HV_ASSERT(!affinity.empty());
}

SchedEntity::~SchedEntity() {
    HV_ASSERT(state() == State::blocked || state() == State::retired);
}

void RunQueue::add(SchedEntity& entity, std::uint64_t now) {
    entity.since_ = now;
    entity.load_ = entity.group_.weight() / std::max(entity.group_.active(), std::uint32_t{1});
    load_ += entity.load_;
    entity.state_.store(SchedEntity::State::queued, std::memory_order_release);
    for (SchedEntity& other : waiting_) {
        if (ahead(entity.virtual_time_, other.virtual_time_) < 0) {
            waiting_.insert_before(other, entity);
            return;
        }
    }
    waiting_.push_back(entity);
}

void RunQueue::remove(SchedEntity& entity, std::uint64_t now) {
    waiting_.remove(entity);
    load_ -= entity.load_;
    count(entity.wait_ticks_, elapsed(entity.since_, now));
}

void RunQueue::start(SchedEntity& entity, std::uint64_t now) {
    remove(entity, now);
    load_ += entity.load_;
    if (entity.woken_ != 0)
        note_wake(entity, now);
    entity.since_ = now;
    entity.yields_ = false;
    entity.state_.store(SchedEntity::State::running, std::memory_order_release);
    current_ = &entity;
    advance();
}

void RunQueue::note_wake(SchedEntity& entity, std::uint64_t now) {
    const std::uint64_t took = elapsed(entity.woken_, now);
    entity.woken_ = 0;
    count(entity.wakes_, 1);
    count(entity.wake_ticks_, took);
    if (took > entity.most_wake_ticks())
        entity.most_wake_ticks_.store(took, std::memory_order_relaxed);
}

SchedEntity* RunQueue::stop(std::uint64_t now) {
    SchedEntity* const entity = current_;
    if (entity == nullptr)
        return nullptr;
    const std::uint64_t ran = elapsed(entity->since_, now);
    count(entity->run_ticks_, ran);
    entity->virtual_time_ += entity->group_.virtual_time(ran);
    entity->group_.spend(ran);
    entity->since_ = now;
    advance();
    load_ -= entity->load_;
    current_ = nullptr;
    return entity;
}

void RunQueue::resume(SchedEntity& entity, std::uint64_t now) {
    entity.since_ = now;
    load_ += entity.load_;
    entity.state_.store(SchedEntity::State::running, std::memory_order_release);
    current_ = &entity;
}

void RunQueue::throttle(SchedEntity& entity, std::uint64_t now) {
    remove(entity, now);
    entity.release_ = entity.group_.period_end();
    entity.state_.store(SchedEntity::State::throttled, std::memory_order_release);
    throttled_.push_back(entity);
}

VirtualTime RunQueue::current_time(std::uint64_t now) const {
    return current_->virtual_time_ + current_->group_.virtual_time(elapsed(current_->since_, now));
}

std::uint64_t RunQueue::next_release() {
    std::uint64_t first = ~std::uint64_t{0};
    for (const SchedEntity& entity : throttled_)
        first = std::min(first, entity.release_);
    return first;
}

void RunQueue::advance() {
    VirtualTime least = current_->virtual_time_;
    if (!waiting_.empty() && ahead(waiting_.front()->virtual_time_, least) < 0)
        least = waiting_.front()->virtual_time_;
    if (ahead(least, progress_) > 0)
        progress_ = least;
}

}  // namespace hv
