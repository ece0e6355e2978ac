// SPDX-License-Identifier: MIT
// One request queue of a block device: parses requests, keeps them in preallocated slots while the disk works
// on them, and puts them in the used ring as they complete. [virtio1.2 5.2.6 Device Operation]
#pragma once

#include "drivers/block/block_device.hpp"
#include "vmm/base/guarded.hpp"
#include "vmm/base/timer.hpp"
#include "vmm/base/turn.hpp"
#include "vmm/virtio/blk_ranges.hpp"
#include "vmm/virtio/virtio_blk.hpp"
#include "vmm/virtio/virtqueue.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <span>

namespace hv::virtio {

class BlkQueue final : public Timer {
public:
    BlkQueue(VirtioBlk& device, unsigned index, const GuestMemory& memory, Clock& clock);
    ~BlkQueue();

    Expected<void> start(const QueueLayout& layout, std::uint64_t features);
    void stop();
    /// Requests that the disk has, or whose completion is not quite over.
    [[nodiscard]] unsigned in_flight() const { return in_flight_.load(std::memory_order_acquire); }
    /// Takes requests from the ring and starts them, unless another CPU is at it, who then looks again.
    void process();

private:
    static constexpr unsigned kSlots = 64;
    /// Segments are handed out in blocks, of which a request gets consecutive ones: a bit each in one word.
    /// All together hold the largest request.
    static constexpr unsigned kBlocks = 64;
    static constexpr unsigned kBlockSegments = Virtqueue::kMaxPieces / kBlocks;
    /// Requests, and looks at the ring, after which a doorbell's vCPU goes on and a timer continues, so that
    /// a guest cannot keep a CPU here.
    static constexpr unsigned kBudget = 2 * Virtqueue::kMaxSize;
    /// The same for bytes, which disks in memory move at once. One request may go beyond it.
    static constexpr std::uint64_t kByteBudget = 4 * kMiB;
    static constexpr unsigned kRounds = 4;

    static constexpr unsigned kRangeRequests = 8;  ///< of slots_, at most

    struct Slot {
        BlockRequest request{};
        BlkQueue* queue{};
        std::byte* status{};      ///< where the guest wants it
        unsigned use{};           ///< of guest memory, see GuestMemory::begin_use()
        std::uint32_t written{};  ///< bytes in the used ring if it succeeds
        std::uint16_t head{};
        std::uint64_t blocks{};  ///< of segments_
    };
    enum class Progress : std::uint8_t { done, no_room, more };
    /// more: to be gone on with at `resume_at`.
    Progress process_ring(std::uint64_t& resume_at);
    /// Whether the rate is used up; then `resume_at` is when to look again.
    bool is_held_back(std::uint64_t& resume_at);
    enum class Outcome : std::uint8_t { handled, no_room, broken };
    /// Starts or answers the request in `chain`, of which it trims header and status.
    Outcome handle(Chain& chain);
    /// Fills `slot` from the request. Nothing: it is for the disk; else the status to answer at once.
    std::optional<std::uint8_t> prepare(Slot& slot, const BlkHeader& header, const Chain& chain);
    std::optional<std::uint8_t> prepare_transfer(Slot& slot, const BlkHeader& header, std::uint64_t bytes);
    std::uint8_t answer_id(Slot& slot, std::span<const Piece> out) const;
    /// handle() for discard and write_zeroes.
    Outcome handle_ranges(std::uint32_t type, const Chain& chain, std::byte* status);
    static void on_ranges_done(BlkRanges& ranges, BlockStatus status);

    /// A slot with room for these segments, or nullptr.
    Slot* take_slot(std::span<const Piece> pieces);

    static void on_complete(BlockRequest& request, BlockStatus status);
    /// Of a write that has to be made stable.
    static void on_write_complete(BlockRequest& request, BlockStatus status);
    /// Hands the request back to the driver and frees the slot.
    void complete(Slot& slot, std::uint8_t status);
    void raise_due_interrupt();
    void fire() override { process(); }

    VirtioBlk& device_;
    const GuestMemory& memory_;
    const unsigned index_;
    Clock& clock_;
    Virtqueue ring_;
    Turn turn_{Turn::Initially::closed};
    // Whoever has the turn:
    std::array<Piece, Virtqueue::kMaxPieces> pieces_{};  ///< the chain at hand
    std::uint64_t bytes_{0};                             ///< that this look at the ring has moved

    std::array<Slot, kSlots> slots_{};
    std::array<BlockSegment, Virtqueue::kMaxPieces> segments_{};
    std::array<BlkRanges, kRangeRequests> ranges_{};
    // Taken by whoever has the turn, given back by completions.
    std::atomic<std::uint64_t> free_slots_{~std::uint64_t{0}};
    std::atomic<std::uint64_t> free_blocks_{~std::uint64_t{0}};
    std::atomic<std::uint32_t> free_ranges_{(1u << kRangeRequests) - 1};
    std::atomic<unsigned> in_flight_{0};
    std::atomic<bool> waits_for_room_{false};

    Spinlock used_lock_{Rank::leaf};  ///< the used side of ring_, and live_
    bool live_{false};
    std::atomic<bool> batching_{false};  ///< whoever has the turn raises the interrupt in the end
    std::atomic<bool> interrupt_due_{false};
};

}  // namespace hv::virtio
