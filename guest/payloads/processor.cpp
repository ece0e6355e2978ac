// SPDX-License-Identifier: MIT
// What the virtual processor says of itself and what it does must agree: CPUID, MSRs, XCR0, control
// registers, instructions that are offered or hidden, the time-stamp counter. Page protections and user mode
// are protection.cpp's.
#include "lib/checks.hpp"
#include "lib/cpu.hpp"
#include "lib/interrupts.hpp"
#include "lib/local_apic.hpp"
#include "lib/runtime.hpp"
#include "lib/smp.hpp"

using namespace payload;

namespace {

constexpr int kInvalidOpcode = 6;
constexpr int kGeneralProtection = 13;
constexpr int kPageFault = 14;
constexpr std::uint64_t kNotCanonical = 0x8000'0000'0000'0000;
constexpr std::uint64_t kCanonical = 0xffff'ff12'3456'7000;

constexpr std::uint64_t bit(unsigned index) {
    return std::uint64_t{1} << index;
}

std::uint64_t read_cr0() {
    std::uint64_t value;
    asm volatile("movq %%cr0, %0" : "=r"(value));
    return value;
}
std::uint64_t read_cr4() {
    std::uint64_t value;
    asm volatile("movq %%cr4, %0" : "=r"(value));
    return value;
}
std::uint64_t read_cr3() {
    std::uint64_t value;
    asm volatile("movq %%cr3, %0" : "=r"(value));
    return value;
}
int try_cr0(std::uint64_t value) {
    TRY_INSTRUCTION("movq %0, %%cr0", EMPTY, "r"(value));
    return fault();
}
int try_cr3(std::uint64_t value) {
    TRY_INSTRUCTION("movq %0, %%cr3", EMPTY, "r"(value));
    return fault();
}
int try_cr4(std::uint64_t value) {
    TRY_INSTRUCTION("movq %0, %%cr4", EMPTY, "r"(value));
    return fault();
}
int try_xsetbv(std::uint32_t index, std::uint64_t value) {
    TRY_INSTRUCTION("xsetbv", EMPTY, "c"(index), "a"(static_cast<std::uint32_t>(value)),
                    "d"(static_cast<std::uint32_t>(value >> 32)));
    return fault();
}

bool has(std::uint32_t word, unsigned index) {
    return (word >> index & 1) != 0;
}

// --- CPUID -----------------------------------------------------------------------------------------------

void check_cpuid() {
    const CpuidResult vendor = cpuid(0);
    const CpuidResult one = cpuid(1);
    const CpuidResult seven = cpuid(7);
    const CpuidResult extended = cpuid(0x8000'0001);
    expect(vendor.eax >= 0x16 && cpuid(0x8000'0000).eax >= 0x8000'0008, "CPUID has the leaves in use");
    const CpuidResult kvm = cpuid(0x4000'0000);
    expect(has(one.ecx, 31) && kvm.ebx == 0x4b4d'564b && kvm.ecx == 0x564b'4d56 && kvm.edx == 0x4d,
           "CPUID shows a hypervisor with KVM's leaves");
    expect(!has(one.ecx, 3) && !has(one.ecx, 5) && !has(one.ecx, 15) && !has(extended.ecx, 2),
           "CPUID hides MONITOR, VMX, SVM and PDCM");
    expect(!has(seven.ebx, 4) && !has(seven.ebx, 11) && !has(seven.ebx, 2) && !has(seven.ebx, 14) &&
               !has(seven.ecx, 3) && !has(seven.ecx, 4) && !has(seven.ecx, 16) && !has(seven.edx, 26),
           "CPUID hides TSX, SGX, MPX, PKU, LA57 and IBRS");
    const CpuidResult pmu = cpuid(0xa);
    expect((pmu.eax | pmu.ebx | pmu.ecx | pmu.edx) == 0, "CPUID 0xa: no PMU");
    const CpuidResult beyond = cpuid(vendor.eax + 1, 1);
    const CpuidResult last = cpuid(vendor.eax, 1);
    expect(is_amd() ? (beyond.eax | beyond.ebx | beyond.ecx | beyond.edx) == 0
                    : beyond.eax == last.eax && beyond.ebx == last.ebx && beyond.edx == last.edx,
           "CPUID beyond the last basic leaf, as this vendor answers");
    const std::uint32_t id = one.ebx >> 24;
    const CpuidResult core = cpuid(0xb, 1);
    expect(id == apic::id() && core.edx == id, "APIC ID %u in leaves 1 and 0xb", id);
    expect(cpuid(0xb, 0).ebx == 1 && core.ebx == cpu_count() && (core.ecx >> 8 & 0xff) == 2 &&
               1U << core.eax >= cpu_count() && cpuid(0xb, 2).ebx == 0,
           "CPUID 0xb: %u cores", core.ebx);
    const bool avx = has(one.ecx, 28);
    expect(avx || (!has(seven.ebx, 5) && !has(one.ecx, 12) && !has(one.ecx, 29) && !has(seven.ebx, 16)),
           "without AVX no AVX2, FMA, F16C, AVX-512");
    expect(has(seven.ebx, 10) ? has(one.ecx, 17) : true, "INVPCID only with PCID");
    expect(is_amd() || has(cpuid(0x8000'0001).edx, 11), "SYSCALL in 64-bit mode");
}

// --- MSRs ------------------------------------------------------------------------------------------------

struct MsrRule {
    std::uint32_t index;
    const char* name;
    std::uint64_t value;     ///< taken and read back
    std::uint64_t reserved;  ///< one or more bits, any of which is refused; 0: none
};

constexpr MsrRule kMsrRules[] = {
    {0x3b, "TSC_ADJUST", 0, 0},
    {0x174, "SYSENTER_CS", 0x1234, 0},
    {0x175, "SYSENTER_ESP", kCanonical, 0},
    {0x176, "SYSENTER_EIP", kCanonical, 0},
    {0x277, "PAT", 0x0006'0504'0100'0706, bit(1)},
    {0x200, "MTRR_PHYSBASE0", 0x1234'5000 | 6, bit(8) | 2},
    {0x201, "MTRR_PHYSMASK0", 0xf'f000'0800, bit(0) | bit(10)},
    {0x250, "MTRR_FIX64K_00000", 0x0606'0504'0100'0606, 2},
    {0x26f, "MTRR_FIX4K_F8000", 0x0505'0505'0505'0505, 2},
    {0x2ff, "MTRR_DEF_TYPE", 0xc06, bit(8) | bit(12)},
    {0xc000'0081, "STAR", 0x0023'0010'0000'0000, 0},
    {0xc000'0082, "LSTAR", kCanonical, kNotCanonical},
    {0xc000'0083, "CSTAR", kCanonical, kNotCanonical},
    {0xc000'0084, "FMASK", 0x4700, 0},
    {0xc000'0100, "FS_BASE", kCanonical, kNotCanonical},
    {0xc000'0101, "GS_BASE", kCanonical, kNotCanonical},
    {0xc000'0102, "KERNEL_GS_BASE", kCanonical, kNotCanonical},
    {0xc000'0103, "TSC_AUX", 0x1234'5678, bit(32)},
    {0x1a0, "MISC_ENABLE", 0x4'00c5'1809, bit(1) | bit(63)},
};

void check_msr(const MsrRule& rule) {
    std::uint64_t before = 0, now = 0;
    const int read = try_rdmsr(rule.index, before);
    const int written = try_wrmsr(rule.index, rule.value);
    try_rdmsr(rule.index, now);
    expect(read == kNoFault && written == kNoFault && now == rule.value, "MSR %s keeps 0x%lx (reads 0x%lx)",
           rule.name, rule.value, now);
    bool refused = true;
    for (unsigned i = 0; i < 64; ++i)
        if (has(static_cast<std::uint32_t>(rule.reserved >> i), 0))
            refused = refused && try_wrmsr(rule.index, bit(i)) == kGeneralProtection;
    if (rule.reserved != 0)
        expect(refused, "MSR %s refuses reserved bits 0x%lx", rule.name, rule.reserved);
    try_wrmsr(rule.index, before);
}

void check_hidden_msrs() {
    constexpr std::uint32_t kHidden[] = {
        0x48,        0x49,        0x10a,       0x10b,       0xc1,        0x186,       0x309,  0x345,
        0x38d,       0x38f,       0x390,       0x400,       0x401,       0x480,       0x48b,  0x570,
        0x6a0,       0xd90,       0xda0,       0xc000'0104, 0xc001'0000, 0xc001'0004, 0x122,  0xc001'0114,
        0xc001'0117, 0xc001'0200, 0xc001'0201, 0xe1,        0x17b,       0x280,       0x4000, 0x4b56'4d02};
    bool all = true;
    for (const std::uint32_t msr : kHidden) {
        std::uint64_t value = 0;
        if (try_rdmsr(msr, value) == kGeneralProtection && try_wrmsr(msr, 0) == kGeneralProtection)
            continue;
        all = false;
        print("MSR 0x%x is there\n", msr);
    }
    expect(all, "MSRs of what CPUID hides are #GP");
    all = true;
    for (std::uint32_t msr = 0x800; msr < 0x900; ++msr) {
        std::uint64_t value = 0;
        all = all && try_rdmsr(msr, value) == kGeneralProtection;
    }
    expect(all, "x2APIC MSRs are #GP in xAPIC mode");
    expect(try_wrmsr(0xfe, 0) == kGeneralProtection && try_wrmsr(0x179, 0) == kGeneralProtection,
           "MTRRCAP and MCG_CAP are read-only");
    expect(try_wrmsr(0x1b, rdmsr(0x1b) | 1) == kGeneralProtection &&
               try_wrmsr(0x1b, rdmsr(0x1b) | bit(52)) == kGeneralProtection,
           "APIC_BASE refuses reserved bits");
    const std::uint64_t efer = rdmsr(0xc000'0080);
    expect(try_wrmsr(0xc000'0080, efer | bit(12)) == kGeneralProtection &&
               try_wrmsr(0xc000'0080, efer | bit(1)) == kGeneralProtection &&
               try_wrmsr(0xc000'0080, efer & ~bit(8)) == kGeneralProtection && rdmsr(0xc000'0080) == efer,
           "EFER refuses SVME, reserved bits, and LME while paging is on");
}

// --- XSAVE -----------------------------------------------------------------------------------------------

void check_xcr0() {
    if (!has(cpuid(1).ecx, 26)) {
        skip("XSETBV", "no XSAVE");
        return;
    }
    const std::uint64_t cr4 = read_cr4();
    std::uint32_t low = 0, high = 0;
    TRY_INSTRUCTION("xgetbv", "+a"(low)COMMA "+d"(high), "c"(0));
    const int without = fault();
    expect(without == kInvalidOpcode && try_xsetbv(0, 1) == kInvalidOpcode && !has(cpuid(1).ecx, 27),
           "XGETBV and XSETBV are #UD without CR4.OSXSAVE");
    expect(try_cr4(cr4 | bit(18)) == kNoFault && has(cpuid(1).ecx, 27), "CPUID shows CR4.OSXSAVE");
    const CpuidResult leaf = cpuid(0xd);
    const std::uint64_t offered = leaf.eax | std::uint64_t{leaf.edx} << 32;
    bool refused = try_xsetbv(0, 0) == kGeneralProtection && try_xsetbv(0, 2) == kGeneralProtection;
    for (unsigned i = 2; i < 64; ++i)
        if ((offered >> i & 1) == 0)
            refused = refused && try_xsetbv(0, 3 | bit(i)) == kGeneralProtection;
    expect(refused, "XSETBV refuses what is not offered, and XCR0 without x87");
    expect(try_xsetbv(1, 1) == kGeneralProtection && try_xsetbv(0x8000'0000, 1) == kGeneralProtection,
           "XSETBV refuses other registers than XCR0");
    if (has(leaf.eax, 2))
        expect(try_xsetbv(0, 5) == kGeneralProtection, "XSETBV refuses AVX without SSE");
    if (has(leaf.eax, 5))
        expect(try_xsetbv(0, 0x27) == kGeneralProtection && try_xsetbv(0, 0xe3) == kGeneralProtection,
               "XSETBV refuses half of AVX-512, and AVX-512 without AVX");
    bool sizes = try_xsetbv(0, 1) == kNoFault && cpuid(0xd).ebx == 576;
    sizes = sizes && try_xsetbv(0, offered) == kNoFault && cpuid(0xd).ebx == leaf.ecx;
    expect(sizes, "XSAVE area: 576 bytes for x87, %u for XCR0 0x%lx", leaf.ecx, offered);
    try_xsetbv(0, 1);
    try_cr4(cr4);
}

// --- control registers -----------------------------------------------------------------------------------

/// LMSW and CLTS change MP, EM and TS alone, and LMSW sets PE.
void check_status_word(std::uint64_t cr0) {
    constexpr std::uint64_t kBits = 0xe;
    std::uint16_t word = 0;
    asm volatile("lmsw %w0" : : "r"(cr0 | bit(3)));
    expect(read_cr0() == (cr0 | bit(3)), "LMSW of a register sets CR0.TS");
    asm volatile("smsw %0" : "=m"(word));
    expect(word == ((cr0 | bit(3)) & 0xffff), "SMSW to memory");
    asm volatile("clts");
    expect(read_cr0() == (cr0 & ~bit(3)), "CLTS");
    const auto memory = static_cast<std::uint16_t>(kBits);
    asm volatile("lmsw %0" : : "m"(memory));
    expect(read_cr0() == (cr0 | kBits), "LMSW of memory sets MP, EM and TS, and leaves PE");
    asm volatile("clts");
    // Beyond the first 4 GiB nothing is mapped.
    TRY_INSTRUCTION("lmsw (%0)", EMPTY, "r"(bit(40)));
    expect(fault() == kPageFault && read_cr0() == ((cr0 | kBits) & ~bit(3)), "LMSW of no page is #PF");
    TRY_INSTRUCTION("lmsw (%0)", EMPTY, "r"(kNotCanonical));
    expect(fault() == kGeneralProtection, "LMSW by an address that is not canonical is #GP");
    try_cr0(cr0);
}

void check_control_registers() {
    const CpuidResult one = cpuid(1), seven = cpuid(7);
    struct Feature {
        unsigned cr4_bit;
        bool offered;
        const char* name;
    };
    const Feature features[] = {{11, has(seven.ecx, 2), "UMIP"},
                                {12, false, "LA57"},
                                {13, false, "VMXE"},
                                {14, false, "SMXE"},
                                {15, false, "bit 15"},
                                {16, has(seven.ebx, 0), "FSGSBASE"},
                                {17, has(one.ecx, 17), "PCIDE"},
                                {18, has(one.ecx, 26), "OSXSAVE"},
                                {19, false, "KL"},
                                {20, has(seven.ebx, 7), "SMEP"},
                                {21, has(seven.ebx, 20), "SMAP"},
                                {22, false, "PKE"},
                                {23, false, "CET"},
                                {24, false, "PKS"},
                                {25, false, "UINTR"},
                                {31, false, "bit 31"},
                                {32, false, "FRED"},
                                {63, false, "bit 63"}};
    const std::uint64_t cr4 = read_cr4();
    for (const Feature& feature : features) {
        const int raised = try_cr4(cr4 | bit(feature.cr4_bit));
        const bool set = (read_cr4() >> feature.cr4_bit & 1) != 0;
        try_cr4(cr4);
        expect(feature.offered ? raised == kNoFault && set : raised == kGeneralProtection && !set,
               "CR4.%s is %s", feature.name, feature.offered ? "offered" : "refused");
    }
    expect(try_cr4(cr4 & ~bit(5)) == kGeneralProtection, "CR4.PAE stays in long mode");
    const std::uint64_t cr0 = read_cr0();
    expect(try_cr0(cr0 | bit(32)) == kGeneralProtection, "CR0 refuses its upper half");
    expect(try_cr0((cr0 | bit(29)) & ~bit(30)) == kGeneralProtection, "CR0 refuses NW without CD");
    expect(try_cr0(cr0 & ~bit(0)) == kGeneralProtection, "CR0 refuses PG without PE");
    expect(try_cr0(cr0 & ~bit(31)) == kGeneralProtection, "CR0.PG stays in 64-bit code");
    expect(try_cr0(cr0 | bit(30)) == kNoFault && (read_cr0() >> 30 & 1) != 0, "CR0.CD can be set");
    try_cr0(cr0);
    check_status_word(cr0);
    TRY_INSTRUCTION("movq %0, %%cr8", EMPTY, "r"(std::uint64_t{0x10}));
    expect(fault() == kGeneralProtection, "CR8 refuses more than 15");
    if (is_amd())
        skip("CR3's reserved bits", "QEMU's TCG takes them");
    else
        expect(try_cr3(read_cr3() | bit(52)) == kGeneralProtection, "CR3 refuses reserved bits");
}

void check_pcid() {
    const bool offered = has(cpuid(1).ecx, 17);
    alignas(16) std::uint64_t descriptor[2] = {0, 0};
    const auto invpcid = [&](std::uint64_t type) {
        TRY_INSTRUCTION("invpcid %0, %1", EMPTY, "m"(descriptor), "r"(type));
        return fault();
    };
    if (!has(cpuid(7).ebx, 10)) {
        expect(invpcid(2) == kInvalidOpcode, "INVPCID is hidden and #UD");
    } else {
        expect(invpcid(2) == kNoFault && invpcid(3) == kNoFault, "INVPCID of all contexts");
        expect(invpcid(4) == kGeneralProtection, "INVPCID refuses type 4");
        descriptor[0] = 1;
        expect(invpcid(0) == kGeneralProtection && invpcid(1) == kGeneralProtection,
               "INVPCID refuses a PCID while CR4.PCIDE is clear");
        descriptor[0] = bit(12);
        expect(invpcid(2) == kGeneralProtection, "INVPCID refuses reserved bits");
        descriptor[0] = 0;
        descriptor[1] = kNotCanonical;
        expect(invpcid(0) == kGeneralProtection, "INVPCID refuses what is not canonical");
    }
    if (!offered) {
        skip("PCID", "not offered");
        return;
    }
    const std::uint64_t cr3 = read_cr3(), cr4 = read_cr4(), cr0 = read_cr0();
    write_cr3(cr3 | 1 << 3);
    expect(try_cr4(cr4 | bit(17)) == kGeneralProtection, "CR4.PCIDE wants CR3[11:0] clear");
    write_cr3(cr3);
    expect(try_cr4(cr4 | bit(17)) == kNoFault, "CR4.PCIDE");
    expect(try_cr3(cr3 | 5 | bit(63)) == kNoFault && read_cr3() == (cr3 | 5), "CR3 with PCID 5, no flush");
    expect(try_cr0(cr0 & ~bit(31)) == kGeneralProtection, "CR0.PG stays with CR4.PCIDE");
    write_cr3(cr3);
    try_cr4(cr4);
}

// --- instructions ----------------------------------------------------------------------------------------

void check_instructions() {
    std::uint32_t low = 0, high = 0;
    std::uint64_t call = 12345;  // none of KVM's
    TRY_INSTRUCTION("vmcall", "+a"(call), );
    expect(fault() == kNoFault && call == ~std::uint64_t{999}, "VMCALL with an unknown number");
    call = 12345;
    TRY_INSTRUCTION("vmmcall", "+a"(call), );
    expect(fault() == kNoFault && call == ~std::uint64_t{999}, "VMMCALL with an unknown number");
    TRY_INSTRUCTION(".byte 0xf0; vmcall", "+a"(call), );
    expect(fault() == kInvalidOpcode, "VMCALL with LOCK is #UD");
    TRY_INSTRUCTION("monitor", EMPTY, "a"(&kCanonical), "c"(0), "d"(0));
    int raised = fault();
    TRY_INSTRUCTION("mwait", EMPTY, "a"(0), "c"(0));
    expect(raised == kInvalidOpcode && fault() == kInvalidOpcode, "MONITOR and MWAIT are #UD");
    TRY_INSTRUCTION("rdpmc", "+a"(low)COMMA "+d"(high), "c"(0));
    expect(fault() == kGeneralProtection, "RDPMC is #GP");
    std::uint64_t pointer = 0;
    TRY_INSTRUCTION("vmxon %0", EMPTY, "m"(pointer));
    raised = fault();
    TRY_INSTRUCTION("vmclear %0", EMPTY, "m"(pointer));
    expect(raised == kInvalidOpcode && fault() == kInvalidOpcode, "VMX instructions are #UD");
    TRY_INSTRUCTION("vmrun %%rax", EMPTY, "a"(0));
    raised = fault();
    TRY_INSTRUCTION("clgi", EMPTY, );
    expect(raised == kInvalidOpcode && fault() == kInvalidOpcode, "SVM instructions are #UD");
    TRY_INSTRUCTION(".byte 0x0f, 0x01, 0xfd", "+a"(low)COMMA "+d"(high), "c"(0));
    expect(fault() == kInvalidOpcode, "RDPRU is #UD");

    const bool fsgsbase = has(cpuid(7).ebx, 0);
    const std::uint64_t cr4 = read_cr4();
    TRY_INSTRUCTION("wrfsbase %0", EMPTY, "r"(std::uint64_t{0x1234}));
    expect(fault() == kInvalidOpcode, "WRFSBASE is #UD without CR4.FSGSBASE");
    if (fsgsbase) {
        try_cr4(cr4 | bit(16));
        std::uint64_t base = 0;
        asm volatile("wrfsbase %1; rdfsbase %0" : "=r"(base) : "r"(kCanonical));
        expect(base == kCanonical && rdmsr(0xc000'0100) == kCanonical, "WRFSBASE, RDFSBASE, the MSR agree");
        wrmsr(0xc000'0100, 0);
        try_cr4(cr4);
    }
    wrmsr(0xc000'0103, 0x5a);
    std::uint32_t aux = 0;
    TRY_INSTRUCTION("rdtscp", "=c"(aux)COMMA "+a"(low)COMMA "+d"(high), );
    expect(has(cpuid(0x8000'0001).edx, 27) ? fault() == kNoFault && aux == 0x5a : fault() == kInvalidOpcode,
           "RDTSCP as CPUID says, with TSC_AUX");
    std::uint64_t processor = 0;
    TRY_INSTRUCTION("rdpid %0", "=r"(processor), );
    expect(has(cpuid(7).ecx, 22) ? fault() == kNoFault && processor == 0x5a : fault() == kInvalidOpcode,
           "RDPID as CPUID says");
    wrmsr(0xc000'0103, 0);
}

// --- time ------------------------------------------------------------------------------------------------

void check_tsc() {
    constexpr std::uint32_t kTsc = 0x10, kAdjust = 0x3b;
    constexpr std::uint64_t kSoon = 2'000'000'000;  // other VMs may run between
    const std::uint64_t adjust = rdmsr(kAdjust);
    expect(adjust == 0, "TSC_ADJUST begins with 0");
    const std::uint64_t before = rdtsc();
    wrmsr(kAdjust, adjust + bit(50));
    const std::uint64_t moved = rdtsc();
    expect(moved - before >= bit(50) && moved - before < bit(50) + kSoon, "TSC_ADJUST moves the TSC");
    wrmsr(kTsc, 0);
    const std::uint64_t zero = rdtsc();
    expect(zero < kSoon && 0 - rdmsr(kAdjust) - before < kSoon, "a write of the TSC moves TSC_ADJUST");
    wrmsr(kAdjust, adjust);
    expect(rdtsc() - before < kSoon, "TSC_ADJUST takes it back");
    const std::uint64_t first = rdmsr(kTsc), second = rdtsc(), third = rdmsr(kTsc);
    expect(first <= second && second <= third, "RDTSC and RDMSR read one counter");
}

}  // namespace

int payload_main() {
    check_cpuid();
    for (const MsrRule& rule : kMsrRules)
        check_msr(rule);
    check_hidden_msrs();
    check_xcr0();
    check_control_registers();
    check_pcid();
    check_instructions();
    check_tsc();
    return verdict("processor");
}
