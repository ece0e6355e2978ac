// SPDX-License-Identifier: MIT
#include "drivers/block/command_engine.hpp"

#include "drivers/block/command_channel.hpp"
#include "drivers/block/transfer.hpp"
#include "vmm/base/log.hpp"

#include <algorithm>
#include <bit>
#include <new>

namespace hv::block {
namespace {

using log::Topic;
using Operation = BlockRequest::Operation;

constexpr std::uint64_t kWatchNs = 1'000'000'000;
constexpr std::uint64_t kPollNs = 1'000'000;
/// At least, between two attempts of a command that the device put off.
constexpr std::uint64_t kAgainNs = 500'000'000;
constexpr std::uint32_t kMaxPhysicalBlock = 1024 * 1024;

constinit log::RateLimit reset_log;
constinit log::RateLimit size_log;

bool makes_sense(const DiskDescription& disk) {
    const CommandLimits& limits = disk.limits;
    const std::uint32_t block = disk.logical_block_size;
    return std::has_single_bit(block) && block >= kSectorSize && block <= kPageSize &&
           limits.max_blocks > 0 && limits.max_runs > 0 && limits.max_run_bytes > 0 &&
           limits.max_run_bytes % kPageSize == 0 && std::has_single_bit(limits.run_alignment) &&
           limits.run_alignment <= kSectorSize &&
           (limits.run_boundary == 0 || (std::has_single_bit(limits.run_boundary) &&
                                         limits.run_boundary >= block && limits.run_boundary <= kPageSize)) &&
           (limits.max_range_blocks > 0 || (!limits.can_discard && !limits.can_write_zeroes));
}

std::uint32_t physical_block_of(const DiskDescription& disk) {
    const std::uint32_t block = disk.physical_block_size;
    const bool makes_sense =
        std::has_single_bit(block) && block >= disk.logical_block_size && block <= kMaxPhysicalBlock;
    return makes_sense ? block : disk.logical_block_size;
}

/// Says that this CPU is at work. It looks at epoch_ after that, and stop() at the count after it has changed
/// epoch_, both sequentially consistent: one of them sees the other.
class Presence {
public:
    explicit Presence(std::atomic<unsigned>& count) : count_{count} { ++count_; }
    ~Presence() { --count_; }
    Presence(const Presence&) = delete;
    Presence& operator=(const Presence&) = delete;

private:
    std::atomic<unsigned>& count_;
};

/// How a request ends that has no use for the hardware.
std::optional<BlockStatus> answer_at_once(const BlockRequest& request, const DiskDescription& disk,
                                          const BlockGeometry& geometry) {
    const std::uint64_t unit = disk.logical_block_size / kSectorSize;
    if (request.operation == Operation::flush)
        return disk.limits.can_flush ? std::optional<BlockStatus>{} : BlockStatus::ok;
    if (!is_valid(request, geometry) || request.sector % unit != 0 || request.sector_count % unit != 0)
        return BlockStatus::io_error;
    if (request.operation == Operation::discard && !disk.limits.can_discard)
        return BlockStatus::unsupported;
    if (request.sector_count == 0)
        return BlockStatus::ok;
    return std::nullopt;
}

}  // namespace

bool HardwareDisk::gone() const {
    return engine_.gone();
}

BlockDevice::Troubles HardwareDisk::troubles() const {
    return {engine_.resets(), engine_.stray_completions()};
}

void HardwareDisk::submit(BlockRequest& request) {
    if (const auto status = answer_at_once(request, description_, geometry()))
        return request.complete(request, *status);
    engine_.submit(request, unit_);
}

void HardwareDisk::set_blocks(std::uint64_t blocks) {
    const std::uint64_t before = blocks_.exchange(blocks, std::memory_order_relaxed);
    if (before != blocks)
        engine_.note_size(unit_, before, blocks);
}

CommandEngine::CommandEngine(CommandHardware& hardware, Clock& clock, const Options& options)
    : hardware_{hardware},
      clock_{clock},
      options_{options},
      timeout_{clock.from_nanoseconds(options.timeout_ns)},
      flush_timeout_{std::max(timeout_, clock.from_nanoseconds(options.flush_timeout_ns))},
      lost_timeout_{std::max(kLostAfter * timeout_, flush_timeout_)},
      again_after_{clock.from_nanoseconds(kAgainNs)} {}

CommandEngine::~CommandEngine() {
    disarm();
}

Expected<std::unique_ptr<CommandEngine>> CommandEngine::create(CommandHardware& hardware, Clock& clock,
                                                               DmaPool& pool, const Options& options) {
    HV_ASSERT(options.channels > 0 && options.channels <= kMaxChannels);
    HV_ASSERT(options.slots > 0 && options.slots <= kMaxSlots);
    std::unique_ptr<CommandEngine> engine{new (std::nothrow) CommandEngine{hardware, clock, options}};
    if (engine == nullptr)
        return Unexpected{Error::no_memory};
    for (unsigned i = 0; i < options.channels; ++i) {
        auto channel = HV_TRY(make<Channel>(*engine, i));
        HV_TRY(channel->init(pool));
        HV_TRY(engine->channels_.push(std::move(channel)));
    }
    return engine;
}

Expected<HardwareDisk*> CommandEngine::add_disk(const DiskDescription& description) {
    if (!makes_sense(description))
        return Unexpected{Error::invalid_argument};
    for (auto& channel : channels_)
        HV_TRY(channel->make_room(description.limits));
    DiskDescription checked = description;
    checked.physical_block_size = physical_block_of(description);
    auto disk = HV_TRY(make<HardwareDisk>(*this, static_cast<unsigned>(disks_.size()), checked));
    HV_TRY(disks_.push(std::move(disk)));
    return disks_.back().get();
}

void CommandEngine::submit(BlockRequest& request, unsigned unit) {
    HV_DEBUG_ASSERT(request.user < kBlockUsers);
    request.unit = static_cast<std::uint16_t>(unit);
    request.issued = 0;
    request.segment = request.offset = request.commands = 0;
    request.worst_status = BlockStatus::ok;
    if (!channels_[machine::cpu_index() % channels_.size()]->accept(request))
        request.complete(request, BlockStatus::io_error);
}

void CommandEngine::service() {
    const std::uint64_t epoch = this->epoch();
    bool found = false;
    if (options_.shared_interrupt) {
        for (auto& channel : channels_)
            found = channel->service() || found;
    } else {
        found = channels_[machine::cpu_index() % channels_.size()]->service();
    }
    // It may have had something else to say.
    if (!found)
        start_watch();
    // A device's register is far away: a device that ends commands has not stopped.
    using Look = CommandHardware::Look;
    if (works_in(epoch) && hardware_.needs_reset(found ? Look::memory : Look::device))
        begin_reset(epoch, "it stopped");
}

void CommandEngine::stop() {
    epoch_ = kGone;
    for (auto& channel : channels_)
        channel->fence();
    while (at_work_ != 0)
        machine::pause();
    disarm();
}

void CommandEngine::disarm() {
    clock_.disarm(*this);
    clock_.disarm(reset_poll_);
    for (auto& channel : channels_)
        clock_.disarm(*channel);
}

void CommandEngine::start_watch() {
    if (!watching_.load(std::memory_order_relaxed) && !watching_.exchange(true))
        clock_.arm_after(*this, kWatchNs);
}

void CommandEngine::fire() {
    const Presence presence{at_work_};
    const std::uint64_t epoch = epoch_.load();
    if (epoch == kGone)
        return;
    // Who submits something after this look starts the watch again.
    watching_ = false;
    Watch seen;
    for (auto& channel : channels_) {
        channel->service();
        channel->issue_put_off();
        channel->look(seen);
    }
    const bool overdue = is_overdue(seen);
    if (works_in(epoch) && hardware_.needs_reset(CommandHardware::Look::device))
        begin_reset(epoch, "it stopped");
    else if (works_in(epoch) && overdue)
        begin_reset(epoch, "a command took too long");
    if (channels_[0]->look_at_sizes()) {
        watching_ = true;  // somebody may have started it again, for later
        clock_.arm_after(*this, kPollNs);
    } else if (seen.busy) {
        start_watch();
    }
}

bool CommandEngine::is_overdue(const Watch& seen) {
    const std::uint64_t now = clock_.now();
    if (seen.ended != ended_.load(std::memory_order_relaxed)) {
        ended_.store(seen.ended, std::memory_order_relaxed);
        ended_at_.store(now, std::memory_order_relaxed);
    }
    const std::uint64_t waited = seen.oldest < now ? now - seen.oldest : 0;
    const std::uint64_t silent = now - ended_at_.load(std::memory_order_relaxed);
    return std::min(waited, silent) >= (seen.flushing ? flush_timeout_ : timeout_) || waited >= lost_timeout_;
}

void CommandEngine::note_size(unsigned unit, std::uint64_t before, std::uint64_t now) {
    const auto own = hardware_.disk_name(unit);
    const std::string_view disk = own.view().empty() ? name() : own.view();
    if (size_log.admit())
        log::info(Topic::block, "%.*s has %llu blocks now, it had %llu", width(disk), disk.data(),
                  static_cast<unsigned long long>(now), static_cast<unsigned long long>(before));
    if (options_.resized != nullptr)
        options_.resized(options_.context);
}

// --- reset
// ------------------------------------------------------------------------------------------------------------

void CommandEngine::begin_reset(std::uint64_t epoch, const char* why) {
    const Presence presence{at_work_};
    if (!epoch_.compare_exchange_strong(epoch, epoch + 1))
        return;
    resets_.fetch_add(1, std::memory_order_relaxed);
    if (reset_log.admit())
        log::warning(Topic::block, "%.*s: %s: reset", width(name()), name().data(), why);
    for (auto& channel : channels_)
        channel->fence();
    hardware_.begin_reset();
    clock_.arm_after(reset_poll_, kPollNs);
}

void CommandEngine::continue_reset() {
    const Presence presence{at_work_};
    std::uint64_t epoch = epoch_.load();
    if (epoch == kGone)
        return;
    switch (hardware_.poll_reset()) {
    case CommandHardware::ResetProgress::pending: clock_.arm_after(reset_poll_, kPollNs); return;
    case CommandHardware::ResetProgress::unruly:
        if (options_.cut_off != nullptr)
            options_.cut_off(options_.context);
        [[fallthrough]];
    case CommandHardware::ResetProgress::gone: return give_up();
    case CommandHardware::ResetProgress::done: break;
    }
    if (!epoch_.compare_exchange_strong(epoch, epoch + 1))
        return;
    for (auto& channel : channels_)
        channel->resume();
    // What it had to say meanwhile is lost.
    start_watch();
}

void CommandEngine::give_up() {
    epoch_ = kGone;
    log::error(Topic::block, "%.*s is gone: what its disks are asked for fails from now on", width(name()),
               name().data());
    for (auto& channel : channels_)
        channel->give_up();
}

}  // namespace hv::block
