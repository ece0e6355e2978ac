// SPDX-License-Identifier: MIT
// Start-up IPIs and INIT to CPUs that run, halt or wait; and what the CPU that they start does in real mode:
// INT n and IRET, far calls, faults, unreal mode, 16-bit protected mode, instructions that exit. `tcg=1`
// leaves out what QEMU's TCG does not check. [sdm3 21 8086 Emulation], [sdm3 10.4 Multiple-Processor (MP)
// Initialization]
#include "lib/checks.hpp"
#include "lib/cpu.hpp"
#include "lib/interrupts.hpp"
#include "lib/local_apic.hpp"
#include "lib/runtime.hpp"
#include "lib/smp.hpp"

#include <atomic>
#include <cstring>

using namespace payload;

namespace {

constexpr std::uint64_t kReal = 0x8000;     ///< where the real-mode code goes, also below
constexpr std::uint64_t kResults = 0x9000;  ///< and its results
constexpr std::uint64_t kPatience = 8'000'000'000;
constexpr std::uint64_t kIoApic = 0xfec0'0000;
constexpr std::uint32_t kMagic = 0x1234'abcd;

/// Offsets from kResults, as the code has them.
enum Result : std::uint16_t {
    int_bx = 0x00,
    int_ip = 0x02,
    int_cs = 0x04,
    int_flags = 0x06,
    ud_count = 0x08,
    far_calls = 0x0c,
    limit_gp = 0x0e,
    unreal_read = 0x10,
    unreal_device = 0x14,
    pm_cpuid = 0x18,
    pm_stack = 0x1c,
    pm_word = 0x1e,
    outs_si = 0x20,
    outs_cx = 0x22,
    real_msr = 0x24,
    div_ip = 0x28,
    device_gp = 0x2a,
    done = 0x2e,
};

}  // namespace

extern "C" {
extern const char real_start[], real_end[], real_after_int[], real_div[];
std::uint32_t real_magic;
}

// Labels are used by their offset from real_start: the code runs at 0x8000. IVT entries are at 4 * vector.
asm(R"(
    .text
    .code16
real_start:
    cli
    ljmp $0, $(0x8000 + 1f - real_start)
1:  xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7ff0, %sp
    xorl %eax, %eax
    movl %eax, 0x9008
    movw $(0x8000 + real_on_de - real_start), 0
    movw %ax, 2
    movw $(0x8000 + real_on_ud - real_start), 6 * 4
    movw %ax, 6 * 4 + 2
    movw $(0x8000 + real_on_gp - real_start), 13 * 4
    movw %ax, 13 * 4 + 2
    movw $(0x8000 + real_on_int - real_start), 0x40 * 4
    movw %ax, 0x40 * 4 + 2

    stc                                     # INT n, IRET
    movw $0x1234, %bx
    int $0x40
real_after_int:
    movw %bx, 0x9000
    ud2                                     # faults
    xorw %dx, %dx
    movw $1, %ax
    xorw %cx, %cx
real_div:
    divw %cx
    movw $3, %di
    movw 0xffff, %ax                        # a word across the segment's end
    movw $0, 0x900c                         # far calls, direct and through memory
    lcall $0, $(0x8000 + real_far - real_start)
    lcall *(0x8000 + real_far_pointer - real_start)

    lgdtl 0x8000 + real_gdt_pointer - real_start   # unreal mode, entered by LMSW of memory
    smsw %ax
    orb $1, %al
    movw %ax, 0x901c
    lmsw 0x901c
    movw $0x08, %bx
    movw %bx, %ds
    movw $0x20, %bx
    movw %bx, %es
    movl %cr0, %eax
    andb $0xfe, %al
    movl %eax, %cr0
    xorw %bx, %bx
    movw %bx, %ds
    movl $real_magic, %ebx
    movl (%ebx), %eax
    movl %eax, 0x9010
    movl $0xfec00000, %ebx
    movl $1, (%ebx)
    movl 0x10(%ebx), %eax
    movl %eax, 0x9014
    movw 0x900a, %ax
    movw %ax, 0x900e
    movw $0, 0x900a                         # the I/O APIC through ES, whose limit ends before the window
    movl %es:0, %eax
    movw $5, %di
    movl %es:0x10, %eax
    movw 0x900a, %ax
    movw %ax, 0x902a

    movl %cr0, %eax                         # 16-bit protected mode
    orb $1, %al
    movl %eax, %cr0
    ljmp $0x10, $(real_protected - real_start)
real_protected:
    movw $0x18, %ax
    movw %ax, %ds
    movw %ax, %ss
    movl $0x40000000, %eax
    cpuid
    movl %ebx, 0x9018
    pushw $0x4321
    popw 0x901e
    movw %sp, 0x901c
    movl %cr0, %eax
    andb $0xfe, %al
    movl %eax, %cr0
    ljmp $0, $(0x8000 + 1f - real_start)
1:  xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss

    movw $0x8000, %si                       # string I/O, RDMSR
    movw $3, %cx
    movw $0x80, %dx
    rep outsb
    movw %si, 0x9020
    movw %cx, 0x9022
    movl $0x1b, %ecx
    rdmsr
    movl %eax, 0x9024
    movw $0x600d, 0x902e
2:  cli
    hlt
    jmp 2b

real_on_int:
    movw %sp, %bp
    movw (%bp), %ax
    movw %ax, 0x9002
    movw 2(%bp), %ax
    movw %ax, 0x9004
    movw 4(%bp), %ax
    movw %ax, 0x9006
    movw $0x4040, %bx
    iret
real_on_de:
    movw %sp, %bp
    movw (%bp), %ax
    movw %ax, 0x9028
    addw $2, (%bp)
    iret
real_on_ud:
    incw 0x9008
    movw %sp, %bp
    addw $2, (%bp)
    iret
real_on_gp:                                 # DI: the instruction's length
    incw 0x900a
    movw %sp, %bp
    addw %di, (%bp)
    iret
real_far:
    incw 0x900c
    lret
real_far_pointer:
    .word 0x8000 + real_far - real_start, 0
    .balign 8
real_gdt:
    .quad 0
    .quad 0x00cf93000000ffff                # all of memory
    .quad 0x00009b008000ffff                # 16-bit code at 0x8000
    .quad 0x000093000000ffff                # 16-bit data at 0
    .quad 0xfe0093c00000000f                # the first 16 bytes of the I/O APIC
real_gdt_pointer:
    .word . - real_gdt - 1
    .long 0x8000 + real_gdt - real_start
real_end:
    .code64
)");

namespace {

template <class T = std::uint16_t>
T result(Result at) {
    return read<T>(kResults + at);
}
std::uint16_t place(const char* label) {
    return static_cast<std::uint16_t>(kReal + static_cast<std::uint64_t>(label - real_start));
}
void wait_ticks(std::uint64_t ticks) {
    for (const std::uint64_t start = rdtsc(); rdtsc() - start < ticks;)
        cpu_pause();
}
template <class Condition>
bool comes(Condition condition) {
    for (const std::uint64_t start = rdtsc(); rdtsc() - start < kPatience;) {
        if (condition())
            return true;
        cpu_pause();
    }
    return false;
}

// --- INIT and start-up IPIs

std::atomic<std::uint32_t> starts, beats;
std::atomic<bool> stop;

void beat(unsigned) {
    starts = starts + 1;
    while (!stop)
        beats = beats + 1;
}
bool beats_on() {
    const std::uint32_t before = beats;
    return comes([&] { return beats - before > 1000; });
}

void check_start_up(std::uint32_t apic_id) {
    constexpr std::uint32_t kNmi = 0x4400;
    start_other_cpus(beat);
    apic::send_startup(apic_id, kReal >> 12);
    apic::send_startup(apic_id, kReal >> 12);
    expect(beats_on() && starts == 1, "a start-up IPI to a running CPU is ignored");
    apic::send_init(apic_id);
    wait_ticks(1'000'000);
    const std::uint32_t before = beats;
    apic::write(apic::Register::icr_high, apic_id << 24);
    apic::write(apic::Register::icr_low, kNmi);
    wait_ticks(1'000'000);
    expect(beats == before, "INIT stops a running CPU, and an NMI does not start it");
    start_other_cpus(beat);
    expect(beats_on() && starts == 2, "INIT and a start-up IPI start it again");
    stop = true;
    wait_ticks(1'000'000);  // it halts, interrupts disabled
}

// --- what the other CPU does in real mode

void check_real_mode(std::uint32_t apic_id, bool tcg) {
    std::memcpy(reinterpret_cast<void*>(kReal), real_start, static_cast<std::size_t>(real_end - real_start));
    std::memset(reinterpret_cast<void*>(kResults), 0, 0x30);
    real_magic = kMagic;
    write<std::uint32_t>(kIoApic, 1);
    const auto io_apic_version = read<std::uint32_t>(kIoApic + 0x10);
    apic::send_init(apic_id);
    wait_ticks(100'000);
    apic::send_startup(apic_id, kReal >> 12);
    apic::send_startup(apic_id, kReal >> 12);
    const bool ended = comes([] { return result(done) == 0x600d; });
    expect(ended, "a halted CPU takes INIT and runs real-mode code to its end");
    expect(result(int_bx) == 0x4040 && result(int_ip) == place(real_after_int) && result(int_cs) == 0 &&
               (result(int_flags) & 3) == 3,
           "INT n and IRET");
    expect(result(ud_count) == 1 && result(div_ip) == place(real_div),
           "#UD and #DE through the vector table");
    if (tcg)
        skip("#GP by a segment's limit", "QEMU's TCG has no limits in real mode");
    else
        expect(result(limit_gp) == 1, "#GP by a segment's limit");
    expect(result(far_calls) == 2, "far CALL and RET");
    expect(result<std::uint32_t>(unreal_read) == kMagic, "a 32-bit offset beyond 64 KiB in unreal mode");
    expect(result<std::uint32_t>(unreal_device) == io_apic_version, "a device in unreal mode");
    expect(result(device_gp) == 1, "#GP by a limit inside a device");
    const std::uint32_t signature = cpuid(0x4000'0000).ebx;
    expect(result<std::uint32_t>(pm_cpuid) == signature, "CPUID in 16-bit protected mode");
    expect(result(pm_word) == 0x4321 && result(pm_stack) == 0x7ff0, "a 16-bit stack");
    expect(result(outs_si) == kReal + 3 && result(outs_cx) == 0, "REP OUTSB with 16-bit addresses");
    expect((result<std::uint32_t>(real_msr) & 0xffff'f800) == 0xfee0'0800, "RDMSR");
}

}  // namespace

int payload_main() {
    apic::enable(false);
    const bool tcg = argument("tcg", 0) != 0;
    const std::uint32_t other = apic_id_of(cpu_count() - 1);
    check_start_up(other);
    check_real_mode(other, tcg);
    return verdict("real_mode");
}
