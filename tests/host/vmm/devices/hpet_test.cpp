// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/board.hpp"
#include "fakes/step_clock.hpp"
#include "vmm/devices/hpet.hpp"
#include "vmm/devices/irq_router.hpp"

using namespace hv;

namespace {

constexpr unsigned CAP = 0x000, CONF = 0x010, STA = 0x020, CNT = 0x0f0;
constexpr std::uint64_t kLevel = 2, kEnable = 4, kPeriodic = 8, kValSet = 0x40, k32 = 0x100;

struct Fixture {
    explicit Fixture(std::uint64_t hz = 1'000'000'000) : clock{hz} {
        irq0.connect(irq0_out);
        irq8.connect(irq8_out);
    }
    std::uint64_t get(std::uint64_t offset) { return hpet.read(offset, 8); }
    void put(std::uint64_t offset, std::uint64_t value) { hpet.write(offset, 8, value); }
    static std::uint64_t conf(unsigned n) { return 0x100 + 0x20 * n; }
    static std::uint64_t cmp(unsigned n) { return 0x108 + 0x20 * n; }
    static std::uint64_t route(unsigned gsi) { return std::uint64_t{gsi} << 9; }

    fake::StepClock clock;
    fake::RecordingLine irq0_out, irq8_out, gsis[4];
    IrqSelector irq0, irq8;
    Hpet hpet{clock, {irq0, irq8, {&gsis[0], &gsis[1], &gsis[2], &gsis[3]}}};
};

}  // namespace

TEST_CASE("the HPET says what it can", "[devices]") {
    Fixture f;
    CHECK(f.get(CAP) >> 32 == 40'000'000);  // femtoseconds
    CHECK((f.get(CAP) & 0xffff'ffff) == Hpet::kHardwareId);
    CHECK(f.get(Fixture::conf(0)) == (0x00f0'0000ull << 32 | 0x30));
    CHECK(f.hpet.read(CAP + 4, 4) == 40'000'000);
    CHECK(f.get(0x160) == 0);
    CHECK(f.get(0x3f8) == 0);
}

TEST_CASE("the main counter runs while enabled and is written while halted", "[devices]") {
    Fixture f;
    f.clock.run_seconds(1);
    CHECK(f.get(CNT) == 0);
    f.put(CNT, 0xffff'ffff'0000'0000);
    f.put(CONF, 1);
    f.clock.run_seconds(2);
    CHECK(f.get(CNT) == 0xffff'ffff'0000'0000 + 50'000'000);
    CHECK(f.hpet.read(CNT, 4) == 50'000'000);
    CHECK(f.hpet.read(CNT + 4, 4) == 0xffff'ffff);
    f.put(CNT, 5);
    CHECK(f.get(CNT) == 0xffff'ffff'0000'0000 + 50'000'000);
    f.put(CONF, 0);
    f.clock.run_seconds(2);
    CHECK(f.get(CNT) == 0xffff'ffff'0000'0000 + 50'000'000);
    f.hpet.write(CNT, 4, 7);
    CHECK(f.get(CNT) == 0xffff'ffff'0000'0007);
}

TEST_CASE("a one-shot comparator pulses its line once", "[devices]") {
    Fixture f;
    f.put(Fixture::conf(2), kEnable | Fixture::route(21));
    f.put(Fixture::cmp(2), 2500);
    f.put(CONF, 1);
    f.clock.run_for(99'999);
    CHECK(f.gsis[1].edges == 0);
    f.clock.run_for(1);
    CHECK(f.gsis[1].edges == 1);
    CHECK_FALSE(f.gsis[1].level);
    CHECK(f.get(STA) == 0);
    f.clock.run_seconds(400);
    CHECK(f.gsis[1].edges == 1);
    f.put(Fixture::conf(2), k32 | kEnable | Fixture::route(21));  // 32 bits wrap every 172 s
    f.clock.run_seconds(344);
    CHECK(f.gsis[1].edges == 3);
}

TEST_CASE("a level comparator holds its line until its status is cleared", "[devices]") {
    Fixture f;
    f.put(Fixture::conf(0), kLevel | kEnable | Fixture::route(23));
    f.put(Fixture::cmp(0), 100);
    f.put(CONF, 1);
    f.clock.run_for(4'000);
    CHECK(f.gsis[3].level);
    CHECK(f.get(STA) == 1);
    f.put(STA, 6);
    CHECK(f.gsis[3].level);
    f.put(STA, 1);
    CHECK_FALSE(f.gsis[3].level);
}

TEST_CASE("a periodic comparator as Linux sets it up ticks exactly over minutes", "[devices]") {
    for (const std::uint64_t hz : {1'000'000'000ull, 2'893'000'001ull, 50'000'000ull}) {
        Fixture f{hz};
        f.clock.lateness = hz / 100'000;
        f.put(CONF, 1);
        f.clock.run_seconds(1);
        const std::uint64_t now = f.hpet.read(CNT, 4);
        f.hpet.write(Fixture::conf(0), 4, kEnable | kPeriodic | kValSet | k32 | Fixture::route(20));
        f.hpet.write(Fixture::cmp(0), 4, now + 100'000);  // the first tick
        f.hpet.write(Fixture::cmp(0), 4, 100'000);        // the period: 4 ms
        f.clock.run_seconds(300);
        CHECK(f.gsis[0].edges == 75'000 - 1);  // the last is late
        f.clock.run_for(hz / 1'000);
        CHECK(f.gsis[0].edges == 75'000);
        CHECK(f.hpet.read(Fixture::cmp(0), 4) == (now + 75'001ull * 100'000) % (1ull << 32));
    }
}

TEST_CASE("64-bit comparators are written by halves", "[devices]") {
    Fixture f;
    f.hpet.write(Fixture::conf(1), 4, kPeriodic | kValSet | kEnable | Fixture::route(20));
    f.hpet.write(Fixture::cmp(1), 4, 0x10);
    f.hpet.write(Fixture::cmp(1) + 4, 4, 0x2);
    CHECK(f.get(Fixture::cmp(1)) == 0x2'0000'0010);
    f.hpet.write(Fixture::cmp(1), 4, 0x77);
    f.hpet.write(Fixture::cmp(1) + 4, 4, 0);
    CHECK(f.get(Fixture::cmp(1)) == 0x2'0000'0010);
}

TEST_CASE("legacy replacement takes the places of PIT and RTC", "[devices]") {
    Fixture f;
    f.irq0.input(0).set(true);
    CHECK(f.irq0_out.level);
    f.put(Fixture::conf(0), kEnable | kPeriodic | kValSet);
    f.put(Fixture::cmp(0), 1000);
    f.put(Fixture::conf(1), kEnable);
    f.put(Fixture::cmp(1), 5000);
    f.put(CONF, 3);
    CHECK_FALSE(f.irq0_out.level);
    f.irq0.input(0).set(false);
    f.irq0.input(0).set(true);  // the PIT is cut off
    CHECK(f.irq0_out.edges == 1);
    f.clock.run_for(400'000);
    CHECK(f.irq0_out.edges == 11);
    CHECK(f.irq8_out.edges == 1);
    f.put(CONF, 1);
    CHECK(f.irq0_out.level);
}

TEST_CASE("disabling halts interrupts, enabling goes on", "[devices]") {
    Fixture f;
    f.put(Fixture::conf(0), kEnable | Fixture::route(20));
    f.put(Fixture::cmp(0), 1000);
    f.put(CONF, 1);
    f.clock.run_for(20'000);
    f.put(CONF, 0);
    CHECK(f.clock.idle());
    f.clock.run_seconds(1);
    f.put(CONF, 1);
    f.clock.run_for(19'999);
    CHECK(f.gsis[0].edges == 0);
    f.clock.run_for(1);
    CHECK(f.gsis[0].edges == 1);
}

TEST_CASE("hostile periods neither overflow nor take the host", "[devices]") {
    Fixture f;
    for (const std::uint64_t period : {0ull, 1ull, 2ull, ~0ull, ~0ull - 1, 1ull << 63}) {
        f.hpet.reset();
        f.put(CONF, 1);
        f.put(Fixture::conf(0), kEnable | kPeriodic | kValSet | Fixture::route(20));
        f.put(Fixture::cmp(0), f.get(CNT) + 1);
        f.put(Fixture::cmp(0), period);
        const std::uint64_t before = f.clock.fired;
        const unsigned edges = f.gsis[0].edges;
        f.clock.run_for(10'000'000);
        CHECK(f.clock.fired - before <= 501);
        CHECK(f.gsis[0].edges - edges <= (period < 3 ? 501u : 1u));
        f.put(Fixture::conf(0), kEnable | kPeriodic | kValSet | k32 | Fixture::route(20));
        f.put(Fixture::cmp(0), period);
        f.clock.run_for(10'000'000);
    }
    f.hpet.write(CNT + 2, 4, 1);
    f.hpet.write(Fixture::cmp(0), 1, 1);
    f.hpet.write(0x3fc, 4, 1);
}
