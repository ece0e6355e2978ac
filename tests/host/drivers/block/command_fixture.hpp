// SPDX-License-Identifier: MIT
// A disk behind the engine, whose commands tests end.
#pragma once

#include "catch.hpp"
#include "drivers/block/command_engine.hpp"
#include "fakes/arena_frames.hpp"
#include "fakes/command_hardware.hpp"
#include "fakes/step_clock.hpp"
#include "vmm/storage/disk_fixture.hpp"

#include <memory>
#include <random>

namespace hv::test {

using namespace hv::block;
using Operation = BlockRequest::Operation;

struct CommandBench {
    CommandBench(unsigned channels, unsigned slots, const DiskDescription& description)
        : hardware{description.blocks},
          engine{std::move(*CommandEngine::create(hardware, clock, pool, {"fake0", channels, slots}))},
          disk{*engine->add_disk(description)} {}
    ~CommandBench() { fake::set_cpu(0); }

    fake::ArenaFrames frames;
    DmaPool pool{frames};
    fake::StepClock clock;
    FakeCommandHardware hardware;
    std::unique_ptr<CommandEngine> engine;
    HardwareDisk* disk;
};

/// With a disk of kEngineBlocks, and random data.
inline constexpr std::uint64_t kEngineBlocks = 4096;
struct EngineBench : CommandBench {
    explicit EngineBench(unsigned channels = 1, unsigned slots = 4,
                         const DiskDescription& description = FakeCommandHardware::description(kEngineBlocks))
        : CommandBench{channels, slots, description} {}
    /// The device ends all that it has and interrupts, until nothing is left.
    void finish_all() {
        while (!hardware.active.empty()) {
            CHECK_FALSE(hardware.uncommitted);
            hardware.end_all();
            engine->service();
        }
    }

    std::mt19937 random{1};
};

}  // namespace hv::test
