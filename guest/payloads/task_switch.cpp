// SPDX-License-Identifier: MIT
// Hardware task switches in 32-bit protected mode: JMP, CALL, INT n and an exception through a task gate,
// IRET, a virtual-8086 task, a 16-bit TSS, the T flag, and faults before and after the point of no return.
// The payload leaves long mode for them and reports when it is back. [sdm3 8 Task Management]
#include "lib/interrupts.hpp"
#include "lib/runtime.hpp"

#include <array>
#include <cstring>
#include <iterator>

using namespace payload;

namespace {

constexpr std::uint16_t kCode = 0x08, kData = 0x10, kMain = 0x20, kJump = 0x28, kCall = 0x30, kGate = 0x38,
                        kProtection = 0x40, kVirtual = 0x48, kTrap = 0x50, kAbsent = 0x58, kBadData = 0x60,
                        kShort = 0x68;
constexpr std::uint16_t kNowhere = 0x1230;  ///< beyond the GDT
constexpr std::uint32_t kVirtualCode = 0x7'0000;

struct [[gnu::packed]] Tss32 {
    std::uint32_t link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi,
        edi, es, cs, ss, ds, fs, gs, ldt;
    std::uint16_t trap, io_map;
};
static_assert(sizeof(Tss32) == 104);
struct [[gnu::packed]] Tss16 {
    std::uint16_t link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags, ax, cx, dx, bx, sp, bp, si, di, es, cs, ss,
        ds, ldt;
};
static_assert(sizeof(Tss16) == 44);
struct [[gnu::packed]] Pointer {
    std::uint16_t limit;
    std::uint64_t base;
};

struct VirtualTask {
    Tss32 tss;
    std::array<std::uint8_t, 8193> io_permissions;  ///< all ports
};

Tss32 jump_tss, protection_tss, trap_tss, bad_data_tss;
Tss16 short_tss;
VirtualTask virtual_task;
alignas(16) std::array<std::array<std::uint8_t, 1024>, 8> stacks;
std::uint64_t gdt[15];
std::uint64_t idt[256];

std::uint32_t address(const void* pointer) {
    return static_cast<std::uint32_t>(reinterpret_cast<std::uint64_t>(pointer));
}

constexpr std::uint64_t descriptor(std::uint32_t base, std::uint32_t limit, std::uint8_t access) {
    return (limit & 0xffff) | std::uint64_t{base & 0xff'ffff} << 16 | std::uint64_t{access} << 40 |
           std::uint64_t{limit >> 16} << 48 | std::uint64_t{base >> 24} << 56;
}
constexpr std::uint64_t gate(std::uint16_t selector, std::uint32_t offset, std::uint8_t access) {
    return (offset & 0xffff) | std::uint64_t{selector} << 16 | std::uint64_t{access} << 40 |
           std::uint64_t{offset >> 16} << 48;
}
constexpr std::uint8_t kTaskGate = 0x85, kInterruptGate = 0x8e;

}  // namespace

extern "C" {
Tss32 main_tss, call_tss, gate_tss;
// What the 32-bit code reports.
struct Report {
    std::uint32_t progress;
    std::uint32_t jumps, jump_tr;
    std::uint32_t calls, call_flags, call_link, resumed;
    std::uint32_t gates, gate_link;
    std::uint32_t protections, protection_code;
    std::uint32_t virtual_back, virtual_flags;
    std::uint32_t traps, trap_dr6, trap_runs;
    std::uint32_t absents, absent_code, absent_tr;
    std::uint32_t bad_data_code, bad_data_tr;
    std::uint32_t shorts, short_bx;
    std::uint32_t task_switched;
};
Report report;
Pointer legacy_gdt_pointer, legacy_idt_pointer, saved_gdt_pointer, saved_idt_pointer;
std::uint64_t saved_rsp;
std::uint8_t legacy_stack[4096];
void run_legacy();
extern const char task_jump[], task_call[], task_gate[], task_protection[], task_trap[], task_bad_data[],
    task_short[], handle_debug[], handle_absent[], handle_invalid_tss[];
extern const char virtual_code[], virtual_code_end[];
}

// Offsets are those of Report's fields, selectors those above.
asm(R"(
    .text
    .code64
run_legacy:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    sgdt saved_gdt_pointer
    sidt saved_idt_pointer
    movq %rsp, saved_rsp
    lgdt legacy_gdt_pointer
    pushq $0x08
    pushq $1f
    lretq
    .code32
1:  movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $(legacy_stack + 4096), %esp
    movl %cr0, %eax
    andl $0x7fffffff, %eax
    movl %eax, %cr0
    movl $0xc0000080, %ecx
    rdmsr
    andl $~0x100, %eax
    wrmsr
    lidt legacy_idt_pointer
    movl $0x20, %eax
    ltr %ax

    movl $1, report                         # JMP
    ljmp $0x28, $0xf4f4f4f4
    movl $2, report                         # CALL, twice
    lcall $0x30, $0xf4f4f4f4
    lcall $0x30, $0xf4f4f4f4
    movl $3, report                         # INT n
    int $0x40
    movl $4, report                         # #GP with an error code
    movl $0x1234, %eax
    movl %eax, %es
    movl $0x10, %eax
    movl %eax, %es
    movl $5, report                         # virtual-8086 mode, entered by IRET, left by #UD
    movl $0x48, main_tss
    pushfl
    orl $0x4000, (%esp)
    popfl
    iret
    pushfl
    popl %eax
    movl %eax, report + 4 * 12
    incl report + 4 * 11
    andl $~0x4000, %eax
    pushl %eax
    popfl
    movl $6, report                         # the T flag
    ljmp $0x50, $0
    movl $7, report                         # a TSS that is not present
    lcall $0x58, $0
    movl $8, report                         # a segment that the new task cannot have
    ljmp $0x60, $0
    movl $9, report                         # a 16-bit TSS
    movl $0x12345678, %ebx
    lcall $0x68, $0
    movl %ebx, report + 4 * 22
    movl %cr0, %eax
    andl $8, %eax
    movl %eax, report + 4 * 23
    clts
    movl $10, report

    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
    ljmp $0x18, $2f
    .code64
2:  movq saved_rsp, %rsp
    lgdt saved_gdt_pointer
    lidt saved_idt_pointer
    movl $0x18, %eax
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %ds
    movl %eax, %es
    pushq $0x10
    pushq $3f
    lretq
3:  popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret

    .code32
task_jump:
    incl report + 4 * 1
    xorl %eax, %eax
    str %ax
    movl %eax, report + 4 * 2
    ljmp $0x20, $0
task_call:
    incl report + 4 * 3
    pushfl
    popl report + 4 * 4
    movl call_tss, %eax
    movl %eax, report + 4 * 5
    iret
    incl report + 4 * 6                     # the next CALL goes on here
    iret
task_gate:
    incl report + 4 * 7
    movl gate_tss, %eax
    movl %eax, report + 4 * 8
    iret
task_protection:
    incl report + 4 * 9
    popl report + 4 * 10
    addl $2, main_tss + 0x20                   # behind MOV to ES
    iret
task_trap:
    incl report + 4 * 15
    ljmp $0x20, $0
task_bad_data:
    ud2                                     # it does not get here
task_short:
    incl report + 4 * 21
    iret
handle_debug:
    pushl %eax
    incl report + 4 * 13
    movl %dr6, %eax
    movl %eax, report + 4 * 14
    xorl %eax, %eax
    movl %eax, %dr6
    popl %eax
    iret
handle_absent:
    incl report + 4 * 16
    popl report + 4 * 17
    str report + 4 * 18
    addl $7, (%esp)
    iret
handle_invalid_tss:
    movl $0x10, %eax
    movl %eax, %ds
    popl report + 4 * 19
    str report + 4 * 20
    addl $12, %esp
    ljmp $0x20, $0

    .code16
virtual_code:
    xorl %eax, %eax
    cpuid
    inb $0xe9, %al
    ud2
virtual_code_end:
    .code64
)");

namespace {

Tss32 task_at(const char* entry, unsigned stack) {
    Tss32 tss{};
    tss.eip = address(entry);
    tss.eflags = 2;
    tss.esp = address(stacks[stack].data() + stacks[stack].size());
    tss.cs = kCode;
    tss.es = tss.ss = tss.ds = tss.fs = tss.gs = kData;
    tss.io_map = sizeof tss;
    return tss;
}

void prepare() {
    jump_tss = task_at(task_jump, 0);
    call_tss = task_at(task_call, 1);
    gate_tss = task_at(task_gate, 2);
    protection_tss = task_at(task_protection, 3);
    trap_tss = task_at(task_trap, 4);
    trap_tss.trap = 1;
    bad_data_tss = task_at(task_bad_data, 5);
    bad_data_tss.fs = kNowhere;
    short_tss.ip = static_cast<std::uint16_t>(address(task_short) & 0xffff);

    Tss32& tss = virtual_task.tss;
    tss.eflags = 0x2'0002;
    tss.cs = tss.ds = kVirtualCode >> 4;
    tss.es = 0x2345;
    tss.ss = 0x6000;
    tss.esp = 0xfff0;
    tss.io_map = sizeof tss;
    virtual_task.io_permissions.back() = 0xff;
    std::memcpy(reinterpret_cast<void*>(std::uint64_t{kVirtualCode}), virtual_code,
                static_cast<std::size_t>(virtual_code_end - virtual_code));

    constexpr std::uint8_t kTss = 0x89, kBusyTss = 0x8b, kTssAbsent = 0x09, kTss16 = 0x81;
    const auto tss_at = [](const auto& task, std::uint8_t access) {
        return descriptor(address(&task), sizeof task - 1, access);
    };
    gdt[kCode / 8] = 0x00cf'9b00'0000'ffff;
    gdt[kData / 8] = 0x00cf'9300'0000'ffff;
    gdt[0x18 / 8] = 0x00af'9b00'0000'ffff;
    gdt[kMain / 8] = tss_at(main_tss, kTss);
    gdt[kJump / 8] = tss_at(jump_tss, kTss);
    gdt[kCall / 8] = tss_at(call_tss, kTss);
    gdt[kGate / 8] = tss_at(gate_tss, kTss);
    gdt[kProtection / 8] = tss_at(protection_tss, kTss);
    gdt[kVirtual / 8] = tss_at(virtual_task, kBusyTss);  // IRET goes there
    gdt[kTrap / 8] = tss_at(trap_tss, kTss);
    gdt[kAbsent / 8] = tss_at(call_tss, kTssAbsent);
    gdt[kBadData / 8] = tss_at(bad_data_tss, kTss);
    gdt[kShort / 8] = tss_at(short_tss, kTss16);
    // A 16-bit IP reaches the code by a segment of its own.
    gdt[14] = descriptor(address(task_short) & ~0xffffU, 0xffff, 0x9b) | std::uint64_t{4} << 52;
    short_tss.cs = 14 * 8;
    short_tss.flags = 2;
    short_tss.es = short_tss.ss = short_tss.ds = kData;
    short_tss.sp = 0x7000;

    idt[1] = gate(kCode, address(handle_debug), kInterruptGate);
    idt[6] = gate(kMain, 0, kTaskGate);
    idt[10] = gate(kCode, address(handle_invalid_tss), kInterruptGate);
    idt[11] = gate(kCode, address(handle_absent), kInterruptGate);
    idt[13] = gate(kProtection, 0, kTaskGate);
    idt[0x40] = gate(kGate, 0, kTaskGate);
    legacy_gdt_pointer = {sizeof gdt - 1, address(gdt)};
    legacy_idt_pointer = {sizeof idt - 1, address(idt)};
}

bool failed;

void check(const char* what, bool holds) {
    print("task_switch: %s %s\n", holds ? "ok" : "FAILED", what);
    failed = failed || !holds;
}

}  // namespace

int payload_main() {
    prepare();
    run_legacy();
    const Report& r = report;
    check("all steps were made", r.progress == 10);
    check("JMP", r.jumps == 1 && r.jump_tr == kJump);
    check("CALL and IRET", r.calls == 1 && r.resumed == 1);
    check("CALL nests", (r.call_flags & 0x4000) != 0 && (r.call_link & 0xffff) == kMain);
    check("INT n through a task gate", r.gates == 1 && (r.gate_link & 0xffff) == kMain);
    check("#GP through a task gate has its error code", r.protections == 1 && r.protection_code == 0x1234);
    check("virtual-8086 task", r.virtual_back == 1 && (r.virtual_flags & 0x4000) != 0);
    check("CPUID and IN in virtual-8086 mode",
          (virtual_task.tss.eax & 0xff) == 0xe9 && virtual_task.tss.ebx != 0 && virtual_task.tss.eip == 7);
    if (argument("t_flag", 1) != 0)
        check("T flag", r.traps == 1 && (r.trap_dr6 & 0x8000) != 0);
    check("JMP to a TSS with the T flag", r.trap_runs == 1);
    check("TSS that is not present", r.absents == 1 && r.absent_code == kAbsent && r.absent_tr == kMain);
    check("bad segment faults in the new task", r.bad_data_code == kNowhere && r.bad_data_tr == kBadData);
    check("16-bit TSS", r.shorts == 1 && r.short_bx == 0x1234'5678 && short_tss.link == kMain);
    check("CR0.TS", r.task_switched == 8);
    if (failed)
        return 1;
    print("task_switch: all ok\n");
    return 0;
}
