// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/machine.hpp"
#include "vmm/base/machine.hpp"
#include "vmm/mm/aborts.hpp"
#include "vmm/mm/frame_allocator.hpp"

#include <algorithm>
#include <map>
#include <random>
#include <thread>
#include <vector>

using namespace hv;

namespace {

FrameAllocator& make_allocator(std::vector<FrameRange> usable, std::vector<FrameRange> reserved = {}) {
    return *FrameAllocator::create(usable, reserved).value();
}

/// Takes all frames one by one.
std::vector<Hpa> drain(FrameAllocator& frames) {
    std::vector<Hpa> taken;
    while (const auto frame = frames.allocate(0))
        taken.push_back(*frame);
    return taken;
}

bool overlaps(const FrameRange& a, const FrameRange& b) {
    return a.start < b.end() && b.start < a.end();
}

}  // namespace

TEST_CASE("only whole frames outside of reserved ranges are handed out, each once", "[mm]") {
    const std::vector<FrameRange> usable{
        {Hpa{0x10'0000}, 4 * kMiB}, {Hpa{0x1000'0123}, kMiB}, {Hpa{0x80'0000}, 0x1800}};
    const std::vector<FrameRange> reserved{
        {Hpa{0x20'0800}, 0x1000}, {Hpa{0x10'0000}, 0x10'0000}, {Hpa{0x4f'ffff}, 7}};
    FrameAllocator& frames = make_allocator(usable, reserved);
    const auto total = frames.statistics().total_bytes;
    const auto taken = drain(frames);
    CHECK(taken.size() * kPageSize == total);
    std::map<Hpa, int> seen;
    for (const Hpa frame : taken) {
        CHECK(++seen[frame] == 1);
        bool inside = false;
        for (const FrameRange& range : usable)
            inside = inside || (frame >= range.start && frame + kPageSize <= range.end());
        CHECK(inside);
        for (const FrameRange& range : reserved)
            CHECK_FALSE(overlaps({frame, kPageSize}, range));
    }
    // Three reserved frames at an edge each, then the allocator's own and one of state for each region that
    // is large enough.
    CHECK(taken.size() == 3 * kMiB / kPageSize - 3 + (kMiB / kPageSize - 1) - 1 - 2);
}

TEST_CASE("blocks are aligned to their size, and neighbours join again", "[mm]") {
    FrameAllocator& frames = make_allocator({{Hpa{kPage2M}, kPage1G + 8 * kMiB}});
    const auto before = frames.statistics();
    CHECK(before.free_bytes == before.total_bytes);
    std::vector<std::pair<Hpa, unsigned>> blocks;
    for (unsigned order = 0; order <= 12; ++order) {
        const Hpa block = frames.allocate(order).value();
        CHECK(block.aligned(kPageSize << order));
        CHECK(frames.allocated_order(block) == order);
        blocks.emplace_back(block, order);
    }
    for (const auto& [block, order] : blocks)
        frames.free(block, order);
    const auto after = frames.statistics();
    CHECK(after.free_bytes == before.free_bytes);
    CHECK(after.largest_free_order == before.largest_free_order);
    CHECK_FALSE(frames.allocated_order(blocks[3].first));
}

TEST_CASE("a 1 GiB block is found where one is whole", "[mm]") {
    FrameAllocator& frames = make_allocator({{Hpa{kMiB}, 2 * kPage1G}});
    CHECK(frames.statistics().largest_free_order == FrameAllocator::kMaxOrder);
    CHECK(frames.allocate(FrameAllocator::kMaxOrder).value() == Hpa{kPage1G});
    CHECK(frames.allocate(FrameAllocator::kMaxOrder).error() == Error::no_memory);
    CHECK(frames.allocate(FrameAllocator::kMaxOrder + 1).error() == Error::invalid_argument);
}

TEST_CASE("memory below 4 GiB is handed out when there is no other", "[mm]") {
    const Hpa low_end{4 * kGiB};
    // One range lies on both sides.
    FrameAllocator& frames = make_allocator(
        {{low_end + 64 * kMiB, 16 * kMiB}, {Hpa{64 * kMiB}, 8 * kMiB}, {low_end - 5 * kMiB, 9 * kMiB}});
    const auto before = frames.statistics();
    const auto is_high = [&](Hpa frame) { return frame >= low_end; };
    const auto taken = drain(frames);
    CHECK(taken.size() * kPageSize == before.total_bytes);
    CHECK(std::ranges::is_partitioned(taken, is_high));
    CHECK(is_high(taken.front()));
    CHECK_FALSE(is_high(taken.back()));
    for (const Hpa frame : taken)
        frames.free(frame, 0);
    CHECK(frames.statistics().largest_free_order == before.largest_free_order);
    constexpr unsigned kOrder4M = 10;
    std::vector<Hpa> large;
    while (const auto block = frames.allocate(kOrder4M))
        large.push_back(*block);
    CHECK(std::ranges::is_partitioned(large, is_high));
    CHECK_FALSE(is_high(large.back()));
    CHECK(is_high(frames.allocate(0).value()));  // what was too small
}

TEST_CASE("what has no room is refused", "[mm]") {
    const FrameRange none[] = {{Hpa{kMiB}, kPageSize - 1}};
    CHECK(FrameAllocator::create(none, {}).error() == Error::no_memory);
    const FrameRange covered[] = {{Hpa{kMiB}, kMiB}};
    CHECK(FrameAllocator::create(covered, covered).error() == Error::no_memory);
    FrameAllocator& frames = make_allocator({{Hpa{kMiB}, kMiB}});
    CHECK(frames.add_region({Hpa{16 * kMiB}, kPageSize}).error() == Error::no_memory);
    const auto before = frames.statistics().total_bytes;
    REQUIRE(frames.add_region({Hpa{32 * kMiB}, kMiB}));
    CHECK(frames.statistics().total_bytes == before + kMiB - kPageSize);
}

TEST_CASE("random allocations never overlap and all come back", "[mm]") {
    FrameAllocator& frames = make_allocator({{Hpa{0x7000}, 93 * kMiB}, {Hpa{kGiB + 0x3000}, 35 * kMiB}});
    const auto before = frames.statistics();
    std::map<Hpa, unsigned> live;
    std::mt19937 random{1};
    for (int step = 0; step < 20'000; ++step) {
        if (random() % 2 == 0 || live.empty()) {
            const unsigned order = random() % 11;
            const auto block = frames.allocate(order);
            if (!block)
                continue;
            const auto next = live.lower_bound(*block);
            if (next != live.end())
                REQUIRE(*block + (kPageSize << order) <= next->first);
            if (next != live.begin())
                REQUIRE(std::prev(next)->first + (kPageSize << std::prev(next)->second) <= *block);
            live.emplace(*block, order);
        } else {
            auto victim = live.lower_bound(Hpa{random() % (2 * kGiB)});
            if (victim == live.end())
                victim = live.begin();
            frames.free(victim->first, victim->second);
            live.erase(victim);
        }
    }
    for (const auto& [block, order] : live)
        frames.free(block, order);
    CHECK(frames.statistics().free_bytes == before.free_bytes);
    CHECK(frames.statistics().largest_free_order == before.largest_free_order);
}

TEST_CASE("misuse is caught", "[mm]") {
    FrameAllocator& frames = make_allocator({{Hpa{kMiB}, 4 * kMiB}});
    const Hpa block = frames.allocate(2).value();
    CHECK(test::aborts([&] { frames.free(block, 1); }));
    CHECK(test::aborts([&] { frames.free(block + kPageSize, 0); }));
    CHECK(test::aborts([&] { frames.free(block + 1, 2); }));
    CHECK(test::aborts([&] { frames.free(Hpa{kGiB}, 0); }));
    frames.free(block, 2);
    CHECK(test::aborts([&] { frames.free(block, 2); }));
    CHECK(test::aborts([&] { static_cast<void>(frames.add_region({Hpa{2 * kMiB}, 16 * kMiB})); }));
}

TEST_CASE("CPUs allocate at the same time", "[mm]") {
    FrameAllocator& frames = make_allocator({{Hpa{kMiB}, 64 * kMiB}});
    const auto before = frames.statistics().free_bytes;
    std::vector<std::thread> cpus;
    for (unsigned cpu = 0; cpu < 4; ++cpu) {
        cpus.emplace_back([&frames, cpu] {
            fake::set_cpu(cpu);
            for (int i = 0; i < 500; ++i) {
                const Hpa block = frames.allocate(i % 4U).value();
                *machine::hva<unsigned>(block) = cpu;
                HV_ASSERT(*machine::hva<unsigned>(block) == cpu);
                frames.free(block, i % 4U);
            }
        });
    }
    for (std::thread& cpu : cpus)
        cpu.join();
    CHECK(frames.statistics().free_bytes == before);
}
