// SPDX-License-Identifier: MIT
// What all drivers of disks have in common: requests wait for a free command slot of the hardware, are cut
// into commands that it can take, ended when the last command has ended, and tried again after the hardware
// was reset. A driver is a CommandHardware below this, and knows of single commands only.
//
// Data moves straight from and to the segments of a request. Where the hardware cannot address them (an odd
// address, or a gap within a block of the disk), that one block goes through a page of the slot's own.
//
// A channel is a queue of the hardware with its slots; requests go to the channel of the CPU that submits
// them, whose interrupt comes to that CPU. Requests of one user are begun in their order; where those of
// several wait, each gets a command in turn.
#pragma once

#include "drivers/block/block_device.hpp"
#include "drivers/block/command_cutter.hpp"
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
#include <optional>
#include <span>
#include <string_view>

namespace hv::block {

/// What the hardware is asked for at a time.
struct BlockCommand {
    BlockRequest::Operation operation;
    unsigned unit;                 ///< which of the disks behind the hardware, as add_disk() counted them
    std::uint64_t block;           ///< the first, in units of the disk's logical blocks
    std::uint64_t blocks;          ///< 0 for flush
    std::span<const DmaRun> runs;  ///< read, write: `blocks` logical blocks in all; gone after issue()
    bool may_unmap = false;        ///< write_zeroes, of a disk that can_unmap_zeroes
};

/// A disk as its hardware describes it.
struct DiskDescription {
    TextBuffer<48> model;
    TextBuffer<32> serial;
    std::uint64_t blocks;  ///< capacity, when it was found
    std::uint32_t logical_block_size;
    bool read_only;
    CommandLimits limits;
    /// As the device has it; what makes no sense counts as a logical block.
    std::uint32_t physical_block_size = 0;
    DiskIdentifier identifier{};
};

class CommandEngine;
class HardwareDisk;

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
        bool again = false;  ///< not ok: the device asks to be given the command once more, later
    };
    /// Takes commands that have ended, at most out.size(); fewer: there are no more for now. What the device
    /// says of slots that are not in use is the hardware's to ignore.
    virtual std::size_t reap(unsigned channel, std::span<Completion> out) = 0;
    enum class Look : std::uint8_t {
        memory,  ///< at what is known already: after each interrupt
        device,  ///< at the device too: after an interrupt for which reap() found nothing, and each second
    };
    /// Whether the device has stopped, or is in an error that only a reset ends. Any CPU, without a lock;
    /// what it says during a reset counts for nothing.
    [[nodiscard]] virtual bool needs_reset(Look look) = 0;

    /// Begins to reset the device, after which it knows of no command and touches no memory. Must not wait.
    virtual void begin_reset() = 0;
    enum class ResetProgress : std::uint8_t {
        pending,
        done,    ///< it takes commands again
        gone,    ///< it is not there any more, or does not come back; it touches no memory
        unruly,  ///< the same, but it has to be cut off, or might touch memory
    };
    /// How far the reset is; called each millisecond.
    virtual ResetProgress poll_reset() = 0;
    /// After a reset that is done, for a command it interrupted: the device said that this one failed by
    /// itself, so it is not tried again.
    [[nodiscard]] virtual bool failed_by_itself(unsigned /*channel*/, unsigned /*slot*/) { return false; }

    /// What one of several disks is called, by unit; empty: as the engine. Any CPU.
    [[nodiscard]] virtual TextBuffer<24> disk_name(unsigned /*unit*/) const { return {}; }

    /// How often it completed a command that it did not have. Any CPU.
    [[nodiscard]] virtual std::uint64_t stray_completions() const { return 0; }

    /// Goes a step on with learning which disks, by unit, have another size now, and tells them. Must not
    /// wait. While no reset is under way, under the lock of channel 0: each second in which commands are with
    /// the device, and in the second after an interrupt for which reap() found nothing. True: it is to be
    /// called again in a millisecond.
    virtual bool look_at_sizes(std::span<const std::unique_ptr<HardwareDisk>> /*disks*/) { return false; }

protected:
    ~CommandHardware() = default;
};

/// One disk behind an engine.
class HardwareDisk final : public BlockDevice {
public:
    HardwareDisk(CommandEngine& engine, unsigned unit, const DiskDescription& description)
        : engine_{engine}, unit_{unit}, description_{description}, blocks_{description.blocks} {}

    [[nodiscard]] BlockGeometry geometry() const override {
        const DiskDescription& d = description_;
        return {blocks_.load(std::memory_order_relaxed) * (d.logical_block_size / kSectorSize),
                d.logical_block_size,
                d.read_only,
                d.limits.can_discard,
                d.limits.can_unmap_zeroes,
                d.physical_block_size};
    }
    [[nodiscard]] bool gone() const override;
    [[nodiscard]] Troubles troubles() const override;
    void submit(BlockRequest& request) override;
    [[nodiscard]] const DiskDescription& description() const { return description_; }
    /// The device says that the disk has so many blocks now. Any CPU.
    void set_blocks(std::uint64_t blocks);

private:
    CommandEngine& engine_;
    const unsigned unit_;
    const DiskDescription description_;  ///< but for the size:
    std::atomic<std::uint64_t> blocks_;
};

class CommandEngine final : private Timer {
public:
    struct Options {
        std::string_view name;  ///< in the log, "nvme0"; outlives the engine
        unsigned channels;      ///< 1 to kMaxChannels
        unsigned slots;         ///< of each channel, 1 to kMaxSlots
        /// One interrupt stands for all channels; else channel c's comes to CPU c.
        bool shared_interrupt = false;
        /// A device that has had a command for so long, and has ended none for so long, is reset: it may be
        /// slow, and have much to do.
        std::uint64_t timeout_ns = 10'000'000'000;
        /// The same while it flushes: it may have a whole cache to write, and let all others wait.
        std::uint64_t flush_timeout_ns = 30'000'000'000;
        /// Called once if ResetProgress::unruly, before the device's requests end: cuts it off from memory.
        void (*cut_off)(void* context) = nullptr;
        /// A disk has another size now. Any CPU, under a lock of Rank::block.
        void (*resized)(void* context) = nullptr;
        void* context = nullptr;
    };
    static constexpr unsigned kMaxChannels = 64;
    static constexpr unsigned kMaxSlots = 256;
    /// Times timeout_ns, after which the device has lost a command, whatever others it ends.
    static constexpr unsigned kLostAfter = 6;
    /// A command that resets interrupted so often, or that the device put off so often, is given up.
    static constexpr unsigned kAttempts = 3;

    /// All outlive the engine, which lives as long as the host runs. Error::no_memory.
    static Expected<std::unique_ptr<CommandEngine>> create(CommandHardware& hardware, Clock& clock,
                                                           DmaPool& pool, const Options& options);
    ~CommandEngine();

    /// Before the first request. Error::no_memory; Error::invalid_argument: a logical block that is no power
    /// of two from 512 to 4096, or limits that make no sense.
    Expected<HardwareDisk*> add_disk(const DiskDescription& description);
    [[nodiscard]] std::span<const std::unique_ptr<HardwareDisk>> disks() const { return disks_.span(); }

    /// The device's interrupt came to this CPU. No lock held.
    void service();

    /// Leaves the device alone for good, and waits until no CPU is at it, unless to see whether it needs a
    /// reset. What it has does not end any more, what comes ends with io_error. A reset that was under way is
    /// left where it is. Not from a completion; no lock held.
    void stop();

    [[nodiscard]] std::string_view name() const { return options_.name; }
    /// The device is lost for good, or was stopped: all requests complete with io_error.
    [[nodiscard]] bool gone() const { return epoch_.load(std::memory_order_relaxed) == kGone; }
    [[nodiscard]] std::uint64_t resets() const { return resets_.load(std::memory_order_relaxed); }
    [[nodiscard]] std::uint64_t stray_completions() const { return hardware_.stray_completions(); }

private:
    friend class HardwareDisk;
    class Channel;
    /// What the watch wants to know of the channels.
    struct Watch {
        bool busy{false};
        bool flushing{false};                     ///< the device has a flush
        std::uint64_t oldest{~std::uint64_t{0}};  ///< host TSC: when it got what it has had longest
        std::uint64_t ended{0};                   ///< commands that it was done with
    };
    static constexpr std::uint64_t kGone = ~std::uint64_t{0};
    static constexpr bool works_in(std::uint64_t epoch) { return epoch % 2 == 0; }

    CommandEngine(CommandHardware& hardware, Clock& clock, const Options& options);
    void submit(BlockRequest& request, unsigned unit);
    [[nodiscard]] std::uint64_t epoch() const { return epoch_.load(std::memory_order_acquire); }
    [[nodiscard]] bool working() const { return works_in(epoch()); }
    /// The watch: looks at all channels for what is too long with the device, and what it forgot to say.
    void fire() override;
    void start_watch();
    /// The device has stopped, or has lost a command.
    [[nodiscard]] bool is_overdue(const Watch& seen);
    void note_size(unsigned unit, std::uint64_t before, std::uint64_t now);
    /// For what was seen in `epoch`: nothing happens if a reset has begun since.
    void begin_reset(std::uint64_t epoch, const char* why);
    void continue_reset();
    void give_up();
    void disarm();

    CommandHardware& hardware_;
    Clock& clock_;
    const Options options_;
    const std::uint64_t timeout_, flush_timeout_, lost_timeout_, again_after_;  ///< host TSC ticks
    Vec<std::unique_ptr<HardwareDisk>> disks_;
    Vec<std::unique_ptr<Channel>> channels_;
    MemberTimer<CommandEngine, &CommandEngine::continue_reset> reset_poll_{*this};
    /// Counts the beginnings and ends of resets: odd during one. kGone in the end.
    std::atomic<std::uint64_t> epoch_{0};
    std::atomic<bool> watching_{false};
    std::atomic<std::uint64_t> ended_{0};     ///< Watch::ended of the last look
    std::atomic<std::uint64_t> ended_at_{0};  ///< host TSC: the look since which it has been that
    std::atomic<std::uint64_t> resets_{0};
    std::atomic<unsigned> at_work_{0};  ///< CPUs that watch or reset the device
};

}  // namespace hv::block
