// SPDX-License-Identifier: MIT
#include "vmm/sched/timer_queue.hpp"

namespace hv {

void TimerQueue::move_here(Timer& timer, std::uint64_t deadline) {
    for (;;) {
        disarm(timer);
        lock_.lock();
        const bool mine = claim(timer);
        if (mine)
            rearm(timer, deadline);
        lock_.unlock();
        if (mine)
            return;
    }
}

void TimerQueue::disarm(Timer& timer) {
    TimerQueue* queue = timer.queue_.load(std::memory_order_acquire);
    if (queue == nullptr)
        return;
    queue->lock_.lock();
    if (timer.queue_.load(std::memory_order_relaxed) == queue) {  // else it fired, or somebody moved it
        queue->remove(timer);
        timer.queue_.store(nullptr, std::memory_order_release);
    }
    queue->lock_.unlock();
}

void TimerQueue::expire_several(std::uint64_t now) {
    std::size_t left = armed_;
    do {
        Timer& due = *root_;
        if (Timer* const next = due.child_; next != nullptr && next->sibling_ == nullptr) {
            due.child_ = next->previous_ = nullptr;
            root_ = next;
            --armed_;
            earliest_.store(next->deadline_, std::memory_order_relaxed);
        } else {
            remove(due);
        }
        unlock_and_fire(due);
        if (--left == 0 || earliest() > now)
            return;
        lock_.lock();
    } while (root_ != nullptr && root_->deadline_ <= now);
    lock_.unlock();
}

/// Joins two heaps; nullptr is the empty one.
Timer* TimerQueue::meld(Timer* a, Timer* b) {
    if (a == nullptr || b == nullptr)
        return a == nullptr ? b : a;
    Timer* const parent = b->deadline_ < a->deadline_ ? b : a;
    Timer* const child = parent == a ? b : a;
    child->sibling_ = parent->child_;
    if (child->sibling_ != nullptr)
        child->sibling_->previous_ = child;
    child->previous_ = parent;
    parent->child_ = child;
    parent->sibling_ = parent->previous_ = nullptr;
    return parent;
}

/// Joins a list of siblings: in pairs, then the pairs from the last one on.
Timer* TimerQueue::meld_all(Timer* first) {
    Timer* pairs = nullptr;  // linked by sibling_, last pair first
    while (first != nullptr) {
        Timer* const second = first->sibling_;
        Timer* const rest = second != nullptr ? second->sibling_ : nullptr;
        first->sibling_ = first->previous_ = nullptr;
        if (second != nullptr)
            second->sibling_ = second->previous_ = nullptr;
        Timer* const pair = meld(first, second);
        pair->sibling_ = pairs;
        pairs = pair;
        first = rest;
    }
    Timer* heap = nullptr;
    while (pairs != nullptr) {
        Timer* const rest = pairs->sibling_;
        pairs->sibling_ = nullptr;
        heap = meld(heap, pairs);
        pairs = rest;
    }
    return heap;
}

/// Puts a timer of this queue, in the heap or not yet, where its deadline belongs.
void TimerQueue::rearm(Timer& timer, std::uint64_t deadline) {
    if (&timer == root_ || timer.previous_ != nullptr)
        remove(timer);
    timer.deadline_ = deadline;
    root_ = meld(root_, &timer);
    ++armed_;
    earliest_.store(root_->deadline_, std::memory_order_relaxed);
}

void TimerQueue::remove(Timer& timer) {
    Timer* const orphans = timer.child_ != nullptr ? meld_all(timer.child_) : nullptr;
    if (&timer == root_) {
        root_ = orphans;
    } else {
        Timer* const previous = timer.previous_;  // the sibling before, or the parent of a first child
        (previous->child_ == &timer ? previous->child_ : previous->sibling_) = timer.sibling_;
        if (timer.sibling_ != nullptr)
            timer.sibling_->previous_ = previous;
        root_ = meld(root_, orphans);
    }
    timer.child_ = timer.sibling_ = timer.previous_ = nullptr;
    --armed_;
    earliest_.store(root_ != nullptr ? root_->deadline_ : kNever, std::memory_order_relaxed);
}

}  // namespace hv
