// SPDX-License-Identifier: MIT
#include "drivers/block/command_fixture.hpp"

#include <algorithm>
#include <deque>
#include <vector>

using namespace hv;
using namespace hv::test;

namespace {

constexpr std::uint64_t kBlocks = kEngineBlocks;
using Bench = EngineBench;

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
