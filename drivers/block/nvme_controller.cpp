// SPDX-License-Identifier: MIT
#include "drivers/block/nvme_controller.hpp"

#include "drivers/block/nvme_prp.hpp"
#include "vmm/base/bytes.hpp"
#include "vmm/base/text.hpp"

#include <algorithm>
#include <new>
#include <utility>

namespace hv::block {
namespace {

using log::Topic;
using Operation = BlockRequest::Operation;

const char* to_string(Operation operation) {
    switch (operation) {
    case Operation::read: return "read";
    case Operation::write: return "write";
    case Operation::flush: return "flush";
    case Operation::discard: return "discard";
    case Operation::write_zeroes: return "write zeroes";
    }
    return "command";
}

/// CDW10 to 12 of commands that name blocks by their first and their number less one.
void set_blocks(nvme::Submission& entry, const BlockCommand& command) {
    entry.cdw10 = static_cast<std::uint32_t>(command.block);
    entry.cdw11 = static_cast<std::uint32_t>(command.block >> 32);
    entry.cdw12 = static_cast<std::uint32_t>(command.blocks - 1);
}

/// What the feature Number of Queues answers: submission queues 15:0 and completion queues 31:16, less one.
unsigned queues_granted(std::uint32_t answer) {
    return std::min(answer & 0xffff, answer >> 16) + 1;
}

/// Failures that say nothing of the command, but of the moment [nvme2 3.3.3.2.1 Status Field Definition]. How
/// long to wait (Command Retry Delay) is told only to hosts that ask for that.
bool asks_again(const nvme::Completion& completion) {
    if (nvme::Completion::DoNotRetry::test(completion.state))
        return false;
    switch (nvme::Completion::StatusCodeAndType::get(completion.state)) {
    case nvme::kAbortRequested:
    case nvme::kCommandInterrupted:
    case nvme::kTransientTransportError:
    case nvme::kNamespaceNotReady: return true;
    default: return false;
    }
}

}  // namespace

NvmeController::Channel::Channel(nvme::Queue its_queue, DmaBuffer its_pages)
    : queue{std::move(its_queue)}, pages{std::move(its_pages)} {
    for (std::uint16_t i = 0; i < kMaxSlots; ++i)
        slots[i].identifier = i;
}

void NvmeController::Channel::clear() {
    queue.clear();
    for (Slot& slot : slots)
        slot.in_use = false;
}

// --- commands
// ----------------------------------------------------------------------------------------------------------

// [nvmcmd1 3.2 NVM Command Set Commands], [nvme2 7.1 Flush command]
void NvmeController::issue(unsigned index, unsigned slot_index, const BlockCommand& command) {
    Channel& channel = *channels_[index];
    Slot& slot = channel.slots[slot_index];
    HV_DEBUG_ASSERT(!slot.in_use);
    const std::size_t page = slot_index * kPageSize;
    const auto identifier = static_cast<std::uint16_t>(slot.identifier + nvme::Queue::kMaxEntries);
    slot = {true, identifier, command.operation, namespace_ids_[command.unit], command.block};
    nvme::Submission entry{};
    entry.command = identifier;
    entry.namespace_id = slot.namespace_id;
    switch (command.operation) {
    case Operation::read:
    case Operation::write: {
        entry.opcode = command.operation == Operation::read ? nvme::kRead : nvme::kWrite;
        auto& list = *channel.pages.at<std::array<std::uint64_t, nvme::kPrpListEntries>>(page);
        const nvme::Prps prps = nvme::make_prps(command.runs, list, channel.pages.address() + page);
        entry.prp1 = prps.prp1;
        entry.prp2 = prps.prp2;
        set_blocks(entry, command);
        break;
    }
    case Operation::flush: entry.opcode = nvme::kFlush; break;
    case Operation::discard:
        entry.opcode = nvme::kDatasetManagement;
        *channel.pages.at<nvme::Range>(page) = {0, static_cast<std::uint32_t>(command.blocks), command.block};
        entry.prp1 = (channel.pages.address() + page).raw;
        entry.cdw11 = nvme::kDeallocate;  // CDW10: one range, less one
        break;
    case Operation::write_zeroes:
        entry.opcode = nvme::kWriteZeroes;
        set_blocks(entry, command);
        entry.cdw12 |= command.may_unmap ? nvme::kMayDeallocate : 0;
        break;
    }
    channel.queue.push(entry);
}

std::size_t NvmeController::reap(unsigned index, std::span<Completion> out) {
    Channel& channel = *channels_[index];
    std::size_t count = 0;
    // Whatever the device writes, one look at each place is enough.
    for (unsigned seen = 0; seen < entries_ && count < out.size(); ++seen) {
        const auto completion = channel.queue.take();
        if (!completion)
            break;
        if (const auto ended = end(channel, *completion))
            out[count++] = *ended;
    }
    channel.queue.release();
    return count;
}

std::optional<CommandHardware::Completion> NvmeController::end(Channel& channel,
                                                               const nvme::Completion& completion) {
    const auto identifier = nvme::Completion::Command::get(completion.state);
    const auto index = static_cast<unsigned>(identifier % nvme::Queue::kMaxEntries);
    if (nvme::Completion::SubmissionQueue::get(completion.queue) != channel.queue.id() || index >= slots() ||
        !channel.slots[index].in_use || channel.slots[index].identifier != identifier) {
        strays_.fetch_add(1, std::memory_order_relaxed);
        if (stray_limit_.admit())
            log::warning(Topic::block, "%.*s: queue %u: it completes a command that it does not have, 0x%x",
                         width(name()), name().data(), channel.queue.id(), static_cast<unsigned>(identifier));
        return std::nullopt;
    }
    Slot& slot = channel.slots[index];
    slot.in_use = false;
    return Completion{index, status_of(slot, completion), asks_again(completion)};
}

BlockStatus NvmeController::status_of(const Slot& slot, const nvme::Completion& completion) {
    const auto status = nvme::Completion::StatusCodeAndType::get(completion.state);
    if (status == nvme::kSuccess)
        return BlockStatus::ok;
    if (failure_limit_.admit())
        log::warning(Topic::block,
                     "%.*s: %s at block %llu of namespace %u failed with status type 0x%x, code 0x%x",
                     width(name()), name().data(), to_string(slot.operation),
                     static_cast<unsigned long long>(slot.block), slot.namespace_id,
                     static_cast<unsigned>(nvme::Completion::StatusCodeType::get(completion.state)),
                     static_cast<unsigned>(nvme::Completion::StatusCode::get(completion.state)));
    return status == nvme::kInvalidOpcode ? BlockStatus::unsupported : BlockStatus::io_error;
}

// --- setting up and resetting
// ------------------------------------------------------------------------------------------

Expected<std::unique_ptr<NvmeController>> NvmeController::create(DeviceRegisters& registers, DmaPool& pool,
                                                                 Clock& clock, const Options& options) {
    HV_ASSERT(options.channels > 0 && options.vectors > 0);
    auto admin = HV_TRY(nvme::Admin::create(registers, pool, clock, options.name));
    std::unique_ptr<NvmeController> controller{new (std::nothrow) NvmeController{std::move(admin)}};
    if (controller == nullptr)
        return Unexpected{Error::no_memory};
    HV_TRY(controller->initialize(registers, pool, options));
    return controller;
}

Expected<void> NvmeController::initialize(DeviceRegisters& registers, DmaPool& pool, const Options& options) {
    const std::size_t stride = admin_->doorbell_stride();
    // Each queue has two doorbells, that of the administrative commands first.
    const std::size_t doorbells = (registers.size() - nvme::kDoorbells) / (2 * stride);
    if (doorbells < 2)
        return Unexpected{Error::unsupported};
    entries_ = std::min(admin_->largest_queue(), nvme::Queue::kMaxEntries);
    vectors_ = options.vectors;
    channel_count_ = static_cast<unsigned>(
        std::min({std::size_t{options.channels}, std::size_t{CommandEngine::kMaxChannels}, doorbells - 1}));
    HV_TRY(admin_->reset());
    channel_count_ = std::min(channel_count_, queues_granted(HV_TRY(admin_->run(set_up_command(0)))));
    for (unsigned i = 0; i < channel_count_; ++i) {
        auto queue =
            HV_TRY(nvme::Queue::create(registers, pool, static_cast<std::uint16_t>(i + 1), entries_, stride));
        auto pages = HV_TRY(pool.allocate(slots() * kPageSize));
        HV_TRY(channels_.push(HV_TRY(make<Channel>(std::move(queue), std::move(pages)))));
    }
    for (unsigned step = 1; step <= last_step(); ++step)
        HV_TRY(admin_->run(set_up_command(step)));
    return find_disks();
}

/// Step 0 asks for queues; then each channel's completion queue is created, for which the channel begins
/// anew, and its submission queue.
nvme::Submission NvmeController::set_up_command(unsigned step) {
    nvme::Submission command{};
    if (step == 0) {
        // [nvme2 5.27.1.5 Number of Queues (Feature Identifier 07h)]
        command.opcode = nvme::kSetFeatures;
        command.cdw10 = nvme::kNumberOfQueues;
        command.cdw11 = (channel_count_ - 1) << 16 | (channel_count_ - 1);
        return command;
    }
    const unsigned index = (step - 1) / 2;
    Channel& channel = *channels_[index];
    command.cdw10 = (entries_ - 1) << 16 | channel.queue.id();
    if (step % 2 == 1) {
        // [nvme2 5.4 Create I/O Completion Queue command]
        channel.clear();
        command.opcode = nvme::kCreateCompletionQueue;
        command.prp1 = channel.queue.completions().raw;
        command.cdw11 = index % vectors_ << 16 | nvme::kInterruptsEnabled | nvme::kContiguous;
    } else {
        // [nvme2 5.5 Create I/O Submission Queue command]
        command.opcode = nvme::kCreateSubmissionQueue;
        command.prp1 = channel.queue.submissions().raw;
        command.cdw11 = unsigned{channel.queue.id()} << 16 | nvme::kContiguous;
    }
    return command;
}

void NvmeController::begin_reset() {
    silent_.store(false, std::memory_order_relaxed);
    resetting_ = true;
    ready_ = false;
    step_ = 0;
    admin_->begin_reset();
}

CommandHardware::ResetProgress NvmeController::poll_reset() {
    const ResetProgress progress = continue_reset();
    resetting_ = progress == ResetProgress::pending;
    return progress;
}

CommandHardware::ResetProgress NvmeController::continue_reset() {
    if (!ready_) {
        const ResetProgress progress = admin_->poll_reset();
        if (progress != ResetProgress::done)
            return progress;
        ready_ = true;
    } else {
        const auto answer = admin_->poll_command();
        if (!answer)
            return ResetProgress::pending;
        if (!*answer || (step_ == 0 && queues_granted(**answer) < channel_count_)) {
            admin_->disable();
            return ResetProgress::unruly;
        }
        if (step_++ == last_step()) {
            start_watch();
            return ResetProgress::done;
        }
    }
    admin_->begin_command(set_up_command(step_));
    return ResetProgress::pending;
}

void NvmeController::shut_down() {
    while (resetting_ && poll_reset() == ResetProgress::pending)
        machine::pause();
    admin_->shut_down(shutdown_ns_);
}

// --- what disks there are
// ----------------------------------------------------------------------------------------------

Expected<void> NvmeController::identify(nvme::IdentifyStructure structure, std::uint32_t namespace_id) {
    HV_TRY(admin_->run(nvme::identify(structure, namespace_id, admin_->data().address())));
    return {};
}

nvme::IdentifyPage NvmeController::identified() const {
    return nvme::IdentifyPage{admin_->data().bytes().data(), nvme::kIdentifySize};
}

Expected<void> NvmeController::find_disks() {
    HV_TRY(identify(nvme::kIdentifyController));
    identity_ = nvme::read_controller(identified());
    // As long as the controller says, but that may be nothing, or nonsense.
    shutdown_ns_ = std::clamp<std::uint64_t>(identity_.shutdown_us, 5'000'000, 60'000'000) * 1000;
    if (admin_->version() >= nvme::kVersion20 && identify(nvme::kIdentifyCommandSet))
        nvme::read_command_set(identified(), identity_);
    const auto ids = HV_TRY(list_namespaces(identity_.namespaces));
    has_namespaces_ = ids.size() > 1;
    for (const std::uint32_t id : ids)
        HV_TRY(add_disk(id));
    log::info(Topic::block, "%.*s: %.*s, controller %u, %u queue(s) of %u, %zu disk(s)", width(name()),
              name().data(), width(identity_.model.view()), identity_.model.view().data(), identity_.id,
              channel_count_, entries_, disks_.size());
    start_watch();
    return {};
}

/// Identifiers of the namespaces that may exist, `highest` being the last possible one.
Expected<Vec<std::uint32_t>> NvmeController::list_namespaces(std::uint32_t highest) {
    Vec<std::uint32_t> ids;
    // [nvme2 5.17.2.2 Active Namespace ID list (CNS 02h)]: ascending, then zeroes. New in 1.1.
    if (admin_->version() >= nvme::kVersion11 && identify(nvme::kActiveNamespaces)) {
        std::uint32_t previous = 0;
        for (std::size_t at = 0; at < nvme::kIdentifySize && ids.size() < kMaxDisks; at += sizeof previous) {
            const auto id = load<std::uint32_t>(identified().subspan(at).data());
            if (id <= previous)
                break;
            HV_TRY(ids.push(id));
            previous = id;
        }
        return ids;
    }
    for (std::uint32_t id = 1; id <= highest && ids.size() < kMaxDisks; ++id)
        HV_TRY(ids.push(id));
    return ids;
}

Expected<void> NvmeController::add_disk(std::uint32_t namespace_id) {
    if (const auto answer = identify(nvme::kIdentifyNamespace, namespace_id); !answer)
        return answer.error() == Error::timed_out ? answer : Expected<void>{};
    auto disk = nvme::read_namespace(identified(), identity_);
    if (!disk) {
        if (disk.error() != Error::not_found)
            log::warning(Topic::block, "%.*s: namespace %u is left out: %s", width(name()), name().data(),
                         namespace_id, hv::to_string(disk.error()));
        return {};
    }
    HV_TRY(disks_.push(*disk));
    return namespace_ids_.push(namespace_id);
}

TextBuffer<24> NvmeController::disk_name(unsigned unit) const {
    TextBuffer<24> disk;
    disk.append("%.*s", width(name()), name().data());
    if (has_namespaces_ || namespace_ids_[unit] != 1)
        disk.append("n%u", namespace_ids_[unit]);
    return disk;
}

void NvmeController::start_watch() {
    if (identity_.tells_of_namespaces && !disks_.empty())
        watch_.start();
}

bool NvmeController::look_at_sizes(std::span<const std::unique_ptr<HardwareDisk>> disks) {
    const auto seen = watch_.poll(namespace_ids_.span());
    if (!seen) {
        // Until it is reset, it may still write its answer. It is not asked again.
        silent_.store(true, std::memory_order_relaxed);
        identity_.tells_of_namespaces = false;
        return true;
    }
    // One that is gone is all zeroes; a failure says nothing of it.
    if (const auto& space = *seen; space && space->succeeded)
        disks[space->unit]->set_blocks(blocks_now(space->unit));
    return watch_.hurries();
}

/// 0: there is nothing any more that the disk's users could go on with.
std::uint64_t NvmeController::blocks_now(unsigned unit) const {
    const auto disk = nvme::read_namespace(identified(), identity_);
    return disk && disk->logical_block_size == disks_[unit].logical_block_size ? disk->blocks : 0;
}

}  // namespace hv::block
