// SPDX-License-Identifier: MIT
#include "local_apic_fixture.hpp"

using namespace hv;
using namespace hv::apic;
using namespace hv::apic::test;

TEST_CASE("a one-shot timer fires once, on the tick", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    put(apic, LVT_TIMER, 0x40);
    put(apic, DIVIDE, 0xb);
    put(apic, INITIAL_COUNT, 1000);
    m.clock.run_for(400);
    CHECK(get(apic, CURRENT_COUNT) == 600);
    m.clock.run_for(599);
    CHECK(apic.pending_vector() == -1);
    CHECK(get(apic, CURRENT_COUNT) == 1);
    m.clock.run_for(1);
    CHECK(m.owners[0]->posted == 1);
    CHECK(drain(apic) == std::vector<int>{0x40});
    CHECK(get(apic, CURRENT_COUNT) == 0);
    m.clock.run_for(5000);
    CHECK(drain(apic).empty());
    CHECK(get(apic, INITIAL_COUNT) == 1000);
}

TEST_CASE("every divisor divides", "[x86]") {
    const std::pair<std::uint32_t, unsigned> divisors[]{{0, 2},  {1, 4},  {2, 8},    {3, 16},
                                                        {8, 32}, {9, 64}, {10, 128}, {11, 1}};
    for (const auto& [value, divisor] : divisors) {
        Machine m;
        m.enable_all();
        put(m[0], LVT_TIMER, 0x40);
        put(m[0], DIVIDE, value);
        put(m[0], INITIAL_COUNT, 100);
        m.clock.run_for(100 * divisor - 1);
        CHECK(drain(m[0]).empty());
        m.clock.run_for(1);
        CHECK(drain(m[0]).size() == 1);
    }
}

TEST_CASE("a changed divisor goes on from the current count", "[x86]") {
    Machine m;
    m.enable_all();
    put(m[0], LVT_TIMER, 0x40);
    put(m[0], DIVIDE, 0xb);
    put(m[0], INITIAL_COUNT, 1000);
    m.clock.run_for(500);
    put(m[0], DIVIDE, 0x0);
    CHECK(get(m[0], CURRENT_COUNT) == 500);
    m.clock.run_for(999);
    CHECK(drain(m[0]).empty());
    m.clock.run_for(1);
    CHECK(drain(m[0]).size() == 1);
}

TEST_CASE("a periodic timer neither loses nor doubles a tick over minutes, at any host frequency", "[x86]") {
    for (const std::uint64_t hz : {1'000'000'000ull, 50'000'000ull, 2'400'000'017ull, 3'000'000'000ull}) {
        Machine m{1, hz};
        m.enable_all();
        LocalApic& apic = m[0];
        m.clock.lateness = hz / 100'000;  // 10 us
        put(apic, LVT_TIMER, 0x2'0040);
        put(apic, DIVIDE, 0x3);            // 16
        put(apic, INITIAL_COUNT, 62'500);  // 1 ms
        const std::uint64_t start = m.clock.now();
        std::uint64_t ticks = 0;
        m.clock.run_until(start + 180 * hz + hz / 2000, [&] {
            ticks += drain(apic).size();
            const std::uint64_t due =
                start + static_cast<std::uint64_t>(static_cast<unsigned __int128>(ticks) * hz / 1000);
            REQUIRE(m.clock.now() >= due);
            REQUIRE(m.clock.now() - due <= m.clock.lateness + 1);
        });
        CHECK(ticks == 180'000);
    }
}

TEST_CASE("periods that nobody saw coalesce, and the grid stays", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    put(apic, LVT_TIMER, 0x2'0040);
    put(apic, DIVIDE, 0xb);
    put(apic, INITIAL_COUNT, 100'000);
    m.clock.skip(1'050'000);  // ten periods and a half
    CHECK(get(apic, CURRENT_COUNT) == 50'000);
    CHECK(drain(apic).size() == 1);
    m.clock.run_for(49'999);
    CHECK(drain(apic).empty());
    m.clock.run_for(1);
    CHECK(drain(apic).size() == 1);
}

TEST_CASE("periodic ticks of a time without a CPU are made up for, each once", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    put(apic, LVT_TIMER, 0x2'0040);
    put(apic, DIVIDE, 0xb);
    put(apic, INITIAL_COUNT, 1'000'000);  // 1 ms
    const std::uint64_t start = m.clock.now();
    std::size_t ticks = 0;
    for (unsigned turn = 0; turn < 100; ++turn) {
        // 3 ms on the CPU, 6 without: its timer goes off, but nobody is there.
        m.clock.run_for(3'000'000, [&] { ticks += drain(apic).size(); });
        m.clock.skip(6'000'000);
        apic.resume(true);
        ticks += drain(apic).size();
    }
    m.clock.run_for(2'999'999, [&] { ticks += drain(apic).size(); });
    CHECK(ticks == (m.clock.now() - start) / 1'000'000);
}

TEST_CASE("the owner hears once of what was posted, and of what the guest does to its APIC", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    Owner& owner = *m.owners[0];
    put(apic, LVT_TIMER, 0x40);
    put(apic, DIVIDE, 0xb);
    put(apic, INITIAL_COUNT, 1000);
    owner.changes = owner.posted = 0;
    m.clock.run_for(1000);
    CHECK(owner.posted == 1);
    CHECK(apic.pending_vector() == 0x40);
    CHECK(owner.changes == 0);
    put(apic, INITIAL_COUNT, 1000);
    m.clock.skip(1000);
    owner.changes = owner.posted = 0;
    CHECK(get(apic, CURRENT_COUNT) == 0);  // which finds that it has expired
    CHECK(owner.changes + owner.posted > 0);
}

TEST_CASE("late ticks keep their distance and wait for the guest", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    put(apic, LVT_TIMER, 0x2'0040);
    put(apic, DIVIDE, 0xb);
    put(apic, INITIAL_COUNT, 10'000'000);
    m.clock.skip(35'000'000);
    apic.resume(true);
    CHECK(drain(apic).size() == 1);
    m.clock.run_for(99'999);
    CHECK(drain(apic).empty());
    m.clock.run_for(1);
    CHECK(apic.pending_vector() == 0x40);
    m.clock.run_for(1'000'000);  // the guest's interrupts are off
    apic.accept(0x40);
    m.clock.run_for(1'000'000);  // and its handler takes its time
    CHECK(apic.pending_vector() == -1);
    put(apic, EOI, 0);
    std::size_t ticks = 0;
    m.clock.run_for(100'000, [&] { ticks += drain(apic).size(); });
    CHECK(ticks == 1);
    m.clock.run_for(1'000'000, [&] { ticks += drain(apic).size(); });
    CHECK(ticks == 1);
}

TEST_CASE("what the guest missed by itself is not made up for", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    put(apic, LVT_TIMER, 0x2'0040);
    put(apic, DIVIDE, 0xb);
    put(apic, INITIAL_COUNT, 1'000'000);
    m.clock.run_for(5'500'000, [&] { static_cast<void>(apic.pending_vector()); });  // interrupts off
    CHECK(drain(apic).size() == 1);
    m.clock.run_for(400'000);
    CHECK(drain(apic).empty());
    // Halted until a tick comes: the first of three is taken, two are late.
    m.clock.skip(2'200'000);
    apic.resume(false);
    put(apic, INITIAL_COUNT, 1'000'000);  // a new count: nothing is owed any more
    CHECK(drain(apic).size() == 1);
    m.clock.run_for(900'000);
    CHECK(drain(apic).empty());
}

TEST_CASE("a periodic timer that is faster than sense does not take the host", "[x86]") {
    Machine m;
    m.enable_all();
    put(m[0], LVT_TIMER, 0x2'0040);
    put(m[0], DIVIDE, 0xb);
    put(m[0], INITIAL_COUNT, 1);
    unsigned taken = 0;
    m.clock.run_until(m.clock.now() + 1'000'000, [&] { taken += static_cast<unsigned>(drain(m[0]).size()); });
    CHECK(taken > 100);
    CHECK(m.clock.fired <= 201);
}

TEST_CASE("switching between one-shot and periodic keeps the count, an expired one stays at zero", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    put(apic, DIVIDE, 0xb);
    put(apic, LVT_TIMER, 0x2'0040);
    put(apic, INITIAL_COUNT, 10'000);
    m.clock.run_for(6'000);
    put(apic, LVT_TIMER, 0x40);
    CHECK(get(apic, CURRENT_COUNT) == 4'000);
    m.clock.run_for(4'000);
    CHECK(drain(apic).size() == 1);
    CHECK(get(apic, CURRENT_COUNT) == 0);
    put(apic, LVT_TIMER, 0x2'0040);
    CHECK(get(apic, CURRENT_COUNT) == 0);
    m.clock.run_for(50'000);
    CHECK(drain(apic).empty());
}

TEST_CASE("a masked timer counts silently", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    put(apic, DIVIDE, 0xb);
    put(apic, LVT_TIMER, 0x3'0040);
    put(apic, INITIAL_COUNT, 10'000);
    CHECK(m.clock.idle());
    m.clock.skip(25'000);
    CHECK(get(apic, CURRENT_COUNT) == 5'000);
    put(apic, LVT_TIMER, 0x2'0040);
    CHECK(drain(apic).empty());
    m.clock.run_for(5'000);
    CHECK(drain(apic).size() == 1);
    put(apic, INITIAL_COUNT, 0);
    CHECK(m.clock.idle());
    CHECK(get(apic, CURRENT_COUNT) == 0);
}

TEST_CASE("TSC-deadline mode follows the guest's TSC", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    apic.set_tsc_deadline(50'000);
    CHECK(apic.tsc_deadline() == 0);  // not in that mode
    apic.set_tsc_offset(-12'000);
    put(apic, LVT_TIMER, 0x4'0041);
    const std::uint64_t guest_now = m.clock.now() - 12'000;
    apic.set_tsc_deadline(guest_now + 700);
    CHECK(apic.tsc_deadline() == guest_now + 700);
    put(apic, INITIAL_COUNT, 5);  // ignored
    CHECK(get(apic, CURRENT_COUNT) == 0);
    m.clock.run_for(699);
    CHECK(drain(apic).empty());
    m.clock.run_for(1);
    CHECK(drain(apic) == std::vector<int>{0x41});
    CHECK(apic.tsc_deadline() == 0);
    apic.set_tsc_deadline(1);  // long past
    CHECK(drain(apic) == std::vector<int>{0x41});
    apic.set_tsc_deadline(guest_now + 5'000);
    apic.set_tsc_deadline(0);
    CHECK(m.clock.idle());
    apic.set_tsc_deadline(~0ull);
    m.clock.run_for(1'000'000'000);
    CHECK(drain(apic).empty());
    apic.set_tsc_deadline(m.clock.now() + 90'000);
    put(apic, LVT_TIMER, 0x0041);  // another mode disarms
    CHECK(apic.tsc_deadline() == 0);
    m.clock.run_for(1'000'000);
    CHECK(drain(apic).empty());
}

TEST_CASE("a deadline moves with the guest's TSC offset", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    put(apic, LVT_TIMER, 0x4'0041);
    apic.set_tsc_deadline(m.clock.now() + 10'000);
    apic.set_tsc_offset(6'000);
    m.clock.run_for(3'999);
    CHECK(drain(apic).empty());
    m.clock.run_for(1);
    CHECK(drain(apic).size() == 1);
}

TEST_CASE("a late call for an earlier deadline changes nothing", "[x86]") {
    struct Client final : LocalApicTimer::Client {
        void timer_due() override { ++due; }
        void timer_expired() override {}
        unsigned due{0};
    } client;
    fake::StepClock clock;
    LocalApicTimer timer{clock, client};
    timer.configure(0x40);
    timer.set_initial_count(1000);
    clock.skip(10);
    timer.fire();
    CHECK(client.due == 1);
    CHECK_FALSE(timer.advance());
    CHECK(timer.current_count() == 995);
}
