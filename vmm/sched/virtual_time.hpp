// SPDX-License-Identifier: MIT
// Virtual time: processor time received, divided by weight. The scheduler keeps it even among all that want
// to run. It wraps around; two values are compared by their difference.
#pragma once

#include <cstdint>

namespace hv {

using VirtualTime = std::uint64_t;  ///< TSC ticks at weight SchedGroup::kDefaultWeight

/// How far `a` is ahead of `b`; negative: behind.
constexpr std::int64_t ahead(VirtualTime a, VirtualTime b) {
    return static_cast<std::int64_t>(a - b);
}

}  // namespace hv
