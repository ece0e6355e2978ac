// SPDX-License-Identifier: MIT
// The device's side of a split virtqueue with indirect descriptors and the event index. Everything in the
// rings is the guest's to change at any time: each value is read once, checked, then used. A ring that breaks
// the rules is broken until it is started again. [virtio1.2 2.7 Split Virtqueues]
//
// Two sides may run at once on different CPUs, each under its user's own exclusion: the available side (pop,
// unpop, notifications) and the used side (push, publish).
#pragma once

#include "drivers/virtio/virtio_defs.hpp"
#include "vmm/base/address.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/mm/guest_memory.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

namespace hv::virtio {

/// Guest memory that a descriptor names, where the host sees it.
struct Piece {
    std::byte* data;
    std::uint32_t size;
};

/// A buffer that the driver made available: what the device reads, then what it writes.
struct Chain {
    std::uint16_t head;
    /// Legal, but of more pieces than the storage holds: readable and writable have the first ones.
    bool oversized;
    std::span<Piece> readable;
    std::span<Piece> writable;
    std::uint64_t readable_size;  ///< of all there are, as writable_size
    std::uint64_t writable_size;
    Piece last;  ///< of an oversized chain: its last piece, where a request's status is
};

/// Guest memory that a descriptor names, by its address.
struct GuestRange {
    Gpa gpa;
    std::uint64_t size;
};

/// What the driver says about a queue before it enables it.
struct QueueLayout {
    std::uint16_t size{};
    Gpa descriptors{};  ///< descriptor area
    Gpa driver{};       ///< driver area: the available ring
    Gpa device{};       ///< device area: the used ring
};

class Virtqueue {
public:
    /// The largest queue that any device here offers, and the longest chain that is followed.
    static constexpr std::uint16_t kMaxSize = 256;

    /// Counts of pieces that a chain within the rules has when no descriptor is larger than 2 MiB.
    static constexpr std::size_t kMaxPieces = 2 * kMaxSize;

    explicit Virtqueue(const GuestMemory& memory) : memory_{memory} {}
    ~Virtqueue() { unmap(); }
    Virtqueue(const Virtqueue&) = delete;
    Virtqueue& operator=(const Virtqueue&) = delete;

    /// Begins with empty rings. Error::invalid_argument: the size is no power of two up to kMaxSize, or an
    /// area is misaligned; Error::out_of_range: an area is not RAM.
    Expected<void> start(const QueueLayout& layout, std::uint64_t features);
    /// Gives up the rings' memory: neither side is used before start().
    void stop();

    // --- available side
    // ------------------------------------------------------------------------------------------
    enum class Pop : std::uint8_t {
        empty,
        ready,
        broken,
        absent,  ///< memory of the next chain is not there yet: to be tried again kRetryNs later
    };
    static constexpr std::uint64_t kRetryNs = 1'000'000;
    /// Takes the next chain; its pieces lie in `storage`, adjacent ones merged.
    Pop pop(std::span<Piece> storage, Chain& chain);
    struct RangeChain {
        std::uint16_t head;
        bool oversized;  ///< of more ranges than the storage holds
        std::span<GuestRange> ranges;
    };
    /// The same for a queue whose chains name memory that nobody looks into.
    Pop pop_ranges(std::span<GuestRange> storage, RangeChain& chain);
    /// Gives back the last `count` chains that were popped.
    void unpop(std::uint16_t count) { next_avail_ = static_cast<std::uint16_t>(next_avail_ - count); }
    /// Whether pop() would find something, or find the queue broken.
    [[nodiscard]] bool has_work() { return refresh() || broken(); }
    /// The same, or notifications are still suppressed: the turn before ended without a look that found
    /// nothing, and what comes next would ring no doorbell.
    [[nodiscard]] bool needs_turn() { return !notifications_requested_ || has_work(); }
    /// Whether all is popped that the driver was seen to have made available.
    [[nodiscard]] bool caught_up() const { return next_avail_ == avail_index_; }
    /// Tells the driver that notifications are of no use for now.
    void suppress_notifications();
    /// Asks for a notification when chains become available. True: some came meanwhile, for which none may
    /// arrive.
    [[nodiscard]] bool request_notifications();

    // --- used side
    // -----------------------------------------------------------------------------------------------
    /// Puts a chain in the used ring with `written` bytes written; the driver sees it after publish().
    void push(std::uint16_t head, std::uint32_t written);
    /// Forgets the last `count` chains that were pushed and not published.
    void unpush(std::uint16_t count) { staged_ = static_cast<std::uint16_t>(staged_ - count); }
    /// Shows the driver what was pushed. True: it wants an interrupt.
    [[nodiscard]] bool publish();
    /// What publish() would say if the driver changed nothing.
    [[nodiscard]] bool would_interrupt() const;
    /// Chains that were pushed and not published.
    [[nodiscard]] std::uint16_t unpublished() const { return staged_; }

    [[nodiscard]] bool broken() const { return broken_.load(std::memory_order_relaxed); }
    void set_broken() { broken_.store(true, std::memory_order_relaxed); }
    [[nodiscard]] std::uint16_t size() const { return size_; }

private:
    /// One of the three areas. It lies in RAM, but perhaps not in one piece of host memory.
    struct Area {
        Gpa gpa{};
        std::byte* base{};  ///< nullptr: in several pieces
        std::uint64_t size{0};
    };
    class ChainBuilder;
    class RangeBuilder;

    [[nodiscard]] std::byte* at(const Area& area, std::uint32_t offset, std::size_t size) const {
        return area.base != nullptr ? area.base + offset : elsewhere(area, offset, size);
    }
    /// at() of an area in several pieces.
    [[gnu::cold]] [[nodiscard]] std::byte* elsewhere(const Area& area, std::uint32_t offset,
                                                     std::size_t size) const;
    Expected<Area> map(Gpa gpa, std::uint64_t size, std::uint64_t alignment) const;
    void unmap();
    template <class T>
    [[nodiscard]] std::atomic_ref<T> word(const Area& area, std::uint32_t offset) const {
        return std::atomic_ref<T>{*reinterpret_cast<T*>(at(area, offset, sizeof(T)))};
    }
    [[nodiscard]] std::uint32_t slot(std::uint16_t index) const { return index & (std::uint32_t{size_} - 1); }
    /// Reads the available index afresh if none is known to be left. False: nothing is available, or the
    /// queue is broken.
    bool refresh();
    /// Takes the next head and gives the builder its descriptors.
    template <class Builder>
    Pop take(Builder& builder, std::uint16_t& head);
    template <class Builder>
    bool follow(std::uint16_t head, Builder& builder) const;
    template <class Builder>
    bool follow_indirect(const VirtqDescriptor& table, Builder& builder) const;

    /// Whether the driver wants an interrupt for the `count` chains before used index `end`.
    [[nodiscard]] bool wants_interrupt(std::uint16_t end, std::uint16_t count) const;

    const GuestMemory& memory_;
    Area descriptors_{}, driver_{}, device_{};
    std::uint16_t size_{0};
    bool event_idx_{false};
    bool indirect_{false};
    std::atomic<bool> broken_{true};
    std::uint16_t next_avail_{0};   ///< available side: the next to pop
    std::uint16_t avail_index_{0};  ///< available side: the driver's index as last read
    bool notifications_requested_{false};
    std::uint16_t used_index_{0};  ///< used side: as published
    std::uint16_t staged_{0};      ///< used side: pushed beyond it
};

}  // namespace hv::virtio
