// SPDX-License-Identifier: MIT
// Model-specific registers by the manuals' names [sdm4 2 Model-Specific Registers (MSRs)], [apm2 A MSR
// Cross-Reference], and the fields of those that more than one file looks into.
#pragma once

#include <cstdint>

namespace hv {

enum class Msr : std::uint32_t {
    IA32_P5_MC_ADDR = 0x0,
    IA32_P5_MC_TYPE = 0x1,
    IA32_TIME_STAMP_COUNTER = 0x10,
    IA32_PLATFORM_ID = 0x17,
    IA32_APIC_BASE = 0x1b,
    EBL_CR_POWERON = 0x2a,
    MSR_SMI_COUNT = 0x34,
    IA32_FEATURE_CONTROL = 0x3a,
    IA32_TSC_ADJUST = 0x3b,
    IA32_SPEC_CTRL = 0x48,
    IA32_PRED_CMD = 0x49,
    IA32_BIOS_UPDT_TRIG = 0x79,
    IA32_BIOS_SIGN_ID = 0x8b,  ///< AMD: PATCH_LEVEL
    MSR_PLATFORM_INFO = 0xce,
    IA32_MTRRCAP = 0xfe,
    IA32_ARCH_CAPABILITIES = 0x10a,
    IA32_FLUSH_CMD = 0x10b,
    MISC_FEATURES_ENABLES = 0x140,
    IA32_SYSENTER_CS = 0x174,
    IA32_SYSENTER_ESP = 0x175,
    IA32_SYSENTER_EIP = 0x176,
    IA32_MCG_CAP = 0x179,
    IA32_MCG_STATUS = 0x17a,
    IA32_MCG_CTL = 0x17b,
    IA32_PERF_STATUS = 0x198,
    IA32_PERF_CTL = 0x199,
    IA32_THERM_INTERRUPT = 0x19b,
    IA32_THERM_STATUS = 0x19c,
    IA32_MISC_ENABLE = 0x1a0,
    IA32_ENERGY_PERF_BIAS = 0x1b0,
    IA32_DEBUGCTL = 0x1d9,
    IA32_MTRR_PHYSBASE0 = 0x200,
    IA32_MTRR_PHYSMASK0 = 0x201,
    IA32_MTRR_FIX64K_00000 = 0x250,
    IA32_MTRR_FIX16K_80000 = 0x258,
    IA32_MTRR_FIX16K_A0000 = 0x259,
    IA32_MTRR_FIX4K_C0000 = 0x268,
    IA32_MTRR_FIX4K_F8000 = 0x26f,
    IA32_PAT = 0x277,
    IA32_MTRR_DEF_TYPE = 0x2ff,
    IA32_PERF_CAPABILITIES = 0x345,
    IA32_MC0_CTL = 0x400,
    IA32_VMX_BASIC = 0x480,
    IA32_VMX_PINBASED_CTLS = 0x481,
    IA32_VMX_PROCBASED_CTLS = 0x482,
    IA32_VMX_EXIT_CTLS = 0x483,
    IA32_VMX_ENTRY_CTLS = 0x484,
    IA32_VMX_MISC = 0x485,
    IA32_VMX_CR0_FIXED0 = 0x486,
    IA32_VMX_CR0_FIXED1 = 0x487,
    IA32_VMX_CR4_FIXED0 = 0x488,
    IA32_VMX_CR4_FIXED1 = 0x489,
    IA32_VMX_VMCS_ENUM = 0x48a,
    IA32_VMX_PROCBASED_CTLS2 = 0x48b,
    IA32_VMX_EPT_VPID_CAP = 0x48c,
    IA32_VMX_TRUE_PINBASED_CTLS = 0x48d,
    IA32_VMX_TRUE_PROCBASED_CTLS = 0x48e,
    IA32_VMX_TRUE_EXIT_CTLS = 0x48f,
    IA32_VMX_TRUE_ENTRY_CTLS = 0x490,
    IA32_VMX_VMFUNC = 0x491,
    IA32_VMX_PROCBASED_CTLS3 = 0x492,
    IA32_TSC_DEADLINE = 0x6e0,
    IA32_X2APIC_FIRST = 0x800,
    IA32_X2APIC_APICID = 0x802,
    IA32_X2APIC_VERSION = 0x803,
    IA32_X2APIC_TPR = 0x808,
    IA32_X2APIC_PPR = 0x80a,
    IA32_X2APIC_EOI = 0x80b,
    IA32_X2APIC_LDR = 0x80d,
    IA32_X2APIC_SIVR = 0x80f,
    IA32_X2APIC_ISR0 = 0x810,
    IA32_X2APIC_TMR0 = 0x818,
    IA32_X2APIC_IRR0 = 0x820,
    IA32_X2APIC_ESR = 0x828,
    IA32_X2APIC_LVT_CMCI = 0x82f,
    IA32_X2APIC_ICR = 0x830,
    IA32_X2APIC_LVT_TIMER = 0x832,
    IA32_X2APIC_LVT_THERMAL = 0x833,
    IA32_X2APIC_LVT_PMI = 0x834,
    IA32_X2APIC_LVT_LINT0 = 0x835,
    IA32_X2APIC_LVT_LINT1 = 0x836,
    IA32_X2APIC_LVT_ERROR = 0x837,
    IA32_X2APIC_INIT_COUNT = 0x838,
    IA32_X2APIC_CUR_COUNT = 0x839,
    IA32_X2APIC_DIV_CONF = 0x83e,
    IA32_X2APIC_SELF_IPI = 0x83f,
    IA32_X2APIC_LAST = 0x8ff,
    IA32_XSS = 0xda0,

    // KVM's paravirtual interface, as Linux' documentation of it numbers them.
    KVM_WALL_CLOCK = 0x11,
    KVM_SYSTEM_TIME = 0x12,
    KVM_WALL_CLOCK_NEW = 0x4b56'4d00,
    KVM_SYSTEM_TIME_NEW = 0x4b56'4d01,
    KVM_ASYNC_PF_EN = 0x4b56'4d02,
    KVM_STEAL_TIME = 0x4b56'4d03,
    KVM_PV_EOI_EN = 0x4b56'4d04,
    KVM_POLL_CONTROL = 0x4b56'4d05,

    IA32_EFER = 0xc000'0080,
    IA32_STAR = 0xc000'0081,
    IA32_LSTAR = 0xc000'0082,
    IA32_CSTAR = 0xc000'0083,
    IA32_FMASK = 0xc000'0084,
    IA32_FS_BASE = 0xc000'0100,
    IA32_GS_BASE = 0xc000'0101,
    IA32_KERNEL_GS_BASE = 0xc000'0102,
    IA32_TSC_AUX = 0xc000'0103,
    MSR_TSC_RATIO = 0xc000'0104,
    SYSCFG = 0xc001'0010,
    HWCR = 0xc001'0015,
    IORR_BASE0 = 0xc001'0016,
    TOP_MEM = 0xc001'001a,
    TOP_MEM2 = 0xc001'001d,
    NB_CFG = 0xc001'001f,
    PATCH_LOADER = 0xc001'0020,
    PSTATE_LIMIT = 0xc001'0061,
    PSTATE_CONTROL = 0xc001'0062,
    PSTATE_STATUS = 0xc001'0063,
    PSTATE_0 = 0xc001'0064,
    VM_CR = 0xc001'0114,
    IGNNE = 0xc001'0115,
    SMM_CTL = 0xc001'0116,
    VM_HSAVE_PA = 0xc001'0117,
    SVM_KEY = 0xc001'0118,
    VIRT_SPEC_CTRL = 0xc001'011f,
    OSVW_ID_LENGTH = 0xc001'0140,
    OSVW_STATUS = 0xc001'0141,
    LS_CFG = 0xc001'1020,
    IC_CFG = 0xc001'1021,
    DC_CFG = 0xc001'1022,
    DE_CFG = 0xc001'1029,
};

constexpr Msr operator+(Msr first, std::uint32_t distance) {
    return static_cast<Msr>(static_cast<std::uint32_t>(first) + distance);
}

// IA32_APIC_BASE [sdm3 11.4.4 Local APIC Status and Location]
inline constexpr std::uint64_t APIC_BASE_BSP = 1ULL << 8;
inline constexpr std::uint64_t APIC_BASE_EXTD = 1ULL << 10;
inline constexpr std::uint64_t APIC_BASE_ENABLE = 1ULL << 11;

// IA32_FEATURE_CONTROL
inline constexpr std::uint64_t FEATURE_CONTROL_LOCK = 1ULL << 0;
inline constexpr std::uint64_t FEATURE_CONTROL_VMX_INSIDE_SMX = 1ULL << 1;
inline constexpr std::uint64_t FEATURE_CONTROL_VMX_OUTSIDE_SMX = 1ULL << 2;

// IA32_MISC_ENABLE
inline constexpr std::uint64_t MISC_ENABLE_FAST_STRING = 1ULL << 0;
inline constexpr std::uint64_t MISC_ENABLE_EMON = 1ULL << 7;
inline constexpr std::uint64_t MISC_ENABLE_BTS_UNAVAILABLE = 1ULL << 11;
inline constexpr std::uint64_t MISC_ENABLE_PEBS_UNAVAILABLE = 1ULL << 12;
inline constexpr std::uint64_t MISC_ENABLE_MWAIT = 1ULL << 18;
inline constexpr std::uint64_t MISC_ENABLE_LIMIT_CPUID_MAXVAL = 1ULL << 22;
inline constexpr std::uint64_t MISC_ENABLE_XD_DISABLE = 1ULL << 34;

// IA32_MTRRCAP, IA32_MTRR_DEF_TYPE [sdm3 12.11 Memory Type Range Registers (MTRRs)]
inline constexpr std::uint64_t MTRRCAP_FIX = 1ULL << 8;
inline constexpr std::uint64_t MTRRCAP_WC = 1ULL << 10;
inline constexpr std::uint64_t MTRR_DEF_TYPE_FE = 1ULL << 10;
inline constexpr std::uint64_t MTRR_DEF_TYPE_E = 1ULL << 11;
inline constexpr std::uint64_t MTRR_PHYSMASK_V = 1ULL << 11;

/// IA32_PAT after RESET [sdm3 12.12.4 Programming the PAT].
inline constexpr std::uint64_t PAT_RESET = 0x0007'0406'0007'0406;

// VM_CR [apm2 15.30.1 VM_CR MSR]
inline constexpr std::uint64_t VM_CR_R_INIT = 1ULL << 1;
inline constexpr std::uint64_t VM_CR_LOCK = 1ULL << 3;
inline constexpr std::uint64_t VM_CR_SVMDIS = 1ULL << 4;

}  // namespace hv
