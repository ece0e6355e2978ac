// SPDX-License-Identifier: MIT
// The second half of the start: the machine's tables, its CPUs, its virtualization extension, and the VMs.
#pragma once

#include "boot/main/command_line.hpp"
#include "boot/multiboot2/boot_info.hpp"
#include "vmm/mm/frame_allocator.hpp"

#include <cstdint>

namespace hv::boot {

/// Runs on the boot CPU until the host is powered off. `started` is the TSC when the image was entered.
[[noreturn]] void run_platform(const BootInfo& info, const Options& options, FrameAllocator& frames,
                               std::uint64_t started);

}  // namespace hv::boot
