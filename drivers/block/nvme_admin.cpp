// SPDX-License-Identifier: MIT
#include "drivers/block/nvme_admin.hpp"

#include "vmm/base/machine.hpp"
#include "vmm/base/text.hpp"

#include <algorithm>
#include <new>
#include <utility>

namespace hv::block::nvme {
namespace {

using log::Topic;

constexpr unsigned kEntries = 4;  ///< one command at a time, beside the one for events
// Command identifiers: below these two, those of commands one after the other.
constexpr std::uint16_t kEventCommand = 0x8000;
constexpr std::uint16_t kNoCommand = 0xffff;  ///< in the controller's logs too
constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr std::uint64_t kCommandTimeout = 10 * kSecond;

/// How long the controller may take to become ready, or to stop being so. CAP.TO may be too small to say it
/// [nvme2 3.1.3.14 Offset 68h: CRTO – Controller Ready Timeouts].
std::uint64_t ready_timeout(DeviceRegisters& registers, std::uint64_t capabilities) {
    std::uint64_t units = Capabilities::Timeout::get(capabilities);
    if (Capabilities::ReadyWithMedia::test(capabilities))
        units = std::max(units, ReadyWithMediaTimeout::get(registers.read32(kReadyTimeouts)));
    return (units + 1) * (kSecond / 2);
}

}  // namespace

Expected<std::unique_ptr<Admin>> Admin::create(DeviceRegisters& registers, DmaPool& pool, Clock& clock,
                                               std::string_view name) {
    if (registers.size() < kDoorbells + 2 * sizeof(std::uint32_t))
        return Unexpected{Error::unsupported};
    const std::uint64_t capabilities = registers.read64(kCapabilities);
    // A controller whose pages are larger than ours at least, or which has no blocks to offer.
    if (capabilities == ~std::uint64_t{0} || !Capabilities::NvmCommandSet::test(capabilities) ||
        Capabilities::SmallestPage::get(capabilities) != 0 ||
        Capabilities::LargestQueue::get(capabilities) == 0) {
        log::warning(Topic::block, "%.*s: cannot be used, its capabilities are 0x%llx", width(name),
                     name.data(), static_cast<unsigned long long>(capabilities));
        return Unexpected{Error::unsupported};
    }
    const std::size_t stride = std::size_t{4} << Capabilities::DoorbellStride::get(capabilities);
    auto queue = HV_TRY(Queue::create(registers, pool, 0, kEntries, stride));
    auto data = HV_TRY(pool.allocate(kIdentifySize));
    std::unique_ptr<Admin> admin{
        new (std::nothrow) Admin{registers, clock, name, capabilities, std::move(queue), std::move(data)}};
    if (admin == nullptr)
        return Unexpected{Error::no_memory};
    return admin;
}

Admin::Admin(DeviceRegisters& registers, Clock& clock, std::string_view name, std::uint64_t capabilities,
             Queue queue, DmaBuffer data)
    : registers_{registers},
      clock_{clock},
      name_{name},
      version_{registers.read32(kVersion)},
      largest_queue_{static_cast<unsigned>(Capabilities::LargestQueue::get(capabilities)) + 1},
      stride_shift_{static_cast<unsigned>(Capabilities::DoorbellStride::get(capabilities))},
      ready_timeout_ns_{ready_timeout(registers, capabilities)},
      queue_{std::move(queue)},
      data_{std::move(data)} {}

Admin::~Admin() {
    disable();
    const auto is_ready = [&] {
        const std::uint32_t status = registers_.read32(kStatus);
        return status != kAllOnes && Status::Ready::test(status);
    };
    while (is_ready() && !late())
        machine::pause();
}

bool Admin::has_failed() {
    const std::uint32_t status = registers_.read32(kStatus);
    return status == kAllOnes || Status::Fatal::test(status);
}

void Admin::wait_at_most(std::uint64_t nanoseconds) {
    deadline_ = clock_.now() + clock_.from_nanoseconds(nanoseconds);
}

void Admin::enter(Step step) {
    step_ = step;
    wait_at_most(ready_timeout_ns_);
}

// What may be changed when: [nvme2 3.1.3.5 Offset 14h: CC – Controller Configuration]. Enable is not to be
// cleared while the controller is on its way to being ready, unless it never gets there.
void Admin::begin_reset() {
    const std::uint32_t status = registers_.read32(kStatus);
    const bool enabled = Configuration::Enable::test(registers_.read32(kConfiguration));
    if (enabled && !Status::Ready::test(status) && !Status::Fatal::test(status))
        return enter(Step::settling);
    disable();
}

void Admin::disable() {
    registers_.write32(kConfiguration, registers_.read32(kConfiguration) &
                                           ~static_cast<std::uint32_t>(Configuration::Enable::kMask |
                                                                       Configuration::Shutdown::kMask));
    enter(Step::disabling);
}

// [nvme2 3.5.1 Memory-based Transport Controller Initialization (PCIe)]
void Admin::enable() {
    queue_.clear();
    awaits_event_ = false;
    event_.reset();
    registers_.write32(kAdminQueueAttributes, (kEntries - 1) << 16 | (kEntries - 1));
    registers_.write64(kAdminSubmissions, queue_.submissions().raw);
    registers_.write64(kAdminCompletions, queue_.completions().raw);
    // The NVM command set, pages of 4 KiB, round robin: all zeroes. Set before it is enabled.
    const auto configuration = static_cast<std::uint32_t>(Configuration::SubmissionEntrySize::make(6) |
                                                          Configuration::CompletionEntrySize::make(4));
    registers_.write32(kConfiguration, configuration);
    registers_.write32(kConfiguration,
                       configuration | static_cast<std::uint32_t>(Configuration::Enable::make(1)));
    enter(Step::enabling);
}

Admin::Progress Admin::poll_reset() {
    const std::uint32_t status = registers_.read32(kStatus);
    if (status == kAllOnes)
        return fail("is not there any more");
    const bool ready = Status::Ready::test(status);
    const bool fatal = Status::Fatal::test(status);
    switch (step_) {
    case Step::settling:
        if (ready || fatal || late())
            disable();
        return Progress::pending;
    case Step::disabling:
        if (!ready)
            enable();
        else if (late())
            return fail("does not stop");
        return Progress::pending;
    case Step::enabling:
        if (fatal)
            return fail("reports a fatal error");
        if (ready)
            return Progress::done;
        return late() ? fail("does not become ready") : Progress::pending;
    }
    return Progress::unruly;
}

Admin::Progress Admin::fail(const char* why) {
    log::error(Topic::block, "%.*s: the controller %s", width(name_), name_.data(), why);
    disable();
    return Progress::unruly;
}

Expected<void> Admin::reset() {
    begin_reset();
    Progress progress = poll_reset();
    for (; progress == Progress::pending; progress = poll_reset())
        machine::pause();
    if (progress != Progress::done)
        return Unexpected{Error::timed_out};
    return {};
}

void Admin::begin_command(Submission command) {
    command_ = static_cast<std::uint16_t>((command_ + 1) % kEventCommand);
    opcode_ = command.opcode;
    command.command = command_;
    queue_.push(command);
    queue_.commit();
    wait_at_most(kCommandTimeout);
}

std::optional<Completion> Admin::take(std::uint16_t command) {
    for (unsigned seen = 0; seen < queue_.entries(); ++seen) {
        const std::optional<Completion> completion = queue_.take();
        if (!completion)
            break;
        queue_.release();
        const auto identifier = Completion::Command::get(completion->state);
        const bool ours = Completion::SubmissionQueue::get(completion->queue) == 0;
        if (ours && identifier == command)
            return completion;
        if (ours && identifier == kEventCommand && awaits_event_) {
            awaits_event_ = false;
            event_ = completion;
        } else if (stray_limit_.admit()) {
            log::warning(Topic::block, "%.*s: it completes administrative commands that it was not given",
                         width(name_), name_.data());
        }
    }
    return std::nullopt;
}

Expected<std::uint32_t> Admin::answer_of(const Completion& completion, std::uint8_t opcode) const {
    if (Completion::StatusCodeAndType::get(completion.state) == kSuccess)
        return completion.result;
    log::warning(Topic::block, "%.*s: administrative command 0x%x failed with status type 0x%x, code 0x%x",
                 width(name_), name_.data(), opcode,
                 static_cast<unsigned>(Completion::StatusCodeType::get(completion.state)),
                 static_cast<unsigned>(Completion::StatusCode::get(completion.state)));
    return Unexpected{Error::io_error};
}

std::optional<Expected<std::uint32_t>> Admin::poll_command() {
    if (const auto completion = take(command_))
        return answer_of(*completion, opcode_);
    if (!late() && !has_failed())
        return std::nullopt;
    log::error(Topic::block, "%.*s: administrative command 0x%x is not answered", width(name_), name_.data(),
               opcode_);
    return Unexpected{Error::timed_out};
}

void Admin::await_event() {
    HV_ASSERT(!awaits_event_ && !event_);
    awaits_event_ = true;
    Submission command{};
    command.opcode = kAsynchronousEventRequest;
    command.command = kEventCommand;
    queue_.push(command);
    queue_.commit();
}

std::optional<Expected<std::uint32_t>> Admin::poll_event() {
    if (!event_)
        static_cast<void>(take(kNoCommand));  // there is none
    if (!event_)
        return std::nullopt;
    const Completion completion = *std::exchange(event_, std::nullopt);
    return answer_of(completion, kAsynchronousEventRequest);
}

Expected<std::uint32_t> Admin::run(const Submission& command) {
    begin_command(command);
    for (;;) {
        if (const auto answer = poll_command())
            return *answer;
        machine::pause();
    }
}

// [nvme2 3.6.1 Memory-based Transport Controller Shutdown (PCIe)]
void Admin::shut_down(std::uint64_t timeout_ns) {
    const std::uint32_t configuration = registers_.read32(kConfiguration);
    if (has_failed() || !Configuration::Enable::test(configuration))
        return;
    registers_.write32(kConfiguration,
                       static_cast<std::uint32_t>(Configuration::Shutdown::set(configuration, 1)));
    wait_at_most(timeout_ns);
    while (!has_failed() && Status::Shutdown::get(registers_.read32(kStatus)) != Status::kShutdownComplete) {
        if (late()) {
            log::warning(Topic::block, "%.*s: does not say that it has shut down", width(name_),
                         name_.data());
            return;
        }
        machine::pause();
    }
}

}  // namespace hv::block::nvme
