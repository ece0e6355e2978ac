// SPDX-License-Identifier: MIT
// ACPI tables as a payload reads them. [acpi6.5 5.2 ACPI System Description Tables]
#pragma once

#include <cstdint>
#include <string_view>

namespace payload::acpi {

/// Physical address of the table with this signature, its checksum right; 0: there is none.
std::uint64_t find_table(std::string_view signature);
std::uint32_t table_length(std::uint64_t table);

/// Switches the VM off by S5, as the FADT and the DSDT say; returns when nothing happens.
void power_off();

}  // namespace payload::acpi
