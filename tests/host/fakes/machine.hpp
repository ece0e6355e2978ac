// SPDX-License-Identifier: MIT
// The machine that host tests run on: thread-local CPUs, a clock that tests move, and an arena as physical
// memory.
#pragma once

#include <cstdint>

namespace hv::fake {

/// Size of the arena behind host physical addresses [0, kPhysicalMemory); pages appear when touched.
inline constexpr std::uint64_t kPhysicalMemory = std::uint64_t{5} << 30;

/// The calling thread acts as this CPU from now on.
void set_cpu(std::uint32_t index);
void set_tsc(std::uint64_t ticks);
void advance_tsc(std::uint64_t ticks);
/// How often machine::kick_cpu() was called for `cpu` since the program began; cpu < 64.
std::uint32_t kicks(std::uint32_t cpu);

}  // namespace hv::fake
