// SPDX-License-Identifier: MIT
// Power and reset registers [acpi6.5 5.2.9 Fixed ACPI Description Table (FADT)], and the value that turns the
// machine off, which firmware hides in AML.
#pragma once

#include "drivers/acpi/table.hpp"

#include <optional>

namespace hv::acpi {

/// What to write into SLP_TYPa and SLP_TYPb to reach a sleep state [acpi6.5 7.4.2 Sx States]; 3 bits each.
struct SleepType {
    std::uint8_t a;
    std::uint8_t b;
};

/// Registers that do not exist are false.
struct FixedHardware {
    GenericAddress pm1a_event, pm1b_event;
    GenericAddress pm1a_control, pm1b_control;
    GenericAddress pm_timer;
    bool pm_timer_32bit{};  ///< else 24 bits
    GenericAddress reset;   ///< false also where the FADT does not say that it works
    std::uint8_t reset_value{};
    /// Hardware-reduced ACPI: SLP_TYP and SLP_EN are here, there is no PM1 [acpi6.5 4.8.3.7 Sleep Control and
    /// Status Registers].
    GenericAddress sleep_control;
    bool hardware_reduced{};
    std::uint16_t sci_interrupt{};
    std::uint32_t smi_command{};  ///< port that takes `acpi_enable`; 0: ACPI mode is always on
    std::uint8_t acpi_enable{};
    bool has_8042{};
    Hpa dsdt{};  ///< 0: none
};

FixedHardware parse_fadt(const Table& fadt);

/// Looks for Name (\_S5, Package () {...}) in a DSDT's or SSDT's byte code, without running it.
std::optional<SleepType> find_s5(std::span<const std::byte> aml);

}  // namespace hv::acpi
