// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/step_clock.hpp"
#include "vmm/base/timer.hpp"

using namespace hv;

namespace {

class Owner {
public:
    explicit Owner(Clock& clock) : clock_{clock} {}
    void start() {
        clock_.arm_after(watch_, 1'000);
        clock_.arm_after(once_, 1'500);
    }
    unsigned looks{0};
    unsigned ends{0};

private:
    void look() {
        ++looks;
        clock_.arm_after(watch_, 1'000);
    }
    void end() { ++ends; }

    Clock& clock_;
    MemberTimer<Owner, &Owner::look> watch_{*this};
    MemberTimer<Owner, &Owner::end> once_{*this};
};

}  // namespace

TEST_CASE("each timer calls its own member of its owner", "[base]") {
    fake::StepClock clock;
    Owner owner{clock}, other{clock};
    owner.start();
    clock.run_for(3'000);
    CHECK(owner.looks == 3);
    CHECK(owner.ends == 1);
    CHECK(other.looks == 0);
    CHECK(other.ends == 0);
}

TEST_CASE("a timer is armed for nanoseconds from now, whatever the clock ticks", "[base]") {
    fake::StepClock clock{2'500'000'000};
    Owner owner{clock};
    clock.skip(77);
    owner.start();
    clock.run_for(2'499);
    CHECK(owner.looks == 0);
    clock.run_for(1);
    CHECK(owner.looks == 1);
    CHECK(owner.ends == 0);
    clock.run_for(1'250);
    CHECK(owner.ends == 1);
}
