// SPDX-License-Identifier: MIT
// What a VM may have of the host's processors, shared by its vCPUs: a weight, which counts under contention,
// and a cap, which always counts.
#pragma once

#include "vmm/base/guarded.hpp"
#include "vmm/sched/virtual_time.hpp"

#include <atomic>
#include <cstdint>

namespace hv {

class SchedGroup {
public:
    static constexpr std::uint32_t kDefaultWeight = 100;
    static constexpr std::uint32_t kMaxWeight = 10'000;
    static constexpr std::uint32_t kUncapped = 0;

    /// `weight` is cut to [1, kMaxWeight]; `cap` is in per cent of one CPU, 0: none. Their VM's vCPUs share
    /// both.
    explicit SchedGroup(std::uint32_t weight = kDefaultWeight, std::uint32_t cap = kUncapped);
    SchedGroup(const SchedGroup&) = delete;
    SchedGroup& operator=(const SchedGroup&) = delete;

    void set_weight(std::uint32_t weight);
    void set_cap(std::uint32_t cap) { cap_.store(cap, std::memory_order_relaxed); }
    [[nodiscard]] std::uint32_t weight() const { return weight_.load(std::memory_order_relaxed); }
    [[nodiscard]] std::uint32_t cap() const { return cap_.load(std::memory_order_relaxed); }

    // --- for the scheduler
    // ------------------------------------------------------------------------------------------

    /// Members that are not blocked: they share the weight.
    void member_woke() { active_.fetch_add(1, std::memory_order_relaxed); }
    void member_blocked() { active_.fetch_sub(1, std::memory_order_relaxed); }
    [[nodiscard]] std::uint32_t active() const { return active_.load(std::memory_order_relaxed); }
    /// The virtual time of a member that ran for `ticks`.
    [[nodiscard]] VirtualTime virtual_time(std::uint64_t ticks) const;
    /// Charges processor time to the cap.
    void spend(std::uint64_t ticks);
    /// Ticks that a member may run from `now` on before the cap stops it: 0: it has to wait for period_end().
    /// Without a cap, all ones.
    [[nodiscard]] std::uint64_t allowance(std::uint64_t now);
    /// When the cap's next period begins.
    [[nodiscard]] std::uint64_t period_end() const;

private:
    struct Budget {
        std::int64_t left{0};  ///< ticks; negative: overrun, taken from the next period
        std::uint64_t period_end{0};
    };

    std::atomic<std::uint32_t> weight_;
    std::atomic<std::uint32_t> cap_;
    std::atomic<std::uint32_t> active_{0};
    Guarded<Budget, Rank::leaf> budget_;
};

}  // namespace hv
