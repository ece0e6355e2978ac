// SPDX-License-Identifier: MIT
// Those who want to run on one CPU, in the order of their virtual time, and the one that runs. No lock of its
// own.
#pragma once

#include "vmm/sched/sched_entity.hpp"

namespace hv {

class RunQueue {
public:
    using Waiting = List<SchedEntity, &SchedEntity::link_>;

    [[nodiscard]] SchedEntity* current() const { return current_; }
    /// By rising virtual time.
    Waiting& waiting() { return waiting_; }
    Waiting& throttled() { return throttled_; }
    [[nodiscard]] bool idle() { return current_ == nullptr && waiting_.empty(); }
    /// A virtual time that nobody here is behind; it never goes back.
    [[nodiscard]] VirtualTime progress() const { return progress_; }
    /// Sum of the weights of those who run and wait.
    [[nodiscard]] std::uint32_t load() const { return load_; }

    /// `entity`, with its virtual time set, waits from `now` on.
    void add(SchedEntity& entity, std::uint64_t now);
    /// Takes out one that waits, at `now`.
    void remove(SchedEntity& entity, std::uint64_t now);
    /// `entity`, which waits, runs from `now` on.
    void start(SchedEntity& entity, std::uint64_t now);
    /// Charges the current entity, if any, and takes it out. `entity` may go on with resume().
    SchedEntity* stop(std::uint64_t now);
    void resume(SchedEntity& entity, std::uint64_t now);
    /// The last `ticks` are not charged to the current entity.
    void slept(std::uint64_t ticks) { current_->since_ += ticks; }
    /// `entity`, which waits, waits for its group's next period instead.
    void throttle(SchedEntity& entity, std::uint64_t now);
    /// Takes out one that is throttled.
    void release(SchedEntity& entity) { throttled_.remove(entity); }
    /// The virtual time that the current entity has reached at `now`.
    [[nodiscard]] VirtualTime current_time(std::uint64_t now) const;
    /// When the first throttled entity is to be released, or all ones.
    [[nodiscard]] std::uint64_t next_release();

private:
    void advance();
    static void note_wake(SchedEntity& entity, std::uint64_t now);

    Waiting waiting_;
    Waiting throttled_;
    SchedEntity* current_{nullptr};
    VirtualTime progress_{0};
    std::uint32_t load_{0};
};

}  // namespace hv
