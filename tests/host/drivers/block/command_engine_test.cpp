// SPDX-License-Identifier: MIT
#include "drivers/block/command_fixture.hpp"

#include <deque>
#include <random>

using namespace hv;
using namespace hv::test;

namespace {

constexpr std::uint64_t kBlocks = 4096;

struct Bench : CommandBench {
    explicit Bench(unsigned channels = 1, unsigned slots = 4,
                   const DiskDescription& description = FakeCommandHardware::description(kBlocks))
        : CommandBench{channels, slots, description} {}
    /// The device ends all that it has and interrupts, until nothing is left.
    void finish_all() {
        while (!hardware.active.empty()) {
            CHECK_FALSE(hardware.uncommitted);
            hardware.end_all();
            engine->service();
        }
    }

    std::mt19937 random{1};
};

}  // namespace

TEST_CASE("data goes to the disk and back, in commands of what the hardware takes", "[block]") {
    Bench bench;
    Request write{Operation::write, 100, 200, random_bytes(bench.random, 200 * 512)};
    write.run(*bench.disk);
    CHECK(bench.hardware.active.size() == 4);  // of 64 blocks each
    CHECK_FALSE(write.status);
    bench.finish_all();
    CHECK(write.status == BlockStatus::ok);
    CHECK(std::equal(write.bytes.begin(), write.bytes.end(), bench.hardware.disk.begin() + 100 * 512));
    Request read{Operation::read, 100, 200};
    read.run(*bench.disk);
    bench.finish_all();
    CHECK(read.status == BlockStatus::ok);
    CHECK(read.bytes == write.bytes);
    CHECK_FALSE(bench.hardware.in_use_twice);
}

TEST_CASE("segments of any shape arrive as they were, by way of a page where the hardware cannot reach them",
          "[block]") {
    Bench bench;
    for (const std::uint32_t largest : {64u, 700u, 5000u}) {
        Request write{Operation::write, 8, 96, random_bytes(bench.random, 96 * 512)};
        write.scatter(bench.random, largest).run(*bench.disk);
        bench.finish_all();
        CHECK(write.status == BlockStatus::ok);
        CHECK(std::equal(write.bytes.begin(), write.bytes.end(), bench.hardware.disk.begin() + 8 * 512));
        Request read{Operation::read, 8, 96};
        read.scatter(bench.random, largest).run(*bench.disk);
        bench.finish_all();
        CHECK(read.status == BlockStatus::ok);
        CHECK(read.bytes == write.bytes);
    }
}

TEST_CASE("requests without a slot wait for one, in their order", "[block]") {
    Bench bench{1, 2};
    std::deque<Request> requests;
    for (std::uint64_t i = 0; i < 5; ++i) {
        requests.emplace_back(Operation::read, i * 8, 8);
        requests.back().run(*bench.disk);
    }
    CHECK(bench.hardware.active.size() == 2);
    bench.hardware.end(0, 1);
    bench.engine->service();
    CHECK(requests[1].status == BlockStatus::ok);
    CHECK(bench.hardware.at(1).block == 16);
    bench.finish_all();
    for (const Request& request : requests)
        CHECK(request.status == BlockStatus::ok);
}

TEST_CASE("a request with one bad command fails as a whole, once all its commands have ended", "[block]") {
    Bench bench{1, 2};
    Request read{Operation::read, 0, 256};  // four commands
    read.run(*bench.disk);
    bench.hardware.end(0, 0, BlockStatus::io_error);
    bench.engine->service();
    CHECK_FALSE(read.status);
    bench.hardware.end(0, 1);
    bench.engine->service();
    CHECK(read.status == BlockStatus::io_error);
    CHECK(bench.hardware.issued_in_all == 2);
    Request next{Operation::read, 0, 8};
    next.run(*bench.disk);
    bench.finish_all();
    CHECK(next.status == BlockStatus::ok);
}

TEST_CASE("what does not concern the hardware is answered at once", "[block]") {
    DiskDescription description = FakeCommandHardware::description(kBlocks);
    description.limits.can_flush = description.limits.can_discard = false;
    Bench bench{1, 4, description};
    CHECK(Request{Operation::flush, 0, 0}.run(*bench.disk) == BlockStatus::ok);
    CHECK(Request{Operation::read, 0, 0}.run(*bench.disk) == BlockStatus::ok);
    CHECK(Request{Operation::read, kBlocks, 1}.run(*bench.disk) == BlockStatus::io_error);
    Request discard{Operation::discard, 0, 8};
    discard.run(*bench.disk);
    CHECK(discard.status == BlockStatus::unsupported);
    CHECK(bench.hardware.issued_in_all == 0);
}

TEST_CASE("blocks of 4096 bytes are only touched whole", "[block]") {
    DiskDescription description = FakeCommandHardware::description(kBlocks / 8);
    description.logical_block_size = 4096;
    Bench bench{1, 4, description};
    CHECK(Request{Operation::read, 4, 8}.run(*bench.disk) == BlockStatus::io_error);
    CHECK(Request{Operation::read, 8, 4}.run(*bench.disk) == BlockStatus::io_error);
    Request read{Operation::read, 8, 16};
    read.run(*bench.disk);
    REQUIRE(bench.hardware.active.size() == 1);
    CHECK(bench.hardware.at(0).block == 1);
    CHECK(bench.hardware.at(0).blocks == 2);
    bench.hardware.active.clear();
}

TEST_CASE("zeroes are written as data where the disk has no command for them", "[block]") {
    DiskDescription description = FakeCommandHardware::description(kBlocks);
    description.limits.can_write_zeroes = false;
    Bench bench{1, 4, description};
    std::fill(bench.hardware.disk.begin(), bench.hardware.disk.end(), std::byte{7});
    Request zero{Operation::write_zeroes, 10, 300};
    zero.run(*bench.disk);
    CHECK(bench.hardware.at(0).operation == Operation::write);
    bench.finish_all();
    CHECK(zero.status == BlockStatus::ok);
    const auto at = [&](std::size_t block) {
        return bench.hardware.disk.begin() + std::ptrdiff_t(block * 512);
    };
    CHECK(std::all_of(at(10), at(310), [](std::byte each) { return each == std::byte{0}; }));
    CHECK(*(at(10) - 1) == std::byte{7});
    CHECK(*at(310) == std::byte{7});
}

TEST_CASE("zeroes that are written as data keep to what the hardware takes at once", "[block]") {
    DiskDescription description = FakeCommandHardware::description(kBlocks);
    description.limits.can_write_zeroes = false;
    description.limits.max_blocks = 512;
    description.limits.max_run_bytes = 4096;
    Bench bench{1, 4, description};
    Request zero{Operation::write_zeroes, 10, 300};
    zero.run(*bench.disk);
    for (const auto& [slot, command] : bench.hardware.active)
        for (const DmaRun& run : command.runs)
            CHECK(run.size <= 4096);
    CHECK(bench.hardware.active.size() > 1);
}

TEST_CASE("flush, discard and write zeroes reach hardware that has them", "[block]") {
    Bench bench;
    Request flush{Operation::flush, 0, 0};
    Request discard{Operation::discard, 8, 16};
    Request zero{Operation::write_zeroes, 32, 8};
    flush.run(*bench.disk);
    discard.run(*bench.disk);
    zero.run(*bench.disk);
    CHECK(bench.hardware.at(0).operation == Operation::flush);
    CHECK(bench.hardware.at(1).operation == Operation::discard);
    CHECK(bench.hardware.at(1).blocks == 16);
    CHECK(bench.hardware.at(2).operation == Operation::write_zeroes);
    bench.finish_all();
    CHECK(flush.status == BlockStatus::ok);
    CHECK(discard.status == BlockStatus::ok);
    CHECK(zero.status == BlockStatus::ok);
}

TEST_CASE("hardware that can unmap zeroes is told when it may", "[block]") {
    for (const bool can : {false, true}) {
        DiskDescription description = FakeCommandHardware::description(kBlocks);
        description.limits.can_unmap_zeroes = can;
        Bench bench{1, 4, description};
        CHECK(bench.disk->geometry().can_unmap_zeroes == can);
        Request zero{Operation::write_zeroes, 32, 8};
        Request unmapped{Operation::write_zeroes, 40, 8};
        unmapped.request.may_unmap = true;
        zero.run(*bench.disk);
        unmapped.run(*bench.disk);
        CHECK_FALSE(bench.hardware.at(0).may_unmap);
        CHECK(bench.hardware.at(1).may_unmap == can);
        bench.finish_all();
    }
}

TEST_CASE("a physical block that makes no sense is a logical one", "[block]") {
    for (const std::uint32_t told : {0u, 512u, 2048u, 3000u, 4096u, 65536u, 1u << 20, 1u << 21}) {
        DiskDescription description = FakeCommandHardware::description(kBlocks);
        description.logical_block_size = 1024;
        description.physical_block_size = told;
        const bool makes_sense = told == 2048 || told == 4096 || told == 65536 || told == 1u << 20;
        const Bench bench{1, 4, description};
        CHECK(bench.disk->geometry().physical_block_size == (makes_sense ? told : 1024));
    }
}

TEST_CASE("each CPU has its channel, whose interrupt ends what is there", "[block]") {
    Bench bench{2};
    Request first{Operation::read, 0, 8};
    first.run(*bench.disk);
    fake::set_cpu(1);
    Request second{Operation::read, 8, 8};
    second.run(*bench.disk);
    CHECK(bench.hardware.active.contains({0, 0}));
    CHECK(bench.hardware.active.contains({1, 0}));
    bench.hardware.end_all();
    bench.engine->service();
    CHECK_FALSE(first.status);
    CHECK(second.status == BlockStatus::ok);
    fake::set_cpu(0);
    bench.engine->service();
    CHECK(first.status == BlockStatus::ok);
}

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

TEST_CASE("a completion for a slot without a command changes nothing", "[block]") {
    Bench bench;
    Request read{Operation::read, 0, 8};
    read.run(*bench.disk);
    bench.hardware.ended[0].push_back({3, BlockStatus::ok});
    bench.engine->service();
    CHECK_FALSE(read.status);
    bench.finish_all();
    CHECK(read.status == BlockStatus::ok);
}

TEST_CASE("a request that is submitted from a completion is served in its turn", "[block]") {
    Bench bench{1, 1};
    struct Chain {
        HardwareDisk& disk;
        unsigned left;
        std::vector<std::byte> bytes = std::vector<std::byte>(4096);
        BlockSegment segment{bytes.data(), 4096};
        BlockRequest request{};
    } chain{*bench.disk, 1000};
    chain.request.operation = Operation::read;
    chain.request.sector_count = 8;
    chain.request.segments = {&chain.segment, 1};
    chain.request.context = &chain;
    chain.request.complete = [](BlockRequest& request, BlockStatus) {
        auto& self = *static_cast<Chain*>(request.context);
        if (--self.left > 0)
            self.disk.submit(request);
    };
    bench.disk->submit(chain.request);
    bench.finish_all();
    CHECK(chain.left == 0);
}

TEST_CASE("limits that make no sense are refused", "[block]") {
    Bench bench;
    DiskDescription description = FakeCommandHardware::description(kBlocks);
    description.logical_block_size = 520;
    CHECK(bench.engine->add_disk(description).error() == Error::invalid_argument);
    description = FakeCommandHardware::description(kBlocks);
    description.limits.max_runs = 0;
    CHECK(bench.engine->add_disk(description).error() == Error::invalid_argument);
    description = FakeCommandHardware::description(kBlocks);
    description.limits.run_boundary = 3000;
    CHECK(bench.engine->add_disk(description).error() == Error::invalid_argument);
}

TEST_CASE("an engine that finds no memory is not made, and leaves nothing", "[block]") {
    fake::ArenaFrames frames;
    DmaPool pool{frames};
    fake::StepClock clock;
    FakeCommandHardware hardware{kBlocks};
    for (std::uint64_t limit = 0; limit < 4; ++limit) {
        frames.limit(limit);
        const auto engine = CommandEngine::create(hardware, clock, pool, {"fake0", 2, 4});
        CHECK(engine.error() == Error::no_memory);
        CHECK(frames.outstanding() == 0);
    }
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
