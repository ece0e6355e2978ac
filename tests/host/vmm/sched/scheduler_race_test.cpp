// SPDX-License-Identifier: MIT
// CPUs that schedule at once, as threads.
#include "vmm/sched/scheduler_fixture.hpp"

#include <algorithm>
#include <atomic>
#include <deque>
#include <random>
#include <thread>
#include <vector>

using namespace hv;
using namespace hv::test;

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
