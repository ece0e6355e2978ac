// SPDX-License-Identifier: MIT
#pragma once

#include "vmm/loader/acpi_tables.hpp"
#include "vmm/loader/aml.hpp"

namespace hv::loader {

/// What the DSDT says of guest_map's board, without the table header.
void write_dsdt(const AcpiBoard& board, AmlWriter& aml);

}  // namespace hv::loader
