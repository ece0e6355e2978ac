// SPDX-License-Identifier: MIT
// Disks that get another size while they are in use: the engine asks, drivers hear of it from their devices.
#include "drivers/block/nvme_fixture.hpp"
#include "drivers/block/virtio_blk_fixture.hpp"
#include "fakes/command_hardware.hpp"

using namespace hv;
using namespace hv::block;
using namespace hv::test;

namespace {

constexpr std::uint64_t kMs = 1'000'000;
constexpr std::uint64_t kSecond = 1000 * kMs;

void count(void* resized) {
    ++*static_cast<unsigned*>(resized);
}

struct NvmeSizes : NvmeBench {
    NvmeSizes() { device.tells_of_namespaces = true; }
    ~NvmeSizes() { engine.reset(); }
    void begin() {
        REQUIRE(start());
        CommandEngine::Options options{controller->name(), 1, controller->slots()};
        options.resized = count;
        options.context = &resized;
        engine = std::move(*CommandEngine::create(*controller, timers, pool, options));
        for (const DiskDescription& description : controller->disks())
            disks.push_back(*engine->add_disk(description));
    }
    /// An interrupt that is not for a command, and time for what follows.
    void hear(std::uint64_t seconds = 2) {
        engine->service();
        timers.run_seconds(seconds);
    }
    [[nodiscard]] std::uint64_t sectors(unsigned disk = 0) const { return disks[disk]->geometry().sectors; }
    [[nodiscard]] unsigned administered(std::uint8_t opcode) const {
        return static_cast<unsigned>(
            std::count_if(device.seen.begin(), device.seen.end(),
                          [&](const auto& c) { return c.queue == 0 && c.entry.opcode == opcode; }));
    }

    fake::StepClock timers;
    std::unique_ptr<CommandEngine> engine;
    std::vector<HardwareDisk*> disks;
    unsigned resized{0};
};

}  // namespace

TEST_CASE("an interrupt without a completion makes the engine ask for sizes, until the hardware is content",
          "[block]") {
    fake::ArenaFrames frames;
    DmaPool pool{frames};
    fake::StepClock clock;
    FakeCommandHardware hardware{96};
    unsigned resized = 0;
    CommandEngine::Options options{"fake0", 1, 4};
    options.resized = count;
    options.context = &resized;
    const auto engine = std::move(*CommandEngine::create(hardware, clock, pool, options));
    HardwareDisk* disk = *engine->add_disk(FakeCommandHardware::description(64));
    hardware.new_size = 96;
    CHECK(clock.idle());
    engine->service();
    CHECK(hardware.size_looks == 0);
    clock.run_for(kSecond);
    CHECK(hardware.size_looks == 1);
    CHECK(disk->geometry().sectors == 96);
    clock.run_for(10 * kMs);
    CHECK(hardware.size_looks == 3);
    CHECK(clock.idle());
    CHECK(resized == 1);  // not once for each look

    SECTION("a request that lies in the new part is taken, one beyond it is not") {
        Request inside{Operation::read, 95, 1};
        inside.run(*disk);
        CHECK_FALSE(inside.status);
        Request outside{Operation::read, 96, 1};
        outside.run(*disk);
        CHECK(outside.status == BlockStatus::io_error);
        hardware.end_all();
        engine->service();
    }
    SECTION("during a reset it does not ask, after one it does") {
        hardware.progress = CommandHardware::ResetProgress::pending;
        hardware.stopped = true;
        engine->service();
        clock.run_seconds(3);
        CHECK(hardware.size_looks == 3);
        hardware.new_size = 32;
        hardware.progress = CommandHardware::ResetProgress::done;
        clock.run_seconds(2);
        CHECK(hardware.size_looks == 6);
        CHECK(disk->geometry().sectors == 32);
        CHECK(resized == 2);
    }
    SECTION("a device that only answers is not asked") {
        Request request{Operation::read, 0, 1};
        request.run(*disk);
        hardware.end_all();
        engine->service();
        CHECK(hardware.size_looks == 3);
    }
}

TEST_CASE("an NVMe namespace that grows or shrinks has its new size, as often as it does", "[block]") {
    NvmeSizes bench;
    bench.device.add_namespace(7, 100, 12);
    bench.begin();
    bench.hear();
    CHECK(bench.device.event_awaited());
    CHECK(bench.resized == 0);
    CHECK(bench.timers.idle());
    for (const std::uint64_t blocks : {200, 50, 51}) {
        bench.device.resize(7, blocks);
        bench.hear();
        CHECK(bench.sectors(1) == blocks * 8);
        CHECK(bench.sectors(0) == 4096);
        CHECK(bench.device.event_awaited());
        CHECK(bench.timers.idle());
    }
    CHECK(bench.resized == 3);
}

TEST_CASE("namespaces that change again while they are looked at are looked at again", "[block]") {
    NvmeSizes bench;
    bench.begin();
    bench.hear();
    bench.device.resize(1, 5000);
    bool again = true;
    bench.device.holds_admin = true;
    bench.engine->service();
    bench.timers.run_for(3 * kSecond, [&] {
        // Identify has been answered with the old size, and is not yet taken.
        if (!bench.device.waiting.empty() && bench.device.waiting[0].entry.opcode == nvme::kIdentify &&
            std::exchange(again, false)) {
            bench.device.finish_all();
            bench.device.resize(1, 6000);
        }
        bench.device.finish_all();
    });
    CHECK_FALSE(again);
    CHECK(bench.sectors() == 6000);
    CHECK(bench.timers.idle());
}

TEST_CASE("a namespace that is not what it was has no blocks for its users", "[block]") {
    NvmeSizes bench;
    bench.begin();
    bench.hear();
    SECTION("it is gone") {
        bench.device.resize(1, 0);
    }
    SECTION("it has other blocks") {
        bench.device.namespaces.at(1).block_shift = 12;
        bench.device.resize(1, 512);
    }
    bench.hear();
    CHECK(bench.sectors() == 0);
    CHECK(bench.resized == 1);
    Request request{Operation::read, 0, 1};
    request.run(*bench.disks[0]);
    CHECK(request.status == BlockStatus::io_error);
    bench.device.namespaces.at(1).block_shift = 9;
    bench.device.resize(1, 4096);
    bench.hear();
    CHECK(bench.sectors() == 4096);
}

TEST_CASE("a namespace that the controller does not tell of keeps its size", "[block]") {
    NvmeSizes bench;
    bench.device.add_namespace(7, 100);
    bench.begin();
    bench.hear();
    bench.device.verdict = [](const fake::NvmeController::Command& command) {
        return command.entry.opcode == nvme::kIdentify && command.entry.namespace_id == 7
                   ? std::optional<std::uint16_t>{nvme::kInvalidNamespace}
                   : std::optional<std::uint16_t>{};
    };
    bench.device.resize(1, 5000);
    bench.hear();
    CHECK(bench.sectors(0) == 5000);
    CHECK(bench.sectors(1) == 100);
}

TEST_CASE("what changed during a reset is seen after it, and notices go on", "[block]") {
    NvmeSizes bench;
    bench.begin();
    bench.hear();
    bench.device.fatal = true;
    bench.engine->service();
    bench.device.resize(1, 9000);
    bench.timers.run_seconds(3);
    CHECK(bench.device.enabled_times == 2);
    CHECK(bench.sectors() == 9000);
    bench.device.resize(1, 8000);
    bench.hear();
    CHECK(bench.sectors() == 8000);
}

TEST_CASE("a controller that gives no notices is not asked for any", "[block]") {
    NvmeSizes bench;
    bench.device.tells_of_namespaces = false;
    bench.begin();
    bench.hear();
    CHECK(bench.administered(nvme::kSetFeatures) == 1);  // the number of queues
    CHECK(bench.administered(nvme::kAsynchronousEventRequest) == 0);
    CHECK(bench.timers.idle());
}

TEST_CASE("a controller that refuses notices keeps its disks", "[block]") {
    NvmeSizes bench;
    const auto refuse = [&](std::uint8_t opcode) {
        bench.device.verdict = [opcode](const fake::NvmeController::Command& command) {
            const bool queues = command.entry.cdw10 == nvme::kNumberOfQueues;
            return command.queue == 0 && command.entry.opcode == opcode && !queues
                       ? std::optional<std::uint16_t>{nvme::kInvalidField}
                       : std::optional<std::uint16_t>{};
        };
    };
    SECTION("as a feature") {
        refuse(nvme::kSetFeatures);
    }
    SECTION("when they are awaited") {
        refuse(nvme::kAsynchronousEventRequest);
    }
    bench.begin();
    bench.hear();
    CHECK(bench.timers.idle());
    CHECK(bench.engine->resets() == 0);
    CHECK(bench.sectors() == 4096);
}

TEST_CASE("a controller that does not answer is reset, and not asked again", "[block]") {
    NvmeSizes bench;
    bench.begin();
    bench.device.holds_admin = true;
    bench.hear();  // takes the answer to the feature, and asks for events
    bench.device.resize(1, 5000);
    bench.engine->service();
    bench.timers.run_for(60 * kSecond, [&] { bench.device.holds_admin = bench.engine->resets() == 0; });
    CHECK(bench.engine->resets() == 1);
    CHECK_FALSE(bench.engine->gone());
    CHECK_FALSE(bench.device.event_awaited());
    CHECK(bench.timers.idle());
}

TEST_CASE("events of other kinds are passed over, however many there are", "[block]") {
    NvmeSizes bench;
    bench.begin();
    bench.hear();
    for (unsigned i = 0; i < 100; ++i) {
        bench.device.tell(i % 2 == 0 ? 0x02'0100 : 0x04'0102);
        bench.hear(1);
        REQUIRE(bench.device.event_awaited());
    }
    bench.device.resize(1, 5000);
    bench.hear();
    CHECK(bench.sectors() == 5000);
}

TEST_CASE("a virtio disk tells of its size by the interrupt of its first queue", "[block]") {
    VirtioDiskBench bench;
    CHECK(bench.device.config_vector == 0);
    const auto resize = [&](std::uint64_t sectors) {
        std::memcpy(bench.device.config.data(), &sectors, sizeof sectors);
        bench.engine->service();
        bench.clock.run_for(kSecond);
    };
    resize(3 * kSectors);
    CHECK(bench.disk->geometry().sectors == 3 * kSectors);
    resize(100);
    CHECK(bench.disk->geometry().sectors == 100);

    SECTION("in whole blocks, while it is used, and after a reset") {
        bench.device.status |= DEVICE_NEEDS_RESET;
        resize(200);
        bench.clock.run_seconds(2);
        CHECK(bench.engine->resets() == 1);
        CHECK(bench.device.config_vector == 0);
        CHECK(bench.disk->geometry().sectors == 200);
    }
    SECTION("one that is not there any more has none") {
        bench.device.vanished = true;
        bench.engine->service();
        bench.clock.run_seconds(10);
        CHECK(bench.engine->gone());
        CHECK(bench.disk->geometry().sectors == 100);
    }
    SECTION("nor one that has gone just now, since the device was last looked at") {
        bench.engine->service();
        bench.clock.run_for(995 * kMs);
        bench.engine->service();
        bench.device.vanished = true;
        bench.clock.run_for(6 * kMs);
        CHECK_FALSE(bench.engine->gone());
        CHECK(bench.disk->geometry().sectors == 100);
        bench.clock.run_seconds(10);
    }
    SECTION("one that changes while it is read keeps what it had") {
        bench.device.unsteady_config = true;
        resize(300);
        CHECK(bench.disk->geometry().sectors == 100);
    }
}

TEST_CASE("a virtio disk without vectors is asked while it is used", "[block]") {
    VirtioDisk d;
    const auto driver = std::move(*d.create(1, 0));
    const auto engine =
        std::move(*CommandEngine::create(*driver, d.clock, d.pool, {"vd0", 1, driver->slots()}));
    HardwareDisk* disk = *engine->add_disk(driver->disk());
    CHECK(d.device.config_vector == VIRTIO_MSI_NO_VECTOR);
    const std::uint64_t sectors = 2 * kSectors;
    std::memcpy(d.device.config.data(), &sectors, sizeof sectors);
    Request request{Operation::read, 0, 1};
    request.run(*disk);
    d.answer(0);
    d.clock.run_seconds(1);
    CHECK(request.status == BlockStatus::ok);
    CHECK(disk->geometry().sectors == sectors);
}
