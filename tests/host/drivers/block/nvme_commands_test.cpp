// SPDX-License-Identifier: MIT
// Commands as a controller sees them, with the memory that they name.
#include "drivers/block/nvme_fixture.hpp"
#include "vmm/storage/disk_fixture.hpp"

#include <algorithm>
#include <cstring>
#include <random>

using namespace hv;
using namespace hv::block;
using namespace hv::test;

namespace {

void fill(std::vector<DmaRun> runs, std::mt19937& random, std::vector<std::byte>& all) {
    for (const DmaRun& run : runs) {
        const auto bytes = test::random_bytes(random, run.size);
        std::copy(bytes.begin(), bytes.end(), machine::hva(run.address));
        all.insert(all.end(), bytes.begin(), bytes.end());
    }
}

}  // namespace

TEST_CASE("data of any shape goes to the disk and back", "[block]") {
    NvmeBench bench;
    bench.device.add_namespace(2, 1024, 12);
    REQUIRE(bench.start());
    const Hpa memory = bench.memory(1024);
    const auto page = [&](std::uint64_t number) { return memory + number * kPageSize; };
    std::vector<DmaRun> runs;
    bool listed = false;
    SECTION("one page") {
        runs = {{page(0), 4096}};
    }
    SECTION("within a page") {
        runs = {{page(0) + 516, 1024}};
    }
    SECTION("an offset and two pages") {
        runs = {{page(0) + 512, 4096}};
    }
    SECTION("two pages") {
        runs = {{page(0), 8192}};
    }
    SECTION("two pages apart") {
        runs = {{page(9), 4096}, {page(2), 512}};
    }
    SECTION("three pages: a list") {
        runs = {{page(0), 12288}};
        listed = true;
    }
    SECTION("an offset and a list of pages apart") {
        runs = {{page(5) + 1024, 3072}, {page(1), 8192}, {page(7), 4096}, {page(20), 1024}};
        listed = true;
    }
    SECTION("as much as a list holds") {
        runs = {{page(0), 2 << 20}};
        listed = true;
    }
    SECTION("as much as a list holds, with an offset") {
        runs = {{page(0) + 4092, 2 << 20}};
        listed = true;
    }
    std::uint64_t bytes = 0;
    for (const DmaRun& run : runs)
        bytes += run.size;
    std::mt19937 random{5};
    for (unsigned unit = 0; unit < 2; ++unit) {
        const std::uint64_t block = unit == 0 ? 512 : 4096;
        if (bytes % block != 0)
            continue;
        std::vector<std::byte> written;
        fill(runs, random, written);
        REQUIRE(bench.run(Operation::write, 0, bytes / block, runs, unit) == BlockStatus::ok);
        const auto& contents = bench.device.namespaces[unit + 1].contents;
        CHECK(std::equal(written.begin(), written.end(), contents.begin()));
        CHECK(std::all_of(contents.begin() + static_cast<std::ptrdiff_t>(bytes), contents.end(),
                          [](std::byte byte) { return byte == std::byte{0}; }));
        std::memset(machine::hva(memory), 0xee, 1024 * kPageSize);
        REQUIRE(bench.run(Operation::read, 0, bytes / block, runs, unit) == BlockStatus::ok);
        auto expected = written.begin();
        for (const DmaRun& run : runs) {
            CHECK(std::equal(machine::hva(run.address), machine::hva(run.address) + run.size, expected));
            expected += run.size;
        }
    }
    const std::uint64_t prp2 = bench.device.seen.back().entry.prp2;
    CHECK((prp2 != 0 && (prp2 < page(0).raw || prp2 >= page(1024).raw)) == listed);
}

TEST_CASE("blocks beyond 32 bits are named in full", "[block]") {
    NvmeBench bench;
    REQUIRE(bench.start());
    const Hpa memory = bench.memory(1);
    CHECK(bench.run(Operation::read, 0x12'3456'789a, 8, {{memory, 4096}}) == BlockStatus::io_error);
    const nvme::Submission seen = bench.device.io(nvme::kRead).back();
    CHECK(seen.cdw10 == 0x3456'789a);
    CHECK(seen.cdw11 == 0x12);
    CHECK(seen.cdw12 == 7);
}

TEST_CASE("flush, discard and write zeroes are the controller's commands for them", "[block]") {
    NvmeBench bench;
    REQUIRE(bench.start());
    auto& contents = bench.device.namespaces[1].contents;
    std::fill(contents.begin(), contents.end(), std::byte{0x77});
    const auto filled = [&](std::uint64_t block, std::uint64_t blocks, int with) {
        return std::all_of(contents.begin() + static_cast<std::ptrdiff_t>(block * 512),
                           contents.begin() + static_cast<std::ptrdiff_t>((block + blocks) * 512),
                           [&](std::byte byte) { return byte == std::byte(with); });
    };
    CHECK(bench.run(Operation::flush, 0, 0) == BlockStatus::ok);
    CHECK(bench.device.io(nvme::kFlush).back().namespace_id == 1);
    CHECK(bench.run(Operation::discard, 100, 50) == BlockStatus::ok);
    CHECK(bench.run(Operation::write_zeroes, 200, 60) == BlockStatus::ok);
    CHECK(filled(0, 100, 0x77));
    CHECK(filled(100, 50, 0xdd));
    CHECK(filled(150, 50, 0x77));
    CHECK(filled(200, 60, 0));
    CHECK(filled(260, 4096 - 260, 0x77));
    CHECK(bench.run(Operation::write_zeroes, 0, 65536) == BlockStatus::io_error);
    CHECK(bench.device.io(nvme::kWriteZeroes).back().cdw12 == 0xffff);  // with no hint to deallocate
}

TEST_CASE("zeroes are deallocated if they may be", "[block]") {
    NvmeBench bench;
    bench.device.namespaces[1].deallocation = 9;
    REQUIRE(bench.start());
    for (const bool may : {true, false}) {
        bench.controller->issue(0, 0, {Operation::write_zeroes, 0, 200, 60, {}, may});
        bench.controller->commit(0);
        std::array<CommandHardware::Completion, 1> done{};
        REQUIRE(bench.controller->reap(0, done) == 1);
        CHECK(done[0].status == BlockStatus::ok);
        CHECK(bench.device.io(nvme::kWriteZeroes).back().cdw12 == ((may ? 1U << 25 : 0) | 59));
    }
}

TEST_CASE("failures are the command's own", "[block]") {
    NvmeBench bench;
    REQUIRE(bench.start());
    const Hpa memory = bench.memory(1);
    std::uint16_t status = 0;
    bench.device.verdict = [&](const fake::NvmeController::Command&) { return status; };
    for (const std::uint16_t failure : {0x281, 0x280, 0x006, 0x00b, 0x080, 0x302, 0x7ff}) {
        status = failure;
        CHECK(bench.run(Operation::read, 0, 1, {{memory, 512}}) == BlockStatus::io_error);
    }
    status = nvme::kInvalidOpcode;
    CHECK(bench.run(Operation::write_zeroes, 0, 1) == BlockStatus::unsupported);
    status = nvme::kSuccess;
    CHECK(bench.run(Operation::read, 0, 1, {{memory, 512}}) == BlockStatus::ok);
}

TEST_CASE("the controller may ask to be given a command again", "[block]") {
    NvmeBench bench;
    REQUIRE(bench.start());
    constexpr std::uint16_t kDoNotRetry = 0x4000;
    std::uint16_t status = 0;
    bench.device.verdict = [&](const fake::NvmeController::Command&) { return status; };
    const auto ends_again = [&](std::uint16_t failure) {
        status = failure;
        bench.issue(0, 3, Operation::flush, 0, 0);
        bench.controller->commit(0);
        const Completions ended = bench.reap();
        REQUIRE(ended.size() == 1);
        CHECK(ended[0].status == (failure == 0 ? BlockStatus::ok : BlockStatus::io_error));
        return ended[0].again;
    };
    for (const std::uint16_t moment : {0x007, 0x021, 0x022, 0x082}) {
        CHECK(ends_again(moment));
        CHECK_FALSE(ends_again(moment | kDoNotRetry));
        CHECK_FALSE(ends_again(moment | 0x100));  // of another type
    }
    for (const std::uint16_t failure : {0x000, 0x002, 0x080, 0x281})
        CHECK_FALSE(ends_again(failure));
}

TEST_CASE("a namespace that vanished fails what it is asked for", "[block]") {
    NvmeBench bench;
    bench.device.add_namespace(2, 64);
    REQUIRE(bench.start());
    bench.device.namespaces.erase(1);
    const Hpa memory = bench.memory(1);
    CHECK(bench.run(Operation::read, 0, 1, {{memory, 512}}, 0) == BlockStatus::io_error);
    CHECK(bench.run(Operation::read, 0, 1, {{memory, 512}}, 1) == BlockStatus::ok);
    CHECK_FALSE(bench.controller->needs_reset(CommandHardware::Look::device));
}
