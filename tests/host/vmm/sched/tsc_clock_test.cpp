// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/machine.hpp"
#include "vmm/sched/tsc_clock.hpp"

#include <functional>
#include <vector>

using namespace hv;

namespace {

struct FakeHardware final : TimerHardware {
    std::vector<std::pair<std::uint32_t, std::uint64_t>> set;
    void set_deadline(std::uint64_t deadline) override { set.emplace_back(machine::cpu_index(), deadline); }
};

struct TestTimer final : Timer {
    std::function<void()> action;
    int fired{0};
    void fire() override {
        ++fired;
        if (action)
            action();
    }
};

struct Fixture {
    FakeHardware hardware;
    std::unique_ptr<TscClock> clock{TscClock::create(hardware, 2).value()};
    Fixture() { fake::set_tsc(1000); }
    ~Fixture() { fake::set_cpu(0); }
};

using Settings = std::vector<std::pair<std::uint32_t, std::uint64_t>>;

}  // namespace

TEST_CASE("the hardware is set only when the first deadline changes", "[sched]") {
    Fixture f;
    TestTimer a, b, c;
    f.clock->arm(a, 2000);
    f.clock->arm(b, 3000);
    f.clock->arm(a, 2000);
    f.clock->arm(c, 1500);
    CHECK(f.hardware.set == Settings{{0, 2000}, {0, 1500}});
    f.clock->disarm(c);
    CHECK(f.hardware.set.size() == 2);
    fake::set_tsc(1500);
    f.clock->expire();  // nothing is due
    CHECK(c.fired == 0);
    CHECK(f.hardware.set.back() == std::pair{0U, std::uint64_t{2000}});
    f.clock->disarm(a);
    f.clock->disarm(b);
}

TEST_CASE("what is due fires, and timers armed meanwhile count for the next deadline", "[sched]") {
    Fixture f;
    TestTimer a, b;
    a.action = [&] { f.clock->arm(a, 2500); };
    f.clock->arm(a, 1500);
    f.clock->arm(b, 1600);
    f.hardware.set.clear();
    fake::set_tsc(1700);
    f.clock->expire();
    CHECK(a.fired == 1);
    CHECK(b.fired == 1);
    CHECK(f.hardware.set == Settings{{0, 2500}});
    f.clock->disarm(a);
    fake::set_tsc(2600);
    f.clock->expire();
    CHECK(a.fired == 1);
}

TEST_CASE("a timer goes to the CPU that arms it", "[sched]") {
    Fixture f;
    TestTimer timer;
    f.clock->arm(timer, 2000);
    fake::set_cpu(1);
    f.clock->arm(timer, 1800);
    CHECK(f.hardware.set == Settings{{0, 2000}, {1, 1800}});
    CHECK(f.clock->earliest() == 1800);
    fake::set_tsc(2000);
    fake::set_cpu(0);
    f.clock->expire();
    CHECK(timer.fired == 0);
    CHECK(f.clock->earliest() == TimerQueue::kNever);
    fake::set_cpu(1);
    f.clock->expire();
    CHECK(timer.fired == 1);
}

TEST_CASE("times convert without overflow", "[sched]") {
    Fixture f;
    CHECK(f.clock->hz() == 1'000'000'000);
    CHECK(f.clock->from_nanoseconds(5) == 5);
    CHECK(Clock::scale(~std::uint64_t{0}, 1'000'000'000, 2'000'000'000) == (~std::uint64_t{0}) / 2);
}
