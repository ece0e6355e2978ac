// SPDX-License-Identifier: MIT
// A clock of any frequency that tests move from deadline to deadline, so that every timer fires exactly on
// time, or late by as much as the test says.
#pragma once

#include "vmm/base/timer.hpp"

#include <cstdint>
#include <map>

namespace hv::fake {

class StepClock final : public Clock {
public:
    explicit StepClock(std::uint64_t hz = 1'000'000'000, std::uint64_t start = 12'345)
        : hz_{hz}, now_{start} {}

    [[nodiscard]] std::uint64_t now() const override { return now_; }
    [[nodiscard]] std::uint64_t hz() const override { return hz_; }
    void arm(Timer& timer, std::uint64_t deadline) override { armed_[&timer] = deadline; }
    void disarm(Timer& timer) override { armed_.erase(&timer); }

    /// Each timer that comes due until then fires `lateness` ticks after its deadline; `after_fire()` runs
    /// after each.
    template <class AfterFire>
    void run_until(std::uint64_t tick, AfterFire&& after_fire) {
        for (;;) {
            auto first = armed_.end();
            for (auto it = armed_.begin(); it != armed_.end(); ++it)
                if (first == armed_.end() || it->second < first->second)
                    first = it;
            if (first == armed_.end() || first->second + lateness > tick)
                break;
            Timer* timer = first->first;
            now_ = std::max(now_, first->second + lateness);
            armed_.erase(first);
            ++fired;
            timer->fire();
            after_fire();
        }
        now_ = std::max(now_, tick);
    }
    void run_until(std::uint64_t tick) {
        run_until(tick, [] {});
    }
    template <class AfterFire>
    void run_for(std::uint64_t ticks, AfterFire&& after_fire) {
        run_until(now_ + ticks, after_fire);
    }
    void run_for(std::uint64_t ticks) { run_until(now_ + ticks); }
    void run_seconds(std::uint64_t seconds) { run_for(seconds * hz_); }
    /// Moves time, but fires nothing.
    void skip(std::uint64_t ticks) { now_ += ticks; }
    [[nodiscard]] bool idle() const { return armed_.empty(); }
    [[nodiscard]] std::uint64_t deadline_of(Timer& timer) { return armed_.at(&timer); }

    std::uint64_t lateness{0};
    std::uint64_t fired{0};

private:
    std::uint64_t hz_;
    std::uint64_t now_;
    std::map<Timer*, std::uint64_t> armed_;
};

}  // namespace hv::fake
