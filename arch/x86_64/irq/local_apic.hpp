// SPDX-License-Identifier: MIT
// The physical CPUs' local APICs: x2APIC where the processor has it, else memory mapped [sdm3 Ch. 11 APIC].
#pragma once

#include "vmm/base/address.hpp"
#include "vmm/base/expected.hpp"

#include <cstdint>

namespace hv::irq {

/// Once, on the boot CPU, with the registers' physical address from the MADT; maps them.
Expected<void> init_local_apic(Hpa registers);
/// Switches the executing CPU's local APIC on, everything masked.
void enable_local_apic();
[[nodiscard]] std::uint32_t local_apic_id();
void end_of_interrupt();

void send_ipi(std::uint32_t apic_id, std::uint8_t vector);
/// Starts an application processor at `page` (physical, page aligned, below 1 MiB) [sdm3 9.4 MP
/// Initialization].
void send_init(std::uint32_t apic_id);
void send_startup(std::uint32_t apic_id, Hpa page);
void send_nmi_to_others();

/// Finds out how fast the timer counts; once, on the boot CPU, after the TSC's frequency is known.
void calibrate_timer();
/// One interrupt of HostVector::timer on this CPU when tsc() reaches `deadline`, or soon after it if it has
/// already. A deadline further away than the timer can count comes early.
void arm_timer(std::uint64_t deadline);
void stop_timer();

}  // namespace hv::irq
