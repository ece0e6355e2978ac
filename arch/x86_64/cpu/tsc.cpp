// SPDX-License-Identifier: MIT
#include "arch/x86_64/cpu/tsc.hpp"

#include "arch/x86_64/cpu/instructions.hpp"
#include "vmm/base/log.hpp"
#include "vmm/base/machine.hpp"

#include <algorithm>
#include <array>

namespace hv::cpu {
namespace {

constinit std::uint64_t frequency = 1'000'000'000;

constexpr std::uint64_t kPmTimerHz = 3'579'545;  // [acpi 4.8.2.1 Power Management Timer]
constexpr std::uint64_t kPitHz = 1'193'182;

std::uint64_t from_cpuid() {
    if (cpuid(0).eax < 0x15)
        return 0;
    const CpuidLeaf leaf = cpuid(0x15);
    if (leaf.eax == 0 || leaf.ebx == 0 || leaf.ecx == 0)
        return 0;
    return std::uint64_t{leaf.ecx} * leaf.ebx / leaf.eax;
}

/// Both clocks at one moment: of a few reads the quickest, since an SMI, or a busy host under an emulator,
/// lengthens some.
struct Moment {
    std::uint64_t tsc;
    std::uint32_t pm_timer;
};
Moment read_both(std::uint16_t pm_timer_port) {
    constexpr unsigned kReads = 8;
    Moment moment{};
    std::uint64_t quickest = ~std::uint64_t{0};
    for (unsigned i = 0; i < kReads; ++i) {
        const std::uint64_t before = rdtsc();
        const std::uint32_t clock = in32(pm_timer_port);
        const std::uint64_t taken = rdtsc() - before;
        if (taken < quickest) {
            quickest = taken;
            moment = {before + taken / 2, clock};
        }
    }
    return moment;
}

/// TSC ticks per second seen while the PM timer advances by about a hundredth of a second; 0: it stands
/// still.
std::uint64_t against_pm_timer(std::uint16_t port) {
    constexpr std::uint32_t kMask = 0xff'ffff;
    constexpr std::uint32_t kWindow = kPmTimerHz / 100;
    constexpr unsigned kMaxReads = 100'000'000;
    const Moment start = read_both(port);
    for (unsigned reads = 0; reads < kMaxReads; ++reads) {
        std::uint32_t passed = (in32(port) - start.pm_timer) & kMask;
        if (passed >= kWindow) {
            const Moment end = read_both(port);
            passed = (end.pm_timer - start.pm_timer) & kMask;
            return (end.tsc - start.tsc) * kPmTimerHz / passed;
        }
        // A timer that has not moved after so many reads never will.
        if (passed == 0 && reads > 1'000'000)
            return 0;
    }
    return 0;
}

/// The same with channel 2 of the PIT, gated by port 0x61, counting down once.
std::uint64_t against_pit() {
    constexpr std::uint16_t kCount = kPitHz / 100;
    constexpr unsigned kMaxReads = 100'000'000;
    const std::uint8_t gate = in8(0x61);
    out8(0x61, static_cast<std::uint8_t>((gate & ~2U) | 1U));
    out8(0x43, 0xb0);  // channel 2, both bytes, mode 0
    out8(0x42, kCount & 0xff);
    out8(0x42, kCount >> 8);
    const std::uint64_t start = rdtsc();
    std::uint64_t result = 0;
    for (unsigned reads = 0; reads < kMaxReads; ++reads) {
        if ((in8(0x61) & 0x20) != 0) {
            result = (rdtsc() - start) * kPitHz / kCount;
            break;
        }
    }
    out8(0x61, gate);
    return result;
}

/// The median of three: one window may be disturbed, by an SMI or by a busy host under an emulator.
template <class Measure>
std::uint64_t median(Measure measure) {
    std::array<std::uint64_t, 3> values{measure(), measure(), measure()};
    std::sort(values.begin(), values.end());
    return values[1];
}

}  // namespace

std::uint64_t tsc_frequency() {
    return frequency;
}

void calibrate_tsc(std::uint16_t pm_timer_port) {
    const char* source = "CPUID";
    std::uint64_t hz = from_cpuid();
    if (hz == 0 && pm_timer_port != 0) {
        source = "the PM timer";
        hz = against_pm_timer(pm_timer_port);
    }
    if (hz == 0) {
        source = "the PIT";
        hz = median(against_pit);
    }
    constexpr std::uint64_t kPlausible = 1'000'000;
    if (hz < kPlausible) {
        log::error(log::Topic::cpu,
                   "the TSC's frequency could not be measured; 1 GHz is assumed and clocks will be wrong");
        return;
    }
    frequency = hz;
    log::info(log::Topic::cpu, "TSC: %llu kHz by %s", static_cast<unsigned long long>(hz / 1000), source);
}

void delay_microseconds(std::uint64_t microseconds) {
    const std::uint64_t end = rdtsc() + microseconds * frequency / 1'000'000;
    while (rdtsc() < end)
        machine::pause();
}

}  // namespace hv::cpu
