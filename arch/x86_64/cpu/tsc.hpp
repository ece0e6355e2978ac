// SPDX-License-Identifier: MIT
// How fast the time-stamp counter runs: from CPUID where it says so, else measured against the ACPI PM timer,
// else against the PIT [sdm3 20.7.3 Determining the Processor Base Frequency].
#pragma once

#include <cstdint>

namespace hv::cpu {

/// Ticks per second; a rough guess before calibrate_tsc().
std::uint64_t tsc_frequency();
/// `pm_timer_port` 0: there is none.
void calibrate_tsc(std::uint16_t pm_timer_port);
/// Busy wait; only for starting hardware up.
void delay_microseconds(std::uint64_t microseconds);

}  // namespace hv::cpu
