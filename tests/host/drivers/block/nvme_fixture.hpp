// SPDX-License-Identifier: MIT
// An NVMe controller with its driver, command by command.
#pragma once

#include "catch.hpp"
#include "drivers/block/nvme_controller.hpp"
#include "fakes/arena_frames.hpp"
#include "fakes/nvme_controller.hpp"

#include <bit>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace hv::test {

using namespace hv::block;
using Operation = BlockRequest::Operation;
using Progress = CommandHardware::ResetProgress;
using Completions = std::vector<CommandHardware::Completion>;

/// A millisecond goes by with each look at it.
class PassingClock final : public Clock {
public:
    [[nodiscard]] std::uint64_t now() const override { return now_ += 1'000'000; }
    [[nodiscard]] std::uint64_t hz() const override { return 1'000'000'000; }
    void arm(Timer&, std::uint64_t) override {}
    void disarm(Timer&) override {}
    [[nodiscard]] std::uint64_t seconds() const { return now_ / hz(); }

private:
    mutable std::uint64_t now_{0};
};

struct NvmeBench {
    NvmeBench() = default;
    ~NvmeBench() {
        controller.reset();
        CHECK(device.violations == std::vector<std::string>{});
        CHECK(frames.outstanding() == outside);
    }
    Expected<void> start(unsigned channels = 1, unsigned vectors = 1) {
        auto created = NvmeController::create(device, pool, clock, {"nvme0", channels, vectors});
        if (!created)
            return Unexpected{created.error()};
        controller = std::move(*created);
        return {};
    }
    /// Memory of a test's own.
    Hpa memory(std::uint64_t pages) {
        const Hpa at = *frames.allocate(static_cast<unsigned>(std::bit_width(pages - 1)));
        ++outside;
        return at;
    }
    void issue(unsigned channel, unsigned slot, Operation operation, std::uint64_t block,
               std::uint64_t blocks, std::vector<DmaRun> runs = {}, unsigned unit = 0) {
        controller->issue(channel, slot, {operation, unit, block, blocks, runs});
    }
    Completions reap(unsigned channel = 0, std::size_t most = 64) {
        Completions out(most);
        out.resize(controller->reap(channel, out));
        return out;
    }
    /// One command, from the first to the last step.
    BlockStatus run(Operation operation, std::uint64_t block, std::uint64_t blocks,
                    std::vector<DmaRun> runs = {}, unsigned unit = 0) {
        issue(0, 3, operation, block, blocks, std::move(runs), unit);
        controller->commit(0);
        const Completions ended = reap();
        REQUIRE(ended.size() == 1);
        CHECK(ended[0].slot == 3);
        return ended[0].status;
    }
    /// Polls until the reset is over, and counts how often.
    Progress reset(unsigned most = 100'000) {
        controller->begin_reset();
        for (polls = 1; polls < most; ++polls)
            if (const Progress progress = controller->poll_reset(); progress != Progress::pending)
                return progress;
        return Progress::pending;
    }

    fake::ArenaFrames frames;
    DmaPool pool{frames};
    PassingClock clock;
    fake::NvmeController device;
    std::unique_ptr<NvmeController> controller;
    std::uint64_t outside{0};
    unsigned polls{0};
};

}  // namespace hv::test
