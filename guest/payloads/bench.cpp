// SPDX-License-Identifier: MIT
// What an exit costs, as a guest sees it: TSC ticks of a round trip, less those of measuring nothing. Where
// the machine counts one tick an instruction, these are instructions. Each row is `bench: NAME MINIMUM
// MEDIAN`. after=N: sleeps first until its TSC is N; brief=1: only some rows, those of a host full of VMs.
#include "lib/cpu.hpp"
#include "lib/interrupts.hpp"
#include "lib/local_apic.hpp"
#include "lib/runtime.hpp"
#include "lib/smp.hpp"
#include "lib/virtio.hpp"

#include <algorithm>
#include <atomic>

using namespace payload;

// The shortest handlers that note the time and end the interrupt, one for each mode of the local APIC.
extern "C" {
extern const char note_time_xapic[];
extern const char note_time_x2apic[];
volatile std::uint64_t handled_at;
}
asm(R"(
    .macro NOTE_TIME
    pushq %rax
    pushq %rcx
    pushq %rdx
    rdtsc
    shlq $32, %rdx
    orq %rdx, %rax
    movq %rax, handled_at
    .endm
    .macro RETURN
    popq %rdx
    popq %rcx
    popq %rax
    iretq
    .endm
    .text
note_time_xapic:
    NOTE_TIME
    movl $0xfee000b0, %eax
    movl $0, (%rax)
    RETURN
note_time_x2apic:
    NOTE_TIME
    movl $0x80b, %ecx
    xorl %eax, %eax
    xorl %edx, %edx
    wrmsr
    RETURN
)");

namespace {

constexpr unsigned kSamples = 1000;
constexpr unsigned kSlowSamples = 50;
constexpr std::uint8_t kTimerVector = 0x50;
constexpr std::uint8_t kIpiVector = 0x51;
constexpr std::uint8_t kPingVector = 0x52;
constexpr std::uint8_t kAnswerVector = 0x53;
constexpr std::uint64_t kIoApic = 0xfec0'0000;
constexpr std::uint64_t kUnclaimedMemory = 0xb000'0000;
constexpr std::uint16_t kUnclaimedPort = 0x1234;
constexpr std::uint64_t kFar = std::uint64_t{1} << 40;  // a timer that does not fire in this run

std::uint64_t samples[kSamples];
std::uint64_t nothing;

void report(const char* name, unsigned count) {
    std::sort(samples, samples + count);
    print("bench: %s %lu %lu\n", name, samples[0], samples[count / 2]);
}

template <class Operation>
void measure_raw(Operation operation) {
    for (std::uint64_t& sample : samples) {
        const std::uint64_t start = rdtsc();
        operation();
        sample = rdtsc() - start;
    }
}

template <class Operation>
void measure(const char* name, Operation operation) {
    measure_raw(operation);
    for (std::uint64_t& sample : samples)
        sample -= std::min(sample, nothing);
    report(name, kSamples);
}

void measure_nothing() {
    measure_raw([] {});
    std::sort(samples, samples + kSamples);
    nothing = samples[0];
}

void cpuid_exit() {
    measure("cpuid", [] { static_cast<void>(cpuid(0)); });
}

void x2apic_end_of_interrupt() {
    measure("x2apic-eoi", [] { wrmsr(0x80b, 0); });
}

void exits() {
    cpuid_exit();
    std::uint64_t rax = ~std::uint64_t{0};
    if (try_hypercall(rax) == kNoFault) {
        if (is_amd())
            measure("hypercall", [] { asm volatile("vmmcall" : : "a"(~std::uint64_t{0}) : "memory"); });
        else
            measure("hypercall", [] { asm volatile("vmcall" : : "a"(~std::uint64_t{0}) : "memory"); });
    }
    measure("out-unclaimed", [] { out8(kUnclaimedPort, 0); });
    measure("in-unclaimed", [] { static_cast<void>(in8(kUnclaimedPort)); });
    measure("in-uart", [] { static_cast<void>(in8(0x3f8 + 5)); });
    measure("in-pic", [] { static_cast<void>(in8(0x21)); });
    measure("rdmsr-apic-base", [] { static_cast<void>(rdmsr(apic::kApicBaseMsr)); });
    const std::uint64_t base = rdmsr(apic::kApicBaseMsr);
    measure("wrmsr-apic-base", [base] { wrmsr(apic::kApicBaseMsr, base); });
    measure("io-apic-select", [] { write<std::uint32_t>(kIoApic, 1); });
    measure("io-apic-window", [] { static_cast<void>(read<std::uint32_t>(kIoApic + 0x10)); });
    measure("mmio-unclaimed", [] { static_cast<void>(read<std::uint32_t>(kUnclaimedMemory)); });
}

void local_apic(bool x2apic) {
    apic::prepare_timer(kTimerVector);
    if (!x2apic)
        measure("xapic-read-id", [] { static_cast<void>(read<std::uint32_t>(apic::kXapic + 0x20)); });
    // Spelled out, so as not to measure how the library picks the mode.
    constexpr auto kCount = static_cast<std::uint32_t>(kFar >> 10);
    if (x2apic) {
        x2apic_end_of_interrupt();
        measure("x2apic-timer-count", [] { wrmsr(0x838, kCount); });
    } else {
        measure("xapic-eoi", [] { write<std::uint32_t>(apic::kXapic + 0xb0, 0); });
        measure("xapic-timer-count", [] { write(apic::kXapic + 0x380, kCount); });
    }
    if (apic::tsc_deadline_offered())
        measure(x2apic ? "x2apic-tsc-deadline" : "xapic-tsc-deadline",
                [] { wrmsr(apic::kTscDeadlineMsr, rdtsc() + kFar); });
}

void self_ipi(bool x2apic) {
    constexpr std::uint32_t kSelf = 1 << 18;
    for (std::uint64_t& sample : samples) {
        handled_at = 0;
        const std::uint64_t start = rdtsc();
        if (x2apic)
            wrmsr(0x83f, kIpiVector);
        else
            write<std::uint32_t>(apic::kXapic + 0x300, kSelf | kIpiVector);
        while (handled_at == 0) {
        }
        sample = rdtsc() - start;
    }
    report("self-ipi", kSamples);
}

enum class Waiting { running, halted };

void timer_lateness(const char* name, std::uint64_t ahead, Waiting waiting) {
    for (unsigned i = 0; i < kSlowSamples; ++i) {
        handled_at = 0;
        disable_interrupts();
        const std::uint64_t deadline = rdtsc() + ahead;
        apic::arm_timer(deadline);
        if (waiting == Waiting::halted) {
            wait_for_interrupt();
        } else {
            enable_interrupts();
            while (handled_at == 0) {
            }
        }
        const std::uint64_t now = handled_at;
        samples[i] = now - std::min(now, deadline);
        enable_interrupts();
    }
    report(name, kSlowSamples);
}

void short_timers() {
    timer_lateness("timer-running", 100'000, Waiting::running);
    timer_lateness("hlt-wake-100us", 100'000, Waiting::halted);
}

void sleep_until(std::uint64_t tsc) {
    while (rdtsc() < tsc) {
        apic::arm_timer(tsc);
        wait_for_interrupt();
    }
}

/// What a host full of other VMs may make dearer.
int brief(std::uint64_t after) {
    apic::enable(apic::x2apic_offered());
    set_gate(kTimerVector, apic::in_x2apic_mode() ? note_time_x2apic : note_time_xapic);
    apic::prepare_timer(kTimerVector);
    sleep_until(after);
    measure_nothing();
    cpuid_exit();
    if (apic::in_x2apic_mode())
        x2apic_end_of_interrupt();
    short_timers();
    print("bench: end\n");
    return 0;
}

void doorbell() {
    virtio::Device disk{virtio::kBlock, 0};
    disk.start();
    measure("virtio-doorbell", [&disk] { disk.ring_doorbell(); });
    alignas(16) static char sector[512];
    for (unsigned i = 0; i < kSlowSamples; ++i) {
        const std::uint64_t start = rdtsc();
        CHECK(virtio::read_sector(disk, 0, sector));
        samples[i] = rdtsc() - start;
    }
    report("virtio-read-sector-polled", kSlowSamples);
}

std::uint32_t first_cpu;
std::atomic<std::uint32_t> other_cpu;
std::atomic<bool> answered;

void on_ping(Frame&) {
    apic::end_of_interrupt();
    apic::send_ipi(first_cpu, kAnswerVector);
}

void on_answer(Frame&) {
    answered = true;
    apic::end_of_interrupt();
}

void other(unsigned index) {
    apic::enable(apic::x2apic_offered());
    other_cpu = apic_id_of(index) + 1;
    for (;;)
        wait_for_interrupt();
}

/// From this vCPU to one that is halted and back.
void cross_ipi() {
    first_cpu = apic::id();
    set_handler(kPingVector, on_ping);
    set_handler(kAnswerVector, on_answer);
    start_other_cpus(other);
    while (other_cpu == 0)
        cpu_pause();
    for (unsigned i = 0; i < kSlowSamples; ++i) {
        answered = false;
        const std::uint64_t start = rdtsc();
        apic::send_ipi(other_cpu - 1, kPingVector);
        while (!answered)
            wait_for_interrupt();
        samples[i] = rdtsc() - start;
    }
    report("ipi-to-halted-vcpu-and-back", kSlowSamples);
}

}  // namespace

int payload_main() {
    if (argument("brief", 0) != 0)
        return brief(argument("after", 0));
    apic::enable(false);
    measure_nothing();
    exits();
    if (!apic::in_x2apic_mode())
        local_apic(false);
    if (apic::x2apic_offered()) {
        apic::enable(true);
        local_apic(true);
    }
    const char* const handler = apic::in_x2apic_mode() ? note_time_x2apic : note_time_xapic;
    set_gate(kTimerVector, handler);
    set_gate(kIpiVector, handler);
    apic::arm_timer(rdtsc() + 1000);  // in place of the far ones
    enable_interrupts();
    self_ipi(apic::in_x2apic_mode());
    short_timers();
    timer_lateness("hlt-wake-2ms", 2'000'000, Waiting::halted);
    if (argument("disk", 1) != 0)
        doorbell();
    disable_interrupts();
    if (cpu_count() > 1)
        cross_ipi();
    print("bench: end\n");
    return 0;
}
