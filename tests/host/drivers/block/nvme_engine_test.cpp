// SPDX-License-Identifier: MIT
// The driver under the engine that makes its commands of requests.
#include "drivers/block/nvme_fixture.hpp"
#include "fakes/step_clock.hpp"
#include "vmm/storage/disk_fixture.hpp"

#include <algorithm>
#include <deque>
#include <random>

using namespace hv;
using namespace hv::block;
using namespace hv::test;

namespace {

struct EngineBench : NvmeBench {
    explicit EngineBench(unsigned channels = 1) {
        REQUIRE(start(channels));
        engine = std::move(
            *CommandEngine::create(*controller, timers, pool,
                                   {controller->name(), controller->channels(), controller->slots(), true}));
        for (const DiskDescription& description : controller->disks())
            disks.push_back(*engine->add_disk(description));
    }
    ~EngineBench() {
        fake::set_cpu(0);
        engine.reset();
    }
    /// The device ends all that it has and interrupts, until there is nothing more.
    void finish_all() {
        for (unsigned handled = 0; handled != device.interrupts[0];) {
            device.finish_all();
            handled = device.interrupts[0];
            engine->service();
        }
    }
    fake::StepClock timers;
    std::unique_ptr<CommandEngine> engine;
    std::vector<HardwareDisk*> disks;
};

}  // namespace

TEST_CASE("requests of any shape arrive at the controller's disks", "[block]") {
    EngineBench bench{2};
    std::mt19937 random{11};
    auto model = bench.device.namespaces[1].contents;
    for (unsigned step = 0; step < 100; ++step) {
        fake::set_cpu(step % 3);
        const std::uint64_t count = random() % 300 + 1;
        const std::uint64_t sector = random() % (4096 - count);
        const auto at = model.begin() + static_cast<std::ptrdiff_t>(sector * kSectorSize);
        const bool writes = random() % 2 == 0;
        Request request{writes ? Operation::write : Operation::read, sector, count,
                        writes ? test::random_bytes(random, count * kSectorSize) : std::vector<std::byte>{}};
        request.scatter(random, 20'000).run(*bench.disks[0]);
        bench.finish_all();
        REQUIRE(request.status == BlockStatus::ok);
        if (writes)
            std::copy(request.bytes.begin(), request.bytes.end(), at);
        else
            REQUIRE(std::equal(request.bytes.begin(), request.bytes.end(), at));
    }
    CHECK(bench.device.namespaces[1].contents == model);
}

TEST_CASE("a controller that stops is reset, and does what was asked of it", "[block]") {
    EngineBench bench;
    bench.device.holds_io = true;
    std::deque<Request> requests;
    for (std::uint64_t i = 0; i < 100; ++i) {
        requests.emplace_back(Operation::read, i * 8, 8);
        requests.back().run(*bench.disks[0]);
    }
    SECTION("by a fatal error") {
        bench.device.fatal = true;
        bench.engine->service();
    }
    SECTION("by saying nothing") {
        bench.timers.run_seconds(12);
    }
    CHECK(bench.engine->resets() == 1);
    bench.device.holds_io = false;
    bench.timers.run_seconds(1);
    bench.finish_all();
    for (const Request& request : requests)
        CHECK(request.status == BlockStatus::ok);
}

TEST_CASE("a namespace that is not ready yet is asked again", "[block]") {
    EngineBench bench;
    unsigned refusals = 2;
    bench.device.verdict = [&](const fake::NvmeController::Command& command) {
        const bool refuses = command.queue != 0 && refusals > 0;
        refusals -= refuses ? 1 : 0;
        return refuses ? std::optional<std::uint16_t>{nvme::kNamespaceNotReady} : std::nullopt;
    };
    bench.device.namespaces[1].contents[8 * kSectorSize] = std::byte{0x5a};
    Request read{Operation::read, 8, 8};
    read.run(*bench.disks[0]);
    bench.engine->service();
    CHECK_FALSE(read.status);
    bench.timers.run_seconds(4);
    bench.engine->service();
    CHECK(read.status == BlockStatus::ok);
    CHECK(read.bytes[0] == std::byte{0x5a});
    CHECK(bench.device.io(nvme::kRead).size() == 3);
    CHECK(bench.engine->resets() == 0);
}

TEST_CASE("a controller that vanishes fails what was asked of it", "[block]") {
    EngineBench bench;
    bench.device.holds_io = true;
    Request before{Operation::read, 0, 8};
    before.run(*bench.disks[0]);
    bench.device.gone = true;
    bench.engine->service();
    bench.timers.run_seconds(1);
    CHECK(bench.engine->gone());
    CHECK(before.status == BlockStatus::io_error);
    Request after{Operation::read, 0, 8};
    CHECK(after.run(*bench.disks[0]) == BlockStatus::io_error);
}
