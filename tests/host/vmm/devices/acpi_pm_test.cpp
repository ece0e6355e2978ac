// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/board.hpp"
#include "fakes/power.hpp"
#include "fakes/step_clock.hpp"
#include "vmm/devices/acpi_pm.hpp"

using namespace hv;

namespace {

constexpr unsigned STS = 0, EN = 2, CNT = 4, TMR = 8;

struct Fixture {
    explicit Fixture(AcpiPm::TimerWidth width = AcpiPm::TimerWidth::bits32) : pm{clock, sci, power, width} {}
    fake::StepClock clock{3'000'000'000};
    fake::RecordingLine sci;
    fake::RecordingPower power;
    AcpiPm pm;
};

}  // namespace

TEST_CASE("the PM timer runs at 3.579545 MHz without drift", "[devices]") {
    Fixture f;
    for (unsigned minute = 1; minute <= 10; ++minute) {
        f.clock.run_seconds(60);
        CHECK(f.pm.read(TMR, 4) == (minute * 60ull * 3'579'545 & 0xffff'ffff));
    }
    Fixture narrow{AcpiPm::TimerWidth::bits24};
    narrow.clock.run_seconds(60);
    CHECK(narrow.pm.read(TMR, 4) == (60ull * 3'579'545 & 0xff'ffff));
    CHECK(narrow.pm.read(TMR + 1, 2) == ((60ull * 3'579'545 & 0xff'ffff) >> 8));
}

TEST_CASE("the timer's carry raises SCI when enabled", "[devices]") {
    Fixture f{AcpiPm::TimerWidth::bits24};
    CHECK(f.clock.idle());
    f.pm.write(EN, 2, 1);
    unsigned carries = 0;
    f.clock.run_until(f.clock.now() + 60 * f.clock.hz(), [&] {
        ++carries;
        CHECK(f.sci.level);
        CHECK(f.pm.read(STS, 2) == 1);
        f.pm.write(STS, 2, 1);
        CHECK_FALSE(f.sci.level);
    });
    CHECK(carries == 60ull * 3'579'545 >> 23);
    f.pm.write(EN, 2, 0);
    f.clock.run_seconds(5);
    CHECK(f.pm.read(STS, 2) == 1);
    CHECK_FALSE(f.sci.level);
}

TEST_CASE("the power button sets its status and raises SCI", "[devices]") {
    Fixture f;
    f.pm.press_power_button();
    CHECK_FALSE(f.sci.level);
    CHECK(f.pm.read(STS, 2) == 0x100);
    f.pm.write(EN + 1, 1, 0x01);
    CHECK(f.sci.level);
    CHECK(f.pm.read(STS, 4) == 0x0100'0100);
    f.pm.write(STS, 2, 0);
    CHECK(f.sci.level);
    f.pm.write(STS, 2, 0x100);
    CHECK_FALSE(f.sci.level);
}

TEST_CASE("SLP_EN with S5's type powers off, others do not", "[devices]") {
    Fixture f;
    CHECK(f.pm.read(CNT, 2) == 1);  // ACPI mode
    f.pm.write(CNT, 2, 3u << 10 | 1u << 13);
    CHECK(f.power.offs == 0);
    f.pm.write(CNT, 2, 5u << 10);
    CHECK(f.power.offs == 0);
    CHECK(f.pm.read(CNT, 2) == (5u << 10 | 1));
    f.pm.write(CNT, 2, 5u << 10 | 1u << 13);
    CHECK(f.power.offs == 1);
    CHECK(f.pm.read(CNT, 2) == (5u << 10 | 1));  // SLP_EN reads as 0
    f.pm.write(CNT, 4, 5u << 10 | 1u << 13);
    CHECK(f.power.offs == 2);
    CHECK(f.pm.read(CNT + 2, 2) == 0);
}

TEST_CASE("reset clears events and drops SCI", "[devices]") {
    Fixture f;
    f.pm.write(EN, 2, 0x100);
    f.pm.press_power_button();
    CHECK(f.sci.level);
    f.pm.reset();
    CHECK_FALSE(f.sci.level);
    CHECK(f.pm.read(STS, 4) == 0);
}
