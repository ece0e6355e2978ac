// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "drivers/block/ahci_controller.hpp"
#include "fakes/ahci_hba.hpp"
#include "fakes/arena_frames.hpp"
#include "vmm/storage/disk_fixture.hpp"

#include <deque>
#include <random>

using namespace hv;
using namespace hv::block;
using hv::fake::SataDevice;
using hv::test::Request;
using Operation = BlockRequest::Operation;
using ata::Command;

namespace {

constexpr std::size_t kBlocks = 8192;
constexpr std::uint64_t kMillisecond = 1'000'000, kSecond = 1'000'000'000;

struct Bench {
    Bench() { hba.add_disk(0, kBlocks); }
    Expected<std::unique_ptr<AhciController>> create(Hpa memory_end = Hpa{fake::kPhysicalMemory}) {
        return AhciController::create(hba, pool, clock, "ahci0", memory_end);
    }
    void start() {
        controller = std::move(*create());
        for (const auto& port : controller->ports()) {
            engines.push_back(
                std::move(*CommandEngine::create(*port, clock, pool, {"ahci0", 1, port->slots()})));
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
};

void write_and_read_back(Bench& bench, std::size_t sectors) {
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
struct Reads {
    Reads(Bench& bench, unsigned count) : bench_{bench} {
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
    Bench& bench_;
};

}  // namespace

// --- boot
// --------------------------------------------------------------------------------------------------------------

TEST_CASE("disks are found with what they say of themselves, other devices and empty ports are left out",
          "[block][ahci]") {
    Bench bench;
    bench.device().trim = false;
    bench.device(1).present = true;
    bench.device(1).signature = ahci::SIG_ATAPI;
    SataDevice& large = bench.hba.add_disk(3, 1024, 4096);
    large.model = "  Large ";
    large.serial = "\x01odd";
    large.queue_depth = 4;
    large.write_cache = false;
    bench.start();
    REQUIRE(bench.controller->ports().size() == 2);
    const AhciPort& first = *bench.controller->ports()[0];
    const DiskDescription a = first.description();
    CHECK(first.number() == 0);
    CHECK(first.slots() == 32);
    CHECK(a.model.view() == "Cairn Test Disk");
    CHECK(a.serial.view() == "SN 1");
    CHECK(a.blocks == kBlocks);
    CHECK(a.logical_block_size == 512);
    CHECK(a.limits.can_flush);
    CHECK_FALSE(a.limits.can_discard);
    CHECK_FALSE(a.read_only);
    const AhciPort& second = *bench.controller->ports()[1];
    const DiskDescription b = second.description();
    CHECK(second.number() == 3);
    CHECK(second.slots() == 4);
    CHECK(b.model.view() == "Large");
    CHECK(b.serial.view() == "odd");
    CHECK(b.blocks == 1024);
    CHECK(b.logical_block_size == 4096);
    CHECK_FALSE(b.limits.can_flush);
    CHECK(b.limits.can_discard);
    CHECK(bench.is_quiet(1));
    CHECK(bench.is_quiet(2));
    CHECK_FALSE(bench.hba.misused);
    bench.engines.clear();
    CHECK(bench.frames.outstanding() == 4);  // a page and the tables of each disk
}

TEST_CASE("disks spin up together, and one that does not become ready is left out", "[block][ahci]") {
    Bench bench;
    bench.hba.add_disk(1, 16).ready_after = 100 * kSecond;
    bench.device().ready_after = bench.hba.add_disk(2, 16).ready_after = 8 * kSecond;
    const std::uint64_t begin = bench.clock.now();
    bench.start();
    CHECK(bench.controller->ports().size() == 2);
    CHECK(bench.clock.now() - begin < 32 * kSecond);
    Bench quick;
    quick.start();
    CHECK(quick.clock.now() < kSecond);
}

TEST_CASE("a port that firmware has found empty costs no time", "[block][ahci]") {
    Bench bench;
    bench.device().present = false;
    for (unsigned number = 0; number < fake::AhciHba::kPorts; ++number)
        bench.hba.power_up(number);
    const std::uint64_t begin = bench.clock.now();
    bench.start();
    CHECK(bench.controller->ports().empty());
    CHECK(bench.clock.now() - begin < kSecond / 200);
    CHECK(bench.is_quiet(0));
}

TEST_CASE("a disk that identifies itself badly is left out", "[block][ahci]") {
    Bench bench;
    SECTION("short addresses") {
        bench.device().lba48 = false;
    }
    SECTION("no capacity") {
        bench.device().contents.clear();
    }
    SECTION("odd blocks") {
        bench.device().block_size = 520;
    }
    SECTION("no answer") {
        bench.device().deaf = true;
    }
    bench.start();
    CHECK(bench.controller->ports().empty());
    CHECK(bench.is_quiet(0));
    CHECK(bench.frames.outstanding() == 0);
}

TEST_CASE("firmware is asked to let go of the HBA, and waited for within bounds", "[block][ahci]") {
    Bench bench;
    const std::uint64_t begin = bench.clock.now();
    SECTION("at once") {
        bench.hba.firmware_lets_go_after = kMillisecond;
        bench.start();
        CHECK(bench.clock.now() - begin < 100 * kMillisecond);
    }
    SECTION("it has something to finish") {
        bench.hba.firmware_lets_go_after = kSecond;
        bench.hba.firmware_busy = true;
        bench.start();
        CHECK(bench.clock.now() - begin > kSecond);
    }
    SECTION("never") {
        bench.hba.firmware_lets_go_after = 1'000 * kSecond;
        bench.start();
        CHECK(bench.clock.now() - begin < kSecond);
    }
    CHECK(bench.controller->ports().size() == 1);
}

TEST_CASE("an HBA whose ports do not stop is reset at boot, one that then hangs is left out",
          "[block][ahci]") {
    Bench bench;
    bench.hba.stuck[1] = true;
    SECTION("reset") {
        bench.start();
        CHECK(bench.hba.hba_resets == 1);
        write_and_read_back(bench, 8);
    }
    SECTION("hung") {
        bench.hba.reset_hangs = true;
        CHECK(bench.create().error() == Error::timed_out);
    }
    SECTION("not there") {
        bench.hba.dead = true;
        CHECK(bench.create().error() == Error::corrupted);
    }
}

TEST_CASE("an HBA of 32-bit addresses is used only where all memory is within its reach", "[block][ahci]") {
    Bench bench;
    bench.hba.capabilities &= ~static_cast<std::uint32_t>(ahci::CAP_S64A::kMask);
    CHECK(bench.create(Hpa{fake::kPhysicalMemory + 1}).error() == Error::unsupported);
    bench.start();
    CHECK(bench.controller->ports().size() == 1);
    CHECK_FALSE(bench.hba.misused);  // no upper halves
}

TEST_CASE("without memory an HBA is left out, and none is lost", "[block][ahci]") {
    for (unsigned count = 0; count < 8; ++count) {
        Bench bench;
        bench.frames.limit(count);
        CHECK(bench.create().error() == Error::no_memory);
        CHECK(bench.frames.outstanding() == 0);
    }
}

// --- commands
// ----------------------------------------------------------------------------------------------------------

TEST_CASE("data goes both ways, queued and not, in blocks of any size", "[block][ahci]") {
    Bench bench;
    bool queued = true;
    SECTION("queued") {}
    SECTION("a disk without queues") {
        bench.device().queue_depth = 0;
        queued = false;
    }
    SECTION("an HBA without queues") {
        bench.hba.capabilities &= ~static_cast<std::uint32_t>(ahci::CAP_SNCQ::kMask);
        queued = false;
    }
    SECTION("large blocks") {
        bench.hba.add_disk(0, 1024, 4096);
    }
    bench.start();
    CHECK(bench.controller->ports()[0]->slots() == (queued ? 32 : 1));
    write_and_read_back(bench, 8);
    write_and_read_back(bench, 4096);
    CHECK((bench.device().count(Command::READ_FPDMA_QUEUED) > 0) == queued);
    CHECK((bench.device().count(Command::WRITE_FPDMA_QUEUED) > 0) == queued);
    CHECK((bench.device().count(Command::READ_DMA_EXT) > 0) == !queued);
    CHECK((bench.device().count(Command::WRITE_DMA_EXT) > 0) == !queued);
}

TEST_CASE("the largest transfer is counted as none", "[block][ahci]") {
    Bench bench;
    bench.hba.add_disk(0, 70'000);
    bench.device().queue_depth = GENERATE(0u, 32u);
    bench.start();
    Request read{Operation::read, 64, 65'536};
    read.run(bench.disk());
    bench.serve();
    CHECK(read.status == BlockStatus::ok);
    CHECK((read.bytes == bench.on_disk(64, 65'536)));
    CHECK(bench.device().seen.size() == 2);  // IDENTIFY DEVICE, and one command for all
}

TEST_CASE("queued commands end in any order", "[block][ahci]") {
    Bench bench;
    bench.start();
    Reads reads{bench, 40};  // more than there are slots
    CHECK(bench.device().active.size() == 32);
    bench.hba.finish(0, 17);
    bench.serve();
    CHECK(reads.all[17].status == BlockStatus::ok);
    CHECK_FALSE(reads.all[0].status);
    CHECK(bench.device().active.size() == 32);
    reads.release();
    reads.check(~0u);
    CHECK(bench.device().comresets == 1);
}

TEST_CASE("queued and other commands are never with the disk together, and stay in order", "[block][ahci]") {
    Bench bench;
    bench.start();
    Reads before{bench, 3};
    Request flush{Operation::flush, 0, 0};
    flush.run(bench.disk());
    Request discard{Operation::discard, 1024, 8};
    discard.run(bench.disk());
    Reads after{bench, 3};
    CHECK(bench.device().active.size() == 3);
    bench.hba.finish(0, 1);
    bench.hba.finish(0, 0);
    bench.serve();
    CHECK(bench.device().active.size() == 1);
    CHECK(bench.device().count(Command::FLUSH_CACHE_EXT) == 0);
    bench.hba.finish(0, 2);
    bench.serve();
    CHECK(bench.device().active.size() == 1);
    CHECK(bench.device().count(Command::FLUSH_CACHE_EXT) == 1);
    CHECK(bench.device().count(Command::DATA_SET_MANAGEMENT) == 0);
    bench.hba.finish_all(0);
    bench.serve();
    CHECK(flush.status == BlockStatus::ok);
    CHECK_FALSE(discard.status);
    CHECK(bench.device().active.size() == 1);
    bench.hba.finish_all(0);
    bench.serve();
    CHECK(discard.status == BlockStatus::ok);
    CHECK(bench.device().active.size() == 3);
    after.release();
    after.check(~0u);
    CHECK_FALSE(bench.device().mixed);
    CHECK_FALSE(bench.hba.misused);
}

TEST_CASE("a discard is cut into ranges", "[block][ahci]") {
    Bench bench;
    bench.hba.add_disk(0, 140'000);
    bench.start();
    Request discard{Operation::discard, 100, 139'000};
    discard.run(bench.disk());
    bench.serve();
    CHECK(discard.status == BlockStatus::ok);
    CHECK(bench.device().trimmed ==
          decltype(bench.device().trimmed){{100, 65'535}, {65'635, 65'535}, {131'170, 7'930}});
    CHECK_FALSE(bench.hba.misused);
}

// --- errors
// ------------------------------------------------------------------------------------------------------------

TEST_CASE("of queued commands the one that the disk names fails, the others are sent again",
          "[block][ahci]") {
    Bench bench;
    bench.start();
    Reads reads{bench, 6};
    bench.device().bad_blocks = {3 * 8 + 2};
    reads.release();
    reads.check(3);
    CHECK(bench.device().count(Command::READ_LOG_EXT) == 1);
    CHECK(bench.device().comresets == 1);
    CHECK(bench.engines[0]->resets() == 1);
    CHECK_FALSE(bench.device().mixed);
    write_and_read_back(bench, 8);
}

TEST_CASE("without a name the link is reset, and what fails again and again is given up", "[block][ahci]") {
    Bench bench;
    bench.start();
    Reads reads{bench, 4};
    bench.device().bad_blocks = {3 * 8};
    unsigned comresets = 1;
    SECTION("no log") {
        bench.device().has_log = false;
        comresets += 3;
    }
    SECTION("a tag that was not in use") {
        bench.device().lies_in_log = true;
    }
    reads.release();
    reads.check(3);
    CHECK(bench.device().comresets == comresets);
    CHECK(bench.engines[0]->resets() == CommandEngine::kAttempts);
    write_and_read_back(bench, 8);
}

TEST_CASE("what the link damaged is tried again", "[block][ahci]") {
    Bench bench;
    bench.device().queue_depth = GENERATE(0u, 32u);
    bench.device().error = ata::ICRC;
    bench.start();
    Reads reads{bench, 1};
    bench.device().bad_blocks = {0};
    bench.hba.finish_all(0);
    bench.serve();
    bench.device().bad_blocks.clear();
    bench.device().hold = false;
    bench.run_for(kSecond);
    reads.check(~0u);
    CHECK(bench.engines[0]->resets() == 1);
}

TEST_CASE("a command that is not queued fails by itself", "[block][ahci]") {
    Bench bench;
    bench.hba.clears_ci_on_error = GENERATE(false, true);
    bench.start();
    bench.device().bad_blocks = {~std::uint64_t{0}};
    Request flush{Operation::flush, 0, 0};
    flush.run(bench.disk());
    bench.run_for(kSecond);
    CHECK(flush.status == BlockStatus::io_error);
    CHECK(bench.device().count(Command::FLUSH_CACHE_EXT) == 1);
    CHECK(bench.device().count(Command::READ_LOG_EXT) == 0);
    CHECK(bench.device().comresets == 1);
    write_and_read_back(bench, 8);
}

TEST_CASE("a disk that stays busy after an error is overridden, or its link reset", "[block][ahci]") {
    Bench bench;
    unsigned comresets = 1;
    SECTION("overridden") {}
    SECTION("reset") {
        bench.hba.capabilities &= ~static_cast<std::uint32_t>(ahci::CAP_SCLO::kMask);
        comresets = 2;
    }
    bench.start();
    bench.device().busy_after_error = true;
    bench.device().bad_blocks = {~std::uint64_t{0}};
    Request flush{Operation::flush, 0, 0};
    flush.run(bench.disk());
    bench.run_for(kSecond);
    CHECK(flush.status == BlockStatus::io_error);
    CHECK(bench.device().comresets == comresets);
    write_and_read_back(bench, 8);
}

TEST_CASE("a fault of the bus or the link does not fail commands", "[block][ahci]") {
    Bench bench;
    bench.start();
    Reads reads{bench, 3};
    SECTION("a transfer") {
        bench.hba.raise(0, GENERATE(ahci::IFS, ahci::HBFS, ahci::HBDS, ahci::OFS));
    }
    SECTION("the link") {
        bench.hba.disturb_link(0);
    }
    bench.device().hold = false;
    bench.run_for(kSecond);
    reads.check(~0u);
    CHECK(bench.engines[0]->resets() == 1);
    CHECK_FALSE(bench.device().mixed);
    CHECK_FALSE(bench.hba.misused);
}

TEST_CASE("a disk that answers nothing has its link reset", "[block][ahci]") {
    Bench bench;
    bench.start();
    bench.device().deaf = true;
    Request read{Operation::read, 0, 8};
    read.run(bench.disk());
    bench.run_for(9 * kSecond);
    CHECK(bench.device().comresets == 1);
    CHECK_FALSE(read.status);
    bench.device().deaf = false;
    bench.run_for(3 * kSecond);
    CHECK(bench.device().comresets == 2);
    CHECK(read.status == BlockStatus::ok);
    CHECK((read.bytes == bench.on_disk(0, 8)));
}

TEST_CASE("a disk that is taken away, exchanged, or does not come back is given up", "[block][ahci]") {
    Bench bench;
    bench.start();
    Reads reads{bench, 3};
    SECTION("away") {
        bench.hba.unplug(0);
    }
    SECTION("exchanged") {
        bench.device().serial = "SN 2";
        bench.hba.disturb_link(0);
    }
    SECTION("busy for ever") {
        bench.device().ready_after = 1'000 * kSecond;
        bench.hba.disturb_link(0);
    }
    SECTION("the HBA is gone") {
        bench.hba.dead = true;
        bench.clock.run_for(30 * kSecond);
    }
    bench.clock.run_for(13 * kSecond, [&] {
        if (!bench.hba.dead)
            bench.serve();
    });
    for (const Request& read : reads.all)
        CHECK(read.status == BlockStatus::io_error);
    CHECK(bench.engines[0]->gone());
    CHECK((bench.hba.dead || bench.is_quiet(0)));
    Request later{Operation::read, 0, 8};
    CHECK(later.run(bench.disk()) == BlockStatus::io_error);
    CHECK_FALSE(bench.hba.misused);
}

TEST_CASE("a port that does not stop has the HBA reset, which the other disks get over", "[block][ahci]") {
    Bench bench;
    bench.hba.add_disk(2, kBlocks).hold = true;
    bench.start();
    Reads reads{bench, 3};
    Request other{Operation::read, 8, 8};
    other.run(bench.disk(1));
    bench.device().bad_blocks = {8};
    bench.hba.stuck[0] = true;
    bench.device().hold = bench.device(2).hold = false;
    bench.hba.finish_all(0);
    bench.run_for(4 * kSecond);
    CHECK(bench.hba.hba_resets == 1);
    CHECK(other.status == BlockStatus::ok);
    CHECK((other.bytes == bench.on_disk(8, 8, 2)));
    reads.check(1);
    CHECK(bench.engines[1]->resets() == 1);
    CHECK_FALSE(bench.hba.misused);
}

TEST_CASE("one interrupt stands for all ports, and is over when it has been served", "[block][ahci]") {
    Bench bench;
    bench.hba.add_disk(3, kBlocks);
    bench.start();
    Request first{Operation::read, 0, 8}, second{Operation::read, 8, 8};
    first.run(bench.disk(0));
    second.run(bench.disk(1));
    CHECK(bench.hba.interrupt());
    bench.controller->service();
    CHECK_FALSE(bench.hba.interrupt());
    CHECK((first.bytes == bench.on_disk(0, 8)));
    CHECK((second.bytes == bench.on_disk(8, 8, 3)));
}

// --- power off
// ---------------------------------------------------------------------------------------------------------

TEST_CASE("before the power goes, disks write down what they have and rest", "[block][ahci]") {
    Bench bench;
    SECTION("idle") {}
    SECTION("without a cache") {
        bench.device().write_cache = false;
    }
    bench.start();
    bench.controller->shut_down();
    CHECK(bench.device().count(Command::FLUSH_CACHE_EXT) == (bench.device().write_cache ? 1 : 0));
    CHECK(bench.device().seen.back().command == Command::STANDBY_IMMEDIATE);
    CHECK(bench.is_quiet(0));
    CHECK_FALSE(bench.hba.misused);
}

TEST_CASE("the power goes within bounds whatever disks do", "[block][ahci]") {
    Bench bench;
    bench.start();
    Reads reads{bench, 3};
    const std::uint64_t begin = bench.clock.now();
    SECTION("commands that hang") {
        bench.device().hold = true;
        bench.controller->shut_down();
        CHECK(bench.device().comresets == 2);
        CHECK(bench.device().count(Command::FLUSH_CACHE_EXT) == 1);
        CHECK_FALSE(bench.device().mixed);
    }
    SECTION("no answer") {
        bench.device().deaf = true;
        bench.controller->shut_down();
        CHECK(bench.clock.now() - begin < 60 * kSecond);
    }
    SECTION("gone") {
        bench.hba.unplug(0);
        bench.run_for(3 * kSecond);
        bench.controller->shut_down();
        CHECK(bench.clock.now() - begin < 4 * kSecond);
    }
    CHECK_FALSE(bench.hba.misused);
}
