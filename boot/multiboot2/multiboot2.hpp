// SPDX-License-Identifier: MIT
// Multiboot2 boot information as the boot loader leaves it [multiboot2 3.6 Boot information format]. Every
// tag is checked; one that is wrong is skipped with a log line, an unknown one silently.
#pragma once

#include "boot/multiboot2/boot_info.hpp"
#include "vmm/base/expected.hpp"

#include <cstdint>

namespace hv::boot::multiboot2 {

/// In the image's header [multiboot2 3.1.1 The layout of Multiboot2 header].
inline constexpr std::uint32_t kHeaderMagic = 0xe852'50d6;
/// In EAX at entry [multiboot2 3.3 I386 machine state].
inline constexpr std::uint32_t kBootMagic = 0x36d7'6289;

/// Fills `out` from the boot information at `info` (EBX at entry). Error::corrupted: it is no boot
/// information at all, or cannot be reached; then `out` is as it was.
Expected<void> parse(Hpa info, const PhysicalMemory& memory, BootInfo& out);

}  // namespace hv::boot::multiboot2
