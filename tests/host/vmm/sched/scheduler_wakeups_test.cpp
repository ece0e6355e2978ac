// SPDX-License-Identifier: MIT
// Who runs where and when: wake-ups, slices, yields and CPUs without work.
#include "vmm/sched/scheduler_fixture.hpp"

#include <random>

using namespace hv;
using namespace hv::test;

TEST_CASE("a vCPU that sleeps much runs as soon as it wakes, beside spinners of equal weight", "[sched]") {
    Simulation s{1};
    s.spinner();
    s.spinner();
    Task& sleeper = s.spinner();
    sleeper.burst = 50 * kMicrosecond;
    sleeper.sleep = 950 * kMicrosecond;
    s.run(50 * kMillisecond);
    sleeper.worst_wait = 0;
    s.run(kSecond);
    CHECK(sleeper.worst_wait == 0);
    CHECK_THAT(sleeper.share(kSecond), near(0.05));
}

TEST_CASE("no CPU idles for longer than a slice while somebody waits who may run there", "[sched]") {
    Simulation s{4};
    std::mt19937 random{9};
    for (int i = 0; i < 12; ++i) {
        Task& task = s.spinner(100);
        if (i >= 4) {
            task.burst = (100 + random() % 5000) * kMicrosecond;
            task.sleep = (100 + random() % 5000) * kMicrosecond;
        }
    }
    s.run(kSecond);
    for (std::uint32_t cpu = 0; cpu < 4; ++cpu)
        CHECK(s.idle_ticks[cpu] < kMillisecond);
}

TEST_CASE("wake-ups go to the last CPU, an idle one, or the one with the least load", "[sched]") {
    Simulation s{3};
    SchedGroup& group = s.group();
    Task& a = s.task(group);
    Task& b = s.task(group);
    Task& c = s.task(group);
    Task& light = s.task(s.group(10));
    for (Task* task : {&a, &b, &c, &light})
        task->wake_at = ~std::uint64_t{0};
    s.run(kMillisecond);
    s.wake(a);
    CHECK(a.entity.cpu() == 0);
    s.run(kMicrosecond);
    s.wake(b);
    CHECK(b.entity.cpu() == 1);
    s.wake(light);
    CHECK(light.entity.cpu() == 2);
    s.run(kMicrosecond);
    const auto kicks = fake::kicks(2);
    s.wake(c);
    CHECK(c.entity.cpu() == 2);
    CHECK(fake::kicks(2) == kicks + 1);
    CHECK(s.scheduler->need_resched(2));
}

TEST_CASE("a wake-up that comes while a vCPU blocks is not lost", "[sched]") {
    Simulation s{1};
    Task& task = s.spinner();
    s.run(kMillisecond);
    fake::set_cpu(0);
    int asked = 0;
    // The event arrives between the first look and the second.
    CHECK_FALSE(s.scheduler->block(task.entity, [&] { return ++asked < 2; }));
    CHECK(asked == 2);
    CHECK(task.entity.state() == SchedEntity::State::running);
    // The waker is faster than the second look.
    asked = 0;
    CHECK(s.scheduler->block(task.entity, [&] {
        if (++asked == 2)
            s.scheduler->wake(task.entity);
        return asked < 2;
    }));
    CHECK(task.entity.state() == SchedEntity::State::queued);
    CHECK(s.scheduler->pick_next(0) == &task.entity);
    s.run(kMillisecond);
}

TEST_CASE("a vCPU that yields lets its sibling run first", "[sched]") {
    Simulation s{1};
    SchedGroup& group = s.group();
    Task& a = s.task(group);
    Task& other = s.spinner();
    Task& b = s.task(group);
    s.run(kMillisecond);
    fake::set_cpu(0);
    SchedEntity* first = s.scheduler->pick_next(0);
    while (first != &a.entity) {
        fake::advance_tsc(3 * kMillisecond);
        first = s.scheduler->pick_next(0);
    }
    s.scheduler->yield(a.entity);
    CHECK(s.scheduler->need_resched(0));
    CHECK(s.scheduler->pick_next(0) == &b.entity);
    CHECK(other.entity.state() == SchedEntity::State::queued);
    REQUIRE(s.scheduler->block(b.entity, [] { return true; }));
    REQUIRE(s.scheduler->pick_next(0) != nullptr);
}

TEST_CASE("whoever runs learns soon of a sibling that begins to wait and does not preempt", "[sched]") {
    Simulation s{1};
    SchedGroup& group = s.group();
    Task& a = s.task(group);
    Task& late = s.task(group);
    s.spinner();
    s.run(kMillisecond);
    fake::set_cpu(0);
    const auto turns_until = [&](const Task& task) {
        while (s.scheduler->pick_next(0) != &task.entity)
            fake::advance_tsc(kMillisecond);
    };
    turns_until(late);
    fake::advance_tsc(20 * kMillisecond);  // it gets far ahead
    REQUIRE(s.scheduler->block(late.entity, [] { return true; }));
    turns_until(a);
    REQUIRE_FALSE(a.entity.sibling_waits());
    REQUIRE_FALSE(s.scheduler->need_resched(0));
    s.scheduler->wake(late.entity);
    CHECK(s.scheduler->need_resched(0));
    turns_until(a);
    CHECK(late.entity.state() == SchedEntity::State::queued);
    CHECK(a.entity.sibling_waits());
    s.scheduler->wake(late.entity);
    CHECK_FALSE(s.scheduler->need_resched(0));
}

TEST_CASE("siblings that yield to each other all the time leave the others their turns", "[sched]") {
    Simulation s{1};
    SchedGroup& group = s.group();
    s.task(group);
    s.task(group);
    Task& other = s.spinner();
    s.run(kMillisecond);
    fake::set_cpu(0);
    for (unsigned turn = 0; turn < 10'000; ++turn) {
        fake::advance_tsc(10 * kMicrosecond);
        SchedEntity* const next = s.scheduler->pick_next(0);
        if (&next->group() == &group)
            s.scheduler->yield(*next);
    }
    CHECK(other.entity.run_ticks() > 40 * kMillisecond);
}

TEST_CASE("whoever runs knows whether a sibling waits for the same CPU", "[sched]") {
    Simulation s{2};
    SchedGroup& group = s.group();
    Task& a = s.task(group, CpuSet::of(0));
    Task& b = s.task(group, CpuSet::of(0));
    Task& elsewhere = s.task(group, CpuSet::of(1));
    Task& other = s.task(s.group(), CpuSet::of(1));
    s.run(kMillisecond);
    const auto turn = [&](std::uint32_t cpu) {
        fake::set_cpu(cpu);
        fake::advance_tsc(3 * kMillisecond);
        return s.scheduler->pick_next(cpu);
    };
    for (unsigned slice = 0; slice < 4; ++slice) {
        CHECK(turn(0)->sibling_waits());
        CHECK_FALSE(turn(1)->sibling_waits());
    }
    CHECK(other.entity.run_ticks() > 0);
    CHECK(elsewhere.entity.run_ticks() > 0);
    SchedEntity* const last = turn(0);
    REQUIRE(s.scheduler->block(*last, [] { return true; }));
    SchedEntity* const alone = turn(0);
    REQUIRE((alone == &a.entity || alone == &b.entity));
    CHECK_FALSE(alone->sibling_waits());
}

TEST_CASE("who yields alone goes on", "[sched]") {
    Simulation s{1};
    Task& task = s.spinner();
    s.run(kMillisecond);
    fake::set_cpu(0);
    s.scheduler->yield(task.entity);
    CHECK(s.scheduler->pick_next(0) == &task.entity);
    CHECK_FALSE(s.scheduler->need_resched(0));
}

TEST_CASE("vCPUs that are woken before any CPU is online run once one is", "[sched]") {
    auto scheduler = Scheduler::create(2).value();
    SchedGroup group;
    SchedEntity a{group}, b{group, CpuSet::of(1)};
    scheduler->wake(a);
    scheduler->wake(b);
    CHECK(scheduler->pick_next(0) == &a);
    fake::set_cpu(1);
    CHECK(scheduler->pick_next(1) == &b);
    for (SchedEntity* entity : {&a, &b}) {
        CHECK_FALSE(scheduler->retire(*entity));
        fake::set_cpu(entity->cpu());
        CHECK(scheduler->block(*entity, [] { return true; }));
        CHECK(scheduler->retire(*entity));
    }
    CHECK(scheduler->pick_next(1) == nullptr);
    CHECK(scheduler->idle(1));
    CHECK(scheduler->deadline(1) == Scheduler::kNever);
    fake::set_cpu(0);
}

TEST_CASE("slices end only while somebody waits", "[sched]") {
    Simulation s{2};
    Task& a = s.spinner();
    Task& b = s.spinner();
    Task& late = s.spinner();
    late.sleeping = true;
    late.wake_at = 10 * kSecond;
    s.run(kSecond);
    CHECK(s.scheduler->deadline(0) == Scheduler::kNever);
    CHECK(s.scheduler->deadline(1) == Scheduler::kNever);
    s.wake(late);
    CHECK(s.scheduler->need_resched(0));
    CHECK(s.scheduler->need_resched(1));
    s.run(kMicrosecond);
    CHECK(s.scheduler->deadline(0) != Scheduler::kNever);
    CHECK(s.scheduler->deadline(1) != Scheduler::kNever);
    s.run(kSecond);
    for (const Task* task : {&a, &b, &late})
        CHECK_THAT(task->share(kSecond), near(2.0 / 3));
}
