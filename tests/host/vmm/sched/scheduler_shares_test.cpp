// SPDX-License-Identifier: MIT
// What everybody gets in the long run: weights, caps and pins, and the accounts of it.
#include "vmm/sched/scheduler_fixture.hpp"

#include <utility>

using namespace hv;
using namespace hv::test;

TEST_CASE("spinning vCPUs share one CPU by weight", "[sched]") {
    Simulation s{1};
    Task& a = s.spinner(100);
    Task& b = s.spinner(300);
    Task& c = s.spinner(50);
    s.run(200 * kMillisecond);
    s.run(kSecond);
    CHECK_THAT(a.share(kSecond), near(100.0 / 450));
    CHECK_THAT(b.share(kSecond), near(300.0 / 450));
    CHECK_THAT(c.share(kSecond), near(50.0 / 450));
}

TEST_CASE("a VM's vCPUs share its weight", "[sched]") {
    Simulation s{1};
    SchedGroup& pair = s.group(100);
    Task& a = s.task(pair);
    Task& b = s.task(pair);
    Task& single = s.spinner(100);
    s.run(kSecond);
    CHECK_THAT(a.share(kSecond), near(0.25));
    CHECK_THAT(b.share(kSecond), near(0.25));
    CHECK_THAT(single.share(kSecond), near(0.5));
}

TEST_CASE("three equal vCPUs get two thirds of a CPU each on two", "[sched]") {
    Simulation s{2};
    for (int i = 0; i < 3; ++i)
        s.spinner();
    s.run(100 * kMillisecond);
    s.run(kSecond);
    for (const auto& task : s.tasks)
        CHECK_THAT(task->share(kSecond), near(2.0 / 3));
}

TEST_CASE("shares hold across CPUs for many mixtures", "[sched]") {
    struct Mixture {
        std::uint32_t cpus;
        std::vector<std::uint32_t> weights;
    };
    const auto mixture =
        GENERATE(values<Mixture>({{2, {200, 100, 100, 100}},
                                  {2, {100, 100, 100, 100, 100}},
                                  {3, {100, 100, 100, 100}},
                                  {4, {100, 100, 100, 100, 100, 100, 100}},
                                  {4, {400, 300, 300, 200, 200, 200, 100, 100}},
                                  {2, {50, 50, 50}},
                                  {8, {100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100}}}));
    Simulation s{mixture.cpus};
    double total = 0;
    for (const std::uint32_t weight : mixture.weights) {
        s.spinner(weight);
        total += weight;
    }
    s.run(200 * kMillisecond);
    s.run(kSecond);
    for (const auto& task : s.tasks) {
        const double entitled = task->entity.group().weight() * mixture.cpus / total;
        REQUIRE(entitled <= 1);
        CHECK_THAT(task->share(kSecond), near(entitled));
    }
    for (std::uint32_t cpu = 0; cpu < mixture.cpus; ++cpu)
        CHECK(s.idle_ticks[cpu] == 0);
}

TEST_CASE("one whose weight asks for more than a CPU gets one, the others share the rest", "[sched]") {
    Simulation s{2};
    Task& heavy = s.spinner(1000);
    Task& a = s.spinner(100);
    Task& b = s.spinner(100);
    s.run(200 * kMillisecond);
    s.run(kSecond);
    CHECK_THAT(heavy.share(kSecond), near(1.0));
    CHECK_THAT(a.share(kSecond), near(0.5));
    CHECK_THAT(b.share(kSecond), near(0.5));
}

TEST_CASE("a cap holds, on an idle CPU and under contention, also for a VM of several vCPUs", "[sched]") {
    const std::uint32_t cap = GENERATE(1U, 10U, 33U, 50U, 90U);
    SECTION("alone") {
        Simulation s{1};
        Task& task = s.task(s.group(100, cap));
        s.run(kSecond);
        CHECK_THAT(task.share(kSecond), near(cap / 100.0, 0.02));
    }
    SECTION("beside a spinner of low weight") {
        Simulation s{1};
        Task& task = s.task(s.group(10'000, cap));
        Task& other = s.spinner(1);
        s.run(kSecond);
        CHECK_THAT(task.share(kSecond), near(cap / 100.0, 0.02));
        CHECK_THAT(task.share(kSecond) + other.share(kSecond), near(1.0, 0.001));
    }
    SECTION("two vCPUs on two CPUs") {
        Simulation s{2};
        SchedGroup& group = s.group(100, cap);
        Task& a = s.task(group);
        Task& b = s.task(group);
        s.run(kSecond);
        CHECK_THAT(a.share(kSecond) + b.share(kSecond), near(cap / 100.0, 0.02));
    }
}

TEST_CASE("pins are exact, and what is pinned apart does not hold up the others", "[sched]") {
    Simulation s{4};
    Task& a = s.spinner(100, CpuSet::of(1));
    Task& b = s.spinner(100, CpuSet::of(1));
    Task& c = s.spinner(300, CpuSet::of(2));
    CpuSet pair;
    pair.add(0);
    pair.add(3);
    Task& d = s.spinner(100, pair);
    s.run(kSecond);
    CHECK_THAT(a.share(kSecond), near(0.5));
    CHECK_THAT(b.share(kSecond), near(0.5));
    CHECK_THAT(c.share(kSecond), near(1.0));
    CHECK_THAT(d.share(kSecond), near(1.0));
    CHECK(a.entity.migrations() == 0);
}

TEST_CASE("fairness returns soon after pins that drove CPUs apart are lifted", "[sched]") {
    Simulation s{2};
    for (int i = 0; i < 4; ++i)
        s.spinner(100, CpuSet::of(0));
    s.spinner(100, CpuSet::of(1));
    s.run(20 * kSecond);
    for (auto& task : s.tasks)
        REQUIRE(s.scheduler->set_affinity(task->entity, CpuSet::all()));
    s.run(300 * kMillisecond);
    s.run(kSecond);
    for (const auto& task : s.tasks)
        CHECK_THAT(task->share(kSecond), near(0.4));
    for (auto& task : s.tasks)
        REQUIRE(s.scheduler->set_affinity(task->entity, CpuSet::of(1)));
    s.run(300 * kMillisecond);
    s.run(kSecond);
    for (const auto& task : s.tasks)
        CHECK_THAT(task->share(kSecond), near(0.2));
    CHECK(s.scheduler->set_affinity(s.tasks[0]->entity, CpuSet::of(2)).error() == Error::invalid_argument);
}

TEST_CASE("short sleeps do not cheat a spinner out of its share", "[sched]") {
    Simulation s{1};
    Task& honest = s.spinner();
    Task& thief = s.spinner();
    thief.burst = 2900 * kMicrosecond;
    thief.sleep = 10 * kMicrosecond;
    s.run(100 * kMillisecond);
    s.run(kSecond);
    CHECK(honest.share(kSecond) > 0.48);
    CHECK(thief.share(kSecond) > 0.45);
}

TEST_CASE("many sleepers do not starve a spinner", "[sched]") {
    Simulation s{1};
    Task& spinner = s.spinner();
    for (int i = 0; i < 9; ++i) {
        Task& sleeper = s.spinner();
        sleeper.burst = 300 * kMicrosecond;
        sleeper.sleep = 100 * kMicrosecond;
    }
    s.run(kSecond);
    CHECK(spinner.share(kSecond) > 0.095);
}

TEST_CASE("who ran while nobody waited owes nothing when somebody comes", "[sched]") {
    Simulation s{2};
    Task& a = s.spinner();
    s.run(5 * kSecond);
    Task& b = s.spinner();
    s.run(5 * kSecond);
    Task& c = s.spinner();
    Task& d = s.spinner();
    s.run(40 * kMillisecond);
    for (const Task* task : {&a, &b, &c, &d})
        CHECK_THAT(task->share(40 * kMillisecond), near(0.5, 0.2));
}

TEST_CASE("accounting adds up", "[sched]") {
    Simulation s{2};
    for (int i = 0; i < 5; ++i)
        s.spinner();
    s.run(kSecond);
    std::uint64_t ran = 0, waited = 0;
    for (const auto& task : s.tasks) {
        ran += task->entity.run_ticks();
        waited += task->entity.wait_ticks();
    }
    CHECK_THAT(static_cast<double>(ran), near(2.0 * kSecond, 0.0001));
    CHECK_THAT(static_cast<double>(waited), near(3.0 * kSecond, 0.02));
}

TEST_CASE("times and wake-ups are known at any moment", "[sched]") {
    fake::set_cpu(0);
    fake::set_tsc(1'000);
    auto scheduler = Scheduler::create(1).value();
    SchedGroup group;
    SchedEntity a{group}, b{group};
    const auto times = [&](const SchedEntity& entity) {
        const auto [ran, waited] = scheduler->times(entity);
        return std::pair{ran, waited};
    };
    using Times = std::pair<std::uint64_t, std::uint64_t>;
    CHECK(times(a) == Times{0, 0});
    scheduler->wake(a);
    fake::set_tsc(1'300);
    CHECK(times(a) == Times{0, 300});
    CHECK(a.wakes() == 0);
    REQUIRE(scheduler->pick_next(0) == &a);
    CHECK(a.wakes() == 1);
    CHECK(a.wake_ticks() == 300);
    // Nobody else wants to run, so it is charged late.
    fake::set_tsc(2'000);
    CHECK(times(a) == Times{700, 300});
    scheduler->sleeps(0, 2'000);
    fake::set_tsc(5'000);
    CHECK(times(a) == Times{700, 300});
    scheduler->slept(0, 5'000);
    fake::set_tsc(5'100);
    CHECK(times(a) == Times{800, 300});
    scheduler->wake(b);
    fake::set_tsc(5'200);
    REQUIRE(scheduler->block(a, [] { return true; }));
    CHECK(times(a) == Times{900, 300});
    REQUIRE(scheduler->pick_next(0) == &b);
    CHECK(b.wake_ticks() == 100);
    fake::set_tsc(6'000);
    scheduler->wake(a);
    fake::set_tsc(6'050);
    REQUIRE(scheduler->block(b, [] { return true; }));
    REQUIRE(scheduler->pick_next(0) == &a);
    CHECK(a.wakes() == 2);
    CHECK(a.wake_ticks() == 350);
    CHECK(a.most_wake_ticks() == 300);
    // Being preempted is no wake-up.
    REQUIRE(scheduler->pick_next(0) == &a);
    CHECK(a.wakes() == 2);
    REQUIRE(scheduler->block(a, [] { return true; }));
}
