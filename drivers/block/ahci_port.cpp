// SPDX-License-Identifier: MIT
#include "drivers/block/ahci_port.hpp"

#include "vmm/base/bytes.hpp"

#include <algorithm>
#include <bit>

namespace hv::block {
namespace {

using ahci::PortRegister;
using Operation = BlockRequest::Operation;

/// A link that comes or goes by itself: the device has forgotten its commands, or is another one.
constexpr std::uint32_t kLinkChanges = ahci::PCS | ahci::PRCS;
constexpr std::uint32_t kInterrupts = ahci::DHRS | ahci::SDBS | kLinkChanges | ahci::kErrors;

/// Bytes of a transfer, which others who want the disk have to wait for. The count of blocks, of 16 bits,
/// allows for more [acs3 7.23 READ DMA EXT].
constexpr std::uint32_t kMaxTransfer = 2 * 1024 * 1024;

/// At boot a disk may still have to spin up.
constexpr AhciReset::Patience kAtBoot{50, 30'000, 1};
constexpr AhciReset::Patience kInService{1'000, 8'000, 3};

// Milliseconds; a flush may have a whole cache to write.
constexpr unsigned kDrainTime = 2'000, kFlushTime = 60'000, kStandbyTime = 10'000;

constinit log::RateLimit failure_log;

}  // namespace

bool AhciPort::stop() {
    io_.write(PortRegister::PxIE, 0);
    return io_.stop();
}

void AhciPort::begin_start() {
    reset_.begin(AhciReset::Kind::link, kAtBoot);
}

DiskDescription AhciPort::description() const {
    const AtaIdentity& d = disk();
    return {d.model,
            d.serial,
            d.blocks,
            d.logical_block_size,
            false,
            {.max_blocks = kMaxTransfer / d.logical_block_size,
             .max_range_blocks = ata::kRangesPerBlock * ata::kMaxRangeBlocks,
             .max_runs = ahci::kPrdtEntries,
             .max_run_bytes = ahci::kMaxPrdtBytes,
             .run_alignment = 2,
             .run_boundary = 0,
             .can_flush = d.flush.has_value(),
             .can_discard = d.can_trim,
             .can_write_zeroes = false},
            d.physical_block_size};
}

// --- commands
// ---------------------------------------------------------------------------------------------------------

void AhciPort::issue(unsigned /*channel*/, unsigned slot, const BlockCommand& command) {
    HV_ASSERT(slot < slots_ && waiting_count_ < ahci::kMaxSlots);
    const bool transfer = command.operation == Operation::read || command.operation == Operation::write;
    if (transfer && ncq_)
        unqueued_ &= ~(1u << slot);
    else
        unqueued_ |= 1u << slot;
    if (transfer)
        prepare_transfer(slot, command);
    else if (command.operation == Operation::discard)
        prepare_discard(slot, command.block, command.blocks);
    else
        io_.prepare(slot, ata::make_fis(disk().flush.value_or(ata::Command::FLUSH_CACHE_EXT)),
                    AhciPortIo::Direction::from_device, {});
    waiting_[(first_waiting_ + waiting_count_++) % ahci::kMaxSlots] = static_cast<std::uint8_t>(slot);
}

void AhciPort::prepare_transfer(unsigned slot, const BlockCommand& command) {
    using ata::Command;
    const bool write = command.operation == Operation::write;
    const auto count = static_cast<std::uint16_t>(command.blocks);
    ata::RegisterFis fis{};
    if (ncq_) {
        // The count is where features are else, and the tag where the count is [acs3 7.24 READ FPDMA
        // QUEUED].
        const auto tag = static_cast<std::uint16_t>(slot << 3);
        fis = ata::make_fis(write ? Command::WRITE_FPDMA_QUEUED : Command::READ_FPDMA_QUEUED, command.block,
                            tag, count);
    } else {
        fis = ata::make_fis(write ? Command::WRITE_DMA_EXT : Command::READ_DMA_EXT, command.block, count);
    }
    io_.prepare(slot, fis, write ? AhciPortIo::Direction::to_device : AhciPortIo::Direction::from_device,
                command.runs);
}

void AhciPort::prepare_discard(unsigned slot, std::uint64_t block, std::uint64_t blocks) {
    // One block of ranges: any disk takes that many, and it covers two gigabytes.
    const auto ranges = io_.own_data(slot);
    for (std::size_t i = 0; i < ata::kRangesPerBlock; ++i) {
        const std::uint64_t length = std::min(blocks, ata::kMaxRangeBlocks);
        store<std::uint64_t>(&ranges[i * sizeof(std::uint64_t)], length == 0 ? 0 : block | length << 48);
        block += length;
        blocks -= length;
    }
    io_.prepare_own(slot, ata::make_fis(ata::Command::DATA_SET_MANAGEMENT, 0, 1, ata::TRIM),
                    AhciPortIo::Direction::to_device);
}

void AhciPort::commit(unsigned /*channel*/) {
    send_waiting();
}

void AhciPort::send_waiting() {
    std::uint32_t batch = 0;
    while (waiting_count_ > 0) {
        const unsigned slot = waiting_[first_waiting_];
        const std::uint32_t with_disk = sent_ | batch;
        if (is_queued(slot) ? (with_disk & unqueued_) != 0 : with_disk != 0)
            break;
        batch |= 1u << slot;
        first_waiting_ = (first_waiting_ + 1) % ahci::kMaxSlots;
        --waiting_count_;
    }
    if (batch == 0)
        return;
    sent_ |= batch;
    if ((batch & unqueued_) == 0)
        io_.write(PortRegister::PxSACT, batch);
    io_.send(batch);
}

std::size_t AhciPort::reap(unsigned /*channel*/, std::span<Completion> out) {
    if (sent_ == 0)
        return 0;
    std::uint32_t ended = sent_ & ~io_.read(PortRegister::PxCI);
    if (ended != 0 && ncq_)
        ended &= ~io_.read(PortRegister::PxSACT);
    // A reset of the HBA takes all commands off, undone.
    if (ended == 0 || reset_.is_overtaken())
        return 0;
    std::size_t count = 0;
    for (; ended != 0 && count < out.size(); ended &= ended - 1) {
        const auto slot = static_cast<unsigned>(std::countr_zero(ended));
        // Some HBAs take a failed command off PxCI. For us it stays until the reset, as with the others: the
        // port takes no more until then. Queued ones that failed stay in PxSACT.
        if (!is_queued(slot) && (io_.status() & (ata::ERR | ata::DF)) != 0) {
            errors_.fetch_or(ahci::TFES);
            continue;
        }
        out[count++] = {slot, BlockStatus::ok};
        sent_ &= ~(1u << slot);
    }
    send_waiting();
    return count;
}

// --- errors
// -----------------------------------------------------------------------------------------------------------

void AhciPort::acknowledge() {
    const std::uint32_t causes = io_.read(PortRegister::PxIS);
    if ((causes & kLinkChanges) != 0)
        io_.write(PortRegister::PxSERR, ahci::SERR_DIAG_N | ahci::SERR_DIAG_X);
    io_.write(PortRegister::PxIS, causes);
    errors_.fetch_or(causes & (ahci::kErrors | kLinkChanges));
}

bool AhciPort::needs_reset(Look /*look*/) {
    return errors_.load() != 0 || reset_.is_overtaken();
}

void AhciPort::begin_reset() {
    io_.write(PortRegister::PxIE, 0);
    const std::uint32_t errors = errors_.exchange(0);
    const std::uint32_t task_file = io_.read(PortRegister::PxTFD);
    log_failure(errors, task_file);
    const bool queued = (sent_ & ~unqueued_) != 0;
    const bool device_failed = (errors & ahci::TFES) != 0;
    interrupted_ = sent_;
    // What the link damaged is tried again.
    const bool by_itself = device_failed && !queued && (ahci::TFD_ERR::get(task_file) & ata::ICRC) == 0;
    failed_ = by_itself ? sent_ : 0;
    sent_ = 0;
    waiting_count_ = 0;
    auto kind = AhciReset::Kind::link;
    // Queued commands stay with a device that has not failed, whatever the HBA forgets: a link reset ends
    // them.
    if ((errors & ahci::kErrors) != 0 && (errors & kLinkChanges) == 0 && (device_failed || !queued))
        kind = queued ? AhciReset::Kind::restart_and_query : AhciReset::Kind::restart;
    reset_.begin(kind, kInService);
}

CommandHardware::ResetProgress AhciPort::poll_reset() {
    switch (reset_.poll()) {
    case AhciReset::Progress::pending: return ResetProgress::pending;
    case AhciReset::Progress::gone: return ResetProgress::gone;
    case AhciReset::Progress::unruly: return ResetProgress::unruly;
    case AhciReset::Progress::done: break;
    }
    if (const auto tag = reset_.failed_tag())
        failed_ = interrupted_ & 1u << *tag;
    ncq_ = io_.hba().has_ncq() && disk().queue_depth > 0;
    slots_ = ncq_ ? std::min(io_.hba().slots(), disk().queue_depth) : 1;
    errors_ = 0;
    io_.write(PortRegister::PxIE, kInterrupts);
    return ResetProgress::done;
}

bool AhciPort::failed_by_itself(unsigned /*channel*/, unsigned slot) {
    return (failed_ >> slot & 1) != 0;
}

void AhciPort::log_failure(std::uint32_t errors, std::uint32_t task_file) {
    if (!failure_log.admit())
        return;
    TextBuffer<80> text;
    const char* what = (errors & kLinkChanges) != 0    ? "the link was lost"
                       : (errors & ahci::TFES) != 0    ? "the disk reports an error"
                       : (errors & ahci::kErrors) != 0 ? "a transfer failed"
                       : reset_.is_overtaken()         ? "the HBA was reset"
                                                       : "no answer";
    text.append("%s (PxIS %x, PxTFD %x, PxSERR %x)", what, errors, task_file, io_.read(PortRegister::PxSERR));
    io_.warn(text.view());
}

// --- power off
// --------------------------------------------------------------------------------------------------------

bool AhciPort::drain() {
    return io_.hba().wait(
        kDrainTime, [&] { return (io_.read(PortRegister::PxCI) | io_.read(PortRegister::PxSACT)) == 0; });
}

bool AhciPort::run(ata::Command command, unsigned milliseconds) {
    io_.clear_errors();
    io_.prepare(0, ata::make_fis(command), AhciPortIo::Direction::from_device, {});
    io_.send(1);
    AhciPortIo::Progress progress{};
    return io_.hba().wait(milliseconds, [&] {
        progress = io_.progress(0);
        return progress != AhciPortIo::Progress::pending;
    }) && progress == AhciPortIo::Progress::ok;
}

void AhciPort::shut_down() {
    io_.write(PortRegister::PxIE, 0);
    acknowledge();
    AhciReset::Progress progress = reset_.poll();  // one may have been under way
    if (progress == AhciReset::Progress::done && (needs_reset(Look::memory) || !drain())) {
        begin_reset();
        progress = AhciReset::Progress::pending;
    }
    for (; progress == AhciReset::Progress::pending; progress = reset_.poll())
        io_.hba().rest();
    if (progress != AhciReset::Progress::done)
        return;
    if (disk().flush && !run(*disk().flush, kFlushTime))
        io_.warn("the disk's cache could not be flushed");
    else
        run(ata::Command::STANDBY_IMMEDIATE, kStandbyTime);
    io_.stop();
}

}  // namespace hv::block
