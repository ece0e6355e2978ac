// SPDX-License-Identifier: MIT
// The boot protocols that load() chooses from; each as load() documents it.
#pragma once

#include "vmm/loader/loader.hpp"
#include "vmm/loader/memory_plan.hpp"

namespace hv::loader {

/// An ELF with the note XEN_ELFNOTE_PHYS32_ENTRY [pvh].
Expected<EntryState> load_pvh(const LoadRequest& request, MemoryPlan& plan, GuestMemory& memory);

/// Whether `kernel` begins like a Linux bzImage.
bool is_bzimage(std::span<const std::byte> kernel);
/// Linux' 64-bit boot protocol, or its 32-bit one for kernels that lack the 64-bit entry point [linux-boot].
Expected<EntryState> load_bzimage(const LoadRequest& request, MemoryPlan& plan, GuestMemory& memory);

/// Multiboot 1: an ELF, or any file whose header has the address fields [multiboot1].
Expected<EntryState> load_multiboot(const LoadRequest& request, MemoryPlan& plan, GuestMemory& memory);

}  // namespace hv::loader
