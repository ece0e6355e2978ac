// SPDX-License-Identifier: MIT
// Puts a kernel and what belongs to it into a guest's memory, and says in which state its first processor
// starts. Images come from whoever prepared the boot medium: what does not parse or does not fit is refused
// with a log line that names the VM and the reason.
#pragma once

#include "vmm/base/address.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/core/cpu_state.hpp"
#include "vmm/loader/boot_protocol.hpp"
#include "vmm/mm/guest_memory.hpp"

#include <cstddef>
#include <span>
#include <string_view>

namespace hv::loader {

/// A further file for the kernel: PVH and Multiboot hand over a list of them.
struct BootModule {
    std::span<const std::byte> bytes;
    std::string_view command_line;
};

struct LoadRequest {
    std::string_view vm_name;  ///< for the log
    BootProtocol protocol{BootProtocol::linux};
    std::span<const std::byte> kernel;
    std::span<const std::byte> initrd;  ///< empty: none. The first module where the protocol knows modules
    std::string_view initrd_name;       ///< what its module is called where modules have strings
    std::string_view command_line;
    std::span<const BootModule> modules;
    Gpa rsdp;  ///< where build_acpi_tables() put it; 0: none
};

/// The boot processor at the kernel's entry point.
struct EntryState {
    CpuState cpu;
    VcpuRegs regs;
};

/// Writes into `memory`, which is zeroed but for the ACPI tables. Each image is read once. Error::corrupted:
/// the image contradicts itself; Error::unsupported: not this protocol, or a variant that is not known;
/// Error::out_of_range: it does not fit in memory; Error::invalid_argument: the command line is too long for
/// the protocol.
Expected<EntryState> load(const LoadRequest& request, GuestMemory& memory);

}  // namespace hv::loader
