// SPDX-License-Identifier: MIT
// Those who share a channel of the command engine take turns.
#include "drivers/block/command_fixture.hpp"

#include <deque>

using namespace hv;
using namespace hv::test;

namespace {

constexpr std::uint64_t kBlocks = 65536;
constexpr std::uint64_t kCommand = 8;  // blocks that the hardware takes at once

struct Bench : CommandBench {
    explicit Bench(unsigned slots) : CommandBench{1, slots, FakeCommandHardware::description(kBlocks)} {}
    Request& submit(std::uint8_t user, Operation operation, std::uint64_t block, std::uint64_t blocks) {
        Request& request = requests.emplace_back(operation, block, blocks);
        request.request.user = user;
        request.run(*disk);
        return request;
    }
    /// The device ends the command in slot 0 and takes the next: its block.
    std::uint64_t next(BlockStatus status = BlockStatus::ok) {
        hardware.end(0, 0, status);
        engine->service();
        return hardware.active.empty() ? kBlocks : hardware.at(0).block;
    }

    std::deque<Request> requests;
};

}  // namespace

TEST_CASE("a small request waits for one command of each neighbour, however much these want", "[block]") {
    Bench bench{1};
    for (std::uint64_t i = 0; i < 8; ++i)
        bench.submit(1, Operation::read, i * 1024, 1024);
    for (std::uint64_t i = 0; i < 8; ++i)
        bench.submit(31, Operation::read, 16384 + i * 1024, 1024);
    const Request& small = bench.submit(0, Operation::read, 60000, 8);
    CHECK(bench.next() == 16384);
    CHECK(bench.next() == 60000);
    CHECK(bench.next() == kCommand);
    CHECK(small.status == BlockStatus::ok);
    // The others go on in turn, and do not wait for the one that has nothing more.
    CHECK(bench.next() == 16384 + kCommand);
    CHECK(bench.next() == 2 * kCommand);
}

TEST_CASE("requests of one user are issued in their order", "[block]") {
    Bench bench{1};
    bench.submit(7, Operation::read, 0, 8);
    bench.submit(7, Operation::read, 100, 2 * kCommand);
    bench.submit(7, Operation::read, 50, 8);
    bench.submit(2, Operation::read, 1000, 8);
    bench.submit(2, Operation::read, 900, 8);
    CHECK(bench.next() == 1000);
    CHECK(bench.next() == 100);
    CHECK(bench.next() == 900);
    CHECK(bench.next() == 100 + kCommand);
    CHECK(bench.next() == 50);
    CHECK(bench.next() == kBlocks);
}

TEST_CASE("a request that fails makes room for its user's next, and costs no neighbour", "[block]") {
    Bench bench{1};
    const Request& bad = bench.submit(3, Operation::read, 0, 4 * kCommand);
    const Request& next = bench.submit(3, Operation::read, 5000, 8);
    const Request& other = bench.submit(4, Operation::read, 6000, 8);
    CHECK(bench.next(BlockStatus::io_error) == 6000);
    CHECK(bad.status == BlockStatus::io_error);
    CHECK(bench.next() == 5000);
    CHECK(bench.next() == kBlocks);
    CHECK(next.status == BlockStatus::ok);
    CHECK(other.status == BlockStatus::ok);
}

TEST_CASE("users take turns after a reset too", "[block]") {
    Bench bench{1};
    bench.submit(1, Operation::read, 0, 4 * kCommand);
    bench.submit(2, Operation::read, 7000, 8);
    bench.hardware.stopped = true;
    bench.engine->service();
    bench.clock.run_for(2'000'000);
    CHECK(bench.hardware.resets == 1);
    CHECK(bench.hardware.at(0).block == 0);  // what the reset interrupted
    CHECK(bench.next() == 7000);
    CHECK(bench.next() == kCommand);
}

TEST_CASE("a device that vanishes fails what every user waits for, in their order", "[block]") {
    Bench bench{1};
    for (std::uint8_t i = 0; i < 12; ++i)
        bench.submit(static_cast<std::uint8_t>(i % 4 * 9), Operation::read, i * 8u, 8);
    bench.hardware.stopped = true;
    bench.hardware.progress = CommandHardware::ResetProgress::gone;
    bench.engine->service();
    bench.clock.run_for(2'000'000);
    for (const Request& request : bench.requests)
        CHECK(request.status == BlockStatus::io_error);
}

TEST_CASE("who waits for the bounce page holds up nobody else, and gets it in turn", "[block]") {
    Bench bench{2};
    std::vector<std::byte> bytes(65 * 512);
    const auto submit_odd = [&](std::uint8_t user, std::uint64_t block) {
        Request& request = bench.requests.emplace_back(Operation::read, block, 3);
        request.bytes.clear();
        request.segments.push_back({bytes.data() + user + 1, 3 * 512});  // no multiple of 4
        request.request.user = user;
        request.run(*bench.disk);
    };
    submit_odd(4, 100);
    submit_odd(8, 200);
    submit_odd(4, 300);
    CHECK(bench.hardware.active.size() == 1);
    bench.submit(6, Operation::read, 400, 4 * kCommand);
    CHECK(bench.hardware.at(1).block == 400);
    // Slot 0 has the page. It goes to and fro; the third user has all that is left.
    CHECK(bench.next() == 400 + kCommand);
    bench.hardware.end(0, 1);
    bench.engine->service();
    CHECK(bench.hardware.at(1).block == 200);
    bench.hardware.end(0, 1);
    bench.engine->service();
    CHECK(bench.hardware.at(1).block == 101);
    for (unsigned i = 0; i < 20; ++i) {
        bench.hardware.end_all();
        bench.engine->service();
    }
    for (const Request& request : bench.requests)
        CHECK(request.status == BlockStatus::ok);
    CHECK_FALSE(bench.hardware.in_use_twice);
}
