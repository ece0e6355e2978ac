// SPDX-License-Identifier: MIT
#include "vmm/sched/sched_group.hpp"

#include "vmm/base/machine.hpp"

#include <algorithm>

namespace hv {
namespace {

constexpr std::uint64_t kPeriodsPerSecond = 50;
/// Less than this is not worth a switch: it is kept for the next period.
constexpr std::uint64_t kLeastRunsPerSecond = 50'000;

}  // namespace

SchedGroup::SchedGroup(std::uint32_t weight, std::uint32_t cap)
    : weight_{std::clamp(weight, std::uint32_t{1}, kMaxWeight)}, cap_{cap} {}

void SchedGroup::set_weight(std::uint32_t weight) {
    weight_.store(std::clamp(weight, std::uint32_t{1}, kMaxWeight), std::memory_order_relaxed);
}

VirtualTime SchedGroup::virtual_time(std::uint64_t ticks) const {
    return ticks * kDefaultWeight * std::max(active(), std::uint32_t{1}) / weight();
}

void SchedGroup::spend(std::uint64_t ticks) {
    if (cap() != kUncapped)
        budget_.with([&](Budget& budget) { budget.left -= static_cast<std::int64_t>(ticks); });
}

std::uint64_t SchedGroup::allowance(std::uint64_t now) {
    const std::uint64_t cap_now = cap();
    if (cap_now == kUncapped)
        return ~std::uint64_t{0};
    const std::uint64_t period = machine::tsc_hz() / kPeriodsPerSecond;
    const auto quota = static_cast<std::int64_t>(period * cap_now / 100);
    const auto least = static_cast<std::int64_t>(machine::tsc_hz() / kLeastRunsPerSecond);
    return budget_.with([&](Budget& budget) -> std::uint64_t {
        if (budget.period_end == 0)
            budget.period_end = now;
        if (now >= budget.period_end) {
            const std::uint64_t periods = (now - budget.period_end) / period + 1;
            budget.period_end += periods * period;
            // What a group did not use is gone, but for what was too little to run for.
            const auto refills = static_cast<std::int64_t>(std::min<std::uint64_t>(periods, 1'000));
            budget.left = std::min(budget.left + refills * quota, quota + least);
        }
        if (budget.left < least)
            return 0;
        return static_cast<std::uint64_t>(budget.left) / std::max(active(), std::uint32_t{1}) + 1;
    });
}

std::uint64_t SchedGroup::period_end() const {
    return budget_.with([](const Budget& budget) { return budget.period_end; });
}

}  // namespace hv
