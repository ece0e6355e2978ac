// SPDX-License-Identifier: MIT
// The virtual machine control block, its intercepts and exit codes [apm2 App. B Layout of VMCB], [apm2 App. C
// SVM Intercept Exit Codes].
#pragma once

#include "vmm/base/bits.hpp"

#include <cstddef>
#include <cstdint>

namespace hv::svm {

/// Control area, offset 0x00c..0x014: one bit each, by vector word and bit number.
enum class Intercept : std::uint8_t {
    // third word, offset 0x00c
    intr = 0,
    nmi = 1,
    smi = 2,
    init = 3,
    vintr = 4,
    cr0_selective = 5,
    rdpmc = 15,
    cpuid = 18,
    rsm = 19,
    iret = 20,
    invd = 22,
    pause = 23,
    hlt = 24,
    invlpga = 26,
    ioio = 27,
    msr = 28,
    task_switch = 29,
    ferr_freeze = 30,
    shutdown = 31,
    // fourth word, offset 0x010
    vmrun = 32,
    vmmcall = 33,
    vmload = 34,
    vmsave = 35,
    stgi = 36,
    clgi = 37,
    skinit = 38,
    icebp = 40,
    wbinvd = 41,
    monitor = 42,
    mwait = 43,
    xsetbv = 45,
    rdpru = 46,
};

enum class ExitCode : std::uint64_t {
    read_cr0 = 0x000,
    write_cr0 = 0x010,
    read_dr0 = 0x020,
    write_dr15 = 0x03f,
    exception0 = 0x040,
    exception31 = 0x05f,
    intr = 0x060,
    nmi = 0x061,
    smi = 0x062,
    init = 0x063,
    vintr = 0x064,
    cr0_selective_write = 0x065,
    rdpmc = 0x06f,
    cpuid = 0x072,
    rsm = 0x073,
    iret = 0x074,
    invd = 0x076,
    pause = 0x077,
    hlt = 0x078,
    invlpg = 0x079,
    invlpga = 0x07a,
    ioio = 0x07b,
    msr = 0x07c,
    task_switch = 0x07d,
    ferr_freeze = 0x07e,
    shutdown = 0x07f,
    vmrun = 0x080,
    vmmcall = 0x081,
    vmload = 0x082,
    vmsave = 0x083,
    stgi = 0x084,
    clgi = 0x085,
    skinit = 0x086,
    icebp = 0x088,
    wbinvd = 0x089,
    monitor = 0x08a,
    mwait = 0x08b,
    mwait_armed = 0x08c,
    xsetbv = 0x08d,
    rdpru = 0x08e,
    npf = 0x400,
    invalid = ~std::uint64_t{0},
};

/// VMCB clean bits, offset 0x0c0 [apm2 15.15.3 VMCB Clean Field].
enum class Clean : std::uint32_t {
    intercepts = 1U << 0,  ///< intercepts, TSC offset, pause filter
    iopm = 1U << 1,
    asid = 1U << 2,
    tpr = 1U << 3,
    nested_paging = 1U << 4,
    control_registers = 1U << 5,
    debug_registers = 1U << 6,
    descriptor_tables = 1U << 7,
    segments = 1U << 8,
    cr2 = 1U << 9,
    all = 0x3ff,
};

/// TLB_CONTROL, offset 0x05c [apm2 15.16.1 TLB Flush].
enum class TlbControl : std::uint8_t { nothing = 0, flush_all = 1, flush_this_asid = 3 };

struct VmcbSegment {
    std::uint16_t selector;
    static constexpr std::uint16_t kAttributes = 0xfff;  ///< those of `attributes` that exist
    std::uint16_t attributes;
    std::uint32_t limit;
    std::uint64_t base;
};
static_assert(sizeof(VmcbSegment) == 16);

struct VmcbControl {
    std::uint16_t intercept_cr_read;
    std::uint16_t intercept_cr_write;
    std::uint16_t intercept_dr_read;
    std::uint16_t intercept_dr_write;
    std::uint32_t intercept_exceptions;
    std::uint32_t intercepts[3];  ///< by Intercept
    std::uint8_t reserved0[0x3c - 0x18];
    std::uint16_t pause_filter_threshold;
    std::uint16_t pause_filter_count;
    std::uint64_t iopm_base;
    std::uint64_t msrpm_base;
    std::uint64_t tsc_offset;
    std::uint32_t asid;
    std::uint8_t tlb_control;
    std::uint8_t reserved1[3];
    std::uint64_t virtual_interrupt;  ///< VirtualInterrupt
    std::uint64_t interrupt_shadow;   ///< bit 0
    std::uint64_t exit_code;
    std::uint64_t exit_info1;
    std::uint64_t exit_info2;
    std::uint64_t exit_int_info;   ///< EventInjection's layout
    std::uint64_t nested_control;  ///< bit 0: nested paging
    std::uint64_t avic_apic_bar;
    std::uint64_t ghcb;
    std::uint64_t event_injection;
    std::uint64_t nested_cr3;
    std::uint64_t lbr_virtualization;
    std::uint32_t clean;
    std::uint32_t reserved2;
    std::uint64_t next_rip;
    std::uint8_t fetched_bytes;
    std::uint8_t instruction_bytes[15];
    std::uint8_t reserved3[0x400 - 0xe0];
};
static_assert(offsetof(VmcbControl, iopm_base) == 0x040);
static_assert(offsetof(VmcbControl, asid) == 0x058);
static_assert(offsetof(VmcbControl, virtual_interrupt) == 0x060);
static_assert(offsetof(VmcbControl, exit_code) == 0x070);
static_assert(offsetof(VmcbControl, nested_control) == 0x090);
static_assert(offsetof(VmcbControl, event_injection) == 0x0a8);
static_assert(offsetof(VmcbControl, clean) == 0x0c0);
static_assert(offsetof(VmcbControl, next_rip) == 0x0c8);
static_assert(sizeof(VmcbControl) == 0x400);

struct VmcbSave {
    VmcbSegment es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr;
    std::uint8_t reserved0[0xcb - 0xa0];
    std::uint8_t cpl;
    std::uint32_t reserved1;
    std::uint64_t efer;
    std::uint8_t reserved2[0x148 - 0xd8];
    std::uint64_t cr4;
    std::uint64_t cr3;
    std::uint64_t cr0;
    std::uint64_t dr7;
    std::uint64_t dr6;
    std::uint64_t rflags;
    std::uint64_t rip;
    std::uint8_t reserved3[0x1d8 - 0x180];
    std::uint64_t rsp;
    std::uint8_t reserved4[0x1f8 - 0x1e0];
    std::uint64_t rax;
    std::uint64_t star;
    std::uint64_t lstar;
    std::uint64_t cstar;
    std::uint64_t sfmask;
    std::uint64_t kernel_gs_base;
    std::uint64_t sysenter_cs;
    std::uint64_t sysenter_esp;
    std::uint64_t sysenter_eip;
    std::uint64_t cr2;
    std::uint8_t reserved5[0x268 - 0x248];
    std::uint64_t g_pat;
    std::uint8_t reserved6[0xc00 - 0x270];
};
static_assert(offsetof(VmcbSave, cpl) == 0x0cb);
static_assert(offsetof(VmcbSave, efer) == 0x0d0);
static_assert(offsetof(VmcbSave, cr4) == 0x148);
static_assert(offsetof(VmcbSave, rflags) == 0x170);
static_assert(offsetof(VmcbSave, rsp) == 0x1d8);
static_assert(offsetof(VmcbSave, rax) == 0x1f8);
static_assert(offsetof(VmcbSave, cr2) == 0x240);
static_assert(offsetof(VmcbSave, g_pat) == 0x268);

struct alignas(4096) Vmcb {
    VmcbControl control;
    VmcbSave save;
};
static_assert(sizeof(Vmcb) == 4096);

/// virtual_interrupt [apm2 15.21.4 Injecting Virtual (INTR) Interrupts].
struct VirtualInterrupt {
    using Tpr = Bits<7, 0>;
    using Pending = Bits<8>;  ///< V_IRQ
    using Gif = Bits<9>;
    using Priority = Bits<19, 16>;
    using IgnoreTpr = Bits<20>;
    using Masking = Bits<24>;  ///< V_INTR_MASKING: RFLAGS.IF masks virtual interrupts alone
    using Vector = Bits<39, 32>;
};

/// EVENTINJ and EXITINTINFO [apm2 15.20 Event Injection].
struct EventInjection {
    using Vector = Bits<7, 0>;
    using Type = Bits<10, 8>;  ///< 0 INTR, 2 NMI, 3 exception, 4 software interrupt
    using HasErrorCode = Bits<11>;
    using Valid = Bits<31>;
    using ErrorCode = Bits<63, 32>;
};

/// EXITINFO2 of a task switch; EXITINFO1 is the new TSS' selector [apm2 15.14.1 Task Switch Intercept].
struct TaskSwitchInfo {
    using ErrorCode = Bits<31, 0>;
    using Iret = Bits<36>;
    using Jump = Bits<38>;
    using HasErrorCode = Bits<44>;
    using ResumeFlag = Bits<48>;  ///< RF as the old task's TSS would get it
};

/// EXITINFO1 of a nested page fault [apm2 15.25.6 Nested versus Guest Page Faults, Fault Ordering].
struct NpfInfo {
    using Present = Bits<0>;
    using Write = Bits<1>;
    using Execute = Bits<4>;
    using FinalTranslation = Bits<32>;
    using DuringWalk = Bits<33>;
};

}  // namespace hv::svm
