// SPDX-License-Identifier: MIT
// Ends the VM by ACPI's S5, found in the tables as an operating system finds it.
#include "lib/acpi.hpp"
#include "lib/runtime.hpp"

int payload_main() {
    payload::print("powering off\n");
    payload::acpi::power_off();
    payload::fail("still here after S5");
}
