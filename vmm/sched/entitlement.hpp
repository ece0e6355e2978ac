// SPDX-License-Identifier: MIT
// What each of some claimants gets of a capacity when all want all they may have: a part by weight, but never
// more than it may have; what it leaves is divided among the others by weight. Pure arithmetic, for showing
// what the scheduler owes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace hv {

struct Claim {
    std::uint64_t weight;  ///< 0: claims nothing; at most 2^16
    std::uint64_t most;    ///< in the unit of the capacity
};

/// The part of `own`, one of the `count` claims that `claim_of(index)` returns. `capacity` < 2^32.
template <class ClaimOf>
std::uint64_t entitlement(const Claim& own, std::size_t count, ClaimOf&& claim_of, std::uint64_t capacity) {
    constexpr unsigned kFraction = 16;
    // The level is what a weight of 1 gets. Who may not have that much leaves the rest, which raises it.
    std::uint64_t level = 0;
    for (;;) {
        std::uint64_t rest = capacity;
        std::uint64_t weights = 0;
        for (std::size_t index = 0; index < count; ++index) {
            const Claim claim = claim_of(index);
            if (claim.weight == 0)
                continue;
            if (claim.most << kFraction <= level * claim.weight)
                rest -= std::min(rest, claim.most);
            else
                weights += claim.weight;
        }
        if (weights == 0)
            return own.weight == 0 ? 0 : own.most;
        const std::uint64_t next = (rest << kFraction) / weights;
        if (next <= level)
            return std::min(own.most, level * own.weight >> kFraction);
        level = next;
    }
}

}  // namespace hv
