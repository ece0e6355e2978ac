// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/base/machine.hpp"
#include "vmm/mm/guest_memory.hpp"

#include <array>
#include <atomic>
#include <map>
#include <thread>

using namespace hv;

namespace {

/// Hands out address space without touching it, up to a limit; checks what comes back.
class FakeFrames final : public FrameSource {
public:
    Expected<Hpa> allocate(unsigned order) override {
        const std::uint64_t size = kPageSize << order;
        if (order > largest || size > left)
            return Unexpected{Error::no_memory};
        left -= size;
        next_ = align_up(next_, size);
        const Hpa frame{next_};
        next_ += size;
        live[frame] = order;
        return frame;
    }
    void free(Hpa frame, unsigned order) override {
        REQUIRE(live.at(frame) == order);
        live.erase(frame);
        zeroed = zeroed && machine::hva<std::uint64_t>(frame)[7] == 0;
    }
    std::map<Hpa, unsigned> live;
    std::uint64_t left{64 * kMiB};
    unsigned largest{18};
    bool zeroed{true};

private:
    std::uint64_t next_{64 * kMiB};
};

}  // namespace

TEST_CASE("guest RAM is zero, keeps what is written, and is zeroed before it is given back", "[mm]") {
    FakeFrames frames;
    std::memset(machine::hva(Hpa{64 * kMiB}), 0xff, 16 * kMiB);
    {
        GuestMemory memory = GuestMemory::create(frames, 8 * kMiB).value();
        CHECK(memory.size() == 8 * kMiB);
        CHECK(memory.load<std::uint64_t>(Gpa{8 * kMiB - 8}).value() == 0);
        REQUIRE(memory.store(Gpa{56}, std::uint64_t{0x1122'3344'5566'7788}));
        CHECK(memory.load<std::uint32_t>(Gpa{60}).value() == 0x1122'3344);
        GuestMemory moved{std::move(memory)};
        CHECK(moved.load<std::uint32_t>(Gpa{60}).value() == 0x1122'3344);
        CHECK(frames.live.size() == 4);
    }
    CHECK(frames.live.empty());
    CHECK(frames.zeroed);
}

TEST_CASE("accesses cross granules, and nothing is reached outside", "[mm]") {
    FakeFrames frames;
    const GuestMemory memory = GuestMemory::create(frames, 4 * kMiB).value();
    const std::array<std::byte, 8> bytes{std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4},
                                         std::byte{5}, std::byte{6}, std::byte{7}, std::byte{8}};
    REQUIRE(memory.write(Gpa{kPage2M - 4}, bytes));
    std::array<std::byte, 8> back{};
    REQUIRE(memory.read(Gpa{kPage2M - 4}, back));
    CHECK(back == bytes);
    CHECK(memory.at(Gpa{kPage2M - 4}, 8) == nullptr);
    CHECK(memory.at(Gpa{kPage2M - 4}, 4) != nullptr);
    CHECK(memory.write(Gpa{4 * kMiB - 4}, bytes).error() == Error::out_of_range);
    CHECK(memory.load<std::uint32_t>(Gpa{4 * kMiB - 4}).value() == 0);
    for (const std::uint64_t gpa : {4 * kMiB, 3 * kGiB, 4 * kGiB, ~std::uint64_t{0} - 3, ~std::uint64_t{0}}) {
        CHECK(memory.at(Gpa{gpa}, 1) == nullptr);
        CHECK(memory.read(Gpa{gpa}, back).error() == Error::out_of_range);
        CHECK_FALSE(memory.contains(Gpa{gpa}, 1));
    }
    CHECK_FALSE(memory.contains(Gpa{0}, ~std::uint64_t{0}));
    CHECK(memory.fill(Gpa{kPage2M - 1}, std::byte{9}, 2));
    CHECK(memory.load<std::uint16_t>(Gpa{kPage2M - 1}).value() == 0x0909);
}

TEST_CASE("a granule of releasable memory goes, and comes again when it is touched", "[mm]") {
    FakeFrames frames;
    {
        GuestMemory memory = GuestMemory::create(frames, 8 * kMiB, GuestMemory::Kind::releasable).value();
        const Gpa granule{kPage2M};
        memory.store(granule + 8, std::uint64_t{77}).value();
        std::byte* const where = memory.detach(granule);
        REQUIRE(where != nullptr);
        CHECK(memory.presence(granule) == GuestMemory::Presence::leaving);
        CHECK(memory.at(granule, 1) == nullptr);
        CHECK(memory.load<std::uint64_t>(granule + 8).error() == Error::no_memory);
        CHECK(memory.detach(granule) == nullptr);
        CHECK(memory.is_ram(granule));
        SECTION("goes") {
            std::memset(where, 0, kPage2M);
            memory.release(granule, where);
            CHECK(memory.presence(granule) == GuestMemory::Presence::absent);
            CHECK(memory.absent_bytes() == kPage2M);
            CHECK(frames.live.size() == 3);
            CHECK(memory.detach(granule) == nullptr);
            unsigned runs = 0;
            memory
                .for_each_run([&](Gpa gpa, Hpa, std::uint64_t) -> Expected<void> {
                    runs += gpa == granule ? 100 : 1;
                    return {};
                })
                .value();
            CHECK(runs == 3);
            frames.left = 0;
            CHECK(memory.at(granule, 1) == nullptr);
            CHECK_FALSE(memory.pin(granule, 1));
            frames.left = kPage2M;
            CHECK(memory.load<std::uint64_t>(granule + 8).value() == 0);
            CHECK(memory.absent_bytes() == 0);
            CHECK(frames.live.size() == 4);
            CHECK_FALSE(memory.pinned(granule));
        }
        SECTION("stays") {
            memory.attach(granule, where);
            CHECK(memory.load<std::uint64_t>(granule + 8).value() == 77);
        }
        SECTION("goes with the rest") {
            memory.release(granule, where);
        }
    }
    CHECK(frames.live.empty());
    CHECK(frames.zeroed);
}

TEST_CASE("what is pinned stays, and uses are waited for by epochs", "[mm]") {
    FakeFrames frames;
    GuestMemory memory = GuestMemory::create(frames, 8 * kMiB, GuestMemory::Kind::releasable).value();
    REQUIRE(memory.pin(Gpa{kPage2M - 16}, 32));
    CHECK(memory.pinned(Gpa{0}));
    CHECK(memory.pinned(Gpa{kPage2M}));
    CHECK(memory.detach(Gpa{0}) == nullptr);
    REQUIRE(memory.pin(Gpa{0}, 1));
    memory.unpin(Gpa{kPage2M - 16}, 32);
    CHECK(memory.detach(Gpa{0}) == nullptr);
    std::byte* const where = memory.detach(Gpa{kPage2M});
    REQUIRE(where != nullptr);
    CHECK_FALSE(memory.pin(Gpa{kPage2M - 16}, 32));
    memory.unpin(Gpa{0}, 1);
    CHECK_FALSE(memory.pinned(Gpa{0}));
    memory.attach(Gpa{kPage2M}, where);

    const unsigned first = memory.begin_use();
    memory.next_epoch();
    CHECK_FALSE(memory.drained());
    const unsigned second = memory.begin_use();
    CHECK_FALSE(memory.drained());
    memory.end_use(first);
    CHECK(memory.drained());
    memory.next_epoch();
    CHECK_FALSE(memory.drained());
    memory.end_use(second);
    CHECK(memory.drained());
}

TEST_CASE("too little memory gives everything back", "[mm]") {
    FakeFrames frames;
    frames.left = 6 * kMiB;
    CHECK(GuestMemory::create(frames, 8 * kMiB).error() == Error::no_memory);
    CHECK(frames.live.empty());
    CHECK(GuestMemory::create(frames, kPage2M + kPageSize).error() == Error::invalid_argument);
    CHECK(GuestMemory::create(frames, 0).error() == Error::invalid_argument);
}

TEST_CASE("no use that has begun before an epoch ends is missed, on several CPUs", "[mm]") {
    FakeFrames frames;
    GuestMemory memory =
        GuestMemory::create(frames, GuestMemory::kGranule, GuestMemory::Kind::releasable).value();
    constexpr unsigned kEpochs = 50'000;
    std::atomic<unsigned> begun{0};  // epochs
    std::atomic<unsigned> over{0};   // those before, for which nothing has to be waited any more
    std::atomic<bool> done{false};
    std::atomic<unsigned> missed{0};
    const auto use = [&] {
        while (!done) {
            const unsigned epoch = memory.begin_use();
            const unsigned at_begin = begun;
            missed += over > at_begin ? 1 : 0;
            for (unsigned i = 0; i < 20; ++i)
                missed += over > at_begin ? 1 : 0;
            memory.end_use(epoch);
        }
    };
    std::thread first{use};
    std::thread second{use};
    for (unsigned i = 1; i <= kEpochs; ++i) {
        begun = i;
        memory.next_epoch();
        while (!memory.drained())
            std::this_thread::yield();
        over = i;
    }
    done = true;
    first.join();
    second.join();
    CHECK(missed == 0);
}
