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

void make_flush(BlockRequest& request) {
    request.operation = BlockRequest::Operation::flush;
    request.sector = request.sector_count = 0;
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
    : device_{device}, memory_{memory}, index_{index}, clock_{clock}, ring_{memory} {
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
    device_.throttle_.forget(index_);
    LockGuard guard{used_lock_};
    live_ = false;
    ring_.stop();
}

void BlkQueue::process() {
    if (!turn_.enter() || (!ring_.needs_turn() && !turn_.leave()))
        return;
    const Stint stint{clock_};
    std::uint64_t resume_at = 0;
    for (unsigned round = 0; round < kRounds; ++round) {
        batching_ = true;
        const Progress progress = process_ring(resume_at);
        batching_ = false;
        raise_due_interrupt();
        if (progress == Progress::more)
            break;
        if (!turn_.leave())
            return;
    }
    clock_.arm(*this, std::max(resume_at, stint.next()));
    turn_.abandon();
}

bool BlkQueue::is_held_back(std::uint64_t& resume_at) {
    if (!ring_.has_work())
        return false;
    const auto retry_at = device_.throttle_.hold_back(index_, clock_);
    if (retry_at)
        resume_at = *retry_at;
    return retry_at.has_value();
}

BlkQueue::Progress BlkQueue::process_ring(std::uint64_t& resume_at) {
    Chain chain{};
    unsigned attempts_without_room = 0;
    ring_.suppress_notifications();
    bytes_ = 0;
    for (unsigned budget = kBudget; budget > 0 && bytes_ < kByteBudget; --budget) {
        if (device_.throttle_.limits() && is_held_back(resume_at)) [[unlikely]]
            return Progress::more;
        if (ring_.caught_up()) {
            if (!ring_.request_notifications())
                return Progress::done;
            ring_.suppress_notifications();
        }
        const auto popped = ring_.pop(pieces_, chain);
        if (popped == Virtqueue::Pop::absent) [[unlikely]] {
            resume_at = clock_.now() + clock_.from_nanoseconds(Virtqueue::kRetryNs);
            return Progress::more;
        }
        const Outcome outcome = popped == Virtqueue::Pop::ready ? handle(chain) : Outcome::broken;
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
    if (chain.writable_size == 0 ||
        take_front(chain.readable, std::as_writable_bytes(std::span{&header, 1})) != sizeof header)
        return Outcome::broken;
    chain.readable_size -= sizeof header;
    std::byte* status =
        chain.oversized ? chain.last.data + chain.last.size - 1 : take_last_byte(chain.writable);
    --chain.writable_size;

    std::span<const Piece> data{};
    if (chain.oversized) [[unlikely]]
        data = {};  // not all of it is known: the driver took no notice of seg_max or size_max
    else if (header.type == VIRTIO_BLK_T_IN)
        data = chain.writable;
    else if (header.type == VIRTIO_BLK_T_OUT)
        data = chain.readable;
    else if (header.type == VIRTIO_BLK_T_DISCARD || header.type == VIRTIO_BLK_T_WRITE_ZEROES)
        return handle_ranges(header.type, chain, status);
    Slot* slot = take_slot(data);
    if (slot == nullptr)
        return Outcome::no_room;
    slot->head = chain.head;
    slot->status = status;
    slot->written = 1;
    const auto answer = chain.oversized ? std::optional{VIRTIO_BLK_S_IOERR} : prepare(*slot, header, chain);
    if (device_.throttle_.limits()) [[unlikely]]
        device_.throttle_.spend(answer ? 0 : slot->request.sector_count * kSectorSize);
    if (answer)
        complete(*slot, *answer);
    else
        device_.disk_.submit(slot->request);
    return Outcome::handled;
}

BlkQueue::Outcome BlkQueue::handle_ranges(std::uint32_t type, const Chain& chain, std::byte* status) {
    const std::uint32_t free = free_ranges_.load();
    Slot* slot = free == 0 ? nullptr : take_slot({});
    if (slot == nullptr)
        return Outcome::no_room;
    slot->head = chain.head;
    slot->status = status;
    slot->written = 1;
    BlkRanges& ranges = ranges_[static_cast<unsigned>(std::countr_zero(free))];
    const auto answer = ranges.read(type, chain.readable, chain.readable_size, device_.geometry());
    // Zeroes may have to be written like other data.
    if (device_.throttle_.limits())
        device_.throttle_.spend(answer || !ranges.writes_zeroes() ? 0 : ranges.sectors() * kSectorSize);
    if (answer) {
        complete(*slot, *answer);
        return Outcome::handled;
    }
    bytes_ += ranges.sectors() * kSectorSize;
    free_ranges_.fetch_and(~(free & -free));
    const bool stable = ranges.writes_zeroes() && !device_.writeback_.load(std::memory_order_relaxed);
    ranges.start(device_.disk_, stable ? BlkRanges::Then::flush : BlkRanges::Then::nothing, on_ranges_done,
                 slot);
    return Outcome::handled;
}

void BlkQueue::on_ranges_done(BlkRanges& ranges, BlockStatus status) {
    Slot& slot = *static_cast<Slot*>(ranges.context());
    BlkQueue& queue = *slot.queue;
    queue.free_ranges_.fetch_or(1u << (&ranges - queue.ranges_.data()));
    queue.complete(slot, status_of(status));
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
        make_flush(request);
        count(device_.counters_.flushes);
        return std::nullopt;
    case VIRTIO_BLK_T_GET_ID: return answer_id(slot, chain.writable);
    default: return VIRTIO_BLK_S_UNSUPP;
    }
}

std::optional<std::uint8_t> BlkQueue::prepare_transfer(Slot& slot, const BlkHeader& header,
                                                       std::uint64_t bytes) {
    BlockRequest& request = slot.request;
    const bool write = request.operation == BlockRequest::Operation::write;
    const std::uint64_t sectors = bytes / kSectorSize;
    if (bytes % kSectorSize != 0 || bytes > VirtioBlk::kMaxTransfer ||
        !lies_on_disk(device_.geometry(), header.sector, sectors) ||
        (write && device_.geometry().read_only)) {
        slot.written = 1;
        return VIRTIO_BLK_S_IOERR;
    }
    bytes_ += bytes;
    count(write ? device_.counters_.writes : device_.counters_.reads);
    count(write ? device_.counters_.sectors_written : device_.counters_.sectors_read, sectors);
    if (sectors == 0)
        return VIRTIO_BLK_S_OK;
    request.sector = header.sector;
    request.sector_count = sectors;
    if (write && !device_.writeback_.load(std::memory_order_relaxed)) [[unlikely]]
        request.complete = on_write_complete;
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
    slot.use = memory_.begin_use();
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

void BlkQueue::on_write_complete(BlockRequest& request, BlockStatus status) {
    request.complete = on_complete;
    if (status != BlockStatus::ok)
        return on_complete(request, status);
    make_flush(request);
    request.segments = {};
    static_cast<Slot*>(request.context)->queue->device_.disk_.submit(request);
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
    memory_.end_use(slot.use);
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
