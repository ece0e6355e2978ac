// SPDX-License-Identifier: MIT
#include "vmm/virtio/virtqueue.hpp"

#include "vmm/base/bytes.hpp"

#include <algorithm>
#include <bit>

namespace hv::virtio {
namespace {

// Offsets in the rings [virtio1.2 2.7.6 The Virtqueue Available Ring, 2.7.8 The Virtqueue Used Ring].
constexpr std::uint32_t kFlags = 0;
constexpr std::uint32_t kIndex = 2;
constexpr std::uint32_t kRing = 4;
constexpr std::uint32_t kAvailElement = 2;
constexpr std::uint32_t kUsedElement = 8;
constexpr std::uint32_t kEvent = 2;  ///< used_event, avail_event: behind the ring

/// So many granules of a chain's absent memory are taken at a time: each has to be zeroed.
constexpr unsigned kMostTaken = 4;

/// No chain is longer [virtio1.2 2.7.5 The Virtqueue Descriptor Table].
constexpr std::uint64_t kMaxChainBytes = std::uint64_t{1} << 32;

/// A copy that the compiler cannot replace by a second look at the guest's memory.
VirtqDescriptor fetch(const std::byte* at) {
    const auto descriptor = load<VirtqDescriptor>(at);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    return descriptor;
}

}  // namespace

/// Collects the pieces of a chain's descriptors.
class Virtqueue::ChainBuilder {
public:
    ChainBuilder(const GuestMemory& memory, std::span<Piece> storage) : memory_{memory}, storage_{storage} {}

    /// False: the descriptor breaks a rule.
    [[gnu::always_inline]] bool add(const VirtqDescriptor& descriptor) {
        const bool writable = (descriptor.flags & VIRTQ_DESC_F_WRITE) != 0;
        if (writable_ && !writable)
            return false;  // [virtio1.2 2.7.4.2 Driver Requirements: Message Framing]: readable ones come
                           // first
        if (writable && !writable_) {
            writable_ = true;
            readable_count_ = count_;
        }
        std::uint64_t& total = writable ? writable_size_ : readable_size_;
        total += descriptor.len;
        if (readable_size_ + writable_size_ > kMaxChainBytes)
            return false;
        Gpa gpa{descriptor.addr};
        for (std::uint64_t left = descriptor.len; left > 0;) {
            const std::uint64_t size =
                std::min(left, GuestMemory::kGranule - gpa.raw % GuestMemory::kGranule);
            std::byte* data = memory_.present_at(gpa, size);
            if (data == nullptr) [[unlikely]] {
                data = take(gpa, size);
                if (data == nullptr)
                    return false;
            }
            append(data, static_cast<std::uint32_t>(size));
            gpa += size;
            left -= size;
        }
        return true;
    }

    /// add() found RAM that is not there yet.
    [[nodiscard]] bool absent() const { return absent_; }
    bool set_absent() {
        absent_ = true;
        return false;
    }
    [[nodiscard]] Chain chain(std::uint16_t head) const {
        const std::size_t readable = writable_ ? readable_count_ : count_;
        return {head,
                oversized_,
                storage_.first(readable),
                storage_.subspan(readable, count_ - readable),
                readable_size_,
                writable_size_,
                last_};
    }

private:
    [[gnu::cold, gnu::noinline]] std::byte* take(Gpa gpa, std::uint64_t size) {
        std::byte* data = taken_ < kMostTaken ? memory_.at(gpa, size) : nullptr;
        ++taken_;
        absent_ = data == nullptr && memory_.is_ram(gpa);
        return data;
    }
    void append(std::byte* data, std::uint32_t size) {
        const std::size_t first = writable_ ? readable_count_ : 0;
        if (count_ > first && !oversized_) {
            Piece& last = storage_[count_ - 1];
            if (last.data + last.size == data && size <= ~last.size) {
                last.size += size;
                return;
            }
        }
        if (count_ == storage_.size()) [[unlikely]] {
            oversized_ = true;
            last_ = {data, size};
        } else {
            storage_[count_++] = {data, size};
        }
    }

    const GuestMemory& memory_;
    std::span<Piece> storage_;
    std::size_t count_{0};
    std::size_t readable_count_{0};
    std::uint64_t readable_size_{0};
    std::uint64_t writable_size_{0};
    Piece last_{};
    unsigned taken_{0};
    bool writable_{false};
    bool oversized_{false};
    bool absent_{false};
};

/// Collects the ranges of a chain's descriptors.
class Virtqueue::RangeBuilder {
public:
    RangeBuilder(const GuestMemory& memory, std::span<GuestRange> storage)
        : memory_{memory}, storage_{storage} {}

    /// False: it is not RAM.
    bool add(const VirtqDescriptor& descriptor) {
        if (!memory_.contains(Gpa{descriptor.addr}, descriptor.len))
            return false;
        if (count_ == storage_.size())
            oversized_ = true;
        else
            storage_[count_++] = {Gpa{descriptor.addr}, descriptor.len};
        return true;
    }
    [[nodiscard]] bool absent() const { return absent_; }
    bool set_absent() {
        absent_ = true;
        return false;
    }
    [[nodiscard]] RangeChain chain(std::uint16_t head) const {
        return {head, oversized_, storage_.first(count_)};
    }

private:
    const GuestMemory& memory_;
    std::span<GuestRange> storage_;
    std::size_t count_{0};
    bool oversized_{false};
    bool absent_{false};
};

Expected<Virtqueue::Area> Virtqueue::map(Gpa gpa, std::uint64_t size, std::uint64_t alignment) const {
    if (!gpa.aligned(alignment))
        return Unexpected{Error::invalid_argument};
    if (!memory_.contains(gpa, size) || !memory_.pin(gpa, size))
        return Unexpected{Error::out_of_range};
    return Area{gpa, memory_.at(gpa, size), size};
}

std::byte* Virtqueue::elsewhere(const Area& area, std::uint32_t offset, std::size_t size) const {
    return memory_.at(area.gpa + offset, size);
}

void Virtqueue::unmap() {
    for (Area* area : {&descriptors_, &driver_, &device_}) {
        memory_.unpin(area->gpa, area->size);
        *area = {};
    }
}

void Virtqueue::stop() {
    set_broken();
    unmap();
}

Expected<void> Virtqueue::start(const QueueLayout& layout, std::uint64_t features) {
    stop();
    if (!std::has_single_bit(layout.size) || layout.size > kMaxSize)
        return Unexpected{Error::invalid_argument};
    // Alignments: [virtio1.2 2.7 Split Virtqueues].
    descriptors_ = HV_TRY(map(layout.descriptors, sizeof(VirtqDescriptor) * std::uint64_t{layout.size}, 16));
    driver_ = HV_TRY(map(layout.driver, kRing + kEvent + kAvailElement * std::uint64_t{layout.size}, 2));
    device_ = HV_TRY(map(layout.device, kRing + kEvent + kUsedElement * std::uint64_t{layout.size}, 4));
    size_ = layout.size;
    event_idx_ = (features & VIRTIO_F_EVENT_IDX) != 0;
    indirect_ = (features & VIRTIO_F_INDIRECT_DESC) != 0;
    next_avail_ = avail_index_ = used_index_ = staged_ = 0;
    notifications_requested_ = true;
    broken_.store(false, std::memory_order_relaxed);
    return {};
}

bool Virtqueue::refresh() {
    if (broken())
        return false;
    if (next_avail_ != avail_index_)
        return true;
    avail_index_ = word<std::uint16_t>(driver_, kIndex).load(std::memory_order_acquire);
    if (static_cast<std::uint16_t>(avail_index_ - next_avail_) > size_) [[unlikely]]
        set_broken();
    return next_avail_ != avail_index_ && !broken();
}

// Most chains are of one descriptor or two: inlined, taking one costs two thirds.
template <class Builder>
[[gnu::always_inline]] inline bool Virtqueue::follow(std::uint16_t head, Builder& builder) const {
    std::uint16_t index = head;
    for (unsigned count = 0; count < size_; ++count) {
        if (index >= size_)
            return false;
        const auto descriptor =
            fetch(at(descriptors_, index * std::uint32_t{sizeof(VirtqDescriptor)}, sizeof(VirtqDescriptor)));
        if ((descriptor.flags & VIRTQ_DESC_F_INDIRECT) != 0) {
            if (!indirect_ || (descriptor.flags & VIRTQ_DESC_F_NEXT) != 0)
                return false;
            return follow_indirect(descriptor, builder);
        }
        if (!builder.add(descriptor))
            return false;
        if ((descriptor.flags & VIRTQ_DESC_F_NEXT) == 0)
            return true;
        index = descriptor.next;
    }
    return false;  // a loop
}

template <class Builder>
[[gnu::always_inline]] inline Virtqueue::Pop Virtqueue::take(Builder& builder, std::uint16_t& head) {
    if (!refresh())
        return broken() ? Pop::broken : Pop::empty;
    head = word<std::uint16_t>(driver_, kRing + kAvailElement * slot(next_avail_))
               .load(std::memory_order_relaxed);
    if (!follow(head, builder)) {
        if (builder.absent())
            return Pop::absent;
        set_broken();
        return Pop::broken;
    }
    ++next_avail_;
    return Pop::ready;
}

Virtqueue::Pop Virtqueue::pop(std::span<Piece> storage, Chain& chain) {
    ChainBuilder builder{memory_, storage};
    std::uint16_t head{};
    const Pop popped = take(builder, head);
    if (popped == Pop::ready)
        chain = builder.chain(head);
    return popped;
}

Virtqueue::Pop Virtqueue::pop_ranges(std::span<GuestRange> storage, RangeChain& chain) {
    RangeBuilder builder{memory_, storage};
    std::uint16_t head{};
    const Pop popped = take(builder, head);
    if (popped == Pop::ready)
        chain = builder.chain(head);
    return popped;
}

template <class Builder>
bool Virtqueue::follow_indirect(const VirtqDescriptor& table, Builder& builder) const {
    const std::uint32_t entries = table.len / sizeof(VirtqDescriptor);
    if (entries == 0 || table.len % sizeof(VirtqDescriptor) != 0)
        return false;
    const std::byte* whole = memory_.at(Gpa{table.addr}, table.len);
    if (whole == nullptr && !memory_.contains(Gpa{table.addr}, table.len))
        return false;
    std::uint32_t index = 0;
    for (unsigned count = 0; count < kMaxSize; ++count) {
        if (index >= entries)
            return false;
        VirtqDescriptor descriptor{};
        const std::uint64_t offset = index * sizeof descriptor;
        if (whole != nullptr)
            descriptor = fetch(whole + offset);
        else if (!memory_.read(Gpa{table.addr} + offset, std::as_writable_bytes(std::span{&descriptor, 1})))
            return builder.set_absent();
        if ((descriptor.flags & VIRTQ_DESC_F_INDIRECT) != 0 || !builder.add(descriptor))
            return false;
        if ((descriptor.flags & VIRTQ_DESC_F_NEXT) == 0)
            return true;
        index = descriptor.next;
    }
    return false;
}

void Virtqueue::suppress_notifications() {
    if (!notifications_requested_)
        return;
    notifications_requested_ = false;
    // With the event index an event that lies behind does the same.
    if (!event_idx_ && !broken())
        word<std::uint16_t>(device_, kFlags).store(VIRTQ_USED_F_NO_NOTIFY, std::memory_order_relaxed);
}

bool Virtqueue::request_notifications() {
    if (broken())
        return false;
    notifications_requested_ = true;
    // The driver writes its index, then reads the event or flags; we write those, then read the index: one of
    // us sees the other's word if all four accesses have one order [virtio1.2 2.7.10 Available Buffer
    // Notification Suppression].
    if (event_idx_)
        word<std::uint16_t>(device_, kRing + kUsedElement * size_)
            .store(next_avail_, std::memory_order_seq_cst);
    else
        word<std::uint16_t>(device_, kFlags).store(0, std::memory_order_seq_cst);
    return has_work();
}

void Virtqueue::push(std::uint16_t head, std::uint32_t written) {
    const std::uint32_t element =
        kRing + kUsedElement * slot(static_cast<std::uint16_t>(used_index_ + staged_));
    word<std::uint32_t>(device_, element).store(head, std::memory_order_relaxed);
    word<std::uint32_t>(device_, element + 4).store(written, std::memory_order_relaxed);
    ++staged_;
}

bool Virtqueue::publish() {
    if (staged_ == 0)
        return false;
    const std::uint16_t count = staged_;
    used_index_ = static_cast<std::uint16_t>(used_index_ + count);
    staged_ = 0;
    word<std::uint16_t>(device_, kIndex).store(used_index_, std::memory_order_seq_cst);
    return wants_interrupt(used_index_, count);
}

bool Virtqueue::would_interrupt() const {
    return staged_ != 0 && wants_interrupt(static_cast<std::uint16_t>(used_index_ + staged_), staged_);
}

// [virtio1.2 2.7.7 Used Buffer Notification Suppression]; the order is that of request_notifications().
[[gnu::always_inline]] inline bool Virtqueue::wants_interrupt(std::uint16_t end, std::uint16_t count) const {
    if (!event_idx_)
        return (word<std::uint16_t>(driver_, kFlags).load(std::memory_order_seq_cst) &
                VIRTQ_AVAIL_F_NO_INTERRUPT) == 0;
    const auto event =
        word<std::uint16_t>(driver_, kRing + kAvailElement * size_).load(std::memory_order_seq_cst);
    return static_cast<std::uint16_t>(end - event - 1) < count;
}

}  // namespace hv::virtio
