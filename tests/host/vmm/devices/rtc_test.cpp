// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/board.hpp"
#include "fakes/step_clock.hpp"
#include "vmm/devices/calendar.hpp"
#include "vmm/devices/rtc.hpp"

#include <ctime>

using namespace hv;

namespace {

constexpr std::int64_t k2026 = 1'767'225'600;  // 2026-01-01 00:00:00, a Thursday

struct Fixture {
    explicit Fixture(std::int64_t seconds = k2026, std::uint64_t hz = 1'000'000'000)
        : clock{hz}, rtc{clock, irq, {seconds, clock.now()}} {}
    unsigned get(unsigned index) {
        rtc.write(0, 1, index);
        return static_cast<unsigned>(rtc.read(1, 1));
    }
    void put(unsigned index, unsigned value) {
        rtc.write(0, 1, index);
        rtc.write(1, 1, value);
    }
    void set_time(unsigned hours, unsigned minutes, unsigned seconds) {
        put(0x0b, 0x82);
        put(4, hours);
        put(2, minutes);
        put(0, seconds);
        put(0x0b, 0x02);
    }
    std::string time() {
        char text[40];
        std::snprintf(text, sizeof text, "%02x%02x-%02x-%02x %02x:%02x:%02x (%x)", get(0x32), get(9), get(8),
                      get(7), get(4), get(2), get(0), get(6));
        return text;
    }

    fake::StepClock clock;
    fake::RecordingLine irq;
    Rtc rtc;
};

}  // namespace

TEST_CASE("the calendar agrees with the C library's over four centuries", "[devices]") {
    for (std::int64_t days = -1'000; days < 160'000; ++days) {
        const std::time_t time = days * 86'400;
        std::tm expected{};
        gmtime_r(&time, &expected);
        const CivilDate date = date_of(days);
        REQUIRE(date.year == expected.tm_year + 1900);
        REQUIRE(date.month == static_cast<unsigned>(expected.tm_mon) + 1);
        REQUIRE(date.day == static_cast<unsigned>(expected.tm_mday));
        REQUIRE(weekday_of(days) == static_cast<unsigned>(expected.tm_wday) + 1);
        REQUIRE(days_of(date) == days);
    }
}

TEST_CASE("the RTC shows UTC in BCD and counts on", "[devices]") {
    Fixture f;
    CHECK(f.time() == "2026-01-01 00:00:00 (5)");
    f.clock.run_seconds(59);
    CHECK(f.time() == "2026-01-01 00:00:59 (5)");
    f.clock.run_seconds(1);
    CHECK(f.time() == "2026-01-01 00:01:00 (5)");
    f.clock.run_seconds(86'400 * 58);
    CHECK(f.time() == "2026-02-28 00:01:00 (7)");
    f.clock.run_seconds(86'400);
    CHECK(f.time() == "2026-03-01 00:01:00 (1)");
    f.clock.run_seconds(86'400ull * 365 * 74 + 18 * 86'400);
    CHECK(f.time() == "2100-03-01 00:01:00 (2)");
}

TEST_CASE("the time of a source in the past is carried on", "[devices]") {
    fake::StepClock clock{2'000'000'000, 100'000'000'000};
    fake::RecordingLine irq;
    // The source was read 10.25 seconds ago.
    Rtc rtc{clock, irq, {k2026, clock.now() - 20'500'000'000}};
    const auto seconds = [&] {
        rtc.write(0, 1, 0);
        return rtc.read(1, 1);
    };
    CHECK(seconds() == 0x10);
    clock.run_for(1'499'000'000);
    CHECK(seconds() == 0x10);
    clock.run_for(2'000'000);
    CHECK(seconds() == 0x11);
}

TEST_CASE("formats: binary, and twelve hours", "[devices]") {
    Fixture f;
    f.set_time(0x23, 0x59, 0x58);
    f.clock.run_seconds(1);
    CHECK(f.time() == "2026-01-01 23:59:59 (5)");
    f.put(0x0b, 0x86);
    f.put(4, 23);
    f.put(2, 59);
    f.put(0, 59);
    f.put(7, 31);
    f.put(8, 12);
    f.put(9, 99);
    f.put(0x32, 20);
    f.put(0x0b, 0x06);
    f.clock.run_seconds(1);
    CHECK(f.get(4) == 0);
    CHECK(f.get(7) == 1);
    CHECK(f.get(8) == 1);
    CHECK(f.get(9) == 0);
    CHECK(f.get(0x32) == 21);
    const std::pair<unsigned, unsigned> hours[]{
        {0x11, 0x92}, {0x92, 0x81}, {0x91, 0x12}, {0x12, 0x01}};  // one hour later
    for (const auto& [before, after] : hours) {
        f.put(0x0b, 0x80);
        f.put(4, before);
        f.put(2, 0x59);
        f.put(0, 0x59);
        f.put(0x0b, 0x00);
        f.clock.run_seconds(1);
        CHECK(f.get(4) == after);
    }
}

TEST_CASE("SET stops the time, and what was written stays", "[devices]") {
    Fixture f;
    f.put(0x0b, 0x82);
    f.put(0, 0x30);
    f.clock.run_seconds(100);
    CHECK(f.get(0) == 0x30);
    f.put(0x0b, 0x02);
    CHECK(f.get(0) == 0x30);
    f.clock.run_seconds(5);
    CHECK(f.get(0) == 0x35);
    f.put(7, 0x31);  // a date in pieces, while the clock runs
    f.put(8, 0x02);
    f.put(8, 0x12);
    CHECK(f.time() == "2026-12-31 00:00:35 (5)");
}

TEST_CASE("update in progress warns 244 us ahead", "[devices]") {
    Fixture f;
    CHECK((f.get(0x0a) & 0x80) == 0);
    f.clock.run_for(999'700'000);
    CHECK((f.get(0x0a) & 0x80) == 0);
    f.clock.run_for(100'000);
    CHECK((f.get(0x0a) & 0x80) != 0);
    CHECK(f.get(0) == 0);
    f.clock.run_for(200'000);
    CHECK((f.get(0x0a) & 0x80) == 0);
    CHECK(f.get(0) == 1);
}

TEST_CASE("the update interrupt comes each second", "[devices]") {
    Fixture f{k2026, 2'893'000'001};
    CHECK(f.clock.idle());
    f.put(0x0b, 0x12);
    unsigned updates = 0;
    f.clock.run_until(f.clock.now() + 300 * f.clock.hz() + 1000, [&] {
        CHECK(f.irq.level);
        CHECK((f.get(0x0c) & 0x90) == 0x90);
        CHECK_FALSE(f.irq.level);
        CHECK(f.get(0x0c) == 0);
        ++updates;
    });
    CHECK(updates == 300);
    f.put(0x0b, 0x02);
    CHECK(f.clock.idle());
}

TEST_CASE("the periodic interrupt keeps its rate over minutes", "[devices]") {
    const std::pair<unsigned, unsigned> rates[]{{1, 256}, {2, 128}, {3, 8192}, {6, 1024}, {15, 2}};
    for (const auto& [select, rate] : rates) {
        Fixture f{k2026, 2'400'000'017};
        f.put(0x0a, 0x20 | select);
        f.put(0x0b, 0x42);
        f.clock.lateness = 1000;
        std::uint64_t ticks = 0;
        const std::uint64_t seconds = rate > 4000 ? 60 : 180;
        f.clock.run_until(f.clock.now() + seconds * f.clock.hz() + f.clock.hz() / 10'000 - 1, [&] {
            REQUIRE((f.get(0x0c) & 0xc0) == 0xc0);
            ++ticks;
        });
        CHECK(ticks == seconds * rate);
    }
    Fixture off;
    off.put(0x0a, 0x20);
    off.put(0x0b, 0x42);
    CHECK(off.clock.idle());
}

TEST_CASE("flags rise without interrupts too", "[devices]") {
    Fixture f;
    f.clock.skip(3'500'000'000);
    CHECK(f.get(0x0c) == 0x50);
    CHECK(f.get(0x0c) == 0);
}

TEST_CASE("alarms match time, with wildcards", "[devices]") {
    struct Case {
        unsigned hours, minutes, seconds;
        std::uint64_t first;  // seconds from 10:20:30
        std::uint64_t second;
    };
    const Case cases[]{{0x10, 0x20, 0x31, 1, 86'401},       {0x10, 0x20, 0x30, 86'400, 172'800},
                       {0x10, 0x20, 0x29, 86'399, 172'799}, {0xff, 0xff, 0xff, 1, 2},
                       {0xff, 0xff, 0x00, 30, 90},          {0xc0, 0x00, 0x15, 2'385, 5'985},
                       {0x11, 0xff, 0xff, 2'370, 2'371},    {0x09, 0xff, 0x59, 81'629, 81'689}};
    for (const Case& c : cases) {
        Fixture f;
        f.set_time(0x10, 0x20, 0x30);
        const std::uint64_t start = f.clock.now();
        f.put(5, c.hours);
        f.put(3, c.minutes);
        f.put(1, c.seconds);
        f.get(0x0c);
        f.put(0x0b, 0x22);
        std::vector<std::uint64_t> alarms;
        f.clock.run_until(start + (c.second + 2) * f.clock.hz(), [&] {
            if ((f.get(0x0c) & 0xa0) == 0xa0)
                alarms.push_back((f.clock.now() - start + 100'000'000) / f.clock.hz());
        });
        INFO(c.hours << ":" << c.minutes << ":" << c.seconds);
        REQUIRE(alarms.size() >= 2);
        CHECK(alarms[0] == c.first);
        CHECK(alarms[1] == c.second);
    }
    Fixture never;
    never.put(5, 0x77);
    never.put(0x0b, 0x22);
    CHECK(never.clock.idle());
}

TEST_CASE("a restarted divider chain updates half a second later", "[devices]") {
    Fixture f;
    f.put(0x0a, 0x70);
    f.clock.run_seconds(10);
    CHECK(f.get(0) == 0);
    f.put(0x0a, 0x26);
    f.clock.run_for(499'000'000);
    CHECK(f.get(0) == 0);
    f.clock.run_for(2'000'000);
    CHECK(f.get(0) == 1);
}

TEST_CASE("RAM keeps bytes, read-only registers do not", "[devices]") {
    Fixture f;
    for (unsigned index = 0x0e; index < 0x80; ++index)
        f.put(index, index ^ 0x5a);
    for (unsigned index = 0x0e; index < 0x80; ++index)
        CHECK(f.get(index) == (index ^ 0x5a));
    f.put(0x0d, 0);
    CHECK(f.get(0x0d) == 0x80);
    f.rtc.set_ram(0x34, 0x12);
    CHECK(f.get(0xb4) == 0x12);  // bit 7 of the index is the NMI mask
    CHECK(f.rtc.read(0, 1) == 0xff);
    f.rtc.set_ram(0x02, 0x99);  // not firmware's
    CHECK(f.get(2) == 0);
}

TEST_CASE("any nonsense in the time registers keeps the clock going", "[devices]") {
    for (unsigned value = 0; value < 256; ++value) {
        Fixture f;
        for (const unsigned index : {0u, 1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u, 9u, 0x32u})
            f.put(index, value);
        f.put(0x0b, value & 0x7f);
        f.clock.run_seconds(3);
        for (unsigned index = 0; index < 0x0e; ++index)
            f.get(index);
    }
}
