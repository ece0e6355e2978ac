// SPDX-License-Identifier: MIT
#include "vmm/virtio/virtio_balloon.hpp"

#include "vmm/virtio/piece_list.hpp"

#include <algorithm>
#include <new>

namespace hv::virtio {

VirtioBalloon::VirtioBalloon(BalloonMemory& host, BalloonPages pages, const GuestMemory& memory, Clock& clock)
    : host_{host},
      clock_{clock},
      pages_{std::move(pages)},
      inflate_{*this, memory, clock},
      deflate_{*this, memory, clock},
      reporting_{*this, kTurnBytes, memory, clock},
      statistics_{memory} {}

Expected<std::unique_ptr<VirtioBalloon>> VirtioBalloon::create(BalloonMemory& host, const GuestMemory& memory,
                                                               Clock& clock) {
    BalloonPages pages = HV_TRY(BalloonPages::create(memory, host));
    std::unique_ptr<VirtioBalloon> device{new (std::nothrow)
                                              VirtioBalloon{host, std::move(pages), memory, clock}};
    if (device == nullptr)
        return Unexpected{Error::no_memory};
    return device;
}

VirtioBalloon::~VirtioBalloon() {
    stop();
}

std::uint64_t VirtioBalloon::read_config(std::uint64_t offset, unsigned size) const {
    const BalloonConfig config{target(), actual(), 0, 0};
    return read_bytes(std::as_bytes(std::span{&config, 1}), offset, size);
}

void VirtioBalloon::write_config(std::uint64_t offset, unsigned size, std::uint64_t value) {
    if (offset == offsetof(BalloonConfig, actual) && size == 4)
        actual_.store(static_cast<std::uint32_t>(value), std::memory_order_relaxed);
}

bool VirtioBalloon::start(std::uint64_t features, std::span<const QueueLayout> layouts) {
    // The specification numbers the queues for all features [virtio1.2 5.5.2 Virtqueues]; Linux counts those
    // that the negotiated features bring along. Which of the two it was shows in what is enabled.
    collects_ = (features & VIRTIO_BALLOON_F_MUST_TELL_HOST) != 0;
    statistics_queue_ = (features & VIRTIO_BALLOON_F_STATS_VQ) != 0 ? kStatisticsQueue : 0;
    reporting_queue_ = 0;
    if ((features & VIRTIO_BALLOON_F_PAGE_REPORTING) != 0) {
        const unsigned counted = statistics_queue_ != 0 ? kStatisticsQueue + 1 : kStatisticsQueue;
        reporting_queue_ = layouts[kReportingQueue].size != 0 ? kReportingQueue : counted;
    }
    inflate_.done = deflate_.done = reported_ = 0;
    const auto run = [&](QueueWorker& worker, unsigned queue) {
        return worker.start(queue, layouts[queue], features, transport()).has_value();
    };
    bool usable = run(inflate_.worker, kInflateQueue);
    usable = run(deflate_.worker, kDeflateQueue) && usable;
    if (reporting_queue_ != 0)
        usable = run(reporting_, reporting_queue_) && usable;
    if (statistics_queue_ != 0)
        usable = statistics_.with([&](BalloonStatistics& statistics) {
            return statistics.start(layouts[statistics_queue_], features).has_value();
        }) && usable;
    return usable;
}

void VirtioBalloon::stop() {
    inflate_.worker.stop();
    deflate_.worker.stop();
    reporting_.stop();
    statistics_.with([](BalloonStatistics& statistics) { statistics.stop(); });
    // Whoever drives the device next knows of no page in the balloon.
    pages_.with([](BalloonPages& pages) { pages.clear(); });
    host_.cancel();
    actual_.store(0, std::memory_order_relaxed);
}

void VirtioBalloon::queue_notified(unsigned queue) {
    if (queue == kInflateQueue)
        inflate_.worker.process();
    else if (queue == kDeflateQueue)
        deflate_.worker.process();
    else if (queue == reporting_queue_)
        reporting_.process();
    else if (queue == statistics_queue_)
        conclude(statistics_.with([](BalloonStatistics& statistics) { return statistics.take(); }));
}

void VirtioBalloon::resume() {
    inflate_.worker.process();
    reporting_.process();
}

void VirtioBalloon::set_target(std::uint32_t pages) {
    target_.store(pages, std::memory_order_relaxed);
    transport().config_changed();
}

BalloonStatistics::Values VirtioBalloon::statistics() {
    return statistics_.with([](const BalloonStatistics& statistics) { return statistics.values(); });
}

void VirtioBalloon::request_statistics() {
    conclude(statistics_.with([](BalloonStatistics& statistics) { return statistics.request(); }));
}

void VirtioBalloon::conclude(BalloonStatistics::Outcome outcome) {
    if (outcome.broken)
        transport().needs_reset();
    if (outcome.interrupt)
        transport().queue_interrupt(kStatisticsQueue);
}

std::uint64_t VirtioBalloon::released_bytes() {
    return pages_.with([](const BalloonPages& pages) { return pages.released_bytes(); });
}

// --- queues
// -----------------------------------------------------------------------------------------------------------------

QueueClient::Step VirtioBalloon::next(unsigned queue, Virtqueue& ring, Effort& effort) {
    if (queue == kInflateQueue)
        return move_pages(inflate_, ring, effort);
    return queue == kDeflateQueue ? move_pages(deflate_, ring, effort) : take_report(ring, effort);
}

QueueClient::Step VirtioBalloon::move_pages(PageQueue& queue, Virtqueue& ring, Effort& effort) {
    Chain chain{};
    if (const auto popped = ring.pop(queue.pieces, chain); popped != Virtqueue::Pop::ready)
        return step_without(popped);
    // A page that is overlooked as it leaves would be taken from a guest that uses it.
    if (chain.oversized)
        return Step::broken;
    skip_front(chain.readable, queue.done);
    for (std::uint32_t page_frame = 0;
         take_front(chain.readable, std::as_writable_bytes(std::span{&page_frame, 1})) ==
         sizeof page_frame;) {
        if (!move_page(queue, page_frame)) {
            ring.unpop(1);
            // Who fills the balloon is called again by resume().
            effort.retry_at = &queue == &deflate_ ? clock_.now() + clock_.from_nanoseconds(kRetryNs) : 0;
            return Step::waits;
        }
        queue.done += sizeof page_frame;
        if (++effort.spent >= kTurnPages && !chain.readable.empty()) {
            ring.unpop(1);
            return Step::unfinished;
        }
    }
    queue.done = 0;
    ring.push(chain.head, 0);
    return Step::handled;
}

bool VirtioBalloon::move_page(const PageQueue& queue, std::uint32_t page_frame) {
    // Pages are collected until they make up a granule. A driver that need not tell may by then use some of
    // them again [virtio1.2 5.5.6.1 Driver Requirements: Device Operation]: nothing of its is taken.
    if (!collects_)
        return true;
    const auto result = pages_.with([&](BalloonPages& pages) {
        return &queue == &inflate_ ? pages.inflate(page_frame) : pages.deflate(page_frame);
    });
    if (result == BalloonPages::Result::not_ram)
        counters_.wrong_pages.fetch_add(1, std::memory_order_relaxed);
    return result != BalloonPages::Result::waits;
}

QueueClient::Step VirtioBalloon::take_report(Virtqueue& ring, Effort& effort) {
    Virtqueue::RangeChain chain{};
    if (const auto popped = ring.pop_ranges(ranges_, chain); popped != Virtqueue::Pop::ready)
        return step_without(popped);
    std::uint64_t skip = reported_;
    for (const GuestRange& range : chain.ranges) {
        const std::uint64_t first = std::min(skip, range.size);
        skip -= first;
        for (std::uint64_t offset = first; offset < range.size;) {
            if (effort.spent >= kTurnBytes) {
                ring.unpop(1);
                return Step::unfinished;
            }
            // Cut where granules meet.
            const Gpa at = range.gpa + offset;
            const std::uint64_t end = align_down(at.raw, GuestMemory::kGranule) + kTurnBytes;
            const std::uint64_t size = std::min(range.size - offset, end - at.raw);
            if (!release({at, size})) {
                ring.unpop(1);
                return Step::waits;  // for resume()
            }
            offset += size;
            reported_ += size;
            effort.spent += size;
        }
    }
    reported_ = 0;
    ring.push(chain.head, 0);
    return Step::handled;
}

bool VirtioBalloon::release(const GuestRange& range) {
    const std::uint64_t start = align_up(range.gpa.raw, GuestMemory::kGranule);
    const std::uint64_t end = align_down(range.gpa.raw + range.size, GuestMemory::kGranule);
    std::uint64_t released = 0;
    bool pending = false;
    for (std::uint64_t granule = start; granule < end; granule += GuestMemory::kGranule) {
        const auto release = host_.release(Gpa{granule});
        pending = pending || release == BalloonMemory::Release::pending;
        released += release == BalloonMemory::Release::done ? GuestMemory::kGranule : 0;
    }
    if (!pending)
        counters_.reported_bytes.fetch_add(released, std::memory_order_relaxed);
    return !pending;
}

}  // namespace hv::virtio
