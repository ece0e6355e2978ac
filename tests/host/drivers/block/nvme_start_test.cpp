// SPDX-License-Identifier: MIT
// From a controller's registers to its disks, whatever the one has and the others are.
#include "drivers/block/nvme_fixture.hpp"

#include <optional>

using namespace hv;
using namespace hv::block;
using namespace hv::test;

TEST_CASE("a controller is brought up, and tells its disks", "[block]") {
    NvmeBench bench;
    bench.device.add_namespace(4, 100, 12);
    REQUIRE(bench.start());
    CHECK(bench.controller->channels() == 1);
    CHECK(bench.controller->slots() == 63);
    CHECK(bench.controller->name() == "nvme0");
    CHECK(bench.device.entries(1) == 64);
    const auto disks = bench.controller->disks();
    REQUIRE(disks.size() == 2);
    CHECK(disks[0].model.view() == "Model?of 7");
    CHECK(disks[0].serial.view() == "S-0815");
    CHECK(disks[0].blocks == 4096);
    CHECK(disks[0].logical_block_size == 512);
    CHECK_FALSE(disks[0].read_only);
    CHECK(disks[0].limits.max_blocks == 4096);  // a full list of pages
    CHECK(disks[0].limits.max_range_blocks == 65536);
    CHECK(disks[0].limits.can_flush);
    CHECK(disks[0].limits.can_discard);
    CHECK(disks[0].limits.can_write_zeroes);
    CHECK(disks[1].blocks == 100);
    CHECK(disks[1].logical_block_size == 4096);
    CHECK(disks[1].limits.max_blocks == 512);
}

TEST_CASE("what a controller cannot do, its disks do not offer", "[block]") {
    NvmeBench bench;
    bench.device.write_cache = 0;
    bench.device.optional_commands = 0;
    bench.device.max_transfer = 3;
    bench.device.namespaces[1].write_protected = true;
    REQUIRE(bench.start());
    const DiskDescription& disk = bench.controller->disks()[0];
    CHECK_FALSE(disk.limits.can_flush);
    CHECK_FALSE(disk.limits.can_discard);
    CHECK_FALSE(disk.limits.can_write_zeroes);
    CHECK(disk.limits.max_blocks == 64);
    CHECK(disk.read_only);
}

TEST_CASE("a physical block is what is best written at once, and is when the power fails", "[block]") {
    NvmeBench bench;
    auto& space = bench.device.namespaces[1];
    bench.device.atomic_blocks = 63;
    space.preferred_blocks = 7;
    std::uint32_t size = 0;
    SECTION("it does not tell") {
        size = 512;
    }
    SECTION("it tells what it prefers") {
        space.features = 0x10;
        size = 4096;
    }
    SECTION("what it prefers may be torn") {
        space.features = 0x10;
        bench.device.atomic_blocks = 0;
        size = 512;
    }
    SECTION("the namespace tells another size that is not torn") {
        space.features = 0x12;
        space.atomic_blocks = 3;
        size = 2048;
    }
    SECTION("the namespace tells the controller's") {
        space.features = 0x12;
        size = 4096;
    }
    REQUIRE(bench.start());
    CHECK(bench.controller->disks()[0].physical_block_size == size);
}

TEST_CASE("zeroes may be unmapped where they stay zeroes", "[block]") {
    NvmeBench bench;
    const auto [features, can] = GENERATE(table<std::uint8_t, bool>({{std::uint8_t{0}, false},
                                                                     {std::uint8_t{1}, false},
                                                                     {std::uint8_t{8}, false},
                                                                     {std::uint8_t{9}, true},
                                                                     {std::uint8_t{10}, false}}));
    bench.device.namespaces[1].deallocation = features;
    REQUIRE(bench.start());
    CHECK(bench.controller->disks()[0].limits.can_unmap_zeroes == can);
}

TEST_CASE("the largest transfer is what one list describes, whatever the controller takes", "[block]") {
    NvmeBench bench;
    bench.device.max_transfer =
        GENERATE(std::uint8_t{9}, std::uint8_t{10}, std::uint8_t{52}, std::uint8_t{255});
    REQUIRE(bench.start());
    CHECK(bench.controller->disks()[0].limits.max_blocks == 4096);
}

TEST_CASE("controllers of version 2.0 tell how much they discard and zero", "[block]") {
    NvmeBench bench;
    bench.device.version = 0x2'0000;
    bench.device.zeroes_limit = 5;  // 128 KiB
    SECTION("zeroes are less") {
        bench.device.discard_limit = 300;
        REQUIRE(bench.start());
        CHECK(bench.controller->disks()[0].limits.max_range_blocks == 256);
    }
    SECTION("discards are less") {
        bench.device.discard_limit = 100;
        REQUIRE(bench.start());
        CHECK(bench.controller->disks()[0].limits.max_range_blocks == 100);
    }
    SECTION("it does not tell") {
        bench.device.verdict = [](const fake::NvmeController::Command& command) {
            return command.entry.opcode == nvme::kIdentify && command.entry.cdw10 == nvme::kIdentifyCommandSet
                       ? std::optional<std::uint16_t>{nvme::kInvalidField}
                       : std::nullopt;
        };
        REQUIRE(bench.start());
        CHECK(bench.controller->disks()[0].limits.max_range_blocks == 65536);
    }
}

TEST_CASE("namespaces are found one by one where there is no list of them", "[block]") {
    NvmeBench bench;
    bench.device.add_namespace(3, 100);
    SECTION("before version 1.1") {
        bench.device.version = 0x1'0000;
    }
    SECTION("because the list fails") {
        bench.device.verdict = [](const fake::NvmeController::Command& command) {
            return command.entry.opcode == nvme::kIdentify && command.entry.cdw10 == nvme::kActiveNamespaces
                       ? std::optional<std::uint16_t>{nvme::kInvalidField}
                       : std::nullopt;
        };
    }
    REQUIRE(bench.start());
    REQUIRE(bench.controller->disks().size() == 2);
    CHECK(bench.controller->disks()[1].blocks == 100);
}

TEST_CASE("namespaces of no use are left out, the others keep their order", "[block]") {
    NvmeBench bench;
    bench.device.namespaces[1].metadata_size = 8;
    bench.device.add_namespace(2, 64);
    bench.device.add_namespace(3, 64, 11);
    bench.device.add_namespace(5, 64).format = 1;  // beyond the last
    bench.device.add_namespace(6, 65).format = 0x21;
    bench.device.namespaces[6].last_format = 17;  // format 17
    bench.device.add_namespace(8, 0);
    bench.device.add_namespace(9, 66);
    bench.device.verdict = [](const fake::NvmeController::Command& command) {
        return command.entry.opcode == nvme::kIdentify && command.entry.namespace_id == 9
                   ? std::optional<std::uint16_t>{nvme::kInvalidNamespace}
                   : std::nullopt;
    };
    REQUIRE(bench.start());
    REQUIRE(bench.controller->disks().size() == 2);
    CHECK(bench.controller->disks()[0].blocks == 64);
    CHECK(bench.controller->disks()[1].blocks == 65);
    CHECK(bench.controller->disk_name(0).view() == "nvme0n2");
    CHECK(bench.controller->disk_name(1).view() == "nvme0n6");
    // Units are those of the disks, not the namespaces'.
    const Hpa memory = bench.memory(1);
    CHECK(bench.run(Operation::read, 64, 1, {{memory, 512}}, 1) == BlockStatus::ok);
    CHECK(bench.device.io(nvme::kRead).back().namespace_id == 6);
}

TEST_CASE("a namespace's identifiers tell whether another one is the same", "[block]") {
    NvmeBench bench;
    auto& first = bench.device.namespaces[1];
    auto& second = bench.device.add_namespace(2, 64);
    const auto are_same = [&] {
        NvmeBench again;
        again.device.namespaces = bench.device.namespaces;
        REQUIRE(again.start());
        return again.controller->disks()[0].identifier.is_same(again.controller->disks()[1].identifier);
    };
    CHECK_FALSE(are_same());  // they do not tell
    first.eui64 = second.eui64 = {0, 1, 2, 3, 4, 5, 6, 7};
    CHECK(are_same());
    first.nguid[15] = 1;
    CHECK(are_same());  // the other does not tell its own
    second.nguid[15] = 2;
    CHECK_FALSE(are_same());
    second.nguid[15] = 1;
    second.eui64 = {};
    CHECK(are_same());
    second.nguid[0] = 1;
    CHECK_FALSE(are_same());
    second.nguid = {};
    CHECK_FALSE(are_same());
}

TEST_CASE("a disk's name says which namespace it is, whichever others can be used", "[block]") {
    NvmeBench bench;
    std::string name;
    SECTION("it is the only one, and the first") {
        name = "nvme0";
    }
    SECTION("another one cannot be used") {
        bench.device.add_namespace(2, 64).metadata_size = 8;
        name = "nvme0n1";
    }
    SECTION("the first one cannot be used") {
        bench.device.namespaces[1].metadata_size = 8;
        bench.device.add_namespace(4'294'967'294, 64);
        name = "nvme0n4294967294";
    }
    SECTION("the first one is not there") {
        bench.device.namespaces.clear();
        bench.device.add_namespace(2, 64);
        name = "nvme0n2";
    }
    SECTION("there may be others that cannot be told, before version 1.1") {
        bench.device.version = 0x1'0000;
        name = "nvme0n1";  // the fake tells of two
    }
    REQUIRE(bench.start());
    REQUIRE(bench.controller->disks().size() == 1);
    CHECK(bench.controller->disk_name(0).view() == name);
}

TEST_CASE("a controller with very many namespaces shows the first ones", "[block]") {
    NvmeBench bench;
    bench.device.version = GENERATE(0x1'0000u, 0x1'0400u);
    for (std::uint32_t id = 1; id <= 200; ++id)
        bench.device.add_namespace(id, 8);
    REQUIRE(bench.start());
    CHECK(bench.controller->disks().size() == NvmeController::kMaxDisks);
}

TEST_CASE("what firmware left enabled is disabled first", "[block]") {
    NvmeBench bench;
    bench.device.polls_until_ready = 3;
    bench.device.write32(nvme::kConfiguration, 0x0046'0001);
    SECTION("when it is ready") {
        for (int i = 0; i < 5; ++i)
            static_cast<void>(bench.device.read32(nvme::kStatus));
    }
    SECTION("not before it is ready") {}
    SECTION("although it never gets ready") {
        bench.device.never_ready = true;
        CHECK(bench.start().error() == Error::timed_out);
        CHECK(bench.clock.seconds() >= 2);  // two times the time-out, of which each is 1.5 s
        CHECK(bench.clock.seconds() < 5);
        return;
    }
    CHECK(bench.start());
    CHECK(bench.device.enabled_times == 2);
}

TEST_CASE("devices that the driver cannot use are refused before they are touched", "[block]") {
    NvmeBench bench;
    SECTION("no NVM command set") {
        bench.device.capabilities &= ~(std::uint64_t{1} << 37);
    }
    SECTION("pages of 8 KiB at least") {
        bench.device.capabilities |= std::uint64_t{1} << 48;
    }
    SECTION("queues of one entry") {
        bench.device.capabilities &= ~std::uint64_t{0xffff};
    }
    SECTION("registers without doorbells") {
        bench.device.window = 0x1000;
    }
    SECTION("no doorbells but the administrative ones") {
        bench.device.window = 0x1008;
    }
    SECTION("nothing there") {
        bench.device.gone = true;
    }
    CHECK(bench.start().error() == Error::unsupported);
    CHECK(bench.device.enabled_times == 0);
}

TEST_CASE("a controller that does not come up is given up in bounded time", "[block]") {
    NvmeBench bench;
    SECTION("never ready") {
        bench.device.never_ready = true;
    }
    SECTION("always ready") {
        bench.device.always_ready = true;
    }
    SECTION("a fatal error") {
        bench.device.fatal_when_enabled = true;
    }
    SECTION("commands are not answered") {
        bench.device.holds_admin = true;
    }
    CHECK(bench.start().error() == Error::timed_out);
    CHECK(bench.clock.seconds() < 20);
    CHECK_FALSE(nvme::Configuration::Enable::test(bench.device.configuration()));
}

TEST_CASE("the time to get ready is the controller's own", "[block]") {
    NvmeBench bench;
    bench.device.never_ready = true;
    SECTION("CAP.TO") {
        bench.device.capabilities |= std::uint64_t{9} << 24;  // 11: the fake has 2
        CHECK(bench.start().error() == Error::timed_out);
        CHECK(bench.clock.seconds() >= 5);
        CHECK(bench.clock.seconds() <= 8);
    }
    SECTION("CRTO") {
        bench.device.capabilities |= std::uint64_t{1} << 59;
        bench.device.ready_timeouts = 80;
        CHECK(bench.start().error() == Error::timed_out);
        CHECK(bench.clock.seconds() >= 40);
        CHECK(bench.clock.seconds() <= 43);
    }
}

TEST_CASE("a failed administrative command ends the start", "[block]") {
    NvmeBench bench;
    const std::uint8_t opcode =
        GENERATE(std::uint8_t{nvme::kSetFeatures}, std::uint8_t{nvme::kCreateCompletionQueue},
                 std::uint8_t{nvme::kCreateSubmissionQueue}, std::uint8_t{nvme::kIdentify});
    bench.device.verdict = [opcode](const fake::NvmeController::Command& command) {
        return command.entry.opcode == opcode ? std::optional<std::uint16_t>{0x106} : std::nullopt;
    };
    CHECK(bench.start().error() == Error::io_error);
    CHECK_FALSE(nvme::Configuration::Enable::test(bench.device.configuration()));
}

TEST_CASE("without memory nothing starts, and nothing is kept", "[block]") {
    for (std::uint64_t allocations = 0; allocations < 6; ++allocations) {
        NvmeBench bench;
        bench.frames.limit(allocations);
        CHECK(bench.start(2).error() == Error::no_memory);
    }
}

TEST_CASE("strange answers to administrative commands are not taken", "[block]") {
    NvmeBench bench;
    bench.device.verdict = [&](const fake::NvmeController::Command& command) {
        if (command.queue == 0) {
            bench.device.post(0, 0, static_cast<std::uint16_t>(command.entry.command + 1), 0x281);
            bench.device.post(0, 1, command.entry.command, 0x281);
        }
        return std::optional<std::uint16_t>{};
    };
    CHECK(bench.start());
}
