// SPDX-License-Identifier: MIT
// The part of an NVMe controller that is not about I/O: it is reset and enabled, and takes administrative
// commands one at a time. Everything goes by begin_...() and poll_...(), which never wait; run() and reset()
// wait, and are for when nothing else runs.
#pragma once

#include "drivers/block/command_engine.hpp"
#include "drivers/block/nvme_defs.hpp"
#include "drivers/block/nvme_queue.hpp"
#include "vmm/base/device_registers.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/log.hpp"
#include "vmm/base/timer.hpp"
#include "vmm/mm/dma.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

namespace hv::block::nvme {

class Admin {
public:
    using Progress = CommandHardware::ResetProgress;

    /// All outlive it. Error::no_memory; Error::unsupported: no controller that this driver can use.
    static Expected<std::unique_ptr<Admin>> create(DeviceRegisters& registers, DmaPool& pool, Clock& clock,
                                                   std::string_view name);
    /// Afterwards the device touches no memory.
    ~Admin();
    Admin(const Admin&) = delete;
    Admin& operator=(const Admin&) = delete;

    /// From any state to one in which it takes administrative commands, and knows of no queue but theirs.
    void begin_reset();
    [[nodiscard]] Progress poll_reset();
    /// Error::timed_out.
    Expected<void> reset();

    void begin_command(Submission command);
    /// What the command begun last answers, once it does. Error::io_error: that it failed; Error::timed_out:
    /// nothing, and the device is to be reset or disabled.
    [[nodiscard]] std::optional<Expected<std::uint32_t>> poll_command();
    Expected<std::uint32_t> run(const Submission& command);

    /// Asks to be told of what happens without a command; the device keeps that for as long as it likes. Once
    /// until poll_event() has its answer. [nvme2 5.2 Asynchronous Event Request command]
    void await_event();
    /// What has happened, once, as Event lays it out; Error::io_error: the device does not tell. With no
    /// command under way.
    [[nodiscard]] std::optional<Expected<std::uint32_t>> poll_event();
    /// The page that Identify writes to.
    [[nodiscard]] const DmaBuffer& data() const { return data_; }

    /// Ends all that the device does; it will not come back without a reset.
    void disable();
    /// Makes the device ready for power to go off, and waits for at most `timeout_ns`.
    void shut_down(std::uint64_t timeout_ns);

    [[nodiscard]] std::uint32_t version() const { return version_; }
    [[nodiscard]] unsigned largest_queue() const { return largest_queue_; }
    [[nodiscard]] std::size_t doorbell_stride() const { return std::size_t{4} << stride_shift_; }
    [[nodiscard]] std::string_view name() const { return name_; }
    /// Whether the device is in an error that only a reset ends, or is not there.
    [[nodiscard]] bool has_failed();

private:
    enum class Step : std::uint8_t { settling, disabling, enabling };

    Admin(DeviceRegisters& registers, Clock& clock, std::string_view name, std::uint64_t capabilities,
          Queue queue, DmaBuffer data);
    void enable();
    void enter(Step step);
    Progress fail(const char* why);
    /// The completion of this command, if it is there; sees to all others.
    std::optional<Completion> take(std::uint16_t command);
    Expected<std::uint32_t> answer_of(const Completion& completion, std::uint8_t opcode) const;
    void wait_at_most(std::uint64_t nanoseconds);
    [[nodiscard]] bool late() const { return clock_.now() >= deadline_; }

    DeviceRegisters& registers_;
    Clock& clock_;
    const std::string_view name_;
    const std::uint32_t version_;
    const unsigned largest_queue_;  ///< entries
    const unsigned stride_shift_;
    std::uint64_t ready_timeout_ns_;
    Queue queue_;
    DmaBuffer data_;
    Step step_{Step::disabling};
    std::uint64_t deadline_{0};
    std::uint16_t command_{0};  ///< identifies the one begun last
    std::uint8_t opcode_{0};
    bool awaits_event_{false};
    std::optional<Completion> event_;
    log::RateLimit stray_limit_;
};

}  // namespace hv::block::nvme
