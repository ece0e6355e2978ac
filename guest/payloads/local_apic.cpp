// SPDX-License-Identifier: MIT
// The local APIC as the manual describes it, in xAPIC and in x2APIC mode, from one processor's side.
#include "lib/local_apic.hpp"

#include "lib/checks.hpp"
#include "lib/cpu.hpp"
#include "lib/interrupts.hpp"
#include "lib/runtime.hpp"

#include <cstdint>

using namespace payload;

namespace {

constexpr std::uint32_t kLvtPeriodic = 1 << 17, kMasked = 1 << 16, kSelf = 1 << 18;
constexpr std::uint8_t kLowVector = 0x41, kHighVector = 0x51, kErrorVector = 0x61, kNmi = 2;
constexpr int kGeneralProtection = 13;
constexpr std::uint64_t kEnable = 1 << 11, kExtended = 1 << 10;

unsigned volatile low_count, high_count, error_count, nmi_count;
volatile bool nest_nmis;

std::uint32_t reg(std::uint32_t offset) {
    return apic::read(static_cast<apic::Register>(offset));
}
void set(std::uint32_t offset, std::uint32_t value) {
    apic::write(static_cast<apic::Register>(offset), value);
}
void send_icr(std::uint32_t destination, std::uint32_t low) {
    if (apic::in_x2apic_mode()) {
        wrmsr(apic::kIcrMsr, std::uint64_t{destination} << 32 | low);
        return;
    }
    set(0x310, destination << 24);
    set(0x300, low);
}
void window() {
    asm volatile("sti; nop; nop; cli" : : : "memory");
}
bool faults(std::uint32_t msr, std::uint64_t value) {
    return try_wrmsr(msr, value) == kGeneralProtection;
}
std::uint32_t errors() {
    set(0x280, 0);
    return reg(0x280);
}

void on_low(Frame&) {
    low_count = low_count + 1;
    apic::end_of_interrupt();
}
void on_high(Frame&) {
    high_count = high_count + 1;
    apic::end_of_interrupt();
}
void on_error(Frame&) {
    error_count = error_count + 1;
    apic::end_of_interrupt();
}
void on_nmi(Frame&) {
    nmi_count = nmi_count + 1;
    if (nmi_count == 1 && nest_nmis)
        for (unsigned i = 0; i < 10; ++i)
            send_icr(apic::id(), 0x4400);
}

void test_priorities() {
    low_count = 0;
    high_count = 0;
    set(0x80, 0x50);
    expect(reg(0xa0) == 0x50, "PPR follows TPR");
    send_icr(0, kSelf | kLowVector);
    send_icr(0, kSelf | kHighVector);
    window();
    expect(low_count == 0 && high_count == 0, "TPR holds its class back");
    expect((reg(0x220) & 1U << 1) != 0 && (reg(0x220) & 1U << 17) != 0, "IRR");
    set(0x80, 0x40);
    window();
    expect(low_count == 0 && high_count == 1, "the higher class comes through");
    asm volatile("mov %0, %%cr8" : : "r"(std::uint64_t{0}));
    window();
    expect(low_count == 1, "CR8 is TPR");
    expect(reg(0x80) == 0, "in its register too");
}

void test_errors() {
    set(0x370, kErrorVector);
    set(0x280, 0);
    error_count = 0;
    send_icr(0, kSelf | 5);
    window();
    expect(error_count == 1, "an illegal vector raises the error interrupt");
    expect(reg(0x280) == 0 && errors() == 0x20, "ESR shows it after a write");
    expect(errors() == 0, "once");
    set(0x370, kMasked);
}

void test_timer() {
    low_count = 0;
    set(0x3e0, 0xb);
    set(0x320, kLowVector);
    set(0x380, 1'000'000);
    bool falls = true;
    enable_interrupts();
    for (std::uint32_t last = 1'000'000; low_count == 0;) {
        const std::uint32_t now = reg(0x390);
        falls &= now <= last;
        last = now;
    }
    disable_interrupts();
    expect(falls, "a one-shot count falls");
    expect(low_count == 1 && reg(0x390) == 0, "to zero");
    low_count = 0;
    set(0x320, kLvtPeriodic | kLowVector);
    expect(reg(0x390) == 0, "an expired count stays zero in the new mode");
    set(0x380, 500'000);
    bool bounded = true;
    enable_interrupts();
    while (low_count < 5)
        bounded &= reg(0x390) <= 500'000;
    disable_interrupts();
    expect(bounded, "a periodic count is never above the initial one");
    set(0x380, 100'000'000);
    set(0x320, kLowVector);
    expect(reg(0x390) > 50'000'000 && reg(0x380) == 100'000'000, "a change of mode keeps the count");
    set(0x380, 0);
    expect(reg(0x390) == 0, "an initial count of zero stops");
    window();
    low_count = 0;
    if (!apic::tsc_deadline_offered())
        return;
    set(0x320, apic::kLvtTscDeadline | kLowVector);
    asm volatile("mfence" : : : "memory");
    enable_interrupts();
    wrmsr(apic::kTscDeadlineMsr, rdtsc());
    asm volatile("nop");
    disable_interrupts();
    expect(low_count == 1, "a deadline that is over interrupts at once");
    expect(rdmsr(apic::kTscDeadlineMsr) == 0, "and is cleared");
    set(0x380, 1000);
    expect(reg(0x390) == 0, "no counting in TSC-deadline mode");
    wrmsr(apic::kTscDeadlineMsr, rdtsc() + 1'000'000'000'000);
    set(0x320, kMasked);
    expect(rdmsr(apic::kTscDeadlineMsr) == 0, "another mode disarms");
}

void test_nmi() {
    nmi_count = 0;
    nest_nmis = false;
    send_icr(apic::id(), 0x4400);
    window();
    expect(nmi_count == 1, "an NMI to oneself");
    nmi_count = 0;
    nest_nmis = true;
    send_icr(apic::id(), 0x4400);
    window();
    expect(nmi_count == 2, "one more NMI is kept while one is handled");
}

void test_destinations() {
    low_count = 0;
    send_icr(0, 0x8'4000 | kLowVector);
    window();
    expect(low_count == 1, "all including self");
    send_icr(apic::in_x2apic_mode() ? 0xffff'ffff : 0xff, 0x4000 | kLowVector);
    window();
    expect(low_count == 2, "broadcast");
    send_icr(0x33, 0x4000 | kLowVector);
    send_icr(0, 0xc'4000 | kLowVector);
    window();
    expect(low_count == 2, "nobody, and all but self");
    if (apic::in_x2apic_mode()) {
        expect(reg(0xd0) == (apic::id() >> 4 << 16 | 1U << (apic::id() & 15)), "the logical ID is derived");
        send_icr(reg(0xd0), 0x4800 | kLowVector);
        window();
        expect(low_count == 3, "cluster");
        return;
    }
    set(0xd0, 0x0400'0000);
    send_icr(0x06, 0x4800 | kLowVector);
    send_icr(0x03, 0x4800 | kLowVector);
    window();
    expect(low_count == 3, "flat model");
    set(0xe0, 0x0fff'ffff);
    set(0xd0, 0x2400'0000);
    send_icr(0x24, 0x4800 | kLowVector);
    send_icr(0x14, 0x4800 | kLowVector);
    window();
    expect(low_count == 4, "cluster model");
    set(0xe0, 0xffff'ffff);
}

void test_registers() {
    expect((reg(0x30) & 0xff) == 0x14 && (reg(0x30) >> 16 & 0xff) == 5, "version, six LVT entries");
    expect(reg(0xe0) == 0xffff'ffff && reg(0x350) == 0x700 && reg(0x360) == 0x400,
           "flat model, virtual wire mode");
    set(0x320, 0xffff'ffff);
    expect(reg(0x320) == 0x7'00ff, "the bits that LVT timer has");
    set(0x320, kLowVector);
    set(0xf0, 0xff);
    expect((reg(0x320) & kMasked) != 0, "software-disabled: LVT entries are masked");
    set(0xf0, 0x1ff);
    expect((reg(0x320) & kMasked) != 0, "and stay so");
    write<std::uint8_t>(apic::kXapic + 0x80, 0x50);
    expect(reg(0x80) == 0, "a byte write is ignored");
    static_cast<void>(reg(0x3a0));
    expect(errors() == 0x80, "a reserved register is an error");
}

void test_modes() {
    const std::uint64_t base = rdmsr(apic::kApicBaseMsr) & ~(kEnable | kExtended);
    expect(faults(apic::kApicBaseMsr, base | kExtended), "enabled to invalid");
    expect(faults(apic::kApicBaseMsr, base | kEnable | 1), "reserved bits of APIC_BASE");
    std::uint64_t value = 0;
    expect(try_rdmsr(0x802, value) == kGeneralProtection, "no x2APIC MSRs in xAPIC mode");
    wrmsr(apic::kApicBaseMsr, base);
    expect((cpuid(1).edx & 1 << 9) == 0, "CPUID: disabled");
    expect(read<std::uint32_t>(apic::kXapic + 0x30) == 0xffff'ffff, "nothing answers at its page");
    expect(faults(apic::kApicBaseMsr, base | kEnable | kExtended), "disabled to x2APIC");
    wrmsr(apic::kApicBaseMsr, base | kEnable);
    expect((cpuid(1).edx & 1 << 9) != 0, "CPUID: enabled");
    expect(reg(0xf0) == 0xff && reg(0x320) == kMasked, "as after reset");
    wrmsr(apic::kApicBaseMsr, (base & 0xfff) | 0xfed4'0000 | kEnable);
    expect((read<std::uint32_t>(0xfed4'0030) & 0xff) == 0x14, "its page moves");
    wrmsr(apic::kApicBaseMsr, base | kEnable);
    apic::enable(true);
    expect(faults(apic::kApicBaseMsr, base | kEnable), "x2APIC to xAPIC");
    expect(read<std::uint32_t>(apic::kXapic + 0x30) == 0xffff'ffff, "no page in x2APIC mode");
    expect(apic::id() == (cpuid(1).ebx >> 24), "ID");
    for (const std::uint32_t read_only : {0x802U, 0x803U, 0x80aU, 0x80dU, 0x810U, 0x839U})
        expect(faults(read_only, 0), "a read-only MSR");
    for (const std::uint32_t absent : {0x800U, 0x80cU, 0x80eU, 0x831U, 0x8ffU})
        expect(faults(absent, 0) && try_rdmsr(absent, value) == kGeneralProtection,
               "an MSR that is not there");
    expect(try_rdmsr(0x80b, value) == kGeneralProtection && try_rdmsr(0x83f, value) == kGeneralProtection,
           "EOI and SELF IPI cannot be read");
    expect(faults(0x80b, 1) && faults(0x828, 1) && faults(0x808, 0x100) && faults(0x83e, 4) &&
               faults(0x80f, 1 << 10) && faults(0x832, 1 << 8) && faults(0x830, 1 << 13),
           "reserved bits");
    low_count = 0;
    wrmsr(0x83f, kLowVector);
    window();
    expect(low_count == 1, "SELF IPI");
}

void test_both_modes() {
    test_priorities();
    test_errors();
    test_timer();
    test_destinations();
    test_nmi();
}

}  // namespace

int payload_main() {
    set_handler(kLowVector, on_low);
    set_handler(kHighVector, on_high);
    set_handler(kErrorVector, on_error);
    set_handler(kNmi, on_nmi);
    apic::enable(false);
    test_registers();
    test_both_modes();
    report("xapic");
    test_modes();
    test_both_modes();
    report("x2apic");
    return verdict("local apic");
}
