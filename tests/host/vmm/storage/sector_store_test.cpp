// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/arena_frames.hpp"
#include "vmm/storage/sector_store.hpp"

#include <algorithm>
#include <functional>
#include <utility>

namespace {

using namespace hv;
using Run = SectorStore::Run;

constexpr std::uint64_t kLeaf = 4096;  // sectors whose pages one table lists
constexpr std::uint64_t kSectors = 3 * kLeaf;

struct Store {
    Store() {
        for (const std::uint64_t leaf : {0, 1, 2})
            REQUIRE(
                store.zero(leaf * kLeaf + 8, 1));  // the tables are there, so that they lie not between pages
    }
    void write(std::uint64_t sector, std::uint64_t count) {
        REQUIRE(
            store.write(sector, count, [](std::span<std::byte> to) { std::ranges::fill(to, std::byte{7}); }));
    }
    [[nodiscard]] std::uint64_t length(Run::Kind kind, std::uint64_t sector, std::uint64_t limit) const {
        const Run run = store.find(sector, limit);
        CHECK(run.kind == kind);
        CHECK((run.data != nullptr) == (kind == Run::Kind::data));
        return run.sectors;
    }

    fake::ArenaFrames frames;
    SectorStore store{std::move(SectorStore::create(frames, kSectors)).value()};
};

/// Has no memory, but does what a test wants before it says so.
class LateFrames final : public FrameSource {
public:
    Expected<Hpa> allocate(unsigned order) override {
        if (const auto meanwhile = std::exchange(meanwhile_, nullptr)) {
            meanwhile();
            return Unexpected{Error::no_memory};
        }
        return below_.allocate(order);
    }
    void free(Hpa frame, unsigned order) override { below_.free(frame, order); }
    void fail_after(std::function<void()> meanwhile) { meanwhile_ = std::move(meanwhile); }

private:
    fake::ArenaFrames below_;
    std::function<void()> meanwhile_;
};

}  // namespace

TEST_CASE("a write that finds no memory has the page that another CPU found some for", "[storage]") {
    LateFrames frames;
    SectorStore store{std::move(SectorStore::create(frames, kSectors)).value()};
    const auto write = [&](std::uint64_t sector) {
        return store.write(sector, 1, [](std::span<std::byte> to) { std::ranges::fill(to, std::byte{7}); });
    };
    REQUIRE(store.zero(8, 1));
    frames.fail_after([&] { REQUIRE(write(17)); });
    CHECK(write(16));
    CHECK(store.find(16, 8).sectors == 2);
    const std::uint64_t used = store.frames_in_use();
    frames.fail_after([] {});
    CHECK(write(24).error() == Error::no_memory);
    CHECK(store.frames_in_use() == used);
}

TEST_CASE("pages that lie behind each other in memory are one run, across tables too", "[storage]") {
    Store test;
    test.write(kLeaf - 20, 60);
    CHECK(test.length(Run::Kind::data, kLeaf - 20, kSectors - kLeaf) == 60);
    CHECK(test.length(Run::Kind::data, kLeaf - 1, 30) == 30);
    CHECK(test.length(Run::Kind::data, kLeaf + 39, 30) == 1);
}

TEST_CASE("a run of data ends where the next page lies elsewhere", "[storage]") {
    Store test;
    test.frames.scatter(0, 4);
    test.write(16, 32);
    for (std::uint64_t sector = 16; sector < 48; sector += 8)
        CHECK(test.length(Run::Kind::data, sector, 100) == 8);
    CHECK(test.length(Run::Kind::data, 19, 100) == 5);
}

TEST_CASE("a write goes on in the next table, and marks what it wrote alone", "[storage]") {
    Store test;
    test.write(2 * kLeaf - 12, 24);
    CHECK(test.length(Run::Kind::absent, 2 * kLeaf - 16, 100) == 4);
    CHECK(test.length(Run::Kind::data, 2 * kLeaf - 12, 12) == 12);
    CHECK(test.length(Run::Kind::data, 2 * kLeaf, 4) == 4);
    CHECK(test.length(Run::Kind::absent, 2 * kLeaf + 12, 4) == 4);
    const auto frames = test.store.frames_in_use();
    CHECK(frames == test.frames.outstanding());
    test.write(2 * kLeaf - 12, 24);
    CHECK(test.store.frames_in_use() == frames);
}

TEST_CASE("a store takes no more frames than it may", "[storage]") {
    fake::ArenaFrames frames;
    SectorStore store = std::move(SectorStore::create(frames, kSectors, 4)).value();
    std::uint64_t filled = 0;
    const auto fill = [&](std::span<std::byte>) { ++filled; };
    CHECK(store.write(0, 24, fill).error() == Error::out_of_range);
    CHECK(filled == 2);
    CHECK(store.frames_in_use() == 4);
    CHECK(frames.outstanding() == 4);
    CHECK(store.zero(kLeaf, 1).error() == Error::out_of_range);
    CHECK(store.write(0, 16, fill));
    CHECK(store.find(0, 24).sectors == 16);
}

TEST_CASE("zeroes and what was never written are runs as far as they go", "[storage]") {
    Store test;
    REQUIRE(test.store.zero(kLeaf + 3, 100));
    CHECK(test.length(Run::Kind::zero, kLeaf + 3, kSectors - kLeaf - 3) == 100);
    CHECK(test.length(Run::Kind::zero, kLeaf + 30, 8) == 8);
    CHECK(test.length(Run::Kind::absent, 9, kSectors) == kLeaf + 3 - 9);
    // A page may have memory without all of its sectors having been written.
    test.write(42, 2);
    CHECK(test.length(Run::Kind::absent, 9, kSectors) == 42 - 9);
    CHECK(test.length(Run::Kind::absent, 44, kSectors) == kLeaf + 3 - 44);
}
