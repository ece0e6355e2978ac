// SPDX-License-Identifier: MIT
// The physical machine as ACPI describes it, started up: clocks, local APICs, I/O APICs, the wall clock,
// power.
#pragma once

#include "arch/x86_64/irq/io_apic.hpp"
#include "boot/multiboot2/boot_info.hpp"
#include "drivers/acpi/acpi_info.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/devices/rtc.hpp"

#include <cstdint>

namespace hv::boot {

class HostMachine {
public:
    /// Reads the tables; without usable ones the machine has one CPU, and cannot power itself off.
    void discover(const BootInfo& info);
    /// Local APIC, I/O APICs, TSC and timer of the boot CPU.
    void start_boot_cpu();
    /// `isa_irq` interrupts the boot CPU as `vector` from now on. Error::not_found: no I/O APIC has it.
    Expected<void> route_isa(std::uint8_t isa_irq, std::uint8_t vector);
    /// Seconds since 1970 by the CMOS clock, and when that was.
    [[nodiscard]] WallClock read_wall_clock() const;

    [[nodiscard]] const acpi::AcpiInfo& acpi() const { return acpi_; }
    /// ACPI S5. Returns if the machine has no such thing.
    void power_off() const;
    /// By every means there is.
    [[noreturn]] void reboot() const;

private:
    void enter_acpi_mode() const;

    acpi::AcpiInfo acpi_;
};

}  // namespace hv::boot
