// SPDX-License-Identifier: MIT
// Processor states in which boot protocols start a kernel: flat segments, interrupts off.
#pragma once

#include "vmm/loader/loader.hpp"
#include "vmm/loader/memory_plan.hpp"

namespace hv::loader {

/// Selectors of the descriptor table that both states load [linux-boot 1.13 32-bit Boot Protocol].
inline constexpr std::uint16_t kBootCs = 0x10;
inline constexpr std::uint16_t kBootDs = 0x18;

/// Protected mode without paging, at `entry`. All that is not named by PVH, Multiboot or Linux' 32-bit
/// protocol is zero, or as after RESET.
Expected<EntryState> protected_mode_entry(std::uint64_t entry, MemoryPlan& plan);

/// 64-bit mode with the first 4 GiB mapped one to one, at `entry`.
Expected<EntryState> long_mode_entry(std::uint64_t entry, MemoryPlan& plan, GuestMemory& memory);

}  // namespace hv::loader
