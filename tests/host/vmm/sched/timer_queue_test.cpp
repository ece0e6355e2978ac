// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/machine.hpp"
#include "vmm/sched/timer_queue.hpp"

#include <array>
#include <functional>
#include <map>
#include <random>
#include <thread>
#include <vector>

using namespace hv;

namespace {

struct TestTimer final : Timer {
    std::function<void()> action;
    std::atomic<int> fired{0};
    void fire() override {
        ++fired;
        if (action)
            action();
    }
};

}  // namespace

TEST_CASE("timers fire in the order of their deadlines, once each", "[sched]") {
    TimerQueue queue;
    std::vector<int> order;
    std::array<TestTimer, 4> timers;
    for (int i = 0; i < 4; ++i)
        timers[i].action = [&order, i] { order.push_back(i); };
    queue.arm(timers[2], 30);
    queue.arm(timers[0], 10);
    queue.arm(timers[3], 40);
    queue.arm(timers[1], 20);
    CHECK(queue.earliest() == 10);
    queue.expire(30);
    CHECK(order == std::vector{0, 1, 2});
    CHECK(queue.earliest() == 40);
    TimerQueue::disarm(timers[3]);
    TimerQueue::disarm(timers[3]);
    CHECK(queue.earliest() == TimerQueue::kNever);
    queue.expire(100);
    CHECK(order.size() == 3);
}

TEST_CASE("arming again moves the deadline, also to another queue", "[sched]") {
    TimerQueue a, b;
    TestTimer timer;
    a.arm(timer, 10);
    a.arm(timer, 50);
    CHECK(a.earliest() == 50);
    b.arm(timer, 20);
    CHECK(a.earliest() == TimerQueue::kNever);
    CHECK(b.earliest() == 20);
    b.expire(20);
    CHECK(timer.fired == 1);
}

TEST_CASE("a timer may arm itself again, even in the past, without holding the CPU", "[sched]") {
    TimerQueue queue;
    TestTimer timer, other;
    timer.action = [&] { queue.arm(timer, 0); };
    queue.arm(timer, 10);
    queue.arm(other, 11);
    queue.expire(100);
    CHECK(timer.fired == 2);  // two timers were armed at the start
    CHECK(queue.earliest() == 0);
    queue.expire(100);
    TimerQueue::disarm(timer);
    TimerQueue::disarm(other);
}

TEST_CASE("random arming, disarming and expiry agree with a sorted map", "[sched]") {
    TimerQueue queue;
    std::array<TestTimer, 60> timers;
    std::map<std::size_t, std::uint64_t> model;
    std::mt19937 random{5};
    std::uint64_t now = 0;
    for (int step = 0; step < 20'000; ++step) {
        const std::size_t i = random() % timers.size();
        switch (random() % 4) {
        case 0:
        case 1: {
            const std::uint64_t deadline = now + random() % 1000;
            queue.arm(timers[i], deadline);
            model[i] = deadline;
            break;
        }
        case 2:
            TimerQueue::disarm(timers[i]);
            model.erase(i);
            break;
        default: {
            now += random() % 50;
            std::map<std::size_t, int> before;
            for (std::size_t t = 0; t < timers.size(); ++t)
                before[t] = timers[t].fired;
            queue.expire(now);
            for (std::size_t t = 0; t < timers.size(); ++t) {
                const bool due = model.contains(t) && model[t] <= now;
                REQUIRE(timers[t].fired - before[t] == (due ? 1 : 0));
                if (due)
                    model.erase(t);
            }
        }
        }
        std::uint64_t earliest = TimerQueue::kNever;
        for (const auto& [t, deadline] : model)
            earliest = std::min(earliest, deadline);
        REQUIRE(queue.earliest() == earliest);
    }
    for (TestTimer& timer : timers)
        TimerQueue::disarm(timer);
}

TEST_CASE("CPUs arm, disarm and expire the same timers at once", "[sched]") {
    std::array<TimerQueue, 4> queues;
    std::array<TestTimer, 3> timers;
    std::vector<std::thread> cpus;
    for (unsigned cpu = 0; cpu < 4; ++cpu) {
        cpus.emplace_back([&, cpu] {
            fake::set_cpu(cpu);
            std::mt19937 random{cpu};
            for (int i = 0; i < 3000; ++i) {
                TestTimer& timer = timers[random() % timers.size()];
                switch (random() % 3) {
                case 0: queues[cpu].arm(timer, random() % 100); break;
                case 1: TimerQueue::disarm(timer); break;
                default: queues[cpu].expire(50);
                }
            }
        });
    }
    for (std::thread& cpu : cpus)
        cpu.join();
    for (TestTimer& timer : timers)
        TimerQueue::disarm(timer);
    for (TimerQueue& queue : queues)
        CHECK(queue.earliest() == TimerQueue::kNever);
}
