// SPDX-License-Identifier: MIT
#include "vmm/virtio/queue_worker.hpp"

namespace hv::virtio {

Expected<void> QueueWorker::start(unsigned queue, const QueueLayout& layout, std::uint64_t features,
                                  VirtioTransport& transport) {
    if (layout.size == 0)
        return {};
    HV_TRY(ring_.start(layout, features));
    queue_ = queue;
    transport_ = &transport;
    turn_.open();
    return {};
}

void QueueWorker::stop() {
    turn_.close();
    clock_.disarm(*this);
    ring_.stop();
}

void QueueWorker::process() {
    if (!turn_.enter())
        return;
    const Stint stint{clock_};
    Effort effort;
    for (unsigned round = 0; round < kRounds; ++round) {
        // Also if the ring is empty: the turn before may have ended without asking for notifications.
        const Progress progress = work(effort);
        if (ring_.publish())
            transport_->queue_interrupt(queue_);
        if (progress == Progress::more)
            break;
        if (progress == Progress::waits && effort.retry_at != 0)
            clock_.arm(*this, effort.retry_at);
        // A note may say that what waits can go on now.
        if (!turn_.leave())
            return;
    }
    clock_.arm(*this, stint.next());
    turn_.abandon();
}

QueueWorker::Progress QueueWorker::work(Effort& effort) {
    ring_.suppress_notifications();
    for (unsigned chains = 0; chains < kChains && effort.spent < budget_; ++chains) {
        switch (client_.next(queue_, ring_, effort)) {
        case QueueClient::Step::handled: break;
        case QueueClient::Step::waits: return Progress::waits;
        case QueueClient::Step::absent:
            effort.retry_at = clock_.now() + clock_.from_nanoseconds(Virtqueue::kRetryNs);
            return Progress::waits;
        case QueueClient::Step::unfinished: return Progress::more;
        case QueueClient::Step::empty:
            if (!ring_.request_notifications())
                return Progress::done;
            ring_.suppress_notifications();
            break;
        case QueueClient::Step::broken:
            ring_.set_broken();
            transport_->needs_reset();
            return Progress::done;
        }
    }
    return Progress::more;
}

}  // namespace hv::virtio
