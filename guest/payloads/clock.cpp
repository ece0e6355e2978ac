// SPDX-License-Identifier: MIT
// Whether the clocks agree, and none loses or doubles a tick, while the vCPUs fight for the CPU: TSC and kvmclock
// of all vCPUs, PM timer, HPET and RTC against the first one's TSC; periodic interrupts of the local APIC, the
// 8254, the HPET and the RTC, counted. length=N: nanoseconds.
#include "lib/cpu.hpp"
#include "lib/interrupts.hpp"
#include "lib/kvm_clock.hpp"
#include "lib/local_apic.hpp"
#include "lib/runtime.hpp"
#include "lib/smp.hpp"

#include <atomic>

using namespace payload;

namespace {

constexpr std::uint16_t kPmTimer = 0x608;
constexpr std::uint64_t kPmTimerHz = 3'579'545;
constexpr std::uint64_t kHpet = 0xfed0'0000;
constexpr std::uint64_t kHpetHz = 25'000'000;
constexpr std::uint64_t kPitHz = 1'193'182;
constexpr std::uint32_t kPitCount = 1193;
constexpr std::uint64_t kIoApic = 0xfec0'0000;
constexpr std::uint64_t kMillion = 1'000'000;
constexpr std::uint64_t kTolerance = 100;  // parts per million
/// Two reads with no more between them were not torn apart by another vCPU's turn.
constexpr std::uint64_t kTogether = 20'000;

std::atomic<std::uint64_t> latest_tsc;
std::atomic<std::uint64_t> latest_nanoseconds;
std::atomic<std::uint64_t> comparisons;
std::atomic<unsigned> backwards;
std::atomic<bool> over;
alignas(64) volatile kvm_clock::Page pages[kMaxCpus];

volatile std::uint64_t apic_ticks, pit_ticks, hpet_ticks, rtc_ticks;

void note(std::atomic<std::uint64_t>& latest, std::uint64_t seen, std::uint64_t now) {
    if (now < seen)
        backwards.fetch_add(1);
    std::uint64_t old = latest.load();
    while (old < now && !latest.compare_exchange_weak(old, now)) {
    }
}

/// One vCPU's clocks are not behind what any other one has read before.
void compare(unsigned index) {
    const std::uint64_t seen_tsc = latest_tsc.load();
    asm volatile("lfence" : : : "memory");
    note(latest_tsc, seen_tsc, rdtsc());
    const std::uint64_t seen = latest_nanoseconds.load();
    asm volatile("lfence" : : : "memory");
    note(latest_nanoseconds, seen, kvm_clock::read(pages[index]).nanoseconds(rdtsc()));
    comparisons.fetch_add(1);
}

void other(unsigned index) {
    kvm_clock::enable(pages[index]);
    while (!over.load())
        compare(index);
}

std::uint8_t rtc_read(std::uint8_t index) {
    out8(0x70, index);
    return in8(0x71);
}
void rtc_write(std::uint8_t index, std::uint8_t value) {
    out8(0x70, index);
    out8(0x71, value);
}

void route(unsigned pin, std::uint8_t vector) {
    write<std::uint32_t>(kIoApic, 0x11 + 2 * pin);
    write<std::uint32_t>(kIoApic + 0x10, apic::id() << 24);
    write<std::uint32_t>(kIoApic, 0x10 + 2 * pin);
    write<std::uint32_t>(kIoApic + 0x10, vector);
}

/// All counters at one time, which is the TSC's in the middle.
struct Sample {
    std::uint64_t tsc, nanoseconds, hpet;
    std::uint32_t pm;
};
Sample sample() {
    for (;;) {
        const std::uint64_t before = rdtsc();
        const std::uint64_t hpet = read<std::uint64_t>(kHpet + 0xf0);
        const std::uint64_t tsc = rdtsc();
        const std::uint32_t pm = in32(kPmTimer);
        const std::uint64_t after = rdtsc();
        if (after - before < kTogether)
            return {tsc, kvm_clock::read(pages[0]).nanoseconds(tsc), hpet, pm & 0xff'ffff};
    }
}

/// `passed` of a clock of `hz` in `ticks` of the TSC.
void check_rate(const char* name, std::uint64_t passed, std::uint64_t hz, std::uint64_t ticks,
                std::uint64_t tsc_khz) {
    // passed / hz against ticks / tsc_hz, in parts per million; no 128-bit division without a library.
    const std::uint64_t ours = passed * kMillion / hz * kMillion + passed * kMillion % hz * kMillion / hz;
    const std::uint64_t tscs = ticks * kMillion / tsc_khz * 1000 + ticks * kMillion % tsc_khz * 1000 / tsc_khz;
    const std::uint64_t apart = ours > tscs ? ours - tscs : tscs - ours;  // picoseconds
    const std::uint64_t ppm = apart / (tscs / kMillion);
    print("clock: %s is off by %lu ppm\n", name, ppm);
    if (ppm > kTolerance)
        fail("%s: %lu ps in %lu ps of the TSC", name, ours, tscs);
}

void check_ticks(const char* name, std::uint64_t counted, std::uint64_t ns, std::uint64_t hz,
                 std::uint64_t divisor) {
    const std::uint64_t due = ns * hz / divisor / 1'000'000'000;
    print("clock: %s ticked %lu times, due were %lu\n", name, counted, due);
    if (counted + 1 < due || counted > due + 1)
        fail("%s lost or doubled ticks", name);
}

void start_timers() {
    set_handler(0x50, [](Frame&) { apic_ticks = apic_ticks + 1, apic::end_of_interrupt(); });
    set_handler(0x51, [](Frame&) { pit_ticks = pit_ticks + 1, apic::end_of_interrupt(); });
    set_handler(0x52, [](Frame&) { hpet_ticks = hpet_ticks + 1, apic::end_of_interrupt(); });
    set_handler(0x53, [](Frame&) {
        if ((rtc_read(0x0c) & 0x40) != 0)
            rtc_ticks = rtc_ticks + 1;
        apic::end_of_interrupt();
    });
    route(2, 0x51);
    route(20, 0x52);
    route(8, 0x53);
    write<std::uint64_t>(kHpet + 0x100, 20 << 9 | 1 << 6 | 1 << 3 | 1 << 2);  // edge, periodic
    const std::uint64_t now = read<std::uint64_t>(kHpet + 0xf0);
    write<std::uint64_t>(kHpet + 0x108, now + kHpetHz / 1000);
    write<std::uint64_t>(kHpet + 0x108, kHpetHz / 1000);
    rtc_write(0x0a, 0x26);  // 1024 Hz
    static_cast<void>(rtc_read(0x0c));
    rtc_write(0x0b, 0x42);
    out8(0x43, 0x34);
    out8(0x40, kPitCount & 0xff);
    out8(0x40, kPitCount >> 8);
    apic::write(apic::Register::divide, 0xb);
    apic::write(apic::Register::lvt_timer, 1 << 17 | 0x50);
    apic::write(apic::Register::initial_count, 1'000'000);  // of a clock of 1 GHz
}

void stop_timers() {
    apic::write(apic::Register::initial_count, 0);
    out8(0x43, 0x30);
    rtc_write(0x0b, 0x02);
    write<std::uint64_t>(kHpet + 0x100, 0);
}

/// Lets what is owed come in.
void let_late_ticks_in() {
    for (const std::uint64_t end = rdtsc() + cpuid(0x4000'0010).eax * 3; rdtsc() < end;) {
    }
}

}  // namespace

int payload_main() {
    const std::uint64_t length = argument("length", 400'000'000);
    const std::uint64_t tsc_khz = cpuid(0x4000'0010).eax;
    kvm_clock::require();
    kvm_clock::enable(pages[0]);
    apic::enable(apic::x2apic_offered());
    start_other_cpus(other);
    write<std::uint64_t>(kHpet + 0x10, 1);
    const Sample first = sample();
    start_timers();
    const std::uint64_t begin = kvm_clock::read(pages[0]).nanoseconds(rdtsc());
    enable_interrupts();
    std::uint64_t now = begin;
    while (now - begin < length) {
        compare(0);
        now = kvm_clock::read(pages[0]).nanoseconds(rdtsc());
    }
    const Sample last = sample();
    let_late_ticks_in();
    disable_interrupts();
    const std::uint64_t counted = kvm_clock::read(pages[0]).nanoseconds(rdtsc()) - begin;
    stop_timers();
    over = true;
    const std::uint64_t ticks = last.tsc - first.tsc;
    check_rate("kvmclock", last.nanoseconds - first.nanoseconds, 1'000'000'000, ticks, tsc_khz);
    check_rate("HPET", last.hpet - first.hpet, kHpetHz, ticks, tsc_khz);
    check_rate("PM timer", (last.pm - first.pm) & 0xff'ffff, kPmTimerHz, ticks, tsc_khz);
    check_ticks("local APIC", apic_ticks, counted, 1000, 1);
    check_ticks("8254", pit_ticks, counted, kPitHz, kPitCount);
    check_ticks("HPET", hpet_ticks, counted, 1000, 1);
    check_ticks("RTC", rtc_ticks, counted, 1024, 1);
    if (backwards != 0)
        fail("%u of %lu reads went backwards", backwards.load(), comparisons.load());
    print("clock: %u CPUs agree\n", cpu_count());
    return 0;
}
