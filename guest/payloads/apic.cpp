// SPDX-License-Identifier: MIT
// What software can see of one local APIC in both of its modes and on the way between them: priorities, what
// IRR, ISR and TMR read, level-triggered interrupts of the I/O APIC, the 8259's by LINT0, errors.
#include "lib/cpu.hpp"
#include "lib/interrupts.hpp"
#include "lib/local_apic.hpp"
#include "lib/runtime.hpp"

#include <utility>

using namespace payload;

namespace {

// Registers that the library has no names for, as offsets of the page.
constexpr std::uint32_t kPpr = 0xa0, kApr = 0x90, kLdr = 0xd0, kDfr = 0xe0, kIsr = 0x100, kTmr = 0x180,
                        kIrr = 0x200, kEsr = 0x280, kLvtLint0 = 0x350, kLvtError = 0x370;
constexpr std::uint64_t kIoApic = 0xfec0'0000;
constexpr unsigned kPin = 20;  // a PCI line: active low, so that it looks asserted to an active-high entry
constexpr std::uint32_t kLevel = 1 << 15, kMasked = 1 << 16, kRemoteIrr = 1 << 14, kShorthandSelf = 1 << 18;
constexpr std::uint8_t kLow = 0x41, kLowToo = 0x42, kHigh = 0x61, kMiddle = 0x51, kLevelVector = 0x71,
                       kPicBase = 0x38;
constexpr std::uint64_t kPatience = 100'000'000;

std::uint32_t get(std::uint32_t offset) {
    return apic::read(static_cast<apic::Register>(offset));
}
void put(std::uint32_t offset, std::uint32_t value) {
    apic::write(static_cast<apic::Register>(offset), value);
}
bool member(std::uint32_t set, std::uint8_t vector) {
    return (get(set + vector / 32 * 16) >> (vector % 32) & 1) != 0;
}
bool empty(std::uint32_t set) {
    std::uint32_t all = 0;
    for (unsigned i = 0; i < 8; ++i)
        all |= get(set + i * 16);
    return all == 0;
}
void write_cr8(std::uint64_t value) {
    asm volatile("movq %0, %%cr8" : : "r"(value) : "memory");
}
std::uint64_t read_cr8() {
    std::uint64_t value;
    asm volatile("movq %%cr8, %0" : "=r"(value));
    return value;
}
/// Lets one instruction with interrupts enabled pass.
void let_in() {
    asm volatile("sti; nop; nop; cli" : : : "memory");
}

unsigned count[256];
char order[64];
unsigned ordered;

void note(char what) {
    if (ordered < sizeof(order) - 1)
        order[ordered++] = what;
    order[ordered] = '\0';
}

void on_middle(Frame&) {
    ++count[kMiddle];
    CHECK(member(kIsr, kMiddle));
    CHECK(!member(kIrr, kMiddle));
    apic::end_of_interrupt();
}

void on_high(Frame&) {
    note('H');
    CHECK(member(kIsr, kLow) && member(kIsr, kHigh));
    CHECK(get(kPpr) == 0x60);
    apic::end_of_interrupt();
    CHECK(member(kIsr, kLow) && !member(kIsr, kHigh));
    CHECK(get(kPpr) == 0x40);
    note('h');
}

void on_low(Frame&) {
    note('L');
    apic::send_self_ipi(kLowToo);  // of the same class: waits for the end of this one
    apic::send_self_ipi(kHigh);
    let_in();
    CHECK(member(kIrr, kLowToo) && !member(kIsr, kLowToo));
    note('l');
    apic::end_of_interrupt();
}

void on_low_too(Frame&) {
    note('T');
    CHECK(!member(kIsr, kLow));
    apic::end_of_interrupt();
}

std::uint32_t entry_low() {
    write<std::uint32_t>(kIoApic, 0x10 + 2 * kPin);
    return read<std::uint32_t>(kIoApic + 0x10);
}
void set_entry(std::uint32_t low) {
    write<std::uint32_t>(kIoApic, 0x11 + 2 * kPin);
    write<std::uint32_t>(kIoApic + 0x10, apic::id() << 24);
    write<std::uint32_t>(kIoApic, 0x10 + 2 * kPin);
    write<std::uint32_t>(kIoApic + 0x10, low);
}

void on_level(Frame&) {
    CHECK(member(kIsr, kLevelVector) && member(kTmr, kLevelVector));
    CHECK((entry_low() & kRemoteIrr) != 0);
    if (++count[kLevelVector] == 3) {
        set_entry(kMasked | kLevel | kLevelVector);
        CHECK((entry_low() & kRemoteIrr) != 0);
    }
    apic::end_of_interrupt();
}

void on_pic(Frame&) {
    ++count[kPicBase];
    CHECK(empty(kIsr));
    out8(0x21, 0xff);
    out8(0x20, 0x20);
}

void task_priority() {
    count[kMiddle] = 0;
    write_cr8(5);
    CHECK(get(0x80) == 0x50 && get(kPpr) == 0x50);
    apic::send_self_ipi(kMiddle);
    let_in();
    CHECK(count[kMiddle] == 0 && member(kIrr, kMiddle));
    if (!apic::in_x2apic_mode())
        CHECK(get(kApr) == 0x50);
    put(0x80, 0x4f);
    CHECK(read_cr8() == 4 && get(kPpr) == 0x4f);
    CHECK(member(kIrr, kMiddle));
    let_in();
    CHECK(count[kMiddle] == 1 && empty(kIrr) && empty(kIsr));
    // By CR8, with interrupts enabled: at once.
    write_cr8(15);
    if (apic::in_x2apic_mode())
        apic::send_self_ipi(kMiddle);
    else
        put(0x300, kShorthandSelf | kMiddle);
    enable_interrupts();
    cpu_pause();
    CHECK(count[kMiddle] == 1);
    write_cr8(0);
    cpu_pause();
    CHECK(count[kMiddle] == 2);
    disable_interrupts();
    CHECK(get(0x80) == 0);
}

void nesting() {
    ordered = 0;
    apic::send_self_ipi(kLow);
    let_in();
    const char wanted[] = "LHhlT";
    for (unsigned i = 0; i < sizeof(wanted); ++i)
        if (order[i] != wanted[i])
            fail("interrupts nest as %s, not as %s", order, wanted);
    CHECK(empty(kIrr) && empty(kIsr) && get(kPpr) == 0);
}

void level() {
    count[kLevelVector] = 0;
    set_entry(kLevel | kLevelVector);
    enable_interrupts();
    for (const std::uint64_t start = rdtsc(); count[kLevelVector] < 3;) {
        if (rdtsc() - start > kPatience)
            fail("%u of 3 level-triggered interrupts", count[kLevelVector]);
    }
    disable_interrupts();
    let_in();
    CHECK(count[kLevelVector] == 3 && empty(kIsr));
    CHECK(member(kTmr, kLevelVector));
    CHECK((entry_low() & kRemoteIrr) == 0);
    // The same vector as an edge.
    apic::send_ipi(apic::id(), kLevelVector);
    CHECK(!member(kTmr, kLevelVector) && member(kIrr, kLevelVector));
    set_handler(kLevelVector, [](Frame&) { apic::end_of_interrupt(); });
    let_in();
    set_handler(kLevelVector, on_level);
    CHECK(empty(kIrr) && empty(kIsr));
}

/// The 8259's interrupts by LINT0, whatever TPR says, beside one of the local APIC's own.
void ext_int() {
    constexpr std::uint32_t kExtInt = 7 << 8;
    constexpr std::uint8_t kOneShot = 0x30;  // counter 0, both bytes, mode 0
    count[kPicBase] = count[kMiddle] = 0;
    put(kLvtLint0, kExtInt);
    out8(0x20, 0x11);
    out8(0x21, kPicBase);
    out8(0x21, 4);
    out8(0x21, 1);
    out8(0x21, 0xfe);
    out8(0x43, kOneShot);
    out8(0x40, 0x40);
    out8(0x40, 0);
    write_cr8(15);
    apic::send_self_ipi(kMiddle);
    enable_interrupts();
    for (const std::uint64_t start = rdtsc(); count[kPicBase] == 0;) {
        if (rdtsc() - start > kPatience)
            fail("no interrupt of the 8259");
    }
    CHECK(count[kMiddle] == 0);
    write_cr8(0);
    cpu_pause();
    CHECK(count[kMiddle] == 1);
    disable_interrupts();
    put(kLvtLint0, kMasked | kExtInt);
}

void errors() {
    put(kLvtError, kMasked | 0xfe);
    put(kEsr, 0);
    put(kEsr, 0);
    CHECK(get(kEsr) == 0);
    apic::send_self_ipi(5);
    put(kEsr, 0);
    CHECK((get(kEsr) & 0x60) != 0);
    put(kEsr, 0);
    CHECK(get(kEsr) == 0);
    CHECK(empty(kIrr));
}

/// What is written reads back without the bits that do not exist.
void registers() {
    put(0xf0, 0xffff'f1ff & (apic::in_x2apic_mode() ? 0x13ff : ~0U));
    CHECK((get(0xf0) & ~0x1200U) == 0x1ff);
    put(0xf0, 0x1ff);  // EOIs are broadcast
    put(0x320, kMasked | 0x55);
    CHECK(get(0x320) == (kMasked | 0x55));
    put(0x3e0, 0xb);
    CHECK(get(0x3e0) == 0xb);
    // Seconds: what emulates the machine may be kept from its CPU for longer than a short count takes.
    constexpr std::uint32_t kLongCount = 0xffff'fff0;
    put(0x380, kLongCount);
    CHECK(get(0x380) == kLongCount);
    CHECK(get(0x390) != 0 && get(0x390) <= kLongCount);
    put(0x380, 0);
    CHECK(get(0x380) == 0 && get(0x390) == 0);
    if (apic::in_x2apic_mode())
        return;
    const std::uint32_t id = get(0x20);
    put(0x20, ~id);
    CHECK(get(0x20) == id);
    put(kDfr, 0);
    CHECK(get(kDfr) == 0x0fff'ffff);
    put(kDfr, ~0U);
    CHECK(get(kDfr) == ~0U);
    put(kLdr, 0x0412'3456);
    CHECK(get(kLdr) == 0x0400'0000);
    put(0x310, 0x1234'5678);
    CHECK(get(0x310) == 0x1200'0000);
    // A byte of a register; and what the processor does not read by itself.
    CHECK(read<std::uint8_t>(apic::kXapic + 0xd3) == 4);
    std::uint32_t copy[4] = {};
    const void* from = reinterpret_cast<const void*>(apic::kXapic + kLdr);
    void* to = copy;
    std::uint64_t words = 1;
    asm volatile("rep movsl" : "+S"(from), "+D"(to), "+c"(words) : : "memory");
    CHECK(copy[0] == 0x0400'0000);
}

void x2apic_faults() {
    std::uint64_t value;
    CHECK(try_wrmsr(0x80b, 1) == 13);
    CHECK(try_wrmsr(0x808, 0x100) == 13);
    CHECK(try_wrmsr(0x83f, 0x100) == 13);
    CHECK(try_wrmsr(0x802, 0) == 13);
    CHECK(try_wrmsr(0x80a, 0) == 13);
    CHECK(try_rdmsr(0x80b, value) == 13);
    CHECK(try_rdmsr(0x80e, value) == 13);
    CHECK(try_rdmsr(0x831, value) == 13);
    CHECK(try_rdmsr(0x83f, value) == 13);
    CHECK(rdmsr(0x80d) == 1 && rdmsr(0x802) == 0);
    wrmsr(0x830, std::uint64_t{0x12} << 32 | 0x4055);  // to nobody
    CHECK(rdmsr(0x830) == (std::uint64_t{0x12} << 32 | 0x4055));
}

void all_checks() {
    registers();
    task_priority();
    nesting();
    level();
    ext_int();
    errors();
}

}  // namespace

int payload_main() {
    for (const auto& [vector, handler] : {std::pair<std::uint8_t, Handler>{kMiddle, on_middle},
                                          {kHigh, on_high},
                                          {kLow, on_low},
                                          {kLowToo, on_low_too},
                                          {kLevelVector, on_level},
                                          {kPicBase, on_pic}})
        set_handler(vector, handler);
    apic::enable(false);
    all_checks();
    const bool x2apic = apic::x2apic_offered();
    if (x2apic) {
        // What is pending stays pending in the other mode.
        count[kMiddle] = 0;
        write_cr8(3);
        apic::send_self_ipi(kMiddle);
        apic::enable(true);
        CHECK(member(kIrr, kMiddle) && get(0x80) == 0x30);
        let_in();
        CHECK(count[kMiddle] == 1);
        write_cr8(0);
        all_checks();
        x2apic_faults();
        apic::send_self_ipi(kMiddle);
    }
    // Off, and the page is gone; on again: as after power-up.
    write_cr8(3);
    const std::uint64_t base = rdmsr(apic::kApicBaseMsr) & ~std::uint64_t{0xc00};
    wrmsr(apic::kApicBaseMsr, base);
    CHECK(read<std::uint32_t>(apic::kXapic + 0x30) == ~0U);
    wrmsr(apic::kApicBaseMsr, base | 0x800);
    CHECK(read<std::uint32_t>(apic::kXapic + 0x30) != ~0U);
    CHECK(get(0xf0) == 0xff && get(0x80) == 0 && read_cr8() == 0 && empty(kIrr) && empty(kIsr));
    apic::enable(false);
    all_checks();
    // At another address: where it was, nothing is left.
    constexpr std::uint64_t kElsewhere = 0xfed8'0000;
    wrmsr(apic::kApicBaseMsr, (base & 0xfff) | kElsewhere | 0x800);
    CHECK(read<std::uint32_t>(kElsewhere + 0xf0) == get(0xf0) || get(0xf0) == ~0U);
    CHECK(read<std::uint32_t>(kElsewhere + 0xf0) == 0x1ff ||
          read<std::uint32_t>(kElsewhere + 0xf0) == 0x11ff);
    CHECK(read<std::uint32_t>(apic::kXapic + 0xf0) == ~0U);
    wrmsr(apic::kApicBaseMsr, base | 0x800);
    CHECK(read<std::uint32_t>(kElsewhere + 0xf0) == ~0U);
    task_priority();
    print("apic: all checks hold in xAPIC mode%s\n", x2apic ? " and in x2APIC mode" : "");
    return 0;
}
