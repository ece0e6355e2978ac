// SPDX-License-Identifier: MIT
// What all drivers of disks have in common: requests wait for a free command slot of the hardware, are cut
// into commands that it can take, ended when the last command has ended, and tried again after the hardware
// was reset. A driver is a CommandHardware below this, and knows of single commands only.
//
// Data moves straight from and to the segments of a request. Where the hardware cannot address them (an odd
// address, or a gap within a block of the disk), that one block goes through a page of the slot's own.
//
// A channel is a queue of the hardware with its slots; requests go to the channel of the CPU that submits
// them, whose interrupt comes to that CPU.
#pragma once

#include "drivers/block/block_device.hpp"
#include "drivers/block/transfer.hpp"
#include "vmm/base/address.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/guarded.hpp"
#include "vmm/base/text.hpp"
#include "vmm/base/timer.hpp"
#include "vmm/base/turn.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/mm/dma.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

namespace hv::block {

/// A physically contiguous piece of memory.
struct DmaRun {
    Hpa address;
    std::uint32_t size;
};

/// What the hardware is asked for at a time.
struct BlockCommand {
    BlockRequest::Operation operation;
    unsigned unit;                 ///< which of the disks behind the hardware, as add_disk() counted them
    std::uint64_t block;           ///< the first, in units of the disk's logical blocks
    std::uint64_t blocks;          ///< 0 for flush
    std::span<const DmaRun> runs;  ///< read, write: `blocks` logical blocks in all; gone after issue()
};

/// What a disk's commands may be.
struct CommandLimits {
    std::uint32_t max_blocks;        ///< logical blocks of a read or write
    std::uint64_t max_range_blocks;  ///< of a discard or write_zeroes; > 0 if it can do either
    std::uint32_t max_runs;
    std::uint32_t max_run_bytes;  ///< a multiple of 4096
    /// Addresses and sizes of runs are multiples of this power of two.
    std::uint32_t run_alignment;
    /// Not 0: all runs but the first begin at, all but the last end at a multiple of this power of two, at
    /// most 4096 and at least a logical block: NVMe's PRP lists [nvme2 4.1.1 Physical Region Page Entry and
    /// List].
    std::uint32_t run_boundary;
    bool can_flush;  ///< false: it has no volatile write cache, flushes complete at once
    bool can_discard;
    bool can_write_zeroes;  ///< false: zeroes are written to it as data
};

/// A disk as its hardware describes it.
struct DiskDescription {
    TextBuffer<48> model;
    TextBuffer<32> serial;
    std::uint64_t blocks;  ///< capacity
    std::uint32_t logical_block_size;
    bool read_only;
    CommandLimits limits;
};

/// A controller, or a port of one, below the engine. The engine calls it with at most one CPU at a time in
/// each channel, under that channel's lock of Rank::block; begin_reset() and poll_reset() while no channel is
/// in use. It logs what it understands of a failure.
class CommandHardware {
public:
    /// Puts `command` into `slot`, which is free.
    virtual void issue(unsigned channel, unsigned slot, const BlockCommand& command) = 0;
    /// Tells the device of what was issued since the last call.
    virtual void commit(unsigned channel) = 0;

    struct Completion {
        unsigned slot;
        BlockStatus status;
    };
    /// Takes commands that have ended, at most out.size(); fewer: there are no more for now. What the device
    /// says of slots that are not in use is the hardware's to ignore.
    virtual std::size_t reap(unsigned channel, std::span<Completion> out) = 0;
    /// Whether the device has stopped, or is in an error that only a reset ends. Looked at after reap() found
    /// nothing more.
    [[nodiscard]] virtual bool needs_reset() = 0;

    /// Begins to reset the device, after which it knows of no command and touches no memory. Must not wait.
    virtual void begin_reset() = 0;
    enum class ResetProgress : std::uint8_t {
        pending,
        done,  ///< it takes commands again
        gone,  ///< it is not there any more, or does not come back; it touches no memory
    };
    /// How far the reset is; called each millisecond.
    virtual ResetProgress poll_reset() = 0;
    /// After a reset that is done, for a command it interrupted: the device said that this one failed by
    /// itself, so it is not tried again.
    [[nodiscard]] virtual bool failed_by_itself(unsigned /*channel*/, unsigned /*slot*/) { return false; }

protected:
    ~CommandHardware() = default;
};

class CommandEngine;

/// One disk behind an engine.
class HardwareDisk final : public BlockDevice {
public:
    HardwareDisk(CommandEngine& engine, unsigned unit, const DiskDescription& description)
        : engine_{engine}, unit_{unit}, description_{description} {}

    [[nodiscard]] BlockGeometry geometry() const override {
        const DiskDescription& d = description_;
        return {d.blocks * (d.logical_block_size / kSectorSize), d.logical_block_size, d.read_only,
                d.limits.can_discard};
    }
    void submit(BlockRequest& request) override;
    [[nodiscard]] const DiskDescription& description() const { return description_; }
    [[nodiscard]] const CommandEngine& engine() const { return engine_; }

private:
    CommandEngine& engine_;
    const unsigned unit_;
    const DiskDescription description_;
};

class CommandEngine final : private Timer {
public:
    struct Options {
        std::string_view name;                      ///< in the log, "nvme0"; outlives the engine
        unsigned channels;                          ///< 1 to kMaxChannels
        unsigned slots;                             ///< of each channel, 1 to kMaxSlots
        std::uint64_t timeout_ns = 10'000'000'000;  ///< after which a command makes the device be reset
    };
    static constexpr unsigned kMaxChannels = 64;
    static constexpr unsigned kMaxSlots = 256;
    /// A command that was interrupted by resets so often is given up.
    static constexpr unsigned kAttempts = 3;

    /// All outlive the engine, which lives as long as the host runs. Error::no_memory.
    static Expected<std::unique_ptr<CommandEngine>> create(CommandHardware& hardware, Clock& clock,
                                                           DmaPool& pool, const Options& options);
    ~CommandEngine();

    /// Before the first request. Error::no_memory; Error::invalid_argument: a logical block that is no power
    /// of two from 512 to 4096, or limits that make no sense.
    Expected<HardwareDisk*> add_disk(const DiskDescription& description);
    [[nodiscard]] std::span<const std::unique_ptr<HardwareDisk>> disks() const { return disks_.span(); }

    /// The device's interrupt came to this CPU, or may have been lost. No lock held.
    void service();

    [[nodiscard]] std::string_view name() const { return options_.name; }
    /// The device is lost for good: all requests complete with io_error.
    [[nodiscard]] bool gone() const { return state_.load(std::memory_order_relaxed) == State::gone; }
    [[nodiscard]] std::uint64_t resets() const { return resets_.load(std::memory_order_relaxed); }

private:
    friend class HardwareDisk;
    struct Slot;
    struct Channel;
    enum class State : std::uint8_t { working, resetting, gone };
    using RequestList = List<BlockRequest, &BlockRequest::link>;

    CommandEngine(CommandHardware& hardware, Clock& clock, const Options& options);
    void submit(BlockRequest& request, unsigned unit);
    /// Issues what waits, as far as there are slots. Under the channel's lock.
    void pump(unsigned index, Channel& channel);
    void issue(unsigned index, Channel& channel, Slot& slot);
    void service(unsigned index);
    void finish(Channel& channel, Slot& slot, BlockStatus status, RequestList& ended);
    static void complete_all(RequestList& ended);
    void fire() override;
    void watch();
    void begin_reset(const char* why);
    void continue_reset();
    void resume();
    void give_up();

    CommandHardware& hardware_;
    Clock& clock_;
    const Options options_;
    Vec<std::unique_ptr<HardwareDisk>> disks_;
    Vec<std::unique_ptr<Channel>> channels_;
    DmaBuffer zeroes_;
    std::atomic<State> state_{State::working};
    std::atomic<bool> watching_{false};
    std::atomic<std::uint64_t> resets_{0};
};

}  // namespace hv::block
