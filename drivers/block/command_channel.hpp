// SPDX-License-Identifier: MIT
// One queue of the hardware with its command slots, and the requests that wait for one: a part of the
// command engine.
#pragma once

#include "drivers/block/command_engine.hpp"

#include <array>

namespace hv::block {

using RequestList = List<BlockRequest, &BlockRequest::link>;

/// Completes all of the list. No lock held.
void complete_all(RequestList& ended);

class CommandEngine::Channel final : public Timer {
public:
    Channel(CommandEngine& engine, unsigned index) : engine_{engine}, index_{index} {}
    /// Error::no_memory.
    Expected<void> init(DmaPool& pool);
    /// Room for what commands with these limits name. Before the first request. Error::no_memory.
    Expected<void> make_room(const CommandLimits& limits);

    /// Takes the request over; what cannot be issued at once waits. False: the device is gone.
    bool accept(BlockRequest& request);
    /// Ends commands that the hardware is done with, and issues others. No lock held. True: there were some,
    /// or another CPU is at it.
    bool service();
    /// Issues what the device put off long enough ago.
    void issue_put_off();
    /// Adds what there is to say of this channel.
    void look(Watch& watch);
    /// As CommandHardware::look_at_sizes(), of a device that is not being reset.
    bool look_at_sizes();
    /// Returns once no CPU is at the hardware's queue. After the engine's state has changed.
    void fence() { const LockGuard guard{lock_}; }
    /// After a reset: issues anew what was interrupted.
    void resume();
    /// Ends everything with io_error.
    void give_up();

private:
    /// Completions after which an interrupt's CPU goes on and a timer continues.
    static constexpr unsigned kBudget = 256;
    static constexpr unsigned kBatch = 16;
    /// Zeroes are written from a buffer of this size.
    static constexpr std::uint32_t kZeroBytes = 64 * 1024;

    /// A command that is with the hardware.
    struct Slot {
        BlockRequest* request{};  ///< nullptr: free
        std::uint64_t first{};    ///< of its data: sectors behind the request's first
        std::uint64_t sectors{};
        SegmentPosition data{};
        std::uint64_t order{};      ///< in which commands were issued first
        std::uint64_t issued_at{};  ///< last, or put off: host TSC
        std::uint64_t epoch{};      ///< of the engine: a command of an earlier one was interrupted by a reset
        unsigned attempts{};
        bool bounced{};
        bool put_off{};  ///< not with the hardware: it is to be issued once more
    };

    void fire() override { service(); }
    // All under the lock:
    /// Issues what waits, as far as there is room: a command for each user in turn.
    void pump();
    /// The next command of `request`, into `slot`. False: it has to wait for the bounce page.
    bool begin(Slot& slot, BlockRequest& request);
    /// Whose turn it is, of these.
    [[nodiscard]] unsigned next_of(std::uint32_t users) const;
    /// Takes `request` off its list.
    void remove(BlockRequest& request);
    /// Gives the command in `slot` to the hardware.
    void issue(Slot& slot);
    /// The device asks to be given this one again, later. False: it has been often enough.
    bool put_off(Slot& slot);
    std::span<const DmaRun> runs_of(Slot& slot, const HardwareDisk& disk);
    [[nodiscard]] static std::uint32_t zero_run_bytes(const CommandLimits& limits) {
        return std::min(kZeroBytes, limits.max_run_bytes);
    }
    std::span<const DmaRun> zero_runs(std::uint64_t bytes, std::uint32_t run_bytes);
    void finish(Slot& slot, BlockStatus status, RequestList& ended);
    /// Of what was interrupted before `epoch`, the first command that is not before `order`; nullptr: none.
    [[nodiscard]] Slot* interrupted(std::uint64_t epoch, std::uint64_t order);
    [[nodiscard]] unsigned index_of(const Slot& slot) const {
        return static_cast<unsigned>(&slot - slots_.begin());
    }
    [[nodiscard]] Slot* free_slot();

    CommandEngine& engine_;
    const unsigned index_;
    Turn turn_{Turn::Initially::open};
    Spinlock lock_{Rank::block};
    /// Not wholly issued, each user's in their order.
    std::array<RequestList, kBlockUsers> waiting_;
    std::uint32_t waiting_users_{0};  ///< a bit for each list that is not empty
    unsigned served_{0};              ///< the user whose command was issued last
    Vec<Slot> slots_;
    std::uint64_t next_order_{0};
    std::uint64_t ended_{0};  ///< commands that the hardware was done with
    std::array<std::uint64_t, kMaxSlots / 64> free_{};
    Vec<DmaRun> runs_;  ///< of the command at hand
    DmaBuffer zeroes_;
    DmaBuffer bounce_;
    bool bounce_in_use_{false};
};

}  // namespace hv::block
