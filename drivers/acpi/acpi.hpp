// SPDX-License-Identifier: MIT
// What ACPI's static tables tell about the machine. Firmware is not trusted to be right: lengths and
// checksums are checked, and a bad table is left out with a log line. AML is not interpreted.
#pragma once

#include "drivers/acpi/fadt.hpp"
#include "drivers/acpi/madt.hpp"

#include <optional>

namespace hv::acpi {

/// Configuration space in memory of some buses of a segment group [pcifw 4.1.2 MCFG Table Description].
struct EcamRegion {
    Hpa base;  ///< of bus 0, even if first_bus is not 0
    std::uint16_t segment;
    std::uint8_t first_bus;
    std::uint8_t last_bus;
};

struct AcpiInfo {
    std::optional<InterruptControllers> interrupts;  ///< MADT
    Vec<EcamRegion> ecam;                            ///< MCFG
    std::optional<FixedHardware> hardware;           ///< FADT
    std::optional<Hpa> hpet;
    std::optional<SleepType> s5;
};

/// Looks for the RSDP where a PC's BIOS leaves it [acpi6.5 5.2.5.1 Finding the RSDP on IA-PC Systems].
/// Error::not_found.
Expected<Hpa> find_rsdp(MemoryReader& memory);
/// Reads the tables that the RSDP at `rsdp` leads to. Error::corrupted: there is no valid RSDP, or no valid
/// RSDT or XSDT; Error::no_memory.
Expected<AcpiInfo> read_tables(MemoryReader& memory, Hpa rsdp);
/// The same from a copy of the RSDP, as boot loaders hand it over.
Expected<AcpiInfo> read_tables(MemoryReader& memory, std::span<const std::byte> rsdp);

}  // namespace hv::acpi
