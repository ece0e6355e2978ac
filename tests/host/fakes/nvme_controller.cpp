// SPDX-License-Identifier: MIT
#include "fakes/nvme_controller.hpp"

#include "vmm/base/address.hpp"
#include "vmm/base/bytes.hpp"
#include "vmm/base/machine.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace hv::fake {

using namespace block::nvme;

NvmeController::Namespace& NvmeController::add_namespace(std::uint32_t id, std::uint64_t blocks,
                                                         unsigned block_shift) {
    Namespace& added = namespaces[id];
    added.block_shift = block_shift;
    added.contents.assign(blocks << block_shift, std::byte{0});
    return added;
}

std::vector<Submission> NvmeController::io(std::uint8_t opcode) const {
    std::vector<Submission> found;
    for (const Command& command : seen)
        if (command.queue != 0 && command.entry.opcode == opcode)
            found.push_back(command.entry);
    return found;
}

// --- registers
// ---------------------------------------------------------------------------------------------------------

std::uint8_t NvmeController::read8(std::size_t) {
    violation("a register is read by its bytes");
    return 0;
}
std::uint16_t NvmeController::read16(std::size_t) {
    violation("a register is read by halves");
    return 0;
}
void NvmeController::write8(std::size_t, std::uint8_t) {
    violation("a register is written by its bytes");
}
void NvmeController::write16(std::size_t, std::uint16_t) {
    violation("a register is written by halves");
}

std::uint32_t NvmeController::read32(std::size_t offset) {
    if (gone)
        return kAllOnes;
    switch (offset) {
    case kCapabilities: return static_cast<std::uint32_t>(capabilities);
    case kCapabilities + 4: return static_cast<std::uint32_t>(capabilities >> 32);
    case kVersion: return version;
    case kConfiguration: return configuration_;
    case kStatus: return status();
    case kReadyTimeouts: return ready_timeouts;
    default: violation("a register is read that is none"); return 0;
    }
}

std::uint32_t NvmeController::status() {
    ++status_reads;
    const bool enabled = Configuration::Enable::test(configuration_);
    if (polls_left_ > 0)
        --polls_left_;
    else
        ready_ = enabled ? !never_ready : always_ready;
    return static_cast<std::uint32_t>(Status::Ready::make(ready_) | Status::Fatal::make(fatal) |
                                      Status::Shutdown::make(shut_down_ ? Status::kShutdownComplete : 0));
}

void NvmeController::write32(std::size_t offset, std::uint32_t value) {
    if (gone)
        return;
    switch (offset) {
    case kConfiguration: return configure(value);
    case kAdminQueueAttributes:
    case kAdminSubmissions:
    case kAdminSubmissions + 4:
    case kAdminCompletions:
    case kAdminCompletions + 4:
        if (Configuration::Enable::test(configuration_))
            violation("the administrative queues are changed while enabled");
        admin_registers_[offset] = value;
        return;
    default:
        if (offset < kDoorbells || offset >= window)
            violation("a register is written that is none");
        else
            ring(offset - kDoorbells, value);
    }
}

void NvmeController::configure(std::uint32_t value) {
    const bool was = Configuration::Enable::test(configuration_);
    const bool is = Configuration::Enable::test(value);
    if ((value & 0x3ff0) != 0)
        violation("a command set, page size or arbitration that was not offered");
    if (Configuration::Shutdown::get(value) == 1 && is && !ignores_shutdown)
        shut_down_ = true;
    configuration_ = value;
    if (was == is)
        return;
    if (is && ready_)
        violation("enabled before it was disabled");
    if (!is && !ready_ && !never_ready && !fatal)
        violation("disabled before it was enabled");
    polls_left_ = polls_until_ready;
    submissions_.clear();
    completions_.clear();
    waiting.clear();
    granted_ = 0;
    notices_wanted_ = notice_due_ = notice_given_ = false;
    event_command_.reset();
    fatal = shut_down_ = false;
    if (!is)
        return;
    ++enabled_times;
    fatal = fatal_when_enabled;
    const auto wide = [&](std::size_t at) {
        return admin_registers_[at] | std::uint64_t{admin_registers_[at + 4]} << 32;
    };
    const std::uint32_t sizes = admin_registers_[kAdminQueueAttributes];
    submissions_[0] = {wide(kAdminSubmissions), (sizes & 0xfff) + 1, 0};
    completions_[0] = {wide(kAdminCompletions), (sizes >> 16) + 1, 0};
}

void NvmeController::ring(std::size_t offset, std::uint32_t value) {
    const std::size_t stride = std::size_t{4} << Capabilities::DoorbellStride::get(capabilities);
    const auto number = static_cast<unsigned>(offset / stride);
    const auto queue = static_cast<std::uint16_t>(number / 2);
    ++doorbells[number];
    if (offset % stride != 0 || !ready_)
        return violation("no doorbell, or not ready");
    if (number % 2 == 0) {
        if (!submissions_.contains(queue) || value >= submissions_.at(queue).entries)
            return violation("a wrong tail");
        return fetch(queue, value);
    }
    if (!completions_.contains(queue) || value >= completions_.at(queue).entries)
        return violation("a wrong head");
    completions_.at(queue).head = value;
}

// --- commands
// ----------------------------------------------------------------------------------------------------------

void NvmeController::fetch(std::uint16_t id, unsigned tail) {
    SubmissionQueue& queue = submissions_.at(id);
    while (queue.head != tail) {
        const Command command{id, load<Submission>(machine::hva(Hpa{queue.address + 64 * queue.head}))};
        queue.head = (queue.head + 1) % queue.entries;
        if (std::any_of(waiting.begin(), waiting.end(), [&](const Command& other) {
                return other.queue == id && other.entry.command == command.entry.command;
            }))
            violation("a command identifier is used twice");
        seen.push_back(command);
        waiting.push_back(command);
        if (id == 0 ? !holds_admin : !holds_io)
            finish(waiting.size() - 1);
    }
}

void NvmeController::finish(std::size_t index) {
    const Command command = waiting.at(index);
    waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(index));
    execute(command);
}

void NvmeController::finish_all() {
    while (!waiting.empty())
        finish();
}

void NvmeController::execute(const Command& command) {
    std::uint32_t result = 0;
    std::optional<std::uint16_t> status = verdict ? verdict(command) : std::nullopt;
    if (!status && command.queue == 0 && command.entry.opcode == kAsynchronousEventRequest) {
        if (event_command_)
            violation("more requests for events than allowed");
        event_command_ = command.entry.command;
        return tell_of_namespaces();
    }
    if (!status)
        status = command.queue == 0 ? administer(command.entry, result) : transfer(command.entry);
    post(command.queue, command.queue, command.entry.command, *status, result);
}

void NvmeController::post(std::uint16_t id, std::uint16_t submission_queue, std::uint16_t command,
                          std::uint16_t status, std::uint32_t result) {
    const SubmissionQueue& from = submissions_.at(id);
    CompletionQueue& queue = completions_.at(from.completions);
    auto* entry = machine::hva<Completion>(Hpa{queue.address + 16 * queue.tail});
    entry->result = result;
    entry->queue = std::uint32_t{submission_queue} << 16 | from.head;
    std::atomic_ref{entry->state}.store(static_cast<std::uint32_t>(Completion::Command::make(command) |
                                                                   Completion::Phase::make(queue.phase) |
                                                                   Completion::StatusField::make(status)),
                                        std::memory_order_release);
    queue.tail = (queue.tail + 1) % queue.entries;
    if (queue.tail == 0)
        queue.phase = !queue.phase;
    if (queue.tail == queue.head)
        violation("a completion queue has run over");
    ++interrupts[queue.vector];
}

std::uint16_t NvmeController::administer(const Submission& entry, std::uint32_t& result) {
    switch (entry.opcode) {
    case kIdentify: return identify(entry);
    case kSetFeatures: return set_feature(entry, result);
    case kGetLogPage: return read_log(entry);
    case kCreateCompletionQueue:
    case kCreateSubmissionQueue: return create_queue(entry);
    default: return kInvalidOpcode;
    }
}

std::uint16_t NvmeController::set_feature(const Submission& entry, std::uint32_t& result) {
    if (entry.cdw10 == kAsynchronousEvents && tells_of_namespaces) {
        notices_wanted_ = NamespaceNotices::test(entry.cdw11);
        return kSuccess;
    }
    if (entry.cdw10 != kNumberOfQueues || submissions_.size() > 1)
        return kInvalidField;
    granted_ = std::min({queues, (entry.cdw11 & 0xffff) + 1, (entry.cdw11 >> 16) + 1});
    result = (granted_ - 1) << 16 | (queues - 1);
    return kSuccess;
}

// --- events
// ------------------------------------------------------------------------------------------------------------

void NvmeController::resize(std::uint32_t id, std::uint64_t blocks) {
    Namespace& space = namespaces.at(id);
    space.contents.resize(blocks << space.block_shift);
    changed_.push_back(id);
    notice_due_ = true;
    tell_of_namespaces();
}

void NvmeController::tell_of_namespaces() {
    if (!notice_due_ || notice_given_ || !notices_wanted_ || !event_command_)
        return;
    notice_due_ = false;
    notice_given_ = true;
    tell(0x04'0002);
}

void NvmeController::tell(std::uint32_t event) {
    const std::uint16_t command = event_command_.value();
    event_command_.reset();
    post(0, 0, command, kSuccess, event);
}

std::uint16_t NvmeController::read_log(const Submission& entry) {
    if (entry.cdw10 != kChangedNamespaces || entry.cdw11 != 0)
        return kInvalidField;
    std::array<std::byte, 4096> page{};
    for (std::size_t i = 0; i < changed_.size(); ++i)
        store(&page[4 * i], changed_[i]);
    std::memcpy(walk(entry, page.size()).at(0).data(), page.data(), page.size());
    changed_.clear();
    notice_given_ = false;
    tell_of_namespaces();
    return kSuccess;
}

std::uint16_t NvmeController::create_queue(const Submission& entry) {
    const auto id = static_cast<std::uint16_t>(entry.cdw10);
    const unsigned entries = (entry.cdw10 >> 16) + 1;
    if (id == 0 || id > granted_ || entries < 2 ||
        entries > Capabilities::LargestQueue::get(capabilities) + 1 || (entry.cdw11 & kContiguous) == 0 ||
        entry.prp1 % kPageSize != 0 || Configuration::SubmissionEntrySize::get(configuration_) != 6 ||
        Configuration::CompletionEntrySize::get(configuration_) != 4) {
        violation("a queue is created that must not be");
        return kInvalidField;
    }
    if (entry.opcode == kCreateCompletionQueue) {
        if ((entry.cdw11 & kInterruptsEnabled) == 0)
            violation("a queue without interrupts");
        return completions_.insert({id, {entry.prp1, entries, entry.cdw11 >> 16}}).second ? kSuccess
                                                                                          : kInvalidField;
    }
    const auto completions = static_cast<std::uint16_t>(entry.cdw11 >> 16);
    if (!completions_.contains(completions))
        return kInvalidField;
    return submissions_.insert({id, {entry.prp1, entries, completions}}).second ? kSuccess : kInvalidField;
}

std::uint16_t NvmeController::identify(const Submission& entry) {
    std::array<std::byte, kIdentifySize> page{};
    const auto put = [&](std::size_t at, auto value) { store(&page[at], value); };
    switch (entry.cdw10) {
    case kIdentifyController: {
        std::memset(&page[4], ' ', 60);
        std::memcpy(&page[4], "S-0815", 6);
        std::memcpy(&page[24], "Model\tof 7", 10);
        put(77, max_transfer);
        put(78, std::uint16_t{5});
        put(88, shutdown_latency_us);
        put(92, static_cast<std::uint32_t>(NamespaceNotices::make(tells_of_namespaces)));
        put(516, namespaces.empty() ? 0 : namespaces.rbegin()->first + 1);
        put(520, optional_commands);
        put(525, write_cache);
        put(528, atomic_blocks);
        break;
    }
    case kActiveNamespaces: {
        if (version < kVersion11)
            return kInvalidField;
        std::size_t at = 0;
        for (const auto& [id, unused] : namespaces)
            put(4 * at++, id);
        break;
    }
    case kIdentifyCommandSet:
        put(1, zeroes_limit);
        put(4, discard_limit);
        break;
    case kIdentifyNamespace: {
        const auto found = namespaces.find(entry.namespace_id);
        if (found == namespaces.end())
            break;  // all zeroes: not active
        const Namespace& space = found->second;
        put(0, std::uint64_t{space.contents.size() >> space.block_shift});
        put(24, space.features);
        put(25, space.last_format);
        put(26, space.format);
        put(33, space.deallocation);
        put(36, space.atomic_blocks);
        put(64, space.preferred_blocks);
        put(99, std::uint8_t{space.write_protected});
        put(104, space.nguid);
        put(120, space.eui64);
        const unsigned format =
            (space.format & 0xfU) | (space.last_format < 16 ? 0U : (space.format >> 1) & 0x30U);
        put(128 + 4 * format, space.metadata_size | space.block_shift << 16);
        break;
    }
    default: return kInvalidField;
    }
    std::size_t at = 0;
    for (const auto piece : walk(entry, page.size())) {
        std::memcpy(piece.data(), &page[at], piece.size());
        at += piece.size();
    }
    return kSuccess;
}

std::uint16_t NvmeController::transfer(const Submission& entry) {
    const auto found = namespaces.find(entry.namespace_id);
    if (found == namespaces.end())
        return kInvalidNamespace;
    Namespace& on = found->second;
    if (entry.opcode == kFlush)
        return kSuccess;
    if (entry.opcode == kDatasetManagement)
        return change_ranges(entry, on);
    const std::uint64_t first = entry.cdw10 | std::uint64_t{entry.cdw11} << 32;
    const std::uint64_t bytes = ((entry.cdw12 & 0xffff) + std::uint64_t{1}) << on.block_shift;
    const std::uint64_t blocks = on.contents.size() >> on.block_shift;
    const bool may_deallocate = entry.opcode == kWriteZeroes && (on.deallocation & 8) != 0;
    if ((entry.cdw12 & ~0xffffU) != (may_deallocate ? entry.cdw12 & kMayDeallocate : 0))
        return kInvalidField;
    if (first >= blocks || (bytes >> on.block_shift) > blocks - first)
        return kOutOfRange;
    std::byte* at = on.contents.data() + (first << on.block_shift);
    if (entry.opcode == kWriteZeroes) {
        std::memset(at, 0, bytes);
        return kSuccess;
    }
    if (entry.opcode != kRead && entry.opcode != kWrite)
        return kInvalidOpcode;
    if (max_transfer != 0 && bytes > kPageSize << max_transfer)
        return kInvalidField;
    for (const auto piece : walk(entry, bytes)) {
        if (entry.opcode == kRead)
            std::memcpy(piece.data(), at, piece.size());
        else
            std::memcpy(at, piece.data(), piece.size());
        at += piece.size();
    }
    return kSuccess;
}

std::uint16_t NvmeController::change_ranges(const Submission& entry, Namespace& on) {
    if (entry.cdw10 != 0 || entry.cdw11 != kDeallocate)
        return kInvalidField;
    Range range{};
    for (const auto piece : walk(entry, sizeof range))
        std::memcpy(&range, piece.data(), sizeof range);
    const std::uint64_t blocks = on.contents.size() >> on.block_shift;
    if (range.first >= blocks || range.blocks > blocks - range.first)
        return kOutOfRange;
    std::memset(on.contents.data() + (range.first << on.block_shift), 0xdd,
                std::size_t{range.blocks} << on.block_shift);
    return kSuccess;
}

std::vector<std::span<std::byte>> NvmeController::walk(const Submission& entry, std::size_t bytes) {
    std::vector<std::span<std::byte>> pieces;
    const auto take = [&](std::uint64_t address) {
        const std::size_t size = std::min<std::size_t>(bytes, kPageSize - address % kPageSize);
        pieces.push_back({machine::hva(Hpa{address}), size});
        bytes -= size;
    };
    const auto page = [&](std::uint64_t address) {
        if (address % kPageSize != 0)
            violation("a PRP but the first has an offset");
        take(address);
    };
    if (entry.prp1 % 4 != 0)
        violation("the first PRP is not aligned");
    take(entry.prp1);
    if (bytes > 0 && bytes <= kPageSize) {
        page(entry.prp2);
        return pieces;
    }
    if (bytes == 0 && entry.prp2 != 0)
        violation("a second PRP that nothing needs");
    if (entry.prp2 % 8 != 0 || (kPageSize - entry.prp2 % kPageSize) / 8 < (bytes + kPageSize - 1) / kPageSize)
        violation("a PRP list goes beyond its page");
    std::uint64_t at = entry.prp2;
    while (bytes > 0) {
        page(load<std::uint64_t>(machine::hva(Hpa{at})));
        at += 8;
    }
    return pieces;
}

}  // namespace hv::fake
