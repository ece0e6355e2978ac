// SPDX-License-Identifier: MIT
#include "vmm/loader/loader_fixture.hpp"
#include "vmm/loader/memory_plan.hpp"

#include <random>

using namespace hv;
using namespace hv::loader;

TEST_CASE("the memory map shows RAM, firmware and ECAM", "[loader]") {
    Guest guest{4 * kMiB};
    const MemoryMap map{guest.memory};
    using enum MemoryMapEntry::Type;
    REQUIRE(map.entries().size() == 5);
    std::uint64_t end = 0;
    std::uint64_t usable_bytes = 0;
    for (const MemoryMapEntry& entry : map.entries()) {
        CHECK(entry.start >= end);
        end = entry.start + entry.size;
        if (entry.type == usable)
            usable_bytes += entry.size;
    }
    CHECK(usable_bytes == 3 * kMiB + 0x9'fc00);
    CHECK(map.entries()[4].start == 0xe000'0000);
    CHECK(map.entries()[4].type == reserved);
}

TEST_CASE("places never overlap and lie in usable RAM", "[loader]") {
    std::mt19937_64 random{1};
    for (unsigned round = 0; round < 50; ++round) {
        Guest guest{8 * kMiB};
        MemoryPlan plan = std::move(*MemoryPlan::create(guest.memory));
        std::vector<std::pair<std::uint64_t, std::uint64_t>> taken{
            {0, 0x1000}, {0x9'fc00, 0x10'0000}, {8 * kMiB, ~0ULL}};
        for (unsigned i = 0; i < 60; ++i) {
            const std::uint64_t size = 1 + random() % (i % 3 == 0 ? 0x10'0000 : 0x3000);
            const std::uint64_t alignment = 1ULL << (random() % 14);
            const std::uint64_t edge = random() % (9 * kMiB);
            std::uint64_t start = 0;
            const auto kind = random() % 3;
            if (kind == 0) {
                start = edge;
                if (!plan.claim(start, size))
                    continue;
            } else {
                const auto place = kind == 1 ? plan.place_low(size, alignment, edge)
                                             : plan.place_high(size, alignment, edge);
                if (!place)
                    continue;
                start = place->raw;
                REQUIRE(start % alignment == 0);
                REQUIRE((kind == 1 ? start >= edge : start + size <= edge));
            }
            for (const auto& [from, to] : taken)
                REQUIRE((start + size <= from || start >= to));
            taken.emplace_back(start, start + size);
        }
    }
}

TEST_CASE("a place is refused only if there is none", "[loader]") {
    Guest guest{2 * kMiB};
    MemoryPlan plan = std::move(*MemoryPlan::create(guest.memory));
    CHECK(plan.place_low(kMiB, kPageSize, 0)->raw == kMiB);
    CHECK_FALSE(plan.place_low(kMiB, 1, 0));
    CHECK(plan.place_high(0x9'ec00, 1, ~0ULL)->raw == 0x1000);
    CHECK_FALSE(plan.place_low(1, 1, 0));
    CHECK_FALSE(plan.place_high(1, 1, ~0ULL));
    CHECK_FALSE(plan.place_low(~0ULL, 1, 0x1000));
    CHECK_FALSE(plan.place_low(1, 1ULL << 63, ~0ULL));
    CHECK_FALSE(plan.claim(~0ULL, 2));
    CHECK(plan.claim(0, 0));
}
