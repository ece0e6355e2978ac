// SPDX-License-Identifier: MIT
// Never gives the CPU away, and says how much of it it got: for each window of the host's time, the TSC ticks
// that it ran. All VMs of a host have the same windows. windows=N: how many it stays for; length=N: of each, in
// nanoseconds; cpuid=1: an exit each turn; sleep=N: it sleeps instead, N ticks at a time, and says how late it
// woke.
#include "lib/cpu.hpp"
#include "lib/interrupts.hpp"
#include "lib/kvm_clock.hpp"
#include "lib/local_apic.hpp"
#include "lib/runtime.hpp"

#include <algorithm>

using namespace payload;

namespace {

constexpr std::uint8_t kTimerVector = 0x50;
/// Between two looks at the TSC; who was away for longer had lost the CPU.
constexpr std::uint64_t kAway = 50'000;

volatile std::uint64_t woke_at;

void on_timer(Frame&) {
    woke_at = rdtsc();
    apic::end_of_interrupt();
}

std::uint64_t run_until(std::uint64_t end, bool exits) {
    std::uint64_t ran = 0;
    for (std::uint64_t last = rdtsc(), now; last < end; last = now) {
        if (exits)
            static_cast<void>(cpuid(0));
        now = rdtsc();
        if (now - last < kAway)
            ran += now - last;
    }
    return ran;
}

void sleep_until(std::uint64_t end, std::uint64_t ticks) {
    std::uint64_t worst = 0;
    std::uint64_t sum = 0;
    unsigned count = 0;
    apic::enable(apic::x2apic_offered());
    set_handler(kTimerVector, on_timer);
    apic::prepare_timer(kTimerVector);
    while (rdtsc() + ticks < end) {
        const std::uint64_t deadline = rdtsc() + ticks;
        apic::arm_timer(deadline);
        wait_for_interrupt();
        const std::uint64_t now = woke_at;
        const std::uint64_t late = now - std::min(now, deadline);
        worst = std::max(worst, late);
        sum += late;
        ++count;
    }
    print("spin: %u wake-ups, %lu ticks late on average, %lu at most\n", count, sum / count, worst);
}

}  // namespace

int payload_main() {
    const std::uint64_t windows = argument("windows", 5);
    const std::uint64_t length = argument("length", 100'000'000);
    const std::uint64_t sleep = argument("sleep", 0);
    const bool exits = argument("cpuid", 0) != 0;
    const kvm_clock::Scale scale = kvm_clock::start();
    const std::uint64_t wall = kvm_clock::wall_at_zero();
    const std::uint64_t first = (wall + scale.nanoseconds(rdtsc())) / length + 1;
    const auto begin_of = [&](std::uint64_t window) { return scale.ticks(window * length - wall); };
    print("spinning\n");
    if (sleep != 0) {
        sleep_until(begin_of(first + windows), sleep);
        return 0;
    }
    std::uint64_t ran[64];
    run_until(begin_of(first), exits);
    for (std::uint64_t i = 0; i < windows && i < 64; ++i)
        ran[i] = run_until(begin_of(first + i + 1), exits);
    const std::uint64_t ticks = begin_of(first + 1) - begin_of(first);
    for (std::uint64_t i = 0; i < windows && i < 64; ++i)
        print("spin: window %lu ran %lu of %lu\n", first + i, ran[i], ticks);
    return 0;
}
