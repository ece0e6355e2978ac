// SPDX-License-Identifier: MIT
// The time base of a device that counts a clock of its own, kept against the host's TSC without division or
// drift.
#pragma once

#include "vmm/base/assert.hpp"
#include "vmm/base/timer.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>

namespace hv {

/// Converts between host ticks and a device's clocks, in fixed point that is exact to less than a clock over
/// a year.
class ClockRatio {
public:
    ClockRatio(std::uint64_t host_hz, std::uint64_t device_hz)
        : clocks_per_tick_{static_cast<std::uint64_t>(((Wide{device_hz} << kFraction) + host_hz - 1) /
                                                      host_hz)},
          ticks_per_clock_{static_cast<std::uint64_t>((Wide{host_hz} << kFraction) / device_hz)},
          wide_ticks_{host_hz / device_hz >= kRatioLimit ? host_hz / device_hz : 0} {
        HV_ASSERT(device_hz / host_hz < kRatioLimit);
        if (wide_ticks_ != 0) {
            // A slow device clock: its period as whole ticks and a fraction.
            const std::uint64_t rest = host_hz % device_hz;
            ticks_per_clock_ = static_cast<std::uint64_t>((Wide{rest} << kFraction) / device_hz);
        }
    }

    /// Whole device clocks in `ticks` host ticks.
    [[nodiscard]] std::uint64_t clocks(std::uint64_t ticks) const {
        return static_cast<std::uint64_t>(Wide{ticks} * clocks_per_tick_ >> kFraction);
    }
    /// The first host tick at which `clocks` device clocks are over; saturates.
    [[nodiscard]] std::uint64_t ticks(std::uint64_t clocks) const {
        constexpr Wide kRoundUp = (Wide{1} << kFraction) - 1;
        Wide ticks = (Wide{clocks} * ticks_per_clock_ + kRoundUp) >> kFraction;
        if (wide_ticks_ != 0)
            ticks += Wide{clocks} * wide_ticks_;
        constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
        return ticks > kMost ? kMost : static_cast<std::uint64_t>(ticks);
    }

private:
    using Wide = unsigned __int128;
    static constexpr unsigned kFraction = 56;
    static constexpr std::uint64_t kRatioLimit = 200;  ///< of what fits beside the fraction in 64 bits

    // One is rounded up and the other down, so that at host tick ticks(n) clocks() is n or more.
    std::uint64_t clocks_per_tick_;
    std::uint64_t ticks_per_clock_;
    std::uint64_t wide_ticks_;
};

/// A counter of device clocks since its construction.
class DeviceClock {
public:
    /// A device takes the host's time no more often than this; its faster interrupts coalesce.
    static constexpr std::uint64_t kShortestWakeupNs = 20'000;

    DeviceClock(Clock& clock, std::uint64_t device_hz)
        : clock_{clock},
          ratio_{clock.hz(), device_hz},
          epoch_{clock.now()},
          shortest_{clock.from_nanoseconds(kShortestWakeupNs)} {}

    [[nodiscard]] std::uint64_t now() const { return ratio_.clocks(clock_.now() - epoch_); }
    /// Fires `timer` once now() has reached `when`.
    void arm(Timer& timer, std::uint64_t when) const {
        const std::uint64_t ticks = ratio_.ticks(when);
        constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
        clock_.arm(timer, ticks > kMost - epoch_ ? kMost : epoch_ + ticks);
    }
    /// The same from fire(), for a rate that the guest chose: not within kShortestWakeupNs.
    void arm_again(Timer& timer, std::uint64_t when) const {
        arm(timer, std::max(when, ratio_.clocks(clock_.now() - epoch_ + shortest_)));
    }
    void disarm(Timer& timer) const { clock_.disarm(timer); }

private:
    Clock& clock_;
    ClockRatio ratio_;
    std::uint64_t epoch_;
    std::uint64_t shortest_;
};

}  // namespace hv
