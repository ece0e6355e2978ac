// SPDX-License-Identifier: MIT
// Block hardware that a test steers: commands stay in their slots until the test ends them, data really moves
// between the runs and a disk in memory.
#pragma once

#include "drivers/block/command_engine.hpp"
#include "vmm/base/machine.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

namespace hv::block {

class FakeCommandHardware final : public CommandHardware {
public:
    static constexpr std::uint32_t kBlock = 512;
    struct Issued {
        BlockRequest::Operation operation;
        std::uint64_t block, blocks;
        std::vector<DmaRun> runs;
        bool may_unmap;
    };

    explicit FakeCommandHardware(std::size_t blocks) : disk(blocks * kBlock) {}

    static DiskDescription description(std::uint64_t blocks) {
        return {{}, {}, blocks, kBlock, false, {8, 64, 4, 1 << 20, 4, 0, true, true, true}};
    }

    void issue(unsigned channel, unsigned slot, const BlockCommand& command) override {
        const Slot key{channel, slot};
        in_use_twice = in_use_twice || active.contains(key);
        active[key] = {command.operation,
                       command.block,
                       command.blocks,
                       {command.runs.begin(), command.runs.end()},
                       command.may_unmap};
        ++issued_in_all;
        order.push_back(command.block);
        uncommitted = true;
    }
    void commit(unsigned) override { uncommitted = false; }
    std::size_t reap(unsigned channel, std::span<Completion> out) override {
        std::size_t count = 0;
        while (count < out.size() && !ended[channel].empty()) {
            out[count++] = ended[channel].front();
            ended[channel].erase(ended[channel].begin());
        }
        return count;
    }
    [[nodiscard]] bool needs_reset(Look look) override {
        looks += look == Look::device ? 1 : 0;
        return stopped && look == Look::device;
    }
    void begin_reset() override {
        ++resets;
        lost = active;
        active.clear();
        ended.clear();
        stopped = false;
    }
    ResetProgress poll_reset() override { return progress; }
    [[nodiscard]] bool failed_by_itself(unsigned channel, unsigned slot) override {
        return culprits.contains({channel, slot});
    }

    [[nodiscard]] std::uint64_t stray_completions() const override { return strays; }
    bool look_at_sizes(std::span<const std::unique_ptr<HardwareDisk>> disks) override {
        ++size_looks;
        if (new_size)
            disks.front()->set_blocks(*new_size);
        return size_looks % 3 != 0;
    }

    /// Does what the command in `slot` says, or not if `status` is not ok, and ends it.
    void end(unsigned channel, unsigned slot, BlockStatus status = BlockStatus::ok, bool again = false) {
        const auto found = active.find({channel, slot});
        if (found == active.end())
            return;
        if (status == BlockStatus::ok)
            perform(found->second);
        active.erase(found);
        ended[channel].push_back({slot, status, again});
    }
    void end_all(BlockStatus status = BlockStatus::ok) {
        while (!active.empty())
            end(active.begin()->first.first, active.begin()->first.second, status);
    }
    [[nodiscard]] const Issued& at(unsigned slot, unsigned channel = 0) { return active.at({channel, slot}); }

    using Slot = std::pair<unsigned, unsigned>;
    std::vector<std::byte> disk;
    std::map<Slot, Issued> active, lost;
    std::map<unsigned, std::vector<Completion>> ended;
    std::set<Slot> culprits;
    ResetProgress progress{ResetProgress::done};
    bool stopped{false};
    bool uncommitted{false};
    bool in_use_twice{false};
    unsigned resets{0};
    std::uint64_t strays{0};
    unsigned looks{0};       ///< at the device
    unsigned size_looks{0};  ///< each third wants no other soon
    std::optional<std::uint64_t> new_size;
    unsigned issued_in_all{0};
    std::vector<std::uint64_t> order;  ///< of what was issued: first blocks

private:
    void perform(const Issued& command) {
        std::byte* at = disk.data() + command.block * kBlock;
        using Operation = BlockRequest::Operation;
        if (command.operation == Operation::write_zeroes || command.operation == Operation::discard)
            std::memset(at, 0, command.blocks * kBlock);
        for (const DmaRun& run : command.runs) {
            auto* memory = machine::hva(run.address);
            if (command.operation == Operation::read)
                std::memcpy(memory, at, run.size);
            else
                std::memcpy(at, memory, run.size);
            at += run.size;
        }
    }
};

}  // namespace hv::block
