// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/arena_frames.hpp"
#include "fakes/log_capture.hpp"
#include "vmm/storage/cow_overlay.hpp"
#include "vmm/storage/disk_fixture.hpp"

#include <deque>

namespace {

using namespace hv;
using test::Request;
using Operation = BlockRequest::Operation;

struct Overlay {
    explicit Overlay(std::uint64_t sectors, std::uint64_t limit = 0)
        : base{sectors}, disk{std::move(CowOverlay::create(base, frames, {limit, "web", "base"})).value()} {}
    fake::ArenaFrames frames;
    test::TestDisk base;
    std::unique_ptr<CowOverlay> disk;
};

void write(Overlay& overlay, std::uint64_t sector, std::uint8_t value) {
    REQUIRE(Request{Operation::write, sector, 1, std::vector<std::byte>(512, std::byte{value})}.run(
                *overlay.disk) == BlockStatus::ok);
}

/// Larger with each look at it.
class GrowingDisk final : public BlockDevice {
public:
    [[nodiscard]] BlockGeometry geometry() const override {
        return {sectors_ *= 1000, kSectorSize, true, false};
    }
    void submit(BlockRequest& request) override { request.complete(request, BlockStatus::io_error); }

private:
    mutable std::uint64_t sectors_{100};
};

}  // namespace

TEST_CASE("an overlay keeps the size that its base had", "[storage]") {
    fake::ArenaFrames frames;
    GrowingDisk base;
    const auto disk = std::move(CowOverlay::create(base, frames, {})).value();
    CHECK(disk->geometry().sectors == 100'000);
    Request last{Operation::write_zeroes, 99'999, 1};
    CHECK(last.run(*disk) == BlockStatus::ok);
    Request beyond{Operation::write_zeroes, 99'999'999, 1};
    CHECK(beyond.run(*disk) == BlockStatus::io_error);
}

TEST_CASE("an overlay agrees with a model, and its base stays as it was", "[storage]") {
    constexpr std::uint64_t kSectors = 600;
    Overlay overlay{kSectors};
    const auto original = overlay.base.contents;
    auto model = original;
    std::mt19937 random{4};
    for (unsigned step = 0; step < 5000; ++step) {
        const std::uint64_t count = random() % 30;
        const std::uint64_t sector = random() % (kSectors - count + 1);
        const auto at = model.begin() + static_cast<std::ptrdiff_t>(sector * kSectorSize);
        switch (random() % 6) {
        case 0: {
            const std::uint64_t small = std::min<std::uint64_t>(count, 3);
            Request request{Operation::write, sector, small, test::random_bytes(random, small * kSectorSize)};
            REQUIRE(request.scatter(random, 700).run(*overlay.disk) == BlockStatus::ok);
            std::copy(request.bytes.begin(), request.bytes.end(), at);
            break;
        }
        case 1: {
            const std::uint64_t small = std::min<std::uint64_t>(count, 2);
            REQUIRE(Request{Operation::write_zeroes, sector, small}.run(*overlay.disk) == BlockStatus::ok);
            std::fill_n(at, small * kSectorSize, std::byte{0});
            break;
        }
        default: {
            Request request{Operation::read, sector, count};
            REQUIRE(request.scatter(random, 900).run(*overlay.disk) == BlockStatus::ok);
            REQUIRE(std::equal(request.bytes.begin(), request.bytes.end(), at));
        }
        }
    }
    CHECK(overlay.base.contents == original);
    CHECK_FALSE(overlay.disk->geometry().read_only);
    CHECK_FALSE(overlay.disk->geometry().can_unmap_zeroes);
    CHECK(overlay.disk->geometry().physical_block_size == 4096);
}

TEST_CASE("reads over overlay and base wait for the base, many at once", "[storage]") {
    Overlay overlay{256};
    for (std::uint64_t sector = 1; sector < 256; sector += 2)
        write(overlay, sector, static_cast<std::uint8_t>(sector));
    overlay.base.deferred = true;
    std::deque<Request> reads;
    for (unsigned i = 0; i < 30; ++i) {
        reads.emplace_back(Operation::read, i * 8, 8);
        reads.back().run(*overlay.disk);
        CHECK_FALSE(reads.back().status);
    }
    CHECK(overlay.base.waiting.size() == 8);
    while (overlay.base.finish_one()) {
    }
    for (unsigned i = 0; i < 30; ++i) {
        REQUIRE(reads[i].status == BlockStatus::ok);
        for (unsigned sector = 0; sector < 8; ++sector) {
            const std::uint64_t at = i * 8 + sector;
            const std::byte expected = at % 2 == 1 ? std::byte(at & 0xff) : overlay.base.contents[at * 512];
            REQUIRE(reads[i].bytes[sector * 512] == expected);
        }
    }
}

TEST_CASE("a read of the base alone goes there as it is", "[storage]") {
    Overlay overlay{64};
    write(overlay, 20, 1);
    Request read{Operation::read, 0, 20};
    CHECK(read.run(*overlay.disk) == BlockStatus::ok);
    CHECK(overlay.base.submitted == 1);
    Request own{Operation::read, 20, 1};
    CHECK(own.run(*overlay.disk) == BlockStatus::ok);
    CHECK(overlay.base.submitted == 1);
}

TEST_CASE("an error of the base fails the read, at once or later", "[storage]") {
    Overlay overlay{64};
    write(overlay, 1, 1);
    overlay.base.answer = BlockStatus::io_error;
    for (const bool deferred : {false, true}) {
        overlay.base.deferred = deferred;
        for (unsigned i = 0; i < 20; ++i) {
            Request read{Operation::read, 0, 4};
            read.run(*overlay.disk);
            overlay.base.finish_one();
            CHECK(read.status == BlockStatus::io_error);
        }
    }
}

TEST_CASE("scattered reads are split into parts that the base takes", "[storage]") {
    Overlay overlay{256};
    write(overlay, 0, 9);
    std::mt19937 random{6};
    Request read{Operation::read, 0, 256};
    std::vector<std::byte> spread(256 * 1024);
    for (unsigned i = 0; i < 512; ++i)  // 256 bytes, a gap, 256 bytes
        read.segments.push_back({spread.data() + i * 512, 256});
    CHECK(read.run(*overlay.disk) == BlockStatus::ok);
    for (unsigned i = 2; i < 512; ++i)
        REQUIRE(std::memcmp(spread.data() + i * 512, overlay.base.contents.data() + i * 256, 256) == 0);
    CHECK(spread[0] == std::byte{9});
    CHECK(overlay.base.submitted == 8);
}

TEST_CASE("a part of a read ends at a whole sector, also inside a segment", "[storage]") {
    Overlay overlay{128};
    write(overlay, 0, 9);
    std::vector<std::byte> spread(128 * 1024);
    Request read{Operation::read, 0, 128};
    read.segments.push_back(
        {spread.data(), 256});  // the others hold the end of one sector and the start of the next
    for (unsigned i = 0; i < 127; ++i)
        read.segments.push_back({spread.data() + 512 + i * 1024, 512});
    read.segments.push_back({spread.data() + 512 + 127 * 1024, 256});
    CHECK(read.run(*overlay.disk) == BlockStatus::ok);
    for (unsigned i = 1; i < 127; ++i)
        REQUIRE(std::memcmp(spread.data() + 512 + i * 1024, overlay.base.contents.data() + 256 + i * 512,
                            512) == 0);
}

TEST_CASE("a block in more segments than a part has is read all the same, at once or later", "[storage]") {
    for (const bool deferred : {false, true}) {
        Overlay overlay{64};
        write(overlay, 1, 9);
        overlay.base.deferred = deferred;
        std::vector<std::byte> spread(5 * 1024);
        Request read{Operation::read, 0, 5};
        for (unsigned i = 0; i < 5 * 128; ++i)  // 4 bytes, a gap of 4
            read.segments.push_back({spread.data() + i * 8, 4});
        read.run(*overlay.disk);
        while (overlay.base.finish_one()) {
        }
        REQUIRE(read.status == BlockStatus::ok);
        CHECK(overlay.base.submitted == 4);
        for (unsigned i = 0; i < 5 * 128; ++i) {
            if (i / 128 == 1)
                REQUIRE(spread[i * 8] == std::byte{9});
            else
                REQUIRE(std::memcmp(spread.data() + i * 8, overlay.base.contents.data() + i * 4, 4) == 0);
        }
    }
}

TEST_CASE("an error of the base fails a read in many segments, and the next reads what it should",
          "[storage]") {
    Overlay overlay{64};
    write(overlay, 0, 9);
    std::vector<std::byte> spread(2048);
    for (const BlockStatus status : {BlockStatus::io_error, BlockStatus::ok}) {
        overlay.base.answer = status;
        for (unsigned times = 0; times < 10; ++times) {
            Request read{Operation::read, 0, 2};
            for (unsigned i = 0; i < 256; ++i)
                read.segments.push_back({spread.data() + i * 8, 4});
            read.run(*overlay.disk);
            CHECK(read.status == status);
            CHECK(spread[0] == std::byte{9});
        }
    }
    CHECK(std::memcmp(spread.data() + 1024, overlay.base.contents.data() + 512, 4) == 0);
}

TEST_CASE("an overlay takes no more memory than it may, and says once whose it is", "[storage]") {
    Overlay overlay{8192, 5 * 4096};
    const fake::LogCapture log;
    for (const std::uint64_t sector : {0, 8, 16})
        write(overlay, sector, 1);  // two tables, three pages
    CHECK(log.lines.empty());
    for (unsigned i = 0; i < 3; ++i) {
        Request more{Operation::write, 24, 1, std::vector<std::byte>(512)};
        CHECK(more.run(*overlay.disk) == BlockStatus::io_error);
    }
    CHECK(Request{Operation::write_zeroes, 4096, 1}.run(*overlay.disk) == BlockStatus::io_error);
    REQUIRE(log.lines.size() == 1);
    CHECK(log.mentions("web: writes to its copy of \"base\" fail: it has reached its limit"));
    CHECK(overlay.disk->store().frames_in_use() == 5);
    CHECK(overlay.frames.outstanding() == 5);
    write(overlay, 17, 2);
    CHECK(Request{Operation::discard, 24, 8}.run(*overlay.disk) == BlockStatus::ok);
    Request read{Operation::read, 0, 64};
    CHECK(read.run(*overlay.disk) == BlockStatus::ok);
    CHECK(read.bytes[17 * 512] == std::byte{2});
    CHECK(read.bytes[24 * 512] == std::byte{0});
    CHECK(read.bytes[32 * 512] == overlay.base.contents[32 * 512]);
}

TEST_CASE("writes without memory fail, and reads still find the base", "[storage]") {
    Overlay overlay{64};
    overlay.frames.limit(0);
    const fake::LogCapture log;
    CHECK(Request{Operation::write, 0, 1, std::vector<std::byte>(512)}.run(*overlay.disk) ==
          BlockStatus::io_error);
    CHECK(log.mentions("web: writes to its copy of \"base\" fail: the host has no memory for them"));
    Request read{Operation::read, 0, 1};
    CHECK(read.run(*overlay.disk) == BlockStatus::ok);
    CHECK(std::equal(read.bytes.begin(), read.bytes.end(), overlay.base.contents.begin()));
}

TEST_CASE("zeroes take no pages", "[storage]") {
    Overlay overlay{8192};
    CHECK(Request{Operation::write_zeroes, 0, 8192}.run(*overlay.disk) == BlockStatus::ok);
    CHECK(overlay.frames.outstanding() <= 1 + 2);  // tables
    Request read{Operation::read, 100, 64};
    CHECK(read.run(*overlay.disk) == BlockStatus::ok);
    CHECK(std::all_of(read.bytes.begin(), read.bytes.end(),
                      [](std::byte byte) { return byte == std::byte{0}; }));
    write(overlay, 101, 5);
    Request again{Operation::read, 100, 3};
    CHECK(again.run(*overlay.disk) == BlockStatus::ok);
    CHECK(again.bytes[0] == std::byte{0});
    CHECK(again.bytes[512] == std::byte{5});
    CHECK(again.bytes[1024] == std::byte{0});
}
