// SPDX-License-Identifier: MIT
#include "vmm/base/guarded.hpp"

#include "vmm/base/assert.hpp"

#include <array>

#ifdef HV_DEBUG
namespace hv {
namespace {

/// For each CPU a bit per rank that it holds; only that CPU touches its word.
constexpr std::size_t kMaxCpus = 256;
std::array<std::uint32_t, kMaxCpus> held{};

}  // namespace

void note_lock_taken(Rank rank) {
    std::uint32_t& mine = held[machine::cpu_index() % kMaxCpus];
    const std::uint32_t mask = std::uint32_t{1} << static_cast<unsigned>(rank);
    HV_ASSERT(mine < mask);
    mine |= mask;
}

void note_lock_released(Rank rank) {
    held[machine::cpu_index() % kMaxCpus] &= ~(std::uint32_t{1} << static_cast<unsigned>(rank));
}

}  // namespace hv
#endif
