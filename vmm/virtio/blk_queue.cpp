// SPDX-License-Identifier: MIT
#include "vmm/virtio/blk_queue.hpp"

#include "vmm/virtio/piece_list.hpp"

#include <algorithm>
#include <bit>

namespace hv::virtio {
namespace {

constexpr std::uint8_t status_of(BlockStatus status) {
    switch (status) {
    case BlockStatus::ok: return VIRTIO_BLK_S_OK;
    case BlockStatus::unsupported: return VIRTIO_BLK_S_UNSUPP;
    case BlockStatus::io_error: break;
    }
    return VIRTIO_BLK_S_IOERR;
}

/// A mask of `count` consecutive ones inside `free`, or 0. `count` is 0 to 64.
std::uint64_t find_run(std::uint64_t free, unsigned count) {
    std::uint64_t starts = free;  // bit i: a run of as many ones as counted so far starts there
    for (unsigned i = 1; i < count && starts != 0; ++i)
        starts &= free >> i;
    if (starts == 0 || count == 0)
        return 0;
    const std::uint64_t ones = count == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1;
    return ones << std::countr_zero(starts);
}

void count(std::atomic<std::uint64_t>& counter, std::uint64_t amount = 1) {
    counter.fetch_add(amount, std::memory_order_relaxed);
}

}  // namespace

BlkQueue::BlkQueue(VirtioBlk& device, unsigned index, const GuestMemory& memory, Clock& clock)
    : device_{device}, index_{index}, clock_{clock}, ring_{memory} {
    for (Slot& slot : slots_) {
        slot.queue = this;
        slot.request.complete = on_complete;
        slot.request.context = &slot;
    }
}

BlkQueue::~BlkQueue() {
    stop();
    while (in_flight() != 0)
        machine::pause();
}

Expected<void> BlkQueue::start(const QueueLayout& layout, std::uint64_t features) {
    if (layout.size == 0)
        return {};  // not enabled
    HV_TRY(ring_.start(layout, features));
    {
        LockGuard guard{used_lock_};
        live_ = true;
    }
    waits_for_room_ = false;
    interrupt_due_ = false;
    turn_.open();
    return {};
}

void BlkQueue::stop() {
    turn_.close();
    clock_.disarm(*this);
    LockGuard guard{used_lock_};
    live_ = false;
}

void BlkQueue::process() {
    if (!turn_.enter())
        return;
    for (unsigned round = 0; round < kRounds; ++round) {
        if (ring_.has_work()) {
            batching_ = true;
            const Progress progress = process_ring();
            batching_ = false;
            raise_due_interrupt();
            if (progress == Progress::more)
                break;
        }
        if (!turn_.leave())
            return;
    }
    clock_.arm(*this, clock_.now());
    turn_.abandon();
}

BlkQueue::Progress BlkQueue::process_ring() {
    Chain chain{};
    unsigned attempts_without_room = 0;
    ring_.suppress_notifications();
    for (unsigned budget = kBudget; budget > 0; --budget) {
        const auto popped = ring_.pop(pieces_, chain);
        Outcome outcome = Outcome::broken;
        if (popped == Virtqueue::Pop::empty) {
            if (!ring_.request_notifications())
                return Progress::done;
            ring_.suppress_notifications();
            continue;
        }
        if (popped == Virtqueue::Pop::ready)
            outcome = handle(chain);
        if (outcome == Outcome::broken) {
            ring_.set_broken();
            device_.report_broken();
            return Progress::done;
        }
        if (outcome == Outcome::no_room) {
            ring_.unpop(1);
            // Completions look at the flag after they have made room: seen or not, one of us tries again.
            waits_for_room_ = true;
            if (++attempts_without_room > 1)
                return Progress::no_room;
        }
    }
    return Progress::more;
}

BlkQueue::Outcome BlkQueue::handle(Chain& chain) {
    BlkHeader header{};
    if (chain.oversized || chain.writable_size == 0 ||
        take_front(chain.readable, std::as_writable_bytes(std::span{&header, 1})) != sizeof header)
        return Outcome::broken;
    chain.readable_size -= sizeof header;
    std::byte* status = take_last_byte(chain.writable);
    --chain.writable_size;

    std::span<const Piece> data{};
    if (header.type == VIRTIO_BLK_T_IN)
        data = chain.writable;
    else if (header.type == VIRTIO_BLK_T_OUT)
        data = chain.readable;
    Slot* slot = take_slot(data);
    if (slot == nullptr)
        return Outcome::no_room;
    slot->head = chain.head;
    slot->status = status;
    slot->written = 1;
    if (const auto answer = prepare(*slot, header, chain))
        complete(*slot, *answer);
    else
        device_.disk_.submit(slot->request);
    return Outcome::handled;
}

std::optional<std::uint8_t> BlkQueue::prepare(Slot& slot, const BlkHeader& header, const Chain& chain) {
    BlockRequest& request = slot.request;
    switch (header.type) {
    case VIRTIO_BLK_T_IN:
        request.operation = BlockRequest::Operation::read;
        slot.written = static_cast<std::uint32_t>(chain.writable_size + 1);
        return prepare_transfer(slot, header, chain.writable_size);
    case VIRTIO_BLK_T_OUT:
        request.operation = BlockRequest::Operation::write;
        return prepare_transfer(slot, header, chain.readable_size);
    case VIRTIO_BLK_T_FLUSH:
        request.operation = BlockRequest::Operation::flush;
        request.sector = request.sector_count = 0;
        count(device_.counters_.flushes);
        return std::nullopt;
    case VIRTIO_BLK_T_GET_ID: return answer_id(slot, chain.writable);
    case VIRTIO_BLK_T_DISCARD:
        request.operation = BlockRequest::Operation::discard;
        return prepare_range(slot, header, chain);
    case VIRTIO_BLK_T_WRITE_ZEROES:
        request.operation = BlockRequest::Operation::write_zeroes;
        return prepare_range(slot, header, chain);
    default: return VIRTIO_BLK_S_UNSUPP;
    }
}

bool BlkQueue::lies_on_disk(std::uint64_t sector, std::uint64_t sectors) const {
    const BlockGeometry& geometry = device_.geometry_;
    const std::uint64_t unit = geometry.logical_block_size / kSectorSize;
    return sector <= geometry.sectors && sectors <= geometry.sectors - sector && sector % unit == 0 &&
           sectors % unit == 0;
}

std::optional<std::uint8_t> BlkQueue::prepare_transfer(Slot& slot, const BlkHeader& header,
                                                       std::uint64_t bytes) {
    BlockRequest& request = slot.request;
    const bool write = request.operation == BlockRequest::Operation::write;
    const std::uint64_t sectors = bytes / kSectorSize;
    if (bytes % kSectorSize != 0 || !lies_on_disk(header.sector, sectors) ||
        (write && device_.geometry_.read_only)) {
        slot.written = 1;
        return VIRTIO_BLK_S_IOERR;
    }
    count(write ? device_.counters_.writes : device_.counters_.reads);
    count(write ? device_.counters_.sectors_written : device_.counters_.sectors_read, sectors);
    if (sectors == 0)
        return VIRTIO_BLK_S_OK;
    request.sector = header.sector;
    request.sector_count = sectors;
    return std::nullopt;
}

std::optional<std::uint8_t> BlkQueue::prepare_range(Slot& slot, const BlkHeader& header, const Chain& chain) {
    // One segment a request, as the configuration space says.
    BlkRange range{};
    std::span<Piece> data = chain.readable;
    if (chain.readable_size != sizeof range ||
        take_front(data, std::as_writable_bytes(std::span{&range, 1})) != sizeof range)
        return VIRTIO_BLK_S_IOERR;
    const bool discard = header.type == VIRTIO_BLK_T_DISCARD;
    if ((range.flags & ~kBlkRangeUnmap) != 0 || (discard && range.flags != 0) ||
        !device_.geometry_.can_discard)
        return VIRTIO_BLK_S_UNSUPP;
    if (range.num_sectors > VirtioBlk::kMaxRangeSectors || !lies_on_disk(range.sector, range.num_sectors) ||
        device_.geometry_.read_only)
        return VIRTIO_BLK_S_IOERR;
    if (range.num_sectors == 0)
        return VIRTIO_BLK_S_OK;
    slot.request.sector = range.sector;
    slot.request.sector_count = range.num_sectors;
    return std::nullopt;
}

std::uint8_t BlkQueue::answer_id(Slot& slot, std::span<const Piece> out) const {
    slot.written = static_cast<std::uint32_t>(copy_to(out, device_.serial_) + 1);
    return VIRTIO_BLK_S_OK;
}

// --- slots
// ------------------------------------------------------------------------------------------------------------------

BlkQueue::Slot* BlkQueue::take_slot(std::span<const Piece> pieces) {
    const std::uint64_t free = free_slots_.load();
    const auto blocks = static_cast<unsigned>((pieces.size() + kBlockSegments - 1) / kBlockSegments);
    const std::uint64_t run = find_run(free_blocks_.load(), blocks);
    if (free == 0 || (run == 0 && blocks != 0))
        return nullptr;
    const std::uint64_t lowest = free & -free;
    free_slots_.fetch_and(~lowest);
    free_blocks_.fetch_and(~run);
    in_flight_.fetch_add(1, std::memory_order_relaxed);

    Slot& slot = slots_[static_cast<unsigned>(std::countr_zero(lowest))];
    slot.blocks = run;
    const std::size_t first = run == 0 ? 0 : static_cast<std::size_t>(std::countr_zero(run)) * kBlockSegments;
    std::transform(pieces.begin(), pieces.end(), segments_.begin() + first, [](const Piece& piece) {
        return BlockSegment{piece.data, piece.size};
    });
    slot.request.segments = std::span{segments_}.subspan(first, pieces.size());
    return &slot;
}

void BlkQueue::on_complete(BlockRequest& request, BlockStatus status) {
    Slot& slot = *static_cast<Slot*>(request.context);
    slot.queue->complete(slot, status_of(status));
}

void BlkQueue::complete(Slot& slot, std::uint8_t status) {
    if (status != VIRTIO_BLK_S_OK)
        count(device_.counters_.errors);
    {
        LockGuard guard{used_lock_};
        if (live_) {
            *slot.status = std::byte{status};
            ring_.push(slot.head, slot.written);
            if (ring_.publish())
                interrupt_due_ = true;
        }
    }
    free_blocks_.fetch_or(slot.blocks);
    free_slots_.fetch_or(std::uint64_t{1} << (&slot - slots_.data()));
    if (!batching_)
        raise_due_interrupt();
    if (waits_for_room_.exchange(false))
        process();
    in_flight_.fetch_sub(1, std::memory_order_release);  // from here on the device may be gone
}

void BlkQueue::raise_due_interrupt() {
    if (interrupt_due_.exchange(false))
        device_.interrupt(index_);
}

}  // namespace hv::virtio
