// SPDX-License-Identifier: MIT
// Halts, and does no more: for ticks=N TSC ticks, then it ends; ticks=0: for good. period=N: it wakes each N
// ticks, as a kernel with a timer does, and says how often.
#include "lib/cpu.hpp"
#include "lib/interrupts.hpp"
#include "lib/local_apic.hpp"
#include "lib/runtime.hpp"

#include <algorithm>

using namespace payload;

int payload_main() {
    constexpr std::uint8_t kTimerVector = 0x50;
    constexpr std::uint64_t kNever = ~std::uint64_t{0};
    const std::uint64_t ticks = argument("ticks", 0);
    const std::uint64_t period = argument("period", 0);
    apic::enable(apic::x2apic_offered());
    set_handler(kTimerVector, [](Frame&) { apic::end_of_interrupt(); });
    apic::prepare_timer(kTimerVector);
    const std::uint64_t begin = rdtsc();
    const std::uint64_t end = ticks != 0 ? begin + ticks : kNever;
    std::uint64_t next = period != 0 ? begin + period : kNever;
    std::uint64_t wakes = 0;
    for (;;) {
        if (const std::uint64_t deadline = std::min(next, end); deadline != kNever)
            apic::arm_timer(deadline);
        wait_for_interrupt();
        const std::uint64_t now = rdtsc();
        if (now >= end)
            break;
        if (now >= next) {
            ++wakes;
            next += period;
        }
    }
    print("idle: done after %lu wake-ups\n", wakes);
    return 0;
}
