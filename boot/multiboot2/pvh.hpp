// SPDX-License-Identifier: MIT
// The start info of the PVH boot protocol, by which `qemu -kernel` starts an ELF image that has the note
// [pvh hvm_start_info]. Versions 0 (no memory map) and 1, and what later ones share with them.
#pragma once

#include "boot/multiboot2/boot_info.hpp"
#include "vmm/base/expected.hpp"

#include <cstdint>

namespace hv::boot::pvh {

/// The first word of the start info; EBX holds its physical address at entry.
inline constexpr std::uint32_t kStartMagic = 0x336e'c578;

/// Fills `out` from the start info at `info`. Error::corrupted: no start info there, or it cannot be reached;
/// then `out` is as it was.
Expected<void> parse(Hpa info, const PhysicalMemory& memory, BootInfo& out);

}  // namespace hv::boot::pvh
