// SPDX-License-Identifier: MIT
// Devices that are late, silent, stopped or gone: the watch, resets, and what comes after.
#include "drivers/block/command_fixture.hpp"

#include <deque>
#include <vector>

using namespace hv;
using namespace hv::test;

namespace {

constexpr std::uint64_t kBlocks = kEngineBlocks;
using Bench = EngineBench;

}  // namespace

TEST_CASE("an interrupt that got lost is made up for by the watch", "[block]") {
    Bench bench;
    Request read{Operation::read, 0, 8};
    read.run(*bench.disk);
    bench.hardware.end_all();
    bench.clock.run_seconds(2);
    CHECK(read.status == BlockStatus::ok);
    CHECK(bench.hardware.resets == 0);
    bench.clock.run_seconds(5);
    CHECK(bench.clock.idle());  // nothing to watch
}

TEST_CASE("a command that takes too long makes the hardware be reset, and is tried again", "[block]") {
    Bench bench;
    Request read{Operation::read, 0, 8};
    read.run(*bench.disk);
    bench.clock.run_seconds(9);
    CHECK(bench.hardware.resets == 0);
    bench.hardware.progress = CommandHardware::ResetProgress::pending;
    bench.clock.run_seconds(3);
    CHECK(bench.hardware.resets == 1);
    CHECK(bench.hardware.active.empty());
    Request meanwhile{Operation::read, 8, 8};
    meanwhile.run(*bench.disk);
    CHECK(bench.hardware.active.empty());  // no command while it is being reset
    bench.hardware.progress = CommandHardware::ResetProgress::done;
    bench.clock.run_seconds(1);
    CHECK(bench.hardware.active.size() == 2);
    bench.finish_all();
    CHECK(read.status == BlockStatus::ok);
    CHECK(meanwhile.status == BlockStatus::ok);
    bench.hardware.strays = 5;
    CHECK(bench.disk->troubles().resets == 1);
    CHECK(bench.disk->troubles().strays == 5);
}

TEST_CASE("a device that is slow, but goes on, is not reset", "[block]") {
    Bench bench{1, 16};
    std::deque<Request> requests;
    for (std::uint64_t i = 0; i < 40; ++i) {
        requests.emplace_back(Operation::read, i * 8, 8);
        requests.back().run(*bench.disk);
    }
    std::uint64_t next = 0;
    const auto end_oldest = [&] {
        const std::uint64_t block = bench.hardware.order.at(next++);
        const auto found = std::ranges::find(bench.hardware.active, block,
                                             [](const auto& each) { return each.second.block; });
        REQUIRE(found != bench.hardware.active.end());
        bench.hardware.end(0, found->first.second);
        bench.engine->service();
    };
    for (unsigned i = 0; i < 40; ++i) {
        bench.clock.run_seconds(1);
        end_oldest();
    }
    CHECK(bench.hardware.resets == 0);
    for (const Request& request : requests)
        CHECK(request.status == BlockStatus::ok);
}

TEST_CASE("a device that falls silent with commands is reset, however busy it was before", "[block]") {
    Bench bench{2, 4};
    Request lost{Operation::read, 0, 8};
    lost.run(*bench.disk);
    fake::set_cpu(1);
    for (unsigned i = 0; i < 20; ++i) {
        Request other{Operation::read, 8, 8};
        other.run(*bench.disk);
        bench.clock.run_seconds(1);
        bench.hardware.end(1, 0);
        bench.engine->service();
        CHECK(other.status == BlockStatus::ok);
    }
    CHECK(bench.hardware.resets == 0);
    bench.clock.run_seconds(10);
    CHECK(bench.hardware.resets == 0);
    bench.clock.run_seconds(1);
    CHECK(bench.hardware.resets == 1);
    bench.hardware.end_all();
    fake::set_cpu(0);
    bench.engine->service();
    CHECK(lost.status == BlockStatus::ok);
}

TEST_CASE("a command that the device lost is found beside others that it ends", "[block]") {
    Bench bench;
    Request lost{Operation::read, 0, 8};
    lost.run(*bench.disk);
    const auto run_others = [&](unsigned seconds) {
        for (unsigned i = 0; i < seconds; ++i) {
            Request other{Operation::read, 8, 8};
            other.run(*bench.disk);
            bench.clock.run_seconds(1);
            bench.hardware.end(0, 1);
            bench.engine->service();
        }
    };
    run_others(10 * CommandEngine::kLostAfter - 1);
    CHECK(bench.hardware.resets == 0);
    run_others(2);
    CHECK(bench.hardware.resets == 1);
    bench.finish_all();
    CHECK(lost.status == BlockStatus::ok);
}

TEST_CASE("a flush has more time, and others that wait for it", "[block]") {
    Bench bench;
    Request flush{Operation::flush, 0, 0};
    flush.run(*bench.disk);
    Request read{Operation::read, 0, 8};
    read.run(*bench.disk);
    bench.clock.run_seconds(29);
    CHECK(bench.hardware.resets == 0);
    SECTION("it ends in time") {
        bench.finish_all();
        bench.clock.run_seconds(2);
        CHECK(bench.hardware.resets == 0);
    }
    SECTION("it does not") {
        bench.clock.run_seconds(2);
        CHECK(bench.hardware.resets == 1);
        bench.finish_all();
    }
    CHECK(flush.status == BlockStatus::ok);
    CHECK(read.status == BlockStatus::ok);
}

TEST_CASE("what a reset interrupted is issued anew in its old order", "[block]") {
    Bench bench;
    std::deque<Request> requests;
    const auto submit = [&](std::uint64_t block) {
        requests.emplace_back(Operation::read, block, 8);
        requests.back().run(*bench.disk);
    };
    for (const std::uint64_t block : {0, 8, 16, 24})
        submit(block);
    bench.hardware.end(0, 0);
    bench.hardware.end(0, 2);
    bench.engine->service();
    submit(32);  // in the slots of the first
    submit(40);
    for (unsigned round = 0; round < 2; ++round) {
        bench.hardware.order.clear();
        bench.hardware.stopped = true;
        bench.engine->service();
        bench.clock.run_for(2'000'000);
        CHECK(bench.hardware.order == std::vector<std::uint64_t>{8, 24, 32, 40});
    }
    bench.finish_all();
    for (const Request& request : requests)
        CHECK(request.status == BlockStatus::ok);
}

TEST_CASE("a command that the device puts off is issued again later, and given up in the end", "[block]") {
    Bench bench;
    Request late{Operation::read, 0, 8};
    Request other{Operation::read, 8, 8};
    late.run(*bench.disk);
    other.run(*bench.disk);
    const auto put_off = [&] {
        bench.clock.run_for(700'000'000);  // the watch looks soon
        bench.hardware.end(0, 0, BlockStatus::io_error, true);
        bench.engine->service();
        CHECK_FALSE(late.status);
        const unsigned issued = bench.hardware.issued_in_all;
        bench.clock.run_for(450'000'000);
        CHECK(bench.hardware.issued_in_all == issued);
        bench.clock.run_for(1'100'000'000);
        CHECK(bench.hardware.issued_in_all == issued + 1);
        CHECK_FALSE(bench.hardware.uncommitted);
        REQUIRE(bench.hardware.active.contains({0, 0}));
    };
    put_off();
    SECTION("it ends well") {
        bench.finish_all();
        CHECK(late.status == BlockStatus::ok);
    }
    SECTION("it is put off too often") {
        for (unsigned i = 2; i < CommandEngine::kAttempts; ++i)
            put_off();
        bench.hardware.end(0, 0, BlockStatus::io_error, true);
        bench.engine->service();
        CHECK(late.status == BlockStatus::io_error);
        bench.finish_all();
    }
    SECTION("a reset comes between") {
        bench.hardware.end(0, 0, BlockStatus::io_error, true);
        bench.engine->service();
        bench.hardware.stopped = true;
        bench.hardware.progress = CommandHardware::ResetProgress::pending;
        bench.engine->service();
        bench.clock.run_seconds(3);
        CHECK(bench.hardware.active.empty());
        bench.hardware.progress = CommandHardware::ResetProgress::done;
        bench.clock.run_seconds(3);
        CHECK(bench.hardware.active.size() == 2);
        bench.finish_all();
        CHECK(late.status == BlockStatus::ok);
    }
    SECTION("the device vanishes") {
        bench.hardware.end(0, 0, BlockStatus::io_error, true);
        bench.engine->service();
        bench.hardware.stopped = true;
        bench.hardware.progress = CommandHardware::ResetProgress::gone;
        bench.engine->service();
        bench.clock.run_seconds(3);
        CHECK(late.status == BlockStatus::io_error);
        CHECK(other.status == BlockStatus::io_error);
        return;
    }
    CHECK(other.status == BlockStatus::ok);
    CHECK_FALSE(bench.hardware.in_use_twice);
}

TEST_CASE("a command that is interrupted again and again is given up", "[block]") {
    Bench bench;
    Request read{Operation::read, 0, 8};
    read.run(*bench.disk);
    bench.clock.run_seconds(60);
    CHECK(read.status == BlockStatus::io_error);
    CHECK(bench.hardware.resets == CommandEngine::kAttempts);
    CHECK_FALSE(bench.engine->gone());
}

TEST_CASE("after a reset, what failed by itself fails, and its neighbours are tried again", "[block]") {
    Bench bench;
    Request bad{Operation::read, 0, 8};
    Request good{Operation::read, 8, 8};
    bad.run(*bench.disk);
    good.run(*bench.disk);
    bench.hardware.stopped = true;
    bench.hardware.culprits.insert({0, 0});
    bench.engine->service();
    CHECK(bench.hardware.resets == 1);
    bench.clock.run_for(2'000'000);
    CHECK(bad.status == BlockStatus::io_error);
    bench.finish_all();
    CHECK(good.status == BlockStatus::ok);
}

TEST_CASE("a disk that vanishes fails what it had, what waits, and what comes", "[block]") {
    Bench bench{1, 1};
    Request active{Operation::read, 0, 8};
    Request waiting{Operation::write, 8, 8, random_bytes(bench.random, 8 * 512)};
    active.run(*bench.disk);
    waiting.run(*bench.disk);
    bench.hardware.stopped = true;
    bench.hardware.progress = CommandHardware::ResetProgress::gone;
    bench.engine->service();
    bench.clock.run_for(2'000'000);
    CHECK(active.status == BlockStatus::io_error);
    CHECK(waiting.status == BlockStatus::io_error);
    CHECK(bench.engine->gone());
    CHECK(Request{Operation::read, 0, 8}.run(*bench.disk) == BlockStatus::io_error);
}

TEST_CASE("a device that does not let itself be stopped is cut off from memory before its requests end",
          "[block]") {
    struct Outcome {
        bool cut_off{false};
        bool cut_off_at_end{false};
    } outcome;
    Bench bench;
    CommandEngine::Options options{"fake1", 1, 4};
    options.cut_off = [](void* context) { static_cast<Outcome*>(context)->cut_off = true; };
    options.context = &outcome;
    const auto engine = std::move(*CommandEngine::create(bench.hardware, bench.clock, bench.pool, options));
    HardwareDisk* const disk = *engine->add_disk(FakeCommandHardware::description(kBlocks));
    BlockRequest request{};
    request.operation = Operation::flush;
    request.context = &outcome;
    request.complete = [](BlockRequest& ended, BlockStatus) {
        auto& self = *static_cast<Outcome*>(ended.context);
        self.cut_off_at_end = self.cut_off;
    };
    disk->submit(request);
    bench.hardware.stopped = true;
    bench.hardware.progress = CommandHardware::ResetProgress::unruly;
    engine->service();
    bench.clock.run_for(2'000'000);
    CHECK(outcome.cut_off_at_end);
}

TEST_CASE("an engine that was stopped leaves its device alone", "[block]") {
    Bench bench{2, 1};
    Request active{Operation::read, 0, 8};
    Request waiting{Operation::read, 8, 8};
    active.run(*bench.disk);
    waiting.run(*bench.disk);
    unsigned issued = 1;
    SECTION("at work") {}
    SECTION("in trouble") {
        bench.hardware.stopped = true;
    }
    SECTION("in the middle of a reset") {
        bench.hardware.stopped = true;
        bench.hardware.progress = CommandHardware::ResetProgress::pending;
        bench.engine->service();
        bench.clock.run_for(5'000'000);
        bench.hardware.progress = CommandHardware::ResetProgress::done;
    }
    SECTION("after a reset") {
        bench.hardware.stopped = true;
        bench.engine->service();
        bench.clock.run_for(5'000'000);
        issued = 2;
    }
    const unsigned resets = bench.hardware.resets;
    bench.engine->stop();
    bench.hardware.end_all();
    const auto ended = bench.hardware.ended[0].size();
    CHECK(bench.clock.idle());
    bench.engine->service();
    Request late{Operation::read, 16, 8};
    CHECK(late.run(*bench.disk) == BlockStatus::io_error);
    bench.clock.run_seconds(100);
    CHECK(bench.clock.idle());
    CHECK(bench.hardware.resets == resets);
    CHECK(bench.hardware.issued_in_all == issued);
    CHECK(bench.hardware.ended[0].size() == ended);
    CHECK_FALSE(active.status);
    CHECK_FALSE(waiting.status);
    CHECK(bench.engine->gone());
}

TEST_CASE("a request that comes while channels are resumed is issued once", "[block]") {
    Bench bench{2, 4};
    Request bad{Operation::read, 0, 8};
    bad.run(*bench.disk);
    // Its failure is told when channel 0 is resumed, before channel 1 is.
    Request next{Operation::read, 8, 8};
    struct Context {
        Bench& bench;
        Request& next;
    } context{bench, next};
    bad.request.context = &context;
    bad.request.complete = [](BlockRequest& request, BlockStatus) {
        auto& [bench_of, follower] = *static_cast<Context*>(request.context);
        fake::set_cpu(1);
        follower.run(*bench_of.disk);
    };
    bench.hardware.stopped = true;
    bench.hardware.culprits.insert({0, 0});
    bench.engine->service();
    bench.clock.run_for(2'000'000);
    CHECK(bench.hardware.issued_in_all == 2);
    CHECK_FALSE(bench.hardware.in_use_twice);
    bench.finish_all();
    CHECK(next.status == BlockStatus::ok);
}

TEST_CASE("a device is asked whether it stopped when it interrupts for nothing, and each second", "[block]") {
    Bench bench;
    std::deque<Request> requests;
    for (unsigned i = 0; i < 3; ++i) {
        requests.emplace_back(Operation::read, i * 8, 8);
        requests.back().run(*bench.disk);
    }
    bench.hardware.end(0, 0);
    bench.engine->service();
    CHECK(bench.hardware.looks == 0);
    bench.engine->service();
    CHECK(bench.hardware.looks == 1);
    // It ends a command and stops: the watch finds out.
    bench.hardware.end(0, 1);
    bench.hardware.stopped = true;
    bench.engine->service();
    CHECK(bench.hardware.resets == 0);
    bench.clock.run_for(1'000'000'000);
    CHECK(bench.hardware.resets == 1);
}
