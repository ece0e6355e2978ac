// SPDX-License-Identifier: MIT
// From an HBA's registers to its disks: firmware that has it, ports that are empty, disks that are slow.
#include "drivers/block/ahci_fixture.hpp"

using namespace hv;
using namespace hv::block;
using namespace hv::test;

TEST_CASE("disks are found with what they say of themselves, other devices and empty ports are left out",
          "[block][ahci]") {
    AhciBench bench;
    bench.device().trim = false;
    bench.device().physical_sizes = 0x6003;  // eight logical ones
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
    CHECK(a.physical_block_size == 4096);
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
    CHECK(b.physical_block_size == 4096);
    CHECK_FALSE(b.limits.can_unmap_zeroes);
    CHECK(b.limits.can_flush);
    CHECK(b.limits.can_discard);
    CHECK(bench.is_quiet(1));
    CHECK(bench.is_quiet(2));
    CHECK_FALSE(bench.hba.misused);
    bench.engines.clear();
    CHECK(bench.frames.outstanding() == 4);  // a page and the tables of each disk
}

TEST_CASE("disks spin up together, and one that does not become ready is left out", "[block][ahci]") {
    AhciBench bench;
    bench.hba.add_disk(1, 16).ready_after = 100 * kSecond;
    bench.device().ready_after = bench.hba.add_disk(2, 16).ready_after = 8 * kSecond;
    const std::uint64_t begin = bench.clock.now();
    bench.start();
    REQUIRE(bench.controller->ports().size() == 2);
    CHECK(bench.controller->ports()[0]->number() == 0);
    CHECK(bench.controller->ports()[1]->number() == 2);
    CHECK(bench.clock.now() - begin < 32 * kSecond);
    AhciBench quick;
    quick.start();
    CHECK(quick.clock.now() < kSecond);
}

TEST_CASE("a port that firmware has found empty costs no time", "[block][ahci]") {
    AhciBench bench;
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
    AhciBench bench;
    SECTION("short addresses") {
        bench.device().lba48 = false;
    }
    SECTION("no capacity") {
        bench.device().contents.clear();
    }
    SECTION("odd blocks") {
        bench.device().block_size = 520;
    }
    bench.start();
    CHECK(bench.controller->ports().empty());
    CHECK(bench.is_quiet(0));
    CHECK(bench.frames.outstanding() == 0);
}

TEST_CASE("a disk that does not identify itself at first is asked again, after a reset of its link",
          "[block][ahci]") {
    AhciBench bench;
    const std::uint64_t begin = bench.clock.now();
    const unsigned times = GENERATE(1u, 2u);
    std::uint64_t most = kSecond;
    SECTION("it fails") {
        bench.device().fails_identify = times;
    }
    SECTION("it says nonsense") {
        bench.device().garbles_identity = times;
    }
    SECTION("it does not answer") {
        bench.device().ignores_identify = times;
        most = 16 * kSecond;
    }
    bench.start();
    REQUIRE(bench.controller->ports().size() == 1);
    CHECK(bench.device().count(ata::Command::IDENTIFY_DEVICE) == 1 + times);
    CHECK(bench.device().comresets == 1 + times);
    CHECK(bench.clock.now() - begin < most);
    write_and_read_back(bench, 8);
}

TEST_CASE("a disk that does not identify itself three times is left out", "[block][ahci]") {
    AhciBench bench;
    bench.hba.add_disk(2, kBlocks);
    const std::uint64_t begin = bench.clock.now();
    std::uint64_t most = kSecond;
    SECTION("it fails") {
        bench.device().fails_identify = 3;
    }
    SECTION("it says nonsense") {
        bench.device().garbles_identity = 3;
    }
    SECTION("it does not answer") {
        bench.device().deaf = true;
        most = 37 * kSecond;
    }
    SECTION("it does each in turn") {
        bench.device().fails_identify = bench.device().garbles_identity = 1;
        bench.device().ignores_identify = 1;
        most = 21 * kSecond;
    }
    bench.start();
    REQUIRE(bench.controller->ports().size() == 1);
    CHECK(bench.controller->ports()[0]->number() == 2);
    CHECK(bench.device().comresets == 3);
    CHECK(bench.clock.now() - begin < most);
    CHECK(bench.is_quiet(0));
    CHECK_FALSE(bench.hba.misused);
}

TEST_CASE("firmware is asked to let go of the HBA, and waited for within bounds", "[block][ahci]") {
    AhciBench bench;
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
    AhciBench bench;
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
    AhciBench bench;
    bench.hba.capabilities &= ~static_cast<std::uint32_t>(ahci::CAP_S64A::kMask);
    CHECK(bench.create(Hpa{4 * kGiB + 1}).error() == Error::unsupported);
    bench.start();
    CHECK(bench.controller->ports().size() == 1);
    CHECK_FALSE(bench.hba.misused);  // no upper halves
}

TEST_CASE("without memory an HBA is left out, and none is lost", "[block][ahci]") {
    for (unsigned count = 0; count < 8; ++count) {
        AhciBench bench;
        bench.frames.limit(count);
        CHECK(bench.create().error() == Error::no_memory);
        CHECK(bench.frames.outstanding() == 0);
    }
}
