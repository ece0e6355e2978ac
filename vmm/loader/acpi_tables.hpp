// SPDX-License-Identifier: MIT
// The ACPI tables that describe guest_map's board: RSDP, XSDT, RSDT, FADT, FACS, MADT, MCFG, HPET and a DSDT
// with the PCI host bridge, its interrupt routing, COM1, RTC and S5 [acpi].
#pragma once

#include "vmm/base/address.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/mm/guest_memory.hpp"

#include <cstdint>

namespace hv::loader {

struct AcpiBoard {
    std::uint32_t vcpus{1};  ///< APIC IDs and processor UIDs are 0 to vcpus - 1
    bool hpet{false};
};

/// Builds the tables at guest_map::kFirmwareStart and returns the RSDP's address. Error::out_of_range: they
/// do not fit below guest_map::kMpTable (some 3,000 vCPUs do).
Expected<Gpa> build_acpi_tables(const AcpiBoard& board, GuestMemory& memory);

}  // namespace hv::loader
