// SPDX-License-Identifier: MIT
// Halts, and does no more: for ticks=N TSC ticks, then it ends; ticks=0: for good.
#include "lib/cpu.hpp"
#include "lib/interrupts.hpp"
#include "lib/local_apic.hpp"
#include "lib/runtime.hpp"

using namespace payload;

int payload_main() {
    constexpr std::uint8_t kTimerVector = 0x50;
    const std::uint64_t ticks = argument("ticks", 0);
    apic::enable(apic::x2apic_offered());
    set_handler(kTimerVector, [](Frame&) { apic::end_of_interrupt(); });
    apic::prepare_timer(kTimerVector);
    const std::uint64_t end = rdtsc() + ticks;
    if (ticks != 0)
        apic::arm_timer(end);
    do
        wait_for_interrupt();
    while (ticks == 0 || rdtsc() < end);
    print("idle: done\n");
    return 0;
}
