// SPDX-License-Identifier: MIT
// A port of an HBA with an ATA disk, below a CommandEngine: one channel, one unit. Reads and writes are
// queued natively where HBA and disk can (READ and WRITE FPDMA QUEUED). Such commands and others must not
// be with the disk at the same time [ahci 5.6.4 Issuing native queued commands]: what is issued waits in
// order until it may be sent, so that neither kind starves the other.
#pragma once

#include "drivers/block/ahci_reset.hpp"
#include "drivers/block/command_engine.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

namespace hv::block {

class AhciPort final : public CommandHardware {
public:
    explicit AhciPort(AhciPortIo io) : io_{std::move(io)} {}
    AhciPort(const AhciPort&) = delete;
    AhciPort& operator=(const AhciPort&) = delete;

    /// Stops what firmware left running, or what the HBA might still do; waits. False: it does not stop.
    bool stop();
    /// Begins to look for a disk; poll_reset() says when there is one, or that there is none. The port was
    /// stopped.
    void begin_start();
    /// There is a disk; and from here on.
    [[nodiscard]] DiskDescription description() const;
    [[nodiscard]] unsigned number() const { return io_.number(); }
    /// How many commands it takes at a time.
    [[nodiscard]] unsigned slots() const { return slots_; }

    void issue(unsigned channel, unsigned slot, const BlockCommand& command) override;
    void commit(unsigned channel) override;
    std::size_t reap(unsigned channel, std::span<Completion> out) override;
    [[nodiscard]] bool needs_reset(Look look) override;
    void begin_reset() override;
    ResetProgress poll_reset() override;
    [[nodiscard]] bool failed_by_itself(unsigned channel, unsigned slot) override;

    /// Takes note of why the port raised its interrupt, and ends it. Before reap(), on any CPU.
    void acknowledge();
    /// Makes the disk write down what it has and rest. Waits. The engine was stopped.
    void shut_down();

private:
    [[nodiscard]] const AtaIdentity& disk() const { return *reset_.identity(); }
    [[nodiscard]] bool is_queued(unsigned slot) const { return (unqueued_ >> slot & 1) == 0; }
    void prepare_transfer(unsigned slot, const BlockCommand& command);
    void prepare_discard(unsigned slot, std::uint64_t block, std::uint64_t blocks);
    void send_waiting();
    void log_failure(std::uint32_t errors, std::uint32_t task_file);
    bool drain();
    bool run(ata::Command command, unsigned milliseconds);

    AhciPortIo io_;
    AhciReset reset_{io_};
    unsigned slots_{1};
    bool ncq_{false};
    std::atomic<std::uint32_t> errors_{0};  ///< PxIS, as seen by acknowledge()

    // Slots, under the lock of the engine's channel:
    std::uint32_t sent_{0};                                ///< with the disk
    std::uint32_t unqueued_{0};                            ///< of those in use: no native command queuing
    std::array<std::uint8_t, ahci::kMaxSlots> waiting_{};  ///< a ring: issued, but not sent
    unsigned first_waiting_{0};
    unsigned waiting_count_{0};

    std::uint32_t interrupted_{0};  ///< with the disk when the last reset began
    std::uint32_t failed_{0};       ///< of those: by themselves
};

}  // namespace hv::block
