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

}  // namespace hv::test
