// SPDX-License-Identifier: MIT
// An HBA with disks, its driver and the engines that make its commands of requests.
#pragma once

#include "catch.hpp"
#include "drivers/block/ahci_controller.hpp"
#include "fakes/ahci_hba.hpp"
#include "fakes/arena_frames.hpp"
#include "vmm/storage/disk_fixture.hpp"

#include <deque>
#include <memory>
#include <random>
#include <utility>
#include <vector>

namespace hv::test {

using namespace hv::block;
using fake::SataDevice;
using Operation = BlockRequest::Operation;

inline constexpr std::size_t kBlocks = 8192;
inline constexpr std::uint64_t kMillisecond = 1'000'000, kSecond = 1'000'000'000;

struct AhciBench {
    AhciBench() { hba.add_disk(0, kBlocks); }
    Expected<std::unique_ptr<AhciController>> create(Hpa memory_end = Hpa{4 * kGiB}) {
        return AhciController::create(hba, pool, clock, "ahci0", memory_end);
    }
    void start() {
        controller = std::move(*create());
        for (const auto& port : controller->ports()) {
            CommandEngine::Options options{"ahci0", 1, port->slots()};
            options.cut_off = [](void* its) {
                auto& bench = *static_cast<AhciBench*>(its);
                ++bench.cut_offs;
                bench.hba.dead = true;
            };
            options.context = this;
            engines.push_back(std::move(*CommandEngine::create(*port, clock, pool, options)));
            static_cast<void>(*engines.back()->add_disk(port->description()));
            controller->set_engine(*port, *engines.back());
        }
        controller->service();
    }
    BlockDevice& disk(std::size_t index = 0) { return *engines[index]->disks()[0]; }
    SataDevice& device(unsigned port = 0) { return hba.devices[port]; }
    void serve() {
        for (unsigned i = 0; i < 1'000 && hba.interrupt(); ++i)
            controller->service();
        CHECK_FALSE(hba.interrupt());
    }
    /// The HBA's interrupts are served while time passes.
    void run_for(std::uint64_t nanoseconds) {
        serve();
        clock.run_for(nanoseconds, [&] { serve(); });
        serve();
    }
    [[nodiscard]] bool is_quiet(unsigned port) {
        return (hba.port_register(port, ahci::PortRegister::PxCMD) &
                (ahci::CMD_ST | ahci::CMD_CR | ahci::CMD_FRE | ahci::CMD_FR)) == 0;
    }
    [[nodiscard]] std::vector<std::byte> on_disk(std::size_t sector, std::size_t count, unsigned port = 0) {
        const auto from = device(port).contents.begin() + static_cast<std::ptrdiff_t>(sector * 512);
        return {from, from + static_cast<std::ptrdiff_t>(count * 512)};
    }

    fake::StepClock clock;
    fake::ArenaFrames frames;
    DmaPool pool{frames};
    fake::AhciHba hba{clock};
    std::unique_ptr<AhciController> controller;
    std::vector<std::unique_ptr<CommandEngine>> engines;
    std::mt19937 random{1};
    unsigned cut_offs{0};
};

inline void write_and_read_back(AhciBench& bench, std::size_t sectors) {
    Request write{Operation::write, 64, sectors, test::random_bytes(bench.random, sectors * 512)};
    write.scatter(bench.random, 20'000).run(bench.disk());
    bench.serve();
    CHECK(write.status == BlockStatus::ok);
    CHECK((write.bytes == bench.on_disk(64, sectors)));
    Request read{Operation::read, 64, sectors};
    read.run(bench.disk());
    bench.serve();
    CHECK(read.status == BlockStatus::ok);
    CHECK((read.bytes == write.bytes));
    CHECK_FALSE(bench.hba.misused);
    CHECK_FALSE(bench.device().mixed);
}

/// Reads of 8 sectors each, under way together.
struct AhciReads {
    AhciReads(AhciBench& bench, unsigned count) : bench_{bench} {
        bench.device().hold = true;
        for (unsigned i = 0; i < count; ++i)
            all.emplace_back(Operation::read, i * 8, 8).run(bench.disk());
    }
    void release() {
        bench_.device().hold = false;
        bench_.hba.finish_all(0);
        bench_.run_for(2 * kSecond);
    }
    /// All but number `except` have ended well.
    void check(unsigned except) {
        for (unsigned i = 0; i < all.size(); ++i) {
            CHECK(all[i].status == (i == except ? BlockStatus::io_error : BlockStatus::ok));
            CHECK((i == except || all[i].bytes == bench_.on_disk(i * 8, 8)));
        }
    }
    std::deque<Request> all;

private:
    AhciBench& bench_;
};

}  // namespace hv::test
