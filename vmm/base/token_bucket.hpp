// SPDX-License-Identifier: MIT
// Limits a rate, of bytes or of whatever else is counted: something may pass while there is credit and may
// overdraw it once, so that a frame or request of any size passes and the rate holds over time. Needs its
// user's lock.
#pragma once

#include "vmm/base/timer.hpp"

#include <algorithm>
#include <cstdint>

namespace hv {

class TokenBucket {
public:
    /// `rate` is in units per second, 0: no limit. `burst` is the largest credit, in units.
    TokenBucket(std::uint64_t rate, std::uint64_t burst)
        : rate_{rate}, burst_{static_cast<std::int64_t>(burst)}, credit_{burst_} {}

    [[nodiscard]] bool limits() const { return rate_ != 0; }
    /// Whether something may pass at `now`.
    bool ready(const Clock& clock, std::uint64_t now) {
        refill(clock, now);
        return credit_ > 0;
    }
    void spend(std::uint64_t units) { credit_ -= static_cast<std::int64_t>(units); }
    /// When ready() will be true, if nothing is spent until then.
    [[nodiscard]] std::uint64_t ready_at(const Clock& clock) const {
        const auto missing = static_cast<std::uint64_t>(std::max<std::int64_t>(1 - credit_, 0));
        return last_ + Clock::scale(missing, clock.hz(), rate_) + 1;
    }

private:
    void refill(const Clock& clock, std::uint64_t now) {
        // Only whole units are credited, and only their time is used up: no fraction gets lost.
        const std::uint64_t elapsed = now > last_ ? now - last_ : 0;
        const std::uint64_t units = Clock::scale(elapsed, rate_, clock.hz());
        const auto room = static_cast<std::uint64_t>(burst_ - credit_);
        if (units >= room) {
            credit_ = burst_;
            last_ = std::max(now, last_);
        } else {
            credit_ += static_cast<std::int64_t>(units);
            last_ += Clock::scale(units, clock.hz(), rate_);
        }
    }

    std::uint64_t rate_;
    std::int64_t burst_;
    std::int64_t credit_;
    std::uint64_t last_{0};
};

}  // namespace hv
