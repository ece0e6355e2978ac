// SPDX-License-Identifier: MIT
// Channels and their queues: doorbells, the phase, and completions that belong to no command.
#include "drivers/block/nvme_fixture.hpp"

#include <random>

using namespace hv;
using namespace hv::block;
using namespace hv::test;

TEST_CASE("there are as many channels as are wanted, granted and have doorbells", "[block]") {
    NvmeBench bench;
    unsigned wanted = 8;
    unsigned expected = 8;
    SECTION("wanted") {}
    SECTION("granted") {
        bench.device.queues = 3;
        expected = 3;
    }
    SECTION("have doorbells") {
        bench.device.window = 0x1000 + 8 * 5;
        expected = 4;
    }
    SECTION("the engine's most") {
        wanted = 1000;
        bench.device.queues = 500;
        expected = 64;
    }
    REQUIRE(bench.start(wanted, 4));
    CHECK(bench.controller->channels() == expected);
    CHECK(bench.device.knows_queue(static_cast<std::uint16_t>(expected)));
    CHECK_FALSE(bench.device.knows_queue(static_cast<std::uint16_t>(expected + 1)));
    for (std::uint16_t id = 1; id <= expected; ++id)
        CHECK(bench.device.vector(id) == (id - 1u) % 4);
}

TEST_CASE("queues are no longer than the controller takes", "[block]") {
    NvmeBench bench;
    bench.device.capabilities = (bench.device.capabilities & ~std::uint64_t{0xffff}) | 4;
    REQUIRE(bench.start());
    CHECK(bench.controller->slots() == 4);
    CHECK(bench.device.entries(1) == 5);
}

TEST_CASE("channels have their own doorbells, as far apart as the controller says", "[block]") {
    NvmeBench bench;
    bench.device.capabilities |= std::uint64_t{3} << 32;
    REQUIRE(bench.start(3, 3));
    bench.device.doorbells.clear();
    const Hpa memory = bench.memory(1);
    for (unsigned channel = 0; channel < 3; ++channel) {
        bench.issue(channel, channel, Operation::read, 0, 1, {{memory, 512}});
        bench.controller->commit(channel);
        CHECK(bench.reap((channel + 1) % 3).empty());
        const Completions ended = bench.reap(channel);
        REQUIRE(ended.size() == 1);
        CHECK(ended[0].slot == channel);
        CHECK(bench.device.doorbells[2 * channel + 2] == 1);
        CHECK(bench.device.doorbells[2 * channel + 3] == 1);
        CHECK(bench.device.interrupts[channel] > 0);
    }
}

TEST_CASE("doorbells are rung once for many commands, and not for none", "[block]") {
    NvmeBench bench;
    REQUIRE(bench.start());
    bench.device.doorbells.clear();
    bench.device.holds_io = true;
    for (unsigned slot = 0; slot < 10; ++slot)
        bench.issue(0, slot, Operation::flush, 0, 0);
    CHECK(bench.device.waiting.empty());
    bench.controller->commit(0);
    bench.controller->commit(0);
    CHECK(bench.device.doorbells[2] == 1);
    CHECK(bench.reap().empty());
    CHECK(bench.device.doorbells[3] == 0);
    bench.device.finish_all();
    CHECK(bench.reap().size() == 10);
    CHECK(bench.device.doorbells[3] == 1);
}

TEST_CASE("queues and their phase wrap round, full and in any order", "[block]") {
    NvmeBench bench;
    bench.device.capabilities = (bench.device.capabilities & ~std::uint64_t{0xffff}) | 6;
    REQUIRE(bench.start());
    bench.device.holds_io = true;
    std::mt19937 random{3};
    std::vector<bool> busy(bench.controller->slots());
    unsigned ended = 0;
    for (unsigned round = 0; round < 500; ++round) {
        for (unsigned slot = 0; slot < busy.size(); ++slot)
            if (!busy[slot] && (round % 7 == 0 || random() % 2 == 0)) {
                bench.issue(0, slot, Operation::flush, 0, 0);
                busy[slot] = true;
            }
        bench.controller->commit(0);
        for (std::size_t left = random() % 4; left > 0 && !bench.device.waiting.empty(); --left)
            bench.device.finish(random() % bench.device.waiting.size());
        for (const auto& completion : bench.reap(0, random() % 3 + 1)) {
            REQUIRE(busy[completion.slot]);
            REQUIRE(completion.status == BlockStatus::ok);
            busy[completion.slot] = false;
            ++ended;
        }
    }
    CHECK(ended > 300);
    CHECK(bench.controller->stray_completions() == 0);
}

TEST_CASE("completions that belong to no command are ignored", "[block]") {
    NvmeBench bench;
    REQUIRE(bench.start(2));
    bench.device.holds_io = true;
    bench.issue(0, 5, Operation::flush, 0, 0);
    bench.controller->commit(0);
    const std::uint16_t command = bench.device.waiting.front().entry.command;
    SECTION("of a slot that is free") {
        bench.device.post(1, 1, static_cast<std::uint16_t>(command + 1));
        bench.device.post(1, 1, 0);
    }
    SECTION("of a slot that is none") {
        bench.device.post(1, 1, static_cast<std::uint16_t>(command | 63));
        bench.device.post(1, 1, 0xffff);
    }
    SECTION("of an earlier or later use of the slot") {
        bench.device.post(1, 1, static_cast<std::uint16_t>(command - 64));
        bench.device.post(1, 1, static_cast<std::uint16_t>(command + 64));
    }
    SECTION("of another queue") {
        bench.device.post(1, 2, command);
        bench.device.post(2, 1, command);
        CHECK(bench.reap(1).empty());
    }
    CHECK(bench.reap().empty());
    CHECK(bench.controller->stray_completions() == 2);
    bench.device.finish_all();
    REQUIRE(bench.reap().size() == 1);
    CHECK(bench.controller->stray_completions() == 2);
}

TEST_CASE("a completion that comes again does not end the slot's next command", "[block]") {
    NvmeBench bench;
    REQUIRE(bench.start());
    bench.device.holds_io = true;
    bench.issue(0, 5, Operation::flush, 0, 0);
    bench.controller->commit(0);
    const std::uint16_t first = bench.device.waiting.front().entry.command;
    bench.device.finish_all();
    bench.device.post(1, 1, first);
    CHECK(bench.reap().size() == 1);
    bench.issue(0, 5, Operation::flush, 0, 0);
    bench.controller->commit(0);
    bench.device.post(1, 1, first);
    CHECK(bench.reap().empty());
    bench.device.finish_all();
    CHECK(bench.reap().size() == 1);
}

TEST_CASE("one look at a queue ends, however much a device puts in it", "[block]") {
    NvmeBench bench;
    REQUIRE(bench.start());
    for (unsigned i = 0; i < 63; ++i)
        bench.device.post(1, 1, 0);
    CHECK(bench.reap().empty());
    CHECK(bench.controller->stray_completions() == 63);
    CHECK(bench.run(Operation::flush, 0, 0) == BlockStatus::ok);
}
