// SPDX-License-Identifier: MIT
// \_S5 out of AML without an interpreter: the object is a package of constants, found by its encoding.
#pragma once

#include "drivers/acpi/acpi_info.hpp"

namespace hv::acpi {

/// `aml` is a DSDT's or SSDT's body. Nothing: there is no \_S5 of constants.
std::optional<SleepType> find_s5(std::span<const std::byte> aml);

}  // namespace hv::acpi
