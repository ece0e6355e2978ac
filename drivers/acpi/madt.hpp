// SPDX-License-Identifier: MIT
// The interrupt controllers of the machine [acpi6.5 5.2.12 Multiple APIC Description Table (MADT)].
#pragma once

#include "drivers/acpi/table.hpp"
#include "vmm/base/vec.hpp"

namespace hv::acpi {

/// How an interrupt input is wired; `conforms` to its bus: for ISA active high, edge.
enum class Polarity : std::uint8_t { conforms = 0, active_high = 1, reserved = 2, active_low = 3 };
enum class Trigger : std::uint8_t { conforms = 0, edge = 1, reserved = 2, level = 3 };

struct LocalApic {
    std::uint32_t apic_id;
    std::uint32_t processor_uid;
    bool enabled;  ///< usable; if not: may become so while the system runs
};

struct IoApic {
    Hpa address;
    std::uint32_t gsi_base;
    std::uint8_t id;
};

/// An ISA interrupt that is not the GSI of the same number, or is wired otherwise.
struct InterruptOverride {
    std::uint32_t gsi;
    std::uint8_t isa_irq;
    Polarity polarity;
    Trigger trigger;
};

/// An I/O APIC input that is an NMI.
struct NmiSource {
    std::uint32_t gsi;
    Polarity polarity;
    Trigger trigger;
};

/// A local APIC's LINT input that is an NMI.
struct LocalNmi {
    static constexpr std::uint32_t kAllProcessors = 0xffff'ffff;
    std::uint32_t processor_uid;
    std::uint8_t lint;  ///< 0 or 1
    Polarity polarity;
    Trigger trigger;
};

struct InterruptControllers {
    Hpa local_apic{0xfee0'0000};
    bool has_8259{false};        ///< a PIC pair that has to be masked
    Vec<LocalApic> local_apics;  ///< the usable ones and those that may become so, each APIC ID once
    Vec<IoApic> io_apics;
    Vec<InterruptOverride> overrides;
    Vec<NmiSource> nmi_sources;
    Vec<LocalNmi> local_nmis;
};

/// Structures that do not fit are skipped with a log line. Error::no_memory.
Expected<InterruptControllers> parse_madt(const Table& madt);

}  // namespace hv::acpi
