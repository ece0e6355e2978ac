// SPDX-License-Identifier: MIT
// Commands that fail, links and disks that misbehave, and how the others get over it.
#include "drivers/block/ahci_fixture.hpp"

using namespace hv;
using namespace hv::block;
using namespace hv::test;
using ata::Command;

TEST_CASE("of queued commands the one that the disk names fails, the others are sent again",
          "[block][ahci]") {
    AhciBench bench;
    bench.start();
    AhciReads reads{bench, 6};
    bench.device().bad_blocks = {3 * 8 + 2};
    reads.release();
    reads.check(3);
    CHECK(bench.device().count(Command::READ_LOG_EXT) == 1);
    CHECK(bench.device().comresets == 1);
    CHECK(bench.engines[0]->resets() == 1);
    CHECK_FALSE(bench.device().mixed);
    write_and_read_back(bench, 8);
}

TEST_CASE("many bad commands take none of the others with them", "[block][ahci]") {
    AhciBench bench;
    bench.start();
    AhciReads reads{bench, 8};
    bench.device().bad_blocks = {0, 8, 2 * 8, 3 * 8, 4 * 8};
    bench.hba.finish(0, 0);  // each time it is the next one's turn before that of good ones
    bench.device().hold = false;
    bench.run_for(2 * kSecond);
    for (unsigned i = 0; i < 8; ++i)
        CHECK(reads.all[i].status == (i < 5 ? BlockStatus::io_error : BlockStatus::ok));
    CHECK(bench.engines[0]->resets() == 5);
    CHECK(bench.device().comresets == 1);
    write_and_read_back(bench, 8);
}

TEST_CASE("a reset for another command's sake is no attempt", "[block][ahci]") {
    AhciBench bench;
    bench.start();
    AhciReads reads{bench, 8};
    bench.device().bad_blocks = {0, 8, 2 * 8};
    for (unsigned bad = 0; bad < 3; ++bad) {
        bench.hba.finish(0, bad);
        bench.run_for(100 * kMillisecond);
        CHECK(reads.all[bad].status == BlockStatus::io_error);
    }
    bench.hba.disturb_link(0);
    bench.device().hold = false;
    bench.run_for(2 * kSecond);
    for (unsigned i = 3; i < 8; ++i)
        CHECK(reads.all[i].status == BlockStatus::ok);
    CHECK(bench.engines[0]->resets() == 4);
}

TEST_CASE("without a name the link is reset, and what fails again and again is given up", "[block][ahci]") {
    AhciBench bench;
    bench.start();
    AhciReads reads{bench, 4};
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
    AhciBench bench;
    bench.device().queue_depth = GENERATE(0u, 32u);
    bench.hba.clears_ci_on_error = GENERATE(false, true);
    bench.device().error = ata::ICRC;
    bench.start();
    AhciReads reads{bench, 1};
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
    AhciBench bench;
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

TEST_CASE("what waits behind a failed command that is not queued is sent after the reset", "[block][ahci]") {
    AhciBench bench;
    bench.hba.clears_ci_on_error = GENERATE(false, true);
    bench.device().queue_depth = 0;
    bench.start();
    AhciReads reads{bench, 3};
    bench.device().bad_blocks = {0};
    reads.release();
    reads.check(0);
    CHECK(bench.device().count(Command::READ_DMA_EXT) == 3);
    CHECK(bench.engines[0]->resets() == 1);
    write_and_read_back(bench, 8);
}

TEST_CASE("a disk that stays busy after an error is overridden, or its link reset", "[block][ahci]") {
    AhciBench bench;
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
    AhciBench bench;
    bench.start();
    AhciReads reads{bench, 3};
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
    AhciBench bench;
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

TEST_CASE("a disk that takes more than one reset of its link to come back is not given up", "[block][ahci]") {
    AhciBench bench;
    bench.start();
    AhciReads reads{bench, 3};
    bench.device().hold = false;
    SECTION("it is away for a while") {
        bench.hba.unplug(0);
        bench.clock.run_for(2 * kSecond, [&] { bench.serve(); });
        bench.device().present = true;
    }
    SECTION("it is busy for longer than it is waited for the first time") {
        bench.device().ready_after = 15 * kSecond;
        bench.hba.disturb_link(0);
    }
    SECTION("it does not identify itself the first times") {
        bench.device().fails_identify = 2;
        bench.hba.disturb_link(0);
    }
    SECTION("it says nonsense the first times") {
        bench.device().garbles_identity = 2;
        bench.hba.disturb_link(0);
    }
    bench.run_for(30 * kSecond);
    reads.check(~0u);
    CHECK_FALSE(bench.engines[0]->gone());
    write_and_read_back(bench, 8);
}

TEST_CASE("the rounds in which a disk may come back are counted anew after a reset of the HBA",
          "[block][ahci]") {
    AhciBench bench;
    bench.hba.add_disk(2, kBlocks);
    bench.start();
    AhciPort& silent = *bench.controller->ports()[0];
    AhciPort& stubborn = *bench.controller->ports()[1];
    const auto poll = [&](AhciPort& port, auto&& until) {
        for (unsigned i = 0; i < 1'000 && !until(); ++i) {
            bench.clock.skip(kMillisecond);
            port.poll_reset();
        }
        REQUIRE(until());
    };
    bench.device().fails_identify = 100;
    silent.begin_reset();
    poll(silent, [&] { return bench.device().fails_identify == 97; });
    silent.poll_reset();  // gives it up, and has yet to stop the port
    bench.hba.stuck[2] = true;
    stubborn.begin_reset();
    poll(stubborn, [&] { return bench.hba.hba_resets == 1; });
    poll(silent, [&] { return bench.is_quiet(0) && bench.device().fails_identify == 94; });
    CHECK(silent.poll_reset() == CommandHardware::ResetProgress::gone);
}

TEST_CASE("a disk that is taken away, exchanged, or does not come back is given up", "[block][ahci]") {
    AhciBench bench;
    bench.start();
    AhciReads reads{bench, 3};
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
    SECTION("it does not identify itself") {
        bench.device().fails_identify = 3;
        bench.hba.disturb_link(0);
    }
    SECTION("the HBA is gone") {
        bench.hba.dead = true;
        bench.clock.run_for(30 * kSecond);
    }
    bench.clock.run_for(60 * kSecond, [&] {
        if (!bench.hba.dead)
            bench.serve();
    });
    for (const Request& read : reads.all)
        CHECK(read.status == BlockStatus::io_error);
    CHECK(bench.engines[0]->gone());
    CHECK((bench.hba.dead || bench.is_quiet(0)));
    CHECK(bench.cut_offs == (bench.hba.dead ? 1 : 0));
    Request later{Operation::read, 0, 8};
    CHECK(later.run(bench.disk()) == BlockStatus::io_error);
    CHECK_FALSE(bench.hba.misused);
}

TEST_CASE("a port that does not stop has the HBA reset, which the other disks get over", "[block][ahci]") {
    AhciBench bench;
    bench.hba.add_disk(2, kBlocks).hold = true;
    bench.start();
    AhciReads reads{bench, 3};
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

TEST_CASE("a port that begins a reset of its own just before the HBA's is done does not wait in vain",
          "[block][ahci]") {
    using Progress = CommandHardware::ResetProgress;
    AhciBench bench;
    bench.hba.add_disk(2, kBlocks);
    bench.start();
    AhciPort& stubborn = *bench.controller->ports()[0];
    AhciPort& other = *bench.controller->ports()[1];
    bench.hba.before_reset = [&] {
        other.begin_reset();
        for (unsigned i = 0; i < 4; ++i)
            CHECK(other.poll_reset() == Progress::pending);
    };
    bench.hba.stuck[0] = true;
    stubborn.begin_reset();
    const std::uint64_t begin = bench.clock.now();
    Progress first = Progress::pending, second = Progress::pending;
    while ((first == Progress::pending || second == Progress::pending) &&
           bench.clock.now() < begin + 2 * kSecond) {
        bench.clock.skip(kMillisecond);
        if (first == Progress::pending)
            first = stubborn.poll_reset();
        if (bench.hba.hba_resets > 0 && second == Progress::pending)
            second = other.poll_reset();
    }
    CHECK(first == Progress::done);
    CHECK(second == Progress::done);
    CHECK_FALSE(bench.hba.misused);
}

TEST_CASE("a port that does not stop at all is cut off, and the HBA's other disks are gone with it",
          "[block][ahci]") {
    AhciBench bench;
    bench.hba.add_disk(2, kBlocks).hold = true;
    bench.start();
    AhciReads reads{bench, 3};
    Request other{Operation::read, 8, 8};
    other.run(bench.disk(1));
    bench.hba.stuck[0] = bench.hba.stays_stuck = true;
    bench.device().fails_identify = 1;
    bench.hba.raise(0, ahci::IFS);
    bench.run_for(3 * kSecond);
    CHECK(bench.cut_offs == 2);
    CHECK(bench.engines[0]->gone());
    for (const Request& read : reads.all)
        CHECK(read.status == BlockStatus::io_error);
    CHECK(bench.engines[1]->gone());
    CHECK(other.status == BlockStatus::io_error);
}

TEST_CASE("one interrupt stands for all ports, and is over when it has been served", "[block][ahci]") {
    AhciBench bench;
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
