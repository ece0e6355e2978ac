// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/step_clock.hpp"
#include "vmm/base/wait.hpp"

using namespace hv;

TEST_CASE("a wait ends with what is waited for, or with its time", "[base]") {
    fake::StepClock clock{2'000'000'000};
    const std::uint64_t begin = clock.now();
    unsigned looks = 0;
    /// Each look takes a microsecond.
    const auto after = [&](unsigned number) {
        return [&, number] {
            clock.skip(2'000);
            return ++looks >= number;
        };
    };
    SECTION("at once") {
        CHECK(wait_until(clock, 0, after(1)));
        CHECK(looks == 1);
    }
    SECTION("in time") {
        CHECK(wait_until(clock, 10'000, after(10)));
        CHECK(looks == 10);
    }
    SECTION("late") {
        CHECK_FALSE(wait_until(clock, 10'000, after(11)));
        CHECK(looks == 10);
        CHECK(clock.now() - begin == 20'000);
    }
    SECTION("not even asked for again") {
        CHECK_FALSE(wait_until(clock, 0, after(2)));
        CHECK(looks == 1);
    }
}
