// SPDX-License-Identifier: MIT
// A controller that is reset at work, does not come back, or is told of the end.
#include "drivers/block/nvme_fixture.hpp"

#include <optional>

using namespace hv;
using namespace hv::block;
using namespace hv::test;

TEST_CASE("a reset forgets all commands, and queues begin anew", "[block]") {
    NvmeBench bench;
    bench.device.polls_until_ready = 4;
    REQUIRE(bench.start(3, 3));
    const Hpa memory = bench.memory(1);
    for (unsigned i = 0; i < 70; ++i)
        bench.run(Operation::flush, 0, 0);
    bench.device.holds_io = true;
    for (unsigned slot = 0; slot < 63; ++slot)
        bench.issue(0, slot, Operation::flush, 0, 0);
    bench.controller->commit(0);
    bench.device.finish(0);
    const std::uint16_t lost = bench.device.waiting.front().entry.command;
    const unsigned reads = bench.device.status_reads;
    bench.controller->begin_reset();
    CHECK(bench.device.status_reads - reads <= 1);
    CHECK(bench.device.waiting.empty());
    CHECK(bench.reset() == Progress::done);
    CHECK(bench.device.entries(3) == 64);
    CHECK(bench.device.vector(3) == 2);
    CHECK(bench.reap().empty());
    bench.device.post(1, 1, lost);
    CHECK(bench.reap().empty());
    bench.device.holds_io = false;
    for (unsigned i = 0; i < 70; ++i)
        CHECK(bench.run(Operation::read, 0, 1, {{memory, 512}}) == BlockStatus::ok);
}

TEST_CASE("each step of a reset looks once and waits for nothing", "[block]") {
    NvmeBench bench;
    REQUIRE(bench.start(2));
    bench.device.polls_until_ready = 50;
    bench.controller->begin_reset();
    unsigned polls = 0;
    for (Progress progress = Progress::pending; progress == Progress::pending; ++polls) {
        const unsigned reads = bench.device.status_reads;
        progress = bench.controller->poll_reset();
        REQUIRE(progress != Progress::unruly);
        CHECK(bench.device.status_reads - reads <= 1);
    }
    CHECK(polls > 100);
    CHECK(polls < 115);
}

TEST_CASE("a fatal status and registers that are gone call for a reset", "[block]") {
    NvmeBench bench;
    REQUIRE(bench.start());
    CHECK_FALSE(bench.controller->needs_reset(CommandHardware::Look::device));
    bench.device.fatal = true;
    CHECK(bench.controller->needs_reset(CommandHardware::Look::device));
    CHECK(bench.reset() == Progress::done);
    CHECK_FALSE(bench.controller->needs_reset(CommandHardware::Look::device));
    bench.device.gone = true;
    CHECK(bench.controller->needs_reset(CommandHardware::Look::device));
    CHECK(bench.reset() == Progress::unruly);
    CHECK(bench.polls < 3);
}

TEST_CASE("a controller that does not come back is gone, in bounded time", "[block]") {
    NvmeBench bench;
    REQUIRE(bench.start(2));
    const std::uint64_t begin = bench.clock.seconds();
    SECTION("it stays ready") {
        bench.device.always_ready = true;
    }
    SECTION("it does not become ready") {
        bench.device.never_ready = true;
    }
    SECTION("it has another fatal error") {
        bench.device.fatal_when_enabled = true;
    }
    SECTION("it does not answer") {
        bench.device.holds_admin = true;
    }
    SECTION("it grants less than before") {
        bench.device.queues = 1;
    }
    SECTION("it refuses a queue") {
        bench.device.verdict = [](const fake::NvmeController::Command& command) {
            return command.entry.opcode == nvme::kCreateSubmissionQueue ? std::optional<std::uint16_t>{0x101}
                                                                        : std::nullopt;
        };
    }
    SECTION("it vanishes on the way") {
        bench.device.verdict = [&](const fake::NvmeController::Command&) {
            bench.device.gone = true;
            return std::optional<std::uint16_t>{};
        };
    }
    SECTION("it vanishes without an answer") {
        bench.device.holds_admin = true;
        bench.controller->begin_reset();
        while (bench.device.waiting.empty())
            REQUIRE(bench.controller->poll_reset() == Progress::pending);
        bench.device.gone = true;
        CHECK(bench.controller->poll_reset() == Progress::unruly);
        return;
    }
    CHECK(bench.reset() == Progress::unruly);
    CHECK(bench.clock.seconds() - begin < 15);
    CHECK((bench.device.gone || !nvme::Configuration::Enable::test(bench.device.configuration())));
}

TEST_CASE("a reset during a reset begins anew", "[block]") {
    NvmeBench bench;
    bench.device.polls_until_ready = 3;
    REQUIRE(bench.start());
    for (unsigned polls = 0; polls < 12; ++polls) {
        bench.controller->begin_reset();
        for (unsigned i = 0; i < polls; ++i)
            static_cast<void>(bench.controller->poll_reset());
        REQUIRE(bench.reset() == Progress::done);
        REQUIRE(bench.run(Operation::flush, 0, 0) == BlockStatus::ok);
    }
}

TEST_CASE("the controller is told before power goes off, and waited for", "[block]") {
    NvmeBench bench;
    bench.device.shutdown_latency_us = GENERATE(0u, 20'000'000u, 0xffff'ffffu);
    const std::uint64_t longest = bench.device.shutdown_latency_us == 0            ? 5
                                  : bench.device.shutdown_latency_us == 20'000'000 ? 20
                                                                                   : 60;
    REQUIRE(bench.start());
    const std::uint64_t begin = bench.clock.seconds();
    SECTION("it says when it is done") {
        bench.controller->shut_down();
        CHECK(nvme::Configuration::Shutdown::get(bench.device.configuration()) == 1);
        CHECK(bench.clock.seconds() - begin <= 1);
    }
    SECTION("it does not") {
        bench.device.ignores_shutdown = true;
        bench.controller->shut_down();
        CHECK(bench.clock.seconds() - begin >= longest);
        CHECK(bench.clock.seconds() - begin <= longest + 1);
    }
    SECTION("it is not there any more") {
        bench.device.gone = true;
        bench.controller->shut_down();
        CHECK(bench.clock.seconds() - begin <= 1);
    }
    SECTION("it is being reset") {
        bench.device.polls_until_ready = 4;
        bench.controller->begin_reset();
        for (unsigned polls = GENERATE(0u, 3u, 7u, 12u); polls > 0; --polls)
            REQUIRE(bench.controller->poll_reset() == Progress::pending);
        bench.controller->shut_down();
        CHECK(bench.device.knows_queue(1));
        CHECK(nvme::Configuration::Shutdown::get(bench.device.configuration()) == 1);
        CHECK(bench.clock.seconds() - begin <= 1);
    }
    SECTION("it does not come back from a reset") {
        bench.device.never_ready = true;
        bench.controller->begin_reset();
        bench.controller->shut_down();
        CHECK(bench.clock.seconds() - begin <= 15);
    }
    SECTION("it has been given up") {
        bench.device.never_ready = true;
        REQUIRE(bench.reset() == Progress::unruly);
        const std::uint64_t then = bench.clock.seconds();
        bench.controller->shut_down();
        CHECK(bench.clock.seconds() - then <= 1);
    }
}
