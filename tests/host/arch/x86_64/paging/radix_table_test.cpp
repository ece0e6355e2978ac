// SPDX-License-Identifier: MIT
#include "arch/x86_64/paging/host_format.hpp"
#include "arch/x86_64/paging/npt_format.hpp"
#include "arch/x86_64/paging/radix_table.hpp"
#include "catch.hpp"

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <random>
#include <unordered_map>
#include <vector>

using namespace hv;
using namespace hv::paging;

namespace {

/// Tables in the test's heap, with a budget and a hook after each store.
struct FakeMemory {
    struct State {
        std::unordered_map<std::uint64_t, std::array<std::uint64_t, kEntries>> tables;
        std::uint64_t next{0x10'0000};
        std::size_t budget{~std::size_t{0}};
        std::function<void()> after_store;
    };
    State* state;

    Expected<Hpa> allocate() {
        if (state->budget == 0)
            return Unexpected{Error::no_memory};
        --state->budget;
        const Hpa table{state->next};
        state->next += kPageSize;
        state->tables[table.raw] = {};
        return table;
    }
    void free(Hpa table) { REQUIRE(state->tables.erase(table.raw) == 1); }
    [[nodiscard]] std::uint64_t load(Hpa table, unsigned index) const {
        return state->tables.at(table.raw)[index];
    }
    void store(Hpa table, unsigned index, std::uint64_t entry) {
        state->tables.at(table.raw)[index] = entry;
        if (state->after_store)
            state->after_store();
    }
};

using NptTable = RadixTable<NptFormat, FakeMemory>;

NptTable make_table(FakeMemory::State& state, bool has_1g = true) {
    return NptTable::create(NptFormat{has_1g}, FakeMemory{&state}).value();
}

constexpr NptFormat::Attributes kReadWrite{true, false};
constexpr NptFormat::Attributes kReadOnly{false, false};
constexpr NptFormat::Attributes kAll{true, true};

std::vector<std::pair<std::uint64_t, unsigned>> leaves(const NptTable& table) {
    std::vector<std::pair<std::uint64_t, unsigned>> found;
    table.for_each_leaf([&](const NptTable::Leaf& leaf) { found.emplace_back(leaf.address, leaf.level); });
    return found;
}

/// A hardware walker that starts at a root it has loaded, and may hold on to tables that were unlinked
/// meanwhile.
std::optional<std::uint64_t> walk(const FakeMemory::State& state, Hpa root, std::uint64_t address) {
    Hpa table = root;
    for (unsigned level = NptFormat::kLevels; level > 0; --level) {
        const std::uint64_t entry = state.tables.at(table.raw)[address / entry_span(level) % kEntries];
        if (!NptFormat::is_present(entry))
            return std::nullopt;
        const Hpa next = NptFormat::address(level, entry);
        if (NptFormat::is_leaf(level, entry))
            return (next.raw + address % entry_span(level)) |
                   static_cast<std::uint64_t>(NptFormat::attributes(level, entry).write);
        table = next;
    }
    return std::nullopt;
}

}  // namespace

TEST_CASE("a range is mapped with the largest leaves that fit", "[paging]") {
    FakeMemory::State state;
    NptTable table = make_table(state);
    REQUIRE(table.map(kPage1G - kPage2M - kPageSize, Hpa{5 * kPage1G - kPage2M - kPageSize},
                      kPage1G + 2 * kPage2M + 2 * kPageSize, kAll));
    CHECK(leaves(table) == std::vector<std::pair<std::uint64_t, unsigned>>{{kPage1G - kPage2M - kPageSize, 1},
                                                                           {kPage1G - kPage2M, 2},
                                                                           {kPage1G, 3},
                                                                           {2 * kPage1G, 2},
                                                                           {2 * kPage1G + kPage2M, 1}});
    CHECK(table.translate(kPage1G + 0x1234) == Hpa{5 * kPage1G + 0x1234});
    CHECK_FALSE(table.translate(2 * kPage1G + kPage2M + kPageSize));
}

TEST_CASE("leaves need physical alignment as well, and 1 GiB ones a processor that has them", "[paging]") {
    FakeMemory::State state;
    NptTable small = make_table(state);
    REQUIRE(small.map(0, Hpa{kPageSize}, kPage2M, kAll));
    CHECK(small.find(0)->level == 1);
    NptTable without = make_table(state, false);
    REQUIRE(without.map(0, Hpa{0}, kPage1G, kAll));
    CHECK(without.find(0)->level == 2);
}

TEST_CASE("arguments are checked", "[paging]") {
    FakeMemory::State state;
    NptTable table = make_table(state);
    CHECK(table.map(1, Hpa{0}, kPageSize, kAll).error() == Error::invalid_argument);
    CHECK(table.map(0, Hpa{1}, kPageSize, kAll).error() == Error::invalid_argument);
    CHECK(table.map(0, Hpa{0}, 0, kAll).error() == Error::invalid_argument);
    CHECK(table.unmap(0, 17).error() == Error::invalid_argument);
    const std::uint64_t end = std::uint64_t{1} << 48;
    CHECK(table.map(end, Hpa{0}, kPageSize, kAll).error() == Error::out_of_range);
    CHECK(table.map(end - kPageSize, Hpa{0}, 2 * kPageSize, kAll).error() == Error::out_of_range);
    CHECK(table.protect(~std::uint64_t{0xfff}, 2 * kPageSize, kAll).error() == Error::out_of_range);
    CHECK(table.map(end - kPageSize, Hpa{0}, kPageSize, kAll));
    CHECK_FALSE(table.translate(end));
    CHECK(leaves(table).size() == 1);
}

TEST_CASE("host addresses are canonical, up to the last byte", "[paging]") {
    FakeMemory::State state;
    auto table = RadixTable<HostFormat, FakeMemory>::create(HostFormat{true}, FakeMemory{&state}).value();
    const std::uint64_t top = 0xffff'ffff'8000'0000;
    REQUIRE(table.map(top, Hpa{kPage2M}, 2 * kGiB, {.write = true}));
    CHECK(table.translate(~std::uint64_t{0}) == Hpa{2 * kGiB + kPage2M - 1});
    CHECK(table.map(0x8000'0000'0000, Hpa{0}, kPageSize, {}).error() == Error::out_of_range);
    CHECK(table.map(0x7fff'ffff'f000, Hpa{0}, 2 * kPageSize, {}).error() == Error::out_of_range);
    std::uint64_t first = 0;
    table.for_each_leaf([&](const auto& leaf) { first = first == 0 ? leaf.address : first; });
    CHECK(first == top);
    REQUIRE(table.protect(top, kPage2M,
                          {.write = false, .execute = true, .global = true, .cache = CacheType::uncached}));
    CHECK(table.find(top)->attributes == HostFormat::Attributes{false, true, true, CacheType::uncached});
    CHECK(table.find(top + kPage2M)->attributes.write);
    REQUIRE(table.unmap(top, 2 * kGiB));
    table.release_retired();
    CHECK(table.tables() == 1);
}

TEST_CASE("part of a large leaf can be unmapped or protected, the rest stays", "[paging]") {
    FakeMemory::State state;
    NptTable table = make_table(state);
    REQUIRE(table.map(0, Hpa{kPage1G}, kPage1G, kAll));
    REQUIRE(table.unmap(kPageSize, kPageSize));
    CHECK(table.translate(0) == Hpa{kPage1G});
    CHECK_FALSE(table.translate(kPageSize));
    CHECK(table.translate(2 * kPageSize) == Hpa{kPage1G + 2 * kPageSize});
    CHECK(table.find(kPage2M)->level == 2);
    REQUIRE(table.protect(kPage2M, kPageSize, kReadOnly));
    CHECK(table.find(kPage2M)->attributes == kReadOnly);
    CHECK(table.find(kPage2M + kPageSize)->attributes == kAll);
}

TEST_CASE("a large leaf replaces smaller ones, whose tables are freed once released", "[paging]") {
    FakeMemory::State state;
    NptTable table = make_table(state);
    for (std::uint64_t page = 0; page < kPage1G; page += kPage2M)
        REQUIRE(table.map(page, Hpa{kPageSize}, kPageSize, kAll));
    CHECK(table.tables() == 3 + 512);
    REQUIRE(table.map(0, Hpa{0}, kPage1G, kAll));
    CHECK(table.find(0)->level == 3);
    CHECK(table.has_retired());
    CHECK(state.tables.size() == 3 + 512);
    table.release_retired();
    CHECK(table.tables() == 2);
    CHECK(state.tables.size() == 2);
}

TEST_CASE("the revision tells whether a TLB may contradict the table", "[paging]") {
    FakeMemory::State state;
    NptTable table = make_table(state);
    const auto revision = table.revision();
    REQUIRE(table.map(0, Hpa{0}, kPage2M, kAll));
    REQUIRE(table.map(0, Hpa{0}, kPage2M, kAll));
    REQUIRE(table.unmap(kPage1G, kPage2M));
    CHECK(table.revision() == revision);
    REQUIRE(table.map(0, Hpa{kPage2M}, kPage2M, kAll));
    CHECK(table.revision() == revision + 1);
    REQUIRE(table.protect(0, kPage2M, kReadOnly));
    CHECK(table.revision() == revision + 2);
    REQUIRE(table.unmap(0, kPageSize));
    CHECK(table.revision() > revision + 2);
}

TEST_CASE("a destroyed table has freed all its memory", "[paging]") {
    FakeMemory::State state;
    {
        NptTable table = make_table(state);
        REQUIRE(table.map(kPageSize, Hpa{0}, 3 * kPage1G, kAll));
        REQUIRE(table.unmap(kPage1G, kPage1G));
        NptTable moved{std::move(table)};
        CHECK(moved.translate(kPageSize) == Hpa{0});
    }
    CHECK(state.tables.empty());
}

TEST_CASE("random updates agree with a model of all pages at every store", "[paging]") {
    enum class Operation { map, unmap, protect };
    FakeMemory::State state;
    const bool has_1g = GENERATE(false, true);
    NptTable table = make_table(state, has_1g);
    const Hpa root = table.root();
    constexpr std::uint64_t kWindow = 3 * kPage1G;
    std::vector<std::optional<std::uint64_t>> model(2 * kWindow / kPageSize);  // hpa | writable
    std::mt19937_64 random{has_1g ? 7U : 11U};
    const auto pick = [&](std::uint64_t below) { return random() % below; };
    for (int step = 0; step < 60; ++step) {
        const std::uint64_t unit = std::array{kPageSize, kPage2M, kPage2M, kPage1G}[pick(4)];
        const std::uint64_t start =
            align_down(pick(kWindow), unit) + (pick(4) == 0 ? kPageSize * pick(8) : 0);
        const std::uint64_t length = pick(3) == 0 ? kPageSize * (1 + pick(1024)) : unit;
        const Hpa hpa{align_down(pick(kWindow), pick(2) == 0 || unit == kPage1G ? unit : kPageSize)};
        const Operation operation =
            std::array{Operation::map, Operation::map, Operation::unmap, Operation::protect}[pick(4)];
        const auto change = [&](std::uint64_t page,
                                std::optional<std::uint64_t> old) -> std::optional<std::uint64_t> {
            if (page - start >= length)
                return old;
            switch (operation) {
            case Operation::map: return (hpa.raw + (page - start)) | 1;
            case Operation::unmap: return std::nullopt;
            case Operation::protect: return old ? std::optional{*old & ~std::uint64_t{1}} : old;
            }
            return old;
        };
        // After each store, a few pages stand for all: those at the edges of what changes and some anywhere.
        struct Probe {
            std::uint64_t page;
            std::optional<std::uint64_t> before, after;
            bool changed{};
        };
        std::vector<Probe> probes;
        const auto probe = [&](std::uint64_t page) {
            const auto old = model.at(page / kPageSize);
            probes.push_back({page, old, change(page, old)});
        };
        for (const std::uint64_t page : {start, start + length - kPageSize, start + length})
            probe(page);
        if (start != 0)
            probe(start - kPageSize);
        for (int i = 0; i < 4; ++i) {
            probe(align_down(pick(kWindow), kPageSize));
            probe(start + align_down(pick(length), kPageSize));
        }
        bool torn = false;
        state.after_store = [&] {
            for (Probe& p : probes) {
                const auto now = walk(state, root, p.page);
                torn = torn || (now != p.after && (now != p.before || p.changed));
                p.changed = p.changed || now != p.before;
            }
        };
        switch (operation) {
        case Operation::map: REQUIRE(table.map(start, hpa, length, kReadWrite)); break;
        case Operation::unmap: REQUIRE(table.unmap(start, length)); break;
        case Operation::protect: REQUIRE(table.protect(start, length, kReadOnly)); break;
        }
        state.after_store = nullptr;
        REQUIRE_FALSE(torn);
        for (std::uint64_t page = start; page < start + length; page += kPageSize)
            model[page / kPageSize] = change(page, model[page / kPageSize]);
        for (const Probe& p : probes)
            REQUIRE(walk(state, root, p.page) == p.after);
        if (pick(4) == 0)
            table.release_retired();
    }
    bool same = true;
    table.for_each_leaf([&](const NptTable::Leaf& leaf) {
        for (std::uint64_t offset = 0; offset < leaf.size(); offset += kPageSize) {
            auto& page = model[(leaf.address + offset) / kPageSize];
            same =
                same && page == ((leaf.hpa.raw + offset) | static_cast<std::uint64_t>(leaf.attributes.write));
            page.reset();
        }
    });
    CHECK(same);
    CHECK(std::none_of(model.begin(), model.end(), [](const auto& page) { return page.has_value(); }));
    REQUIRE(table.unmap(0, 2 * kWindow));
    table.release_retired();
    CHECK(state.tables.size() == 1);
}

TEST_CASE("a walker inside a retired table still finds what it held", "[paging]") {
    FakeMemory::State state;
    NptTable table = make_table(state);
    REQUIRE(table.map(0, Hpa{0}, kPage2M - kPageSize, kAll));  // 4 KiB leaves
    const Hpa level1{state.next - kPageSize};
    std::vector<Hpa> frames;
    for (unsigned i = 0; i < kEntries; ++i)
        frames.push_back(NptFormat::address(1, state.tables.at(level1.raw)[i]));
    REQUIRE(table.map(0, Hpa{kPage2M}, kPage2M, kAll));
    REQUIRE(table.map(kPage1G, Hpa{0}, kPageSize, kAll));
    REQUIRE(table.unmap(kPage1G, kPageSize));  // more retired tables
    for (unsigned i = 0; i < kEntries; ++i) {
        const std::uint64_t entry = state.tables.at(level1.raw)[i];
        CHECK(NptFormat::address(1, entry) == frames[i]);
        CHECK(NptFormat::is_present(entry) == (i != kEntries - 1));
    }
}

TEST_CASE("without memory nothing is lost: unmap changes nothing, map leaves a prefix", "[paging]") {
    for (std::size_t budget = 0;; ++budget) {
        FakeMemory::State state;
        NptTable table = make_table(state);
        REQUIRE(table.map(0, Hpa{kPage1G}, 2 * kPage1G, kAll));
        const auto tables_before = state.tables.size();
        state.budget = budget;
        const std::uint64_t start = kPageSize, length = kPage1G + kPage2M;
        const bool unmapped = table.unmap(start, length).has_value();
        for (const std::uint64_t page : {start, kPage2M, kPage1G, start + length - kPageSize})
            CHECK(table.translate(page).has_value() == !unmapped);
        CHECK(table.translate(0) == Hpa{kPage1G});
        CHECK(table.translate(start + length) == Hpa{kPage1G + start + length});
        CHECK(table.tables() == state.tables.size());
        if (!unmapped)
            CHECK(state.tables.size() == tables_before + budget);
        const std::uint64_t far = 4 * kPage1G - 2 * kPageSize;
        state.budget = budget;
        const bool mapped = table.map(far, Hpa{0}, 4 * kPageSize, kReadWrite).has_value();
        CHECK((!mapped || table.translate(far + 3 * kPageSize) == Hpa{3 * kPageSize}));
        if (!mapped && table.translate(far + 2 * kPageSize))
            CHECK(table.translate(far) == Hpa{0});
        state.budget = ~std::size_t{0};
        REQUIRE(table.unmap(0, 5 * kPage1G));
        table.release_retired();
        CHECK(state.tables.size() == 1);  // no empty table stayed behind
        if (unmapped && mapped)
            break;
        REQUIRE(budget < 10);
    }
}
