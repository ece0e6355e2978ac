// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/arena_frames.hpp"
#include "vmm/x86/kvm_clock.hpp"

namespace hv::x86 {
namespace {

constexpr std::uint64_t kBase = 123'456'789;

/// What Linux computes from the page [arch/x86/include/asm/pvclock.h, __pvclock_read_cycles()].
std::uint64_t guest_time(const PvclockVcpuTimeInfo& page, std::uint64_t tsc) {
    std::uint64_t delta = tsc - page.tsc_timestamp;
    delta = page.tsc_shift >= 0 ? delta << page.tsc_shift : delta >> -page.tsc_shift;
    return page.system_time +
           static_cast<std::uint64_t>((static_cast<unsigned __int128>(delta) * page.tsc_to_system_mul) >> 32);
}

}  // namespace

TEST_CASE("a guest's clock keeps within a few ppb of the TSC for a day", "[x86]") {
    fake::ArenaFrames frames{};
    const auto memory = GuestMemory::create(frames, kPage2M);
    for (const std::uint64_t hz : {50'000'000ull, 1'000'000'000ull, 999'999'999ull, 1'000'000'001ull,
                                   2'595'124'000ull, 4'900'000'000ull, 14'318'180ull}) {
        const KvmClock clock{hz, kBase, 0};
        REQUIRE(clock.write_system_time(*memory, Gpa{0x1000}, 0));
        const auto page = memory->load<PvclockVcpuTimeInfo>(Gpa{0x1000}).value();
        for (const std::uint64_t seconds : {1ull, 60ull, 86'400ull}) {
            const std::uint64_t time = guest_time(page, kBase + hz * seconds);
            const std::uint64_t exact = seconds * 1'000'000'000;
            CAPTURE(hz, seconds);
            CHECK((time > exact ? time - exact : exact - time) <= seconds);
            CHECK(time == clock.nanoseconds(kBase + hz * seconds));
        }
    }
}

TEST_CASE("the page is stable, its version even and new with each write", "[x86]") {
    fake::ArenaFrames frames{};
    const auto memory = GuestMemory::create(frames, kPage2M);
    const KvmClock clock{1'000'000'000, kBase, 0};
    std::uint32_t last = 0;
    for (unsigned i = 0; i < 3; ++i) {
        REQUIRE(clock.write_system_time(*memory, Gpa{0x1020}, 0));
        const auto page = memory->load<PvclockVcpuTimeInfo>(Gpa{0x1020}).value();
        CHECK(page.version % 2 == 0);
        CHECK(page.version != last);
        CHECK(page.flags == PVCLOCK_TSC_STABLE_BIT);
        last = page.version;
    }
}

TEST_CASE("a vCPU whose TSC runs ahead reads the same time", "[x86]") {
    fake::ArenaFrames frames{};
    const auto memory = GuestMemory::create(frames, kPage2M);
    const KvmClock clock{2'000'000'000, kBase, 0};
    REQUIRE(clock.write_system_time(*memory, Gpa{0x1000}, 0));
    REQUIRE(clock.write_system_time(*memory, Gpa{0x2000}, -5000));
    const std::uint64_t tsc = kBase + 987'654'321;
    CHECK(guest_time(memory->load<PvclockVcpuTimeInfo>(Gpa{0x1000}).value(), tsc) ==
          guest_time(memory->load<PvclockVcpuTimeInfo>(Gpa{0x2000}).value(), tsc - 5000));
}

TEST_CASE("the wall clock tells the time of boot", "[x86]") {
    fake::ArenaFrames frames{};
    const auto memory = GuestMemory::create(frames, kPage2M);
    const KvmClock clock{1'000'000'000, kBase, 1'767'225'600'123'456'789};
    REQUIRE(clock.write_wall_clock(*memory, Gpa{0x3000}));
    const auto wall = memory->load<PvclockWallClock>(Gpa{0x3000}).value();
    CHECK(wall.sec == 1'767'225'600);
    CHECK(wall.nsec == 123'456'789);
}

TEST_CASE("a page that is not RAM, or lies askew, is refused", "[x86]") {
    fake::ArenaFrames frames{};
    const auto memory = GuestMemory::create(frames, kPage2M);
    const KvmClock clock{1'000'000'000, kBase, 0};
    CHECK(clock.write_system_time(*memory, Gpa{kPage2M - 16}, 0).error() == Error::out_of_range);
    CHECK(clock.write_system_time(*memory, Gpa{~std::uint64_t{0} - 3}, 0).error() == Error::out_of_range);
    CHECK(clock.write_system_time(*memory, Gpa{0x1002}, 0).error() == Error::invalid_argument);
}

}  // namespace hv::x86
