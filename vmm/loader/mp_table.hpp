// SPDX-License-Identifier: MIT
// The MP configuration table of guest_map's board [mp1.4 4 MP Configuration Table]: processors, the I/O APIC
// and where each interrupt arrives, for systems that do not read ACPI.
#pragma once

#include "vmm/base/address.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/mm/guest_memory.hpp"

#include <cstdint>

namespace hv::loader {

struct MpBoard {
    std::uint32_t vcpus{1};  ///< APIC IDs are 0 to vcpus - 1; those that xAPICs cannot have are left out
    std::uint32_t cpu_signature{0};  ///< CPUID leaf 1 EAX
};

/// Builds the table, its floating pointer first, in [guest_map::kMpTable, guest_map::kFirmwareEnd).
Expected<void> build_mp_table(const MpBoard& board, GuestMemory& memory);

}  // namespace hv::loader
