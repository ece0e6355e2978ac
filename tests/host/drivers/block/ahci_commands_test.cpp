// SPDX-License-Identifier: MIT
// Commands that a disk queues, those that it does not, and those before the power goes.
#include "drivers/block/ahci_fixture.hpp"

using namespace hv;
using namespace hv::block;
using namespace hv::test;
using ata::Command;

TEST_CASE("data goes both ways, queued and not, in blocks of any size", "[block][ahci]") {
    AhciBench bench;
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

TEST_CASE("a large transfer is cut, so that others have the disk meanwhile", "[block][ahci]") {
    AhciBench bench;
    bench.hba.add_disk(0, 70'000);
    bench.device().queue_depth = GENERATE(0u, 32u);
    bench.start();
    Request read{Operation::read, 64, 65'536};
    read.run(bench.disk());
    bench.serve();
    CHECK(read.status == BlockStatus::ok);
    CHECK((read.bytes == bench.on_disk(64, 65'536)));
    CHECK(bench.device().seen.size() == 1 + 16);  // IDENTIFY DEVICE, and commands of 2 MiB
}

TEST_CASE("queued commands end in any order", "[block][ahci]") {
    AhciBench bench;
    bench.start();
    AhciReads reads{bench, 40};  // more than there are slots
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
    AhciBench bench;
    bench.start();
    AhciReads before{bench, 3};
    Request flush{Operation::flush, 0, 0};
    flush.run(bench.disk());
    Request discard{Operation::discard, 1024, 8};
    discard.run(bench.disk());
    AhciReads after{bench, 3};
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

TEST_CASE("a disk is flushed by the command that it has", "[block][ahci]") {
    AhciBench bench;
    SataDevice& device = bench.device();
    std::optional<Command> command = Command::FLUSH_CACHE_EXT;
    SECTION("with 48-bit addresses") {}
    SECTION("without") {
        device.flush_ext = false;
        command = Command::FLUSH_CACHE;
    }
    SECTION("it names none, but has a cache") {
        device.flush = device.flush_ext = false;
    }
    SECTION("none, and its cache is off") {
        device.flush = device.flush_ext = device.write_cache = false;
        command.reset();
    }
    bench.start();
    Request flush{Operation::flush, 0, 0};
    flush.run(bench.disk());
    bench.serve();
    CHECK(flush.status == BlockStatus::ok);
    bench.controller->shut_down();
    for (const Command each : {Command::FLUSH_CACHE, Command::FLUSH_CACHE_EXT})
        CHECK(device.count(each) == (command == each ? 2 : 0));
    CHECK(device.seen.back().command == Command::STANDBY_IMMEDIATE);
}

TEST_CASE("a disk whose cache was off when it was found is flushed", "[block][ahci]") {
    AhciBench bench;
    bench.device().write_cache = false;
    bench.start();
    bench.device().write_cache = true;
    bench.hba.disturb_link(0);
    bench.run_for(kSecond);
    CHECK(bench.engines[0]->resets() == 1);
    Request flush{Operation::flush, 0, 0};
    flush.run(bench.disk());
    bench.serve();
    CHECK(flush.status == BlockStatus::ok);
    CHECK(bench.device().count(Command::FLUSH_CACHE_EXT) == 1);
}

TEST_CASE("a discard is cut into ranges", "[block][ahci]") {
    AhciBench bench;
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

TEST_CASE("before the power goes, disks write down what they have and rest", "[block][ahci]") {
    AhciBench bench;
    SECTION("idle") {}
    SECTION("without a cache") {
        bench.device().write_cache = false;
    }
    bench.start();
    bench.controller->shut_down();
    CHECK(bench.device().count(Command::FLUSH_CACHE_EXT) == 1);
    CHECK(bench.device().seen.back().command == Command::STANDBY_IMMEDIATE);
    CHECK(bench.is_quiet(0));
    CHECK_FALSE(bench.hba.misused);
}

TEST_CASE("a link that is being reset when the power is to go is waited for", "[block][ahci]") {
    AhciBench bench;
    bench.start();
    bench.device().ready_after = 2 * kSecond;
    bench.hba.disturb_link(0);
    bench.run_for(kSecond);
    CHECK(bench.engines[0]->resets() == 1);
    bench.engines[0]->stop();
    bench.controller->shut_down();
    CHECK(bench.device().count(Command::FLUSH_CACHE_EXT) == 1);
    CHECK(bench.device().seen.back().command == Command::STANDBY_IMMEDIATE);
    CHECK(bench.is_quiet(0));
    CHECK_FALSE(bench.hba.misused);
}

TEST_CASE("the power goes within bounds whatever disks do", "[block][ahci]") {
    AhciBench bench;
    bench.start();
    AhciReads reads{bench, 3};
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
        bench.run_for(7 * kSecond);
        bench.controller->shut_down();
        CHECK(bench.clock.now() - begin < 8 * kSecond);
    }
    CHECK_FALSE(bench.hba.misused);
}
