// SPDX-License-Identifier: MIT
// Makes the n-th allocation from now on, and all that follow it, fail: for sweeps over every n.
#pragma once

#include <cstdint>

namespace hv::test {

/// `count` allocations by new (std::nothrow) succeed; kUnlimited: all do.
inline constexpr std::uint64_t kUnlimited = ~std::uint64_t{0};
void limit_allocations(std::uint64_t count);

}  // namespace hv::test
