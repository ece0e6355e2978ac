// SPDX-License-Identifier: MIT
// Limits a rate of bytes: a frame may pass while there is credit and may overdraw it once, so that a frame of
// any size passes and the rate holds over time. Needs its user's lock.
#pragma once

#include "vmm/base/timer.hpp"

#include <algorithm>
#include <cstdint>

namespace hv::net {

class TokenBucket {
public:
    /// `bytes_per_second` 0: no limit. `burst` is the largest credit, in bytes.
    TokenBucket(std::uint64_t bytes_per_second, std::uint64_t burst)
        : rate_{bytes_per_second}, burst_{static_cast<std::int64_t>(burst)}, credit_{burst_} {}

    [[nodiscard]] bool limits() const { return rate_ != 0; }
    /// Whether a frame may pass at `now`.
    bool ready(const Clock& clock, std::uint64_t now) {
        refill(clock, now);
        return credit_ > 0;
    }
    void spend(std::uint64_t bytes) { credit_ -= static_cast<std::int64_t>(bytes); }
    /// When ready() will be true, if nothing is spent until then.
    [[nodiscard]] std::uint64_t ready_at(const Clock& clock) const {
        const auto missing = static_cast<std::uint64_t>(std::max<std::int64_t>(1 - credit_, 0));
        return last_ + Clock::scale(missing, clock.hz(), rate_) + 1;
    }

private:
    void refill(const Clock& clock, std::uint64_t now) {
        // Only whole bytes are credited, and only their time is used up: no fraction gets lost.
        const std::uint64_t elapsed = now > last_ ? now - last_ : 0;
        const std::uint64_t bytes = Clock::scale(elapsed, rate_, clock.hz());
        const auto room = static_cast<std::uint64_t>(burst_ - credit_);
        if (bytes >= room) {
            credit_ = burst_;
            last_ = std::max(now, last_);
        } else {
            credit_ += static_cast<std::int64_t>(bytes);
            last_ += Clock::scale(bytes, clock.hz(), rate_);
        }
    }

    std::uint64_t rate_;
    std::int64_t burst_;
    std::int64_t credit_;
    std::uint64_t last_{0};
};

}  // namespace hv::net
