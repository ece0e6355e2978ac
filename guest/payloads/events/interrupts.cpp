// SPDX-License-Identifier: MIT
// Interrupts and NMIs, and what holds them back.
#include "lib/interrupts.hpp"

#include "events/events.hpp"
#include "lib/cpu.hpp"
#include "lib/local_apic.hpp"
#include "lib/runtime.hpp"
#include "lib/smp.hpp"

#include <atomic>

using namespace payload;
using events::check;

extern "C" {
void shadowed_cpuid();
extern const char shadowed_cpuid_end[];
void open_and_close();
extern const char behind_sti[];
}

asm(R"(
    .text
shadowed_cpuid:
    pushq %rbx
    xorl %eax, %eax
    sti
    cpuid
shadowed_cpuid_end:
    cli
    popq %rbx
    ret

open_and_close:
    sti
behind_sti:
    nop
    cli
    ret
)");

namespace {

constexpr std::uint8_t kNmi = 2, kUndefined = 6, kProtection = 13, kVector = 0x50;
constexpr std::uint32_t kNmiIpi = 0x4400;

std::atomic<unsigned> interrupts, nmis, nmi_depth, nested_at_once;
std::uint64_t interrupted_rip;
std::atomic<unsigned> under_sti;
std::atomic<unsigned> wanted;  ///< NMIs that the other CPU shall have sent
std::atomic<unsigned> round;   ///< of two_senders()

void send_nmi(std::uint32_t apic_id) {
    apic::write(apic::Register::icr_high, apic_id << 24);
    apic::write(apic::Register::icr_low, kNmiIpi);
}

void on_interrupt(Frame& frame) {
    interrupted_rip = frame.rip;
    interrupts = interrupts + 1;
    apic::end_of_interrupt();
}

void on_nmi(Frame&) {
    nmis = nmis + 1;
}
void on_nmi_behind_sti(Frame& frame) {
    nmis = nmis + 1;
    if (frame.rip == reinterpret_cast<std::uint64_t>(behind_sti))
        under_sti = under_sti + 1;
}

/// Sends itself two more: one is kept, and comes after IRET.
void on_nesting_nmi(Frame&) {
    if (nmi_depth != 0)
        nested_at_once = nested_at_once + 1;
    nmi_depth = nmi_depth + 1;
    nmis = nmis + 1;
    if (nmis == 1) {
        send_nmi(apic::id());
        send_nmi(apic::id());
    }
    nmi_depth = nmi_depth - 1;
}

/// Its IRET faults, which unblocks NMIs: the second comes before #GP's handler does anything.
void on_faulting_nmi(Frame& frame) {
    nmis = nmis + 1;
    if (nmis != 1)
        return;
    send_nmi(apic::id());
    frame.cs |= 0xf000;
}
void on_bad_frame(Frame& frame) {
    check("an IRET that faults unblocks NMIs", nmis == 2 && (frame.error_code & 0xf000) == 0xf000);
    reinterpret_cast<std::uint64_t*>(frame.rsp)[1] &= 0xfff;
}

/// An NMI from here comes behind #UD, in its handler or before it.
void on_undefined(Frame& frame) {
    frame.rip += 2;
    send_nmi(apic::id());
    const unsigned before = nmis;
    check("an NMI in an exception's handler comes at once", before == 1);
}

/// With an NMI waiting for the IRET, interrupts still come, and HLT waits for them.
void on_halting_nmi(Frame&) {
    nmis = nmis + 1;
    if (nmis != 1)
        return;
    send_nmi(apic::id());
    apic::send_self_ipi(kVector);
    enable_interrupts();
    while (interrupts == 0)
        cpu_pause();
    disable_interrupts();
    apic::arm_timer(rdtsc() + 100'000);
    wait_for_interrupt();
}

/// [sdm3 6.7.1 Handling Multiple NMIs]
constexpr unsigned kRounds = 200;
constexpr unsigned kWantedBefore = 20;

void send_at_once(std::uint32_t target) {
    for (unsigned done = 0; done < kRounds; ++done) {
        while (round == done)
            cpu_pause();
        send_nmi(target);
        while (nmis < 2 && round == done + 1)
            cpu_pause();
    }
}

/// The hypervisor gets an NMI's notice at any instruction, under the shadow as well.
void nmis_and_sti() {
    set_handler(kNmi, on_nmi_behind_sti);
    nmis = 0;
    round = round + 1;
    while (nmis < kRounds)
        open_and_close();
    check("no NMI comes in STI's shadow", under_sti == 0);
}

void two_senders() {
    constexpr std::uint64_t kPatience = 1'000'000'000;
    set_handler(kNmi, on_nmi);
    unsigned wrong = 0;
    while (round < kRounds && wrong == 0) {
        nmis = 0;
        round = round + 1;
        send_nmi(apic::id());
        for (const std::uint64_t start = rdtsc(); nmis < 2 && wrong == 0;)
            wrong += rdtsc() - start > kPatience ? 1 : 0;
        wrong += nmis > 2 ? 1 : 0;
    }
    check("two NMIs at once come one after the other", wrong == 0);
}

void send_to_first(unsigned) {
    apic::enable(false);
    const std::uint32_t target = apic_id_of(0);
    unsigned sent = 0;
    while (sent < kWantedBefore) {
        while (sent == wanted)
            cpu_pause();
        for (unsigned i = 0; i < 2000; ++i)
            cpu_pause();
        send_nmi(target);
        ++sent;
        while (sent < kWantedBefore && nmis < sent)
            cpu_pause();
    }
    send_at_once(target);
    while (round == kRounds)
        cpu_pause();
    for (unsigned i = 0; i < kRounds; ++i) {
        send_nmi(target);
        while (nmis <= i)
            cpu_pause();
    }
}

}  // namespace

void events::non_maskable_interrupts(bool tcg) {
    set_handler(kNmi, on_nesting_nmi);
    send_nmi(apic::id());
    check("NMIs are blocked until IRET, and one is kept", nmis == 2 && nested_at_once == 0);
    nmis = 0;
    set_handler(kNmi, on_faulting_nmi);
    set_handler(kProtection, on_bad_frame);
    send_nmi(apic::id());
    set_handler(kProtection, nullptr);
    check("the NMI handler's IRET comes to its end", nmis == 2);
    nmis = interrupts = 0;
    set_handler(kNmi, on_halting_nmi);
    send_nmi(apic::id());
    check("an NMI handler takes interrupts and halts while the next NMI waits", nmis == 2 && interrupts == 2);
    set_handler(kNmi, on_nmi);
    nmis = 0;
    set_handler(kUndefined, on_undefined);
    asm volatile("ud2" : : : "memory");
    nmis = 0;
    start_other_cpus(send_to_first);
    wanted = 1;
    while (nmis == 0)
        asm volatile("hlt" : : : "memory");
    check("an NMI ends HLT with IF clear", nmis == 1);
    wanted = kWantedBefore;
    while (nmis < kWantedBefore &&
           tcg)  // every interrupt of the host comes behind MOV SS there, and so finds its shadow
        cpu_pause();
    while (nmis < kWantedBefore)
        asm volatile("movl %%ss, %%eax; movl %%eax, %%ss; nop" : : : "eax", "memory");
    check("NMIs reach a guest that spins with IF clear", nmis == kWantedBefore);
    two_senders();
    if (!tcg)  // which loses the shadow at VMRUN
        nmis_and_sti();
}

void events::maskable_interrupts() {
    set_handler(kVector, on_interrupt);
    apic::send_self_ipi(kVector);
    shadowed_cpuid();
    check("an interrupt waits for the end of STI's shadow, CPUID",
          interrupts == 1 && interrupted_rip == reinterpret_cast<std::uint64_t>(shadowed_cpuid_end));
    for (unsigned i = 0; i < 100; ++i) {
        apic::send_self_ipi(kVector);
        wait_for_interrupt();
    }
    check("STI; HLT ends by an interrupt that waits already", interrupts == 101);
    apic::prepare_timer(kVector);
    for (unsigned i = 0; i < 200; ++i) {
        interrupts = 0;
        apic::arm_timer(rdtsc() + i * 50);
        while (interrupts == 0)
            wait_for_interrupt();
    }
    check("STI; HLT ends by an interrupt that comes just then", interrupts == 1);
}
