// SPDX-License-Identifier: MIT
#include "drivers/block/nvme_queue.hpp"

#include <atomic>
#include <cstring>
#include <utility>

namespace hv::block::nvme {

Expected<Queue> Queue::create(DeviceRegisters& registers, DmaPool& pool, std::uint16_t id, unsigned entries,
                              std::size_t stride) {
    HV_ASSERT(entries >= 2 && entries <= kMaxEntries);
    return Queue{registers, HV_TRY(pool.allocate(2 * kPageSize)), id, entries, stride};
}

void Queue::clear() {
    std::memset(rings_.bytes().data(), 0, rings_.bytes().size());
    tail_ = told_tail_ = head_ = told_head_ = 0;
    phase_ = 1;
}

void Queue::push(const Submission& command) {
    *rings_.at<Submission>(tail_ * sizeof(Submission)) = command;
    tail_ = after(tail_);
}

// [nvme-pcie1 3.1.2.1 SQyTDBL – Submission Queue y Tail Doorbell]
void Queue::commit() {
    if (tail_ == told_tail_)
        return;
    told_tail_ = tail_;
    registers_->write32(kDoorbells + 2 * id_ * stride_, tail_);
}

std::optional<Completion> Queue::take() {
    auto* entry = rings_.at<Completion>(kPageSize + head_ * sizeof(Completion));
    // The phase tag turns over when the rest of an entry is there [nvme2 3.3.3.2 Common Completion Queue
    // Entry]: it is read first.
    const std::uint32_t state = std::atomic_ref{entry->state}.load(std::memory_order_acquire);
    if (Completion::Phase::get(state) != phase_)
        return std::nullopt;
    Completion completion = *entry;
    completion.state = state;
    head_ = after(head_);
    if (head_ == 0)
        phase_ ^= 1;
    return completion;
}

// [nvme-pcie1 3.1.2.2 CQyHDBL – Completion Queue y Head Doorbell]
void Queue::release() {
    if (head_ == told_head_)
        return;
    told_head_ = head_;
    registers_->write32(kDoorbells + (2 * id_ + 1) * stride_, head_);
}

}  // namespace hv::block::nvme
