// SPDX-License-Identifier: MIT
// The VM's other CPUs, as the ACPI tables list them.
#pragma once

#include <cstdint>

namespace payload {

inline constexpr unsigned kMaxCpus = 64;

/// The CPUs of the MADT, this one among them; fails the payload where there is none.
unsigned cpu_count();
/// APIC ID of CPU `index` of the MADT.
std::uint32_t apic_id_of(unsigned index);

/// Starts every other CPU, one after the other; each calls work(index) with interrupts disabled, and then
/// halts for good. The local APIC of this CPU is enabled. Waits until each has begun.
void start_other_cpus(void (*work)(unsigned index));

}  // namespace payload
