// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "drivers/block/command_cutter.hpp"
#include "fakes/arena_frames.hpp"

#include <random>
#include <vector>

using namespace hv;
using namespace hv::block;

namespace {

constexpr CommandLimits kAnyRuns{1024, 0, 8, 1 << 20, 1, 0, false, false, false};
constexpr CommandLimits kPages{1024, 0, 512, 0x7fff'f000, 4, 4096, false, false, false};

std::byte* memory(std::uint64_t address) {
    return machine::hva(Hpa{kPage2M + address});
}

struct Pieces {
    std::vector<DmaRun> storage{std::vector<DmaRun>(512)};
    Cut cut{};
    Pieces(const std::vector<BlockSegment>& segments, SegmentPosition from, std::uint64_t bytes,
           const CommandLimits& limits, std::uint32_t block = 512)
        : cut{hv::block::cut(segments, from, bytes, limits, block, storage)} {}
};

}  // namespace

TEST_CASE("adjacent segments are one run", "[block]") {
    const Pieces pieces{{{memory(0), 4096}, {memory(4096), 4096}}, {0, 0}, 8192, kAnyRuns};
    CHECK(pieces.cut.runs == 1);
    CHECK(pieces.cut.bytes == 8192);
    CHECK(pieces.storage[0].address == Hpa{kPage2M});
    CHECK(pieces.storage[0].size == 8192);
    CHECK(pieces.cut.end.segment == 2);
    CHECK(pieces.cut.end.offset == 0);
}

TEST_CASE("a command ends at its most runs, with whole blocks", "[block]") {
    std::vector<BlockSegment> segments;
    for (std::uint64_t i = 0; i < 20; ++i)
        segments.push_back({memory(i * 8192), 300});
    const Pieces pieces{segments, {0, 0}, 5632, kAnyRuns};
    CHECK(pieces.cut.runs == 7);  // 8 runs hold 2400 bytes, of which 4 blocks are whole
    CHECK(pieces.cut.bytes == 2048);
    CHECK(pieces.cut.end.segment == 6);
    CHECK(pieces.cut.end.offset == 248);
}

TEST_CASE("runs are no longer than the hardware takes", "[block]") {
    CommandLimits limits = kAnyRuns;
    limits.max_run_bytes = 4096;
    const Pieces pieces{{{memory(0), 10240}}, {0, 0}, 10240, limits};
    CHECK(pieces.cut.runs == 3);
    CHECK(pieces.cut.bytes == 10240);
    CHECK(pieces.storage[2].size == 2048);
}

TEST_CASE("a page list has no gap: what begins within a page is another command's", "[block]") {
    // The first may begin, the last end anywhere.
    const Pieces fits{
        {{memory(512), 3584}, {memory(16384), 4096}, {memory(32768), 512}}, {0, 0}, 8192, kPages};
    CHECK(fits.cut.runs == 3);
    CHECK(fits.cut.bytes == 8192);
    const Pieces gap{{{memory(0), 4096}, {memory(16384 + 512), 512}}, {0, 0}, 4608, kPages};
    CHECK(gap.cut.bytes == 4096);
    const Pieces after{{{memory(0), 512}, {memory(16384), 512}}, {0, 0}, 1024, kPages};
    CHECK(after.cut.bytes == 512);
}

TEST_CASE("a block that the hardware cannot address in its place is said to be so", "[block]") {
    SECTION("by its address") {
        const Pieces odd{{{memory(1), 1024}}, {0, 0}, 1024, kPages};
        CHECK(odd.cut.runs == 0);
        CHECK(odd.cut.bytes == 512);
        CHECK(odd.cut.end.offset == 512);
    }
    SECTION("by a gap in it") {
        const Pieces gap{{{memory(0), 100}, {memory(8192), 412}, {memory(12288), 512}}, {0, 0}, 1024, kPages};
        CHECK(gap.cut.runs == 0);
        CHECK(gap.cut.bytes == 512);
        CHECK(gap.cut.end.segment == 2);
    }
    SECTION("behind others that are right") {
        const Pieces later{{{memory(0), 4096}, {memory(8193), 512}}, {0, 0}, 4608, kPages};
        CHECK(later.cut.runs == 1);
        CHECK(later.cut.bytes == 4096);
    }
}

TEST_CASE("whatever the segments are, cuts follow each other and cover all", "[block]") {
    std::mt19937 random{7};
    for (int round = 0; round < 300; ++round) {
        std::vector<BlockSegment> segments;
        std::uint64_t total = 0;
        std::uint64_t at = 0;
        while (total < 64 * 1024) {
            const auto size = std::min<std::uint64_t>(64 * 1024 - total, random() % 9000);
            at += random() % 3 == 0 ? random() % 8192 : align_up(at, 4096) - at;
            segments.push_back({memory(at), static_cast<std::uint32_t>(size)});
            at += size;
            total += size;
        }
        const std::uint32_t block = round % 2 == 0 ? 512 : 4096;
        SegmentPosition from{0, 0};
        std::uint64_t done = 0;
        while (done < total) {
            const Pieces pieces{segments, from, total - done, kPages, block};
            REQUIRE(pieces.cut.bytes > 0);
            REQUIRE(pieces.cut.bytes % block == 0);
            REQUIRE(pieces.cut.bytes <= total - done);
            std::uint64_t in_runs = 0;
            std::size_t index = 0;
            bool in_place = true;
            const auto end =
                advance(segments, from, pieces.cut.bytes, [&](std::byte* data, std::uint32_t size) {
                    // Each byte is where a run says, in order.
                    for (std::uint32_t i = 0; pieces.cut.runs > 0 && i < size; ++i, ++in_runs) {
                        if (in_runs == pieces.storage[index].size) {
                            ++index;
                            in_runs = 0;
                        }
                        in_place =
                            in_place && machine::hva(pieces.storage[index].address) + in_runs == data + i;
                    }
                });
            REQUIRE(in_place);
            REQUIRE(end.segment == pieces.cut.end.segment);
            REQUIRE(end.offset == pieces.cut.end.offset);
            if (pieces.cut.runs > 0)
                REQUIRE((index == pieces.cut.runs - 1 && in_runs == pieces.storage[index].size));
            from = pieces.cut.end;
            done += pieces.cut.bytes;
        }
    }
}
