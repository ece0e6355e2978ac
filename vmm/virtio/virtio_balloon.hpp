// SPDX-License-Identifier: MIT
// The memory balloon: the host says how many pages it would like to have, the driver puts pages into the
// balloon and takes them out again; beside that, it reports memory that happens to be free, and tells how
// much it has of what. [virtio1.2 5.5 Traditional Memory Balloon Device] Left out: free page hints, page
// poison.
#pragma once

#include "vmm/base/guarded.hpp"
#include "vmm/virtio/balloon_pages.hpp"
#include "vmm/virtio/balloon_statistics.hpp"
#include "vmm/virtio/queue_worker.hpp"
#include "vmm/virtio/virtio_balloon_defs.hpp"
#include "vmm/virtio/virtio_device.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

namespace hv::virtio {

class VirtioBalloon final : public VirtioDevice, private QueueClient {
public:
    static constexpr unsigned kInflateQueue = 0;
    static constexpr unsigned kDeflateQueue = 1;
    static constexpr unsigned kStatisticsQueue = 2;
    static constexpr unsigned kReportingQueue = 4;  ///< as the specification counts; drivers differ
    // Of one turn, after which a timer goes on:
    static constexpr std::uint64_t kTurnPages = 4096;
    static constexpr std::uint64_t kTurnBytes = 64 * kMiB;
    /// After that long the host is asked again for memory that it did not have.
    static constexpr std::uint64_t kRetryNs = 10'000'000;

    /// All outlive the device. Error::no_memory.
    static Expected<std::unique_ptr<VirtioBalloon>> create(BalloonMemory& host, const GuestMemory& memory,
                                                           Clock& clock);
    ~VirtioBalloon() override;

    [[nodiscard]] std::uint16_t device_id() const override { return VIRTIO_ID_BALLOON; }
    [[nodiscard]] std::uint64_t features() const override {
        return VIRTIO_BALLOON_F_MUST_TELL_HOST | VIRTIO_BALLOON_F_STATS_VQ | VIRTIO_BALLOON_F_DEFLATE_ON_OOM |
               VIRTIO_BALLOON_F_PAGE_REPORTING;
    }
    [[nodiscard]] unsigned queue_count() const override { return kReportingQueue + 1; }
    [[nodiscard]] std::uint64_t read_config(std::uint64_t offset, unsigned size) const override;
    void write_config(std::uint64_t offset, unsigned size, std::uint64_t value) override;
    [[nodiscard]] bool start(std::uint64_t features, std::span<const QueueLayout> layouts) override;
    void stop() override;
    void queue_notified(unsigned queue) override;

    /// What was pending with the host is settled. Any CPU, no lock held.
    void resume();
    /// How many pages of 4 KiB the balloon should hold. Any CPU, no lock held.
    void set_target(std::uint32_t pages);
    [[nodiscard]] std::uint32_t target() const { return target_.load(std::memory_order_relaxed); }
    /// How many it holds, by the driver's word.
    [[nodiscard]] std::uint32_t actual() const { return actual_.load(std::memory_order_relaxed); }
    /// What the driver said last; request_statistics() asks for news. Any CPU, no lock held.
    [[nodiscard]] BalloonStatistics::Values statistics();
    void request_statistics();

    struct Counters {
        std::atomic<std::uint64_t> reported_bytes{0};  ///< that the host took
        std::atomic<std::uint64_t> wrong_pages{0};     ///< page frames that are not RAM
    };
    [[nodiscard]] const Counters& counters() const { return counters_; }
    /// Of what is in the balloon now.
    [[nodiscard]] std::uint64_t released_bytes();

private:
    /// A queue of page frame numbers.
    struct PageQueue {
        PageQueue(VirtioBalloon& owner, const GuestMemory& memory, Clock& clock)
            : worker{owner, kTurnPages, memory, clock} {}
        // Whoever has the turn:
        std::uint64_t done{0};  ///< bytes of the chain at hand
        std::array<Piece, Virtqueue::kMaxPieces> pieces{};
        QueueWorker worker;
    };

    VirtioBalloon(BalloonMemory& host, BalloonPages pages, const GuestMemory& memory, Clock& clock);
    Step next(unsigned queue, Virtqueue& ring, Effort& effort) override;
    Step move_pages(PageQueue& queue, Virtqueue& ring, Effort& effort);
    /// False: it has to wait.
    bool move_page(const PageQueue& queue, std::uint32_t page_frame);
    Step take_report(Virtqueue& ring, Effort& effort);
    /// Releases the whole granules of a range. False: that is pending.
    bool release(const GuestRange& range);
    /// Tells the transport what a look at the statistics' queue came to.
    void conclude(BalloonStatistics::Outcome outcome);

    BalloonMemory& host_;
    Clock& clock_;
    std::atomic<std::uint32_t> target_{0};
    std::atomic<std::uint32_t> actual_{0};
    // Settled while the queues are closed:
    bool collects_{false};  ///< the driver tells before it uses a page
    unsigned statistics_queue_{0};
    unsigned reporting_queue_{0};  ///< 0: none

    Guarded<BalloonPages, Rank::device_tx> pages_;
    PageQueue inflate_;
    PageQueue deflate_;
    // Whoever has the turn of reporting_:
    std::uint64_t reported_{0};  ///< bytes of the chain at hand
    std::array<GuestRange, Virtqueue::kMaxSize> ranges_{};
    QueueWorker reporting_;
    Guarded<BalloonStatistics, Rank::device_rx> statistics_;
    Counters counters_;
};

}  // namespace hv::virtio
