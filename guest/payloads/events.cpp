// SPDX-License-Identifier: MIT
// Single-stepping over instructions that exit, breakpoints, INT1, interrupt shadows, NMIs and what blocks
// them, HLT. Each check says ok or FAILED; `tcg=1` leaves out what QEMU's TCG is known to do otherwise, with
// or without us. [sdm3 6 Interrupt and Exception Handling], [sdm3 18 Debug, Branch Profile, TSC, ...]
#include "events/events.hpp"

#include "lib/cpu.hpp"
#include "lib/interrupts.hpp"
#include "lib/local_apic.hpp"
#include "lib/runtime.hpp"

#include <iterator>

using namespace payload;
using events::check;

namespace {

bool failed;

}  // namespace

void events::check(const char* what, bool holds) {
    print("events: %s %s\n", holds ? "ok" : "FAILED", what);
    failed = failed || !holds;
}

namespace {

constexpr std::uint64_t kDr6Clear = 0xffff'0ff0, kSingleStep = 1 << 14, kGeneralDetect = 1 << 13;
constexpr std::uint64_t kDr7Clear = 0x400;
constexpr std::uint64_t kResumeFlag = 1 << 16;
constexpr std::uint8_t kDebug = 1, kDoubleFault = 8;

struct Trap {
    std::uint64_t rip, dr6;
};
Trap traps[16];
unsigned trap_count;

void write_dr6(std::uint64_t value) {
    asm volatile("movq %0, %%dr6" : : "r"(value));
}
std::uint64_t read_dr6() {
    std::uint64_t value;
    asm volatile("movq %%dr6, %0" : "=r"(value));
    return value;
}
void write_dr7(std::uint64_t value) {
    asm volatile("movq %0, %%dr7" : : "r"(value));
}

void on_debug(Frame& frame) {
    const std::uint64_t dr6 = read_dr6();
    if (trap_count < std::size(traps))
        traps[trap_count++] = {frame.rip, dr6};
    else
        frame.rflags &= ~std::uint64_t{1 << 8};
    if ((dr6 & 0xf) != 0)
        frame.rflags |= kResumeFlag;
    write_dr6(kDr6Clear);
}

/// The traps are those of a table that ends with 0; the first `without_step` are none of a single step.
void check_traps(const char* what, const std::uint64_t* expected, unsigned without_step = 0,
                 std::uint64_t first = 0) {
    unsigned count = 0;
    while (expected[count] != 0)
        ++count;
    bool same = count == trap_count;
    for (unsigned i = 0; i < count && i < trap_count; ++i) {
        const std::uint64_t dr6 = kDr6Clear | (i < without_step ? first : kSingleStep);
        same = same && traps[i].rip == expected[i] && traps[i].dr6 == dr6;
    }
    check(what, same);
    for (unsigned i = 0; !same && i < (count > trap_count ? count : trap_count); ++i)
        print("events:   trap %u at 0x%lx DR6 0x%lx, expected at 0x%lx\n", i,
              i < trap_count ? traps[i].rip : 0, i < trap_count ? traps[i].dr6 : 0,
              i < count ? expected[i] : 0);
    trap_count = 0;
}

}  // namespace

extern "C" {
void step_exits();
void step_sti();
void step_mov_ss();
void step_mov_ss_cpuid();
void int1();
void step_mov_ss_int1();
void general_detect();
void step_rare();
void device_breakpoint();
void port_breakpoint();
void code_breakpoint();
void data_breakpoint();
extern const std::uint64_t step_exits_traps[], step_sti_traps[], step_mov_ss_traps[],
    step_mov_ss_cpuid_traps[], int1_traps[], step_mov_ss_int1_traps[], general_detect_traps[],
    code_breakpoint_traps[], data_breakpoint_traps[], step_rare_traps[], device_breakpoint_traps[],
    port_breakpoint_traps[];
std::uint32_t watched;
}

// A trap comes after each instruction that begins with TF set: not after the POPF that sets it, but after the
// one that clears it.
asm(R"(
    .macro STEP_ON
    pushfq
    orq $0x100, (%rsp)
    popfq
    .endm
    .macro STEP_OFF name
    pushfq
\name\()_a:
    andq $~0x100, (%rsp)
\name\()_b:
    popfq
\name\()_c:
    .endm
    .macro OFF_TRAPS name
    .quad \name\()_a, \name\()_b, \name\()_c, 0
    .endm

    .text
step_exits:
    pushq %rbx
    STEP_ON
    xorl %eax, %eax
.Le0: cpuid
.Le1: movl $0x1b, %ecx
.Le2: rdmsr
.Le3: inb $0xe9, %al
.Le4: outb %al, $0x80
.Le5: movl $0xfee00020, %edx
.Le6: movl (%rdx), %eax
.Le7: movq %cr0, %rax
.Le8: movq %rax, %cr0
.Le9: STEP_OFF exits
    popq %rbx
    ret
step_rare:
    pushq %rbx
    pushq %rsi
    movl $0x1b, %ecx
    rdmsr
    STEP_ON
    wrmsr
.Lr0: movl $-1, %eax
.Lr1: vmcall
.Lr2: vmmcall
.Lr3: hlt
.Lr4: wbinvd
.Lr5: movl $2, %ecx
.Lr6: movl $0x80, %edx
.Lr7: movq $watched, %rsi
.Lr8: rep outsb
.Lr9: STEP_OFF rare
    popq %rsi
    popq %rbx
    ret
device_breakpoint:
    movl $0xfec00000, %edx
    movq %rdx, %dr2
    movl $0x0f000420, %eax
    movq %rax, %dr7
    movl (%rdx), %eax
.Lv0: movl %eax, (%rdx)
.Lv1: movl 0x10(%rdx), %ecx
    movq %rdx, %rcx
    movb %al, 3(%rcx)
.Lv2: orl $1, (%rcx)
.Lv3: movl $0x400, %eax
    movq %rax, %dr7
    ret
port_breakpoint:
    pushq %rsi
    movq %cr4, %r8
    movq %r8, %rax
    orq $8, %rax
    movq %rax, %cr4
    movl $0x80, %eax
    movq %rax, %dr3
    movl $0x20000480, %eax
    movq %rax, %dr7
    outb %al, $0x80
.Lp0: inb $0x81, %al
    movl $2, %ecx
    movl $0x80, %edx
    movq $watched, %rsi
.Lp1: rep outsb
.Lp2: movl $0x400, %eax
    movq %rax, %dr7
    movq %r8, %cr4
    popq %rsi
    ret
step_sti:
    cli
    STEP_ON
    sti
.Ls0: nop
.Ls1: STEP_OFF sti
    cli
    ret
step_mov_ss:
    movl %ss, %ecx
    STEP_ON
    movl %ecx, %ss
    nop
.Lm0: STEP_OFF mov_ss
    ret
step_mov_ss_cpuid:
    pushq %rbx
    xorl %eax, %eax
    movl %ss, %ecx
    STEP_ON
    movl %ecx, %ss
    cpuid
.Lc0: STEP_OFF mov_ss_cpuid
    popq %rbx
    ret
int1:
    .byte 0xf1
.Li0: nop
    .byte 0x2e, 0x2e, 0xf1
.Li1: ret
step_mov_ss_int1:
    movl %ss, %ecx
    STEP_ON
    movl %ecx, %ss
    .byte 0xf1
.Lt0: .byte 0xf1
.Lt1: STEP_OFF mov_ss_int1
    ret
general_detect:
    movl $(0x400 | 1 << 13), %eax
    movq %rax, %dr7
.Lg0: movq %dr6, %rcx
    movl $0x400, %eax
    movq %rax, %dr7
    ret
code_breakpoint:
    movq $.Lb0, %rax
    movq %rax, %dr0
    movl $0x402, %eax
    movq %rax, %dr7
.Lb0: cpuid
    movl $0x400, %eax
    movq %rax, %dr7
    ret
data_breakpoint:
    movq $watched, %rax
    movq %rax, %dr1
    movl $0xd00408, %eax
    movq %rax, %dr7
    movl $42, watched
.Ld0: movl $0x400, %eax
    movq %rax, %dr7
    ret
    .section .rodata
    .balign 8
step_exits_traps: .quad .Le0, .Le1, .Le2, .Le3, .Le4, .Le5, .Le6, .Le7, .Le8, .Le9
    OFF_TRAPS exits
step_sti_traps: .quad .Ls0, .Ls1
    OFF_TRAPS sti
step_mov_ss_traps: .quad .Lm0
    OFF_TRAPS mov_ss
step_mov_ss_cpuid_traps: .quad .Lc0
    OFF_TRAPS mov_ss_cpuid
int1_traps: .quad .Li0, .Li1, 0
step_mov_ss_int1_traps: .quad .Lt0, .Lt1
    OFF_TRAPS mov_ss_int1
general_detect_traps: .quad .Lg0, 0
step_rare_traps: .quad .Lr0, .Lr1, .Lr2, .Lr3, .Lr4, .Lr5, .Lr6, .Lr7, .Lr8, .Lr8, .Lr9
    OFF_TRAPS rare
device_breakpoint_traps: .quad .Lv0, .Lv1, .Lv2, .Lv3, 0
port_breakpoint_traps: .quad .Lp0, .Lp1, .Lp2, 0
code_breakpoint_traps: .quad .Lb0, 0
data_breakpoint_traps: .quad .Ld0, 0
    .text
)");

namespace {

void debug_exceptions(bool tcg) {
    set_handler(kDebug, on_debug);
    write_dr6(kDr6Clear);
    write_dr7(kDr7Clear);
    step_exits();
    check_traps("single step over instructions that exit", step_exits_traps);
    step_rare();
    check_traps("single step over rarer ones, hypercalls and each iteration of REP OUTSB", step_rare_traps);
    step_mov_ss();
    check_traps("single step over MOV SS, which holds the trap back", step_mov_ss_traps);
    step_mov_ss_cpuid();
    check_traps("single step over MOV SS and an instruction that exits", step_mov_ss_cpuid_traps);
    if (!tcg) {  // which takes STI's shadow for that of MOV SS, INT1 for undefined, and ignores DR7.GD
        step_sti();
        check_traps("single step over STI", step_sti_traps);
        int1();
        check_traps("INT1, with prefixes too", int1_traps, 2);
        step_mov_ss_int1();
        check_traps("single step over MOV SS and INT1", step_mov_ss_int1_traps, 2);
        general_detect();
        check_traps("general detect", general_detect_traps, 1, kGeneralDetect);
    }
    code_breakpoint();
    check_traps("breakpoint on an instruction that exits", code_breakpoint_traps, 1, 1);
    data_breakpoint();
    check_traps("breakpoint on data", data_breakpoint_traps, 1, 2);
    device_breakpoint();
    check_traps("breakpoint on a device", device_breakpoint_traps, 4, 4);
    port_breakpoint();
    check_traps("breakpoint on a port", port_breakpoint_traps, 3, 8);
}

/// #GP whose gate lies beyond the IDT's end.
void double_fault() {
    struct [[gnu::packed]] {
        std::uint16_t limit;
        std::uint64_t base;
    } pointer{};
    asm volatile("sidt %0" : "=m"(pointer));
    const std::uint16_t limit = pointer.limit;
    pointer.limit = 16 * (kDoubleFault + 1) - 1;
    asm volatile("lidt %0" : : "m"(pointer));
    TRY_INSTRUCTION("movq (%0), %0", EMPTY, "r"(std::uint64_t{1} << 63));
    pointer.limit = limit;
    asm volatile("lidt %0" : : "m"(pointer));
    check("#GP that cannot be delivered is #DF", fault() == kDoubleFault && fault_error_code() == 0);
}

}  // namespace

int payload_main() {
    apic::enable(false);
    const bool tcg = argument("tcg", 0) != 0;
    debug_exceptions(tcg);
    double_fault();
    events::maskable_interrupts();
    events::non_maskable_interrupts(tcg);
    if (failed)
        return 1;
    print("events: all ok\n");
    return 0;
}
