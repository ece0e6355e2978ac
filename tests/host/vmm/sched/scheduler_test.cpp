// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/machine.hpp"
#include "vmm/sched/scheduler.hpp"

#include <algorithm>
#include <atomic>
#include <deque>
#include <memory>
#include <random>
#include <thread>
#include <vector>

using namespace hv;

namespace {

constexpr std::uint64_t kMicrosecond = 1'000;  // the fake machine has 1 GHz
constexpr std::uint64_t kMillisecond = 1'000 * kMicrosecond;
constexpr std::uint64_t kSecond = 1'000 * kMillisecond;

/// A vCPU that runs for `burst` and then sleeps for `sleep`, or spins.
struct Task {
    Task(SchedGroup& group, const CpuSet& affinity = CpuSet::all()) : entity{group, affinity} {}
    SchedEntity entity;
    std::uint64_t burst{~std::uint64_t{0} / 4};
    std::uint64_t sleep{0};
    std::uint64_t left{0};     ///< of the burst
    std::uint64_t wake_at{0};  ///< while it sleeps
    std::uint64_t woken_at{0};
    std::uint64_t worst_wait{0};  ///< from wake-up until it runs
    std::uint64_t mark{0};        ///< run_ticks() when the measurement began
    bool sleeping{true};

    [[nodiscard]] double share(std::uint64_t of) const {
        return static_cast<double>(entity.run_ticks() - mark) / static_cast<double>(of);
    }
};

/// Host CPUs that run the loop that scheduler.hpp describes, in simulated time.
class Simulation {
public:
    explicit Simulation(std::uint32_t cpus)
        : scheduler{Scheduler::create(cpus).value()}, running_(cpus), since_(cpus) {
        fake::set_tsc(now_);
    }
    ~Simulation() {
        for (auto& task : tasks)
            retire(*task);
        fake::set_cpu(0);
    }

    SchedGroup& group(std::uint32_t weight = 100, std::uint32_t cap = 0) {
        return groups_.emplace_back(weight, cap);
    }
    Task& task(SchedGroup& group, const CpuSet& affinity = CpuSet::all()) {
        return *tasks.emplace_back(std::make_unique<Task>(group, affinity));
    }
    Task& spinner(std::uint32_t weight = 100, const CpuSet& affinity = CpuSet::all()) {
        return task(group(weight), affinity);
    }

    /// Runs for `duration`; the measurement covers it.
    void run(std::uint64_t duration) {
        const std::uint64_t end = now_ + duration;
        charge();
        for (auto& task : tasks)
            task->mark = task->entity.run_ticks();
        for (;;) {
            std::uint64_t next = end;
            for (auto& task : tasks) {
                if (task->sleeping)
                    next = std::min(next, task->wake_at);
            }
            for (std::uint32_t cpu = 0; cpu < running_.size(); ++cpu)
                next = std::min(next, event(cpu));
            advance(std::max(next, now_));
            for (auto& task : tasks) {
                if (task->sleeping && task->wake_at <= now_)
                    wake(*task);
            }
            for (std::uint32_t cpu = 0; cpu < running_.size(); ++cpu) {
                if (event(cpu) <= now_)
                    step(cpu);
            }
            if (now_ == end)
                break;
        }
        charge();
    }
    void wake(Task& task) {
        task.sleeping = false;
        task.woken_at = now_;
        task.left = task.burst;
        scheduler->wake(task.entity);
    }
    Task* running(std::uint32_t cpu) { return running_[cpu]; }

    std::unique_ptr<Scheduler> scheduler;
    std::deque<std::unique_ptr<Task>> tasks;
    std::vector<std::uint64_t> idle_ticks = std::vector<std::uint64_t>(256);

private:
    std::uint64_t event(std::uint32_t cpu) {
        if (scheduler->need_resched(cpu) || !started_.contains(cpu))
            return now_;
        std::uint64_t next = scheduler->deadline(cpu);
        if (running_[cpu] != nullptr)
            next = std::min(next, since_[cpu] + running_[cpu]->left);
        return next;
    }
    void advance(std::uint64_t to) {
        for (std::uint32_t cpu = 0; cpu < running_.size(); ++cpu) {
            if (running_[cpu] == nullptr)
                idle_ticks[cpu] += to - now_;
        }
        now_ = to;
        fake::set_tsc(now_);
    }
    void step(std::uint32_t cpu) {
        fake::set_cpu(cpu);
        started_.add(cpu);
        if (Task* task = running_[cpu]; task != nullptr) {
            task->left -= std::min(task->left, now_ - since_[cpu]);
            if (task->left == 0) {
                task->sleeping = true;
                task->wake_at = now_ + task->sleep;
                REQUIRE(scheduler->block(task->entity, [] { return true; }));
            }
        }
        SchedEntity* const entity = scheduler->pick_next(cpu);
        running_[cpu] = nullptr;
        for (auto& task : tasks) {
            if (&task->entity == entity)
                running_[cpu] = task.get();
        }
        since_[cpu] = now_;
        if (Task* task = running_[cpu]; task != nullptr && task->woken_at != 0) {
            task->worst_wait = std::max(task->worst_wait, now_ - task->woken_at);
            task->woken_at = 0;
        }
    }
    /// Brings run_ticks() up to date.
    void charge() {
        for (std::uint32_t cpu = 0; cpu < running_.size(); ++cpu)
            step(cpu);
    }
    void retire(Task& task) {
        while (!scheduler->retire(task.entity)) {
            fake::set_cpu(task.entity.cpu());
            REQUIRE(scheduler->block(task.entity, [] { return true; }));
        }
    }

    std::uint64_t now_{kSecond};
    std::deque<SchedGroup> groups_;
    std::vector<Task*> running_;
    std::vector<std::uint64_t> since_;
    CpuSet started_;
};

auto near(double value, double margin = 0.03) {
    return Catch::Matchers::WithinAbs(value, margin * value);
}

}  // namespace

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

TEST_CASE("CPUs schedule, wake, pin and retire at once without losing anybody", "[sched]") {
    constexpr unsigned kCpus = 4, kEntities = 10;
    auto scheduler = Scheduler::create(kCpus).value();
    SchedGroup groups[3]{SchedGroup{100}, SchedGroup{300}, SchedGroup{50, 40}};
    std::deque<SchedEntity> entities;
    std::atomic<int> pending[kEntities]{};
    std::atomic<int> runners[kEntities]{};
    for (unsigned i = 0; i < kEntities; ++i)
        entities.emplace_back(groups[i % 3]);
    std::atomic<bool> stop{false};
    std::atomic<int> handled{0};
    std::vector<std::thread> threads;
    for (unsigned cpu = 0; cpu < kCpus; ++cpu) {
        threads.emplace_back([&, cpu] {
            fake::set_cpu(cpu);
            std::mt19937 random{cpu};
            while (!stop) {
                SchedEntity* const entity = scheduler->pick_next(cpu);
                if (entity == nullptr) {
                    while (!stop && !scheduler->need_resched(cpu) &&
                           machine::tsc() < scheduler->deadline(cpu))
                        machine::pause();
                    continue;
                }
                const auto index = static_cast<std::size_t>(
                    std::find_if(entities.begin(), entities.end(), [&](auto& e) { return &e == entity; }) -
                    entities.begin());
                HV_ASSERT(runners[index].fetch_add(1) == 0);
                for (unsigned i = random() % 20; i > 0 && !scheduler->need_resched(cpu); --i) {
                    if (pending[index].exchange(0) != 0)
                        ++handled;
                    machine::pause();
                }
                fake::advance_tsc(random() % kMillisecond);
                HV_ASSERT(runners[index].fetch_sub(1) == 1);
                if (random() % 3 != 0)
                    static_cast<void>(scheduler->block(*entity, [&] { return pending[index].load() == 0; }));
            }
            // Whoever runs here stops, so that it can be retired.
            if (SchedEntity* const entity = scheduler->pick_next(cpu))
                HV_ASSERT(scheduler->block(*entity, [] { return true; }));
        });
    }
    std::thread waker{[&] {
        fake::set_cpu(40);
        std::mt19937 random{77};
        for (int i = 0; i < 20'000; ++i) {
            const std::size_t index = random() % kEntities;
            pending[index].store(1);
            scheduler->wake(entities[index]);
            if (i % 50 == 0) {
                CpuSet set;
                set.add(random() % kCpus);
                set.add(random() % kCpus);
                HV_ASSERT(scheduler->set_affinity(entities[index], set));
            }
        }
        // Every event is seen in the end.
        for (std::size_t index = 0; index < kEntities; ++index) {
            while (pending[index].load() != 0) {
                fake::advance_tsc(kMillisecond);
                machine::pause();
            }
        }
        stop = true;
    }};
    waker.join();
    for (std::thread& thread : threads)
        thread.join();
    for (SchedEntity& entity : entities)
        CHECK(scheduler->retire(entity));
    CHECK(handled > 0);
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
