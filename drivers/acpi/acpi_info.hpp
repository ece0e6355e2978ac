// SPDX-License-Identifier: MIT
// What the hypervisor takes from the firmware's ACPI tables, and how it reads them. Everything is checked: a
// table with a wrong checksum, or an entry that does not fit in its table, is skipped with a log line. [acpi
// 5 ACPI Software Programming Model]
#pragma once

#include "vmm/base/address.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/vec.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace hv::acpi {

/// Reaches firmware's memory.
class TableMemory {
public:
    /// The bytes of [start, start + length), or an empty span if they cannot be reached.
    [[nodiscard]] virtual std::span<const std::byte> bytes(Hpa start, std::uint64_t length) = 0;

protected:
    ~TableMemory() = default;
};

struct IoApic {
    std::uint8_t id;
    Hpa address;
    std::uint32_t first_gsi;
};

/// An ISA interrupt that is not what it is by default (edge, active high, GSI of the same number).
struct IsaOverride {
    std::uint8_t irq;
    std::uint32_t gsi;
    bool active_low;
    bool level;
};

/// Enhanced configuration access of PCI segment 0.
struct Ecam {
    Hpa address;  ///< of bus 0, whether or not first_bus is 0
    std::uint8_t first_bus, last_bus;
};

/// A register in memory or port space [acpi 5.2.3.2 Generic Address Structure].
struct Register {
    enum class Space : std::uint8_t { memory = 0, port = 1, pci = 2 } space;
    std::uint64_t address;
};

/// SLP_TYP values that go to PM1a and PM1b for a sleep state.
struct SleepType {
    std::uint8_t a, b;
};

struct AcpiInfo {
    Hpa local_apic{0xfee0'0000};
    Vec<std::uint32_t> cpus;  ///< APIC IDs of the enabled processors, each once, in the MADT's order
    Vec<IoApic> io_apics;
    Vec<IsaOverride> overrides;
    std::optional<Ecam> ecam;
    std::optional<Hpa> hpet;
    std::uint16_t pm1a_control{0};  ///< port; 0: there is none
    std::uint16_t pm1b_control{0};
    std::uint16_t pm_timer{0};  ///< port of a timer of at least 24 bits; 0: there is none
    /// Where PM1a control's SCI_EN is clear the firmware still owns the registers: it hands them over when
    /// `acpi_enable` is written to port `smi_command` [acpi 4.8.2.5 Legacy/ACPI Select and the SCI
    /// Interrupt]. 0: it does not have to.
    std::uint16_t smi_command{0};
    std::uint8_t acpi_enable{0};
    std::optional<Register> reset_register;
    std::uint8_t reset_value{0};
    std::optional<SleepType> s5;
};

/// Reads all tables from an RSDP (revision 0 or 2). Error::corrupted: the RSDP or the root table is unusable;
/// Error::no_memory.
Expected<AcpiInfo> read_tables(std::span<const std::byte> rsdp, TableMemory& memory);
/// The RSDP as BIOSes hide it: in the first KiB of the EBDA or in 0xe0000 to 0xfffff [acpi 5.2.5.1 Finding
/// the RSDP on IA-PC Systems]. An empty span: there is none.
std::span<const std::byte> find_rsdp(TableMemory& memory);

}  // namespace hv::acpi
