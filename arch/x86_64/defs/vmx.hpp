// SPDX-License-Identifier: MIT
// VT-x by the manual's names: exit reasons, controls, capability MSRs' fields, interruption information and
// invalidation types. Layout and constants only; the VMCS' fields are in vmcs.hpp, EPT entries in ept.hpp.
#pragma once

#include "vmm/base/bits.hpp"

#include <cstdint>

namespace hv::vmx {

/// Basic exit reasons [sdm3 App. C VMX Basic Exit Reasons].
enum class ExitReason : std::uint16_t {
    EXCEPTION_OR_NMI = 0,
    EXTERNAL_INTERRUPT = 1,
    TRIPLE_FAULT = 2,
    INIT_SIGNAL = 3,
    STARTUP_IPI = 4,
    IO_SMI = 5,
    OTHER_SMI = 6,
    INTERRUPT_WINDOW = 7,
    NMI_WINDOW = 8,
    TASK_SWITCH = 9,
    CPUID = 10,
    GETSEC = 11,
    HLT = 12,
    INVD = 13,
    INVLPG = 14,
    RDPMC = 15,
    RDTSC = 16,
    RSM = 17,
    VMCALL = 18,
    VMCLEAR = 19,
    VMLAUNCH = 20,
    VMPTRLD = 21,
    VMPTRST = 22,
    VMREAD = 23,
    VMRESUME = 24,
    VMWRITE = 25,
    VMXOFF = 26,
    VMXON = 27,
    CONTROL_REGISTER_ACCESS = 28,
    MOV_DR = 29,
    IO_INSTRUCTION = 30,
    RDMSR = 31,
    WRMSR = 32,
    ENTRY_FAILURE_GUEST_STATE = 33,
    ENTRY_FAILURE_MSR_LOADING = 34,
    MWAIT = 36,
    MONITOR_TRAP_FLAG = 37,
    MONITOR = 39,
    PAUSE = 40,
    ENTRY_FAILURE_MACHINE_CHECK = 41,
    TPR_BELOW_THRESHOLD = 43,
    APIC_ACCESS = 44,
    VIRTUALIZED_EOI = 45,
    GDTR_OR_IDTR_ACCESS = 46,
    LDTR_OR_TR_ACCESS = 47,
    EPT_VIOLATION = 48,
    EPT_MISCONFIGURATION = 49,
    INVEPT = 50,
    RDTSCP = 51,
    PREEMPTION_TIMER = 52,
    INVVPID = 53,
    WBINVD = 54,
    XSETBV = 55,
    APIC_WRITE = 56,
    RDRAND = 57,
    INVPCID = 58,
    VMFUNC = 59,
    ENCLS = 60,
    RDSEED = 61,
    PML_FULL = 62,
    XSAVES = 63,
    XRSTORS = 64,
    PCONFIG = 65,
    SPP_EVENT = 66,
    UMWAIT = 67,
    TPAUSE = 68,
    LOADIWKEY = 69,
    ENCLV = 70,
    ENQCMD_PASID = 72,
    ENQCMDS_PASID = 73,
    BUS_LOCK = 74,
    INSTRUCTION_TIMEOUT = 75,
    SEAMCALL = 76,
    TDCALL = 77,
    RDMSRLIST = 78,
    WRMSRLIST = 79,
};
inline constexpr unsigned kExitReasons = 80;

/// The EXIT_REASON field [sdm3 25.9.1 Basic VM-Exit Information].
struct ExitReasonField {
    using Basic = Bits<15, 0>;
    using EntryFailure = Bits<31>;
};

// --- controls [sdm3 25.6 VM-Execution Control Fields]
// ------------------------------------------------------------------
namespace pin {
inline constexpr std::uint32_t EXTERNAL_INTERRUPT_EXITING = 1U << 0;
inline constexpr std::uint32_t NMI_EXITING = 1U << 3;
inline constexpr std::uint32_t VIRTUAL_NMIS = 1U << 5;
inline constexpr std::uint32_t PREEMPTION_TIMER = 1U << 6;
inline constexpr std::uint32_t POSTED_INTERRUPTS = 1U << 7;
}  // namespace pin

namespace primary {
inline constexpr std::uint32_t INTERRUPT_WINDOW_EXITING = 1U << 2;
inline constexpr std::uint32_t USE_TSC_OFFSETTING = 1U << 3;
inline constexpr std::uint32_t HLT_EXITING = 1U << 7;
inline constexpr std::uint32_t INVLPG_EXITING = 1U << 9;
inline constexpr std::uint32_t MWAIT_EXITING = 1U << 10;
inline constexpr std::uint32_t RDPMC_EXITING = 1U << 11;
inline constexpr std::uint32_t RDTSC_EXITING = 1U << 12;
inline constexpr std::uint32_t CR3_LOAD_EXITING = 1U << 15;
inline constexpr std::uint32_t CR3_STORE_EXITING = 1U << 16;
inline constexpr std::uint32_t TERTIARY_CONTROLS = 1U << 17;
inline constexpr std::uint32_t CR8_LOAD_EXITING = 1U << 19;
inline constexpr std::uint32_t CR8_STORE_EXITING = 1U << 20;
inline constexpr std::uint32_t USE_TPR_SHADOW = 1U << 21;
inline constexpr std::uint32_t NMI_WINDOW_EXITING = 1U << 22;
inline constexpr std::uint32_t MOV_DR_EXITING = 1U << 23;
inline constexpr std::uint32_t UNCONDITIONAL_IO_EXITING = 1U << 24;
inline constexpr std::uint32_t USE_IO_BITMAPS = 1U << 25;
inline constexpr std::uint32_t MONITOR_TRAP_FLAG = 1U << 27;
inline constexpr std::uint32_t USE_MSR_BITMAPS = 1U << 28;
inline constexpr std::uint32_t MONITOR_EXITING = 1U << 29;
inline constexpr std::uint32_t PAUSE_EXITING = 1U << 30;
inline constexpr std::uint32_t SECONDARY_CONTROLS = 1U << 31;
}  // namespace primary

namespace secondary {
inline constexpr std::uint32_t VIRTUALIZE_APIC_ACCESSES = 1U << 0;
inline constexpr std::uint32_t ENABLE_EPT = 1U << 1;
inline constexpr std::uint32_t DESCRIPTOR_TABLE_EXITING = 1U << 2;
inline constexpr std::uint32_t ENABLE_RDTSCP = 1U << 3;
inline constexpr std::uint32_t VIRTUALIZE_X2APIC_MODE = 1U << 4;
inline constexpr std::uint32_t ENABLE_VPID = 1U << 5;
inline constexpr std::uint32_t WBINVD_EXITING = 1U << 6;
inline constexpr std::uint32_t UNRESTRICTED_GUEST = 1U << 7;
inline constexpr std::uint32_t APIC_REGISTER_VIRTUALIZATION = 1U << 8;
inline constexpr std::uint32_t VIRTUAL_INTERRUPT_DELIVERY = 1U << 9;
inline constexpr std::uint32_t PAUSE_LOOP_EXITING = 1U << 10;
inline constexpr std::uint32_t RDRAND_EXITING = 1U << 11;
inline constexpr std::uint32_t ENABLE_INVPCID = 1U << 12;
inline constexpr std::uint32_t ENABLE_VM_FUNCTIONS = 1U << 13;
inline constexpr std::uint32_t VMCS_SHADOWING = 1U << 14;
inline constexpr std::uint32_t ENCLS_EXITING = 1U << 15;
inline constexpr std::uint32_t RDSEED_EXITING = 1U << 16;
inline constexpr std::uint32_t ENABLE_PML = 1U << 17;
inline constexpr std::uint32_t EPT_VIOLATION_VE = 1U << 18;
inline constexpr std::uint32_t ENABLE_XSAVES = 1U << 20;
inline constexpr std::uint32_t MODE_BASED_EXECUTE = 1U << 22;
inline constexpr std::uint32_t USE_TSC_SCALING = 1U << 25;
inline constexpr std::uint32_t ENABLE_USER_WAIT = 1U << 26;
inline constexpr std::uint32_t ENCLV_EXITING = 1U << 28;
}  // namespace secondary

namespace vm_exit {
inline constexpr std::uint32_t SAVE_DEBUG_CONTROLS = 1U << 2;
inline constexpr std::uint32_t HOST_ADDRESS_SPACE_SIZE = 1U << 9;
inline constexpr std::uint32_t ACKNOWLEDGE_INTERRUPT = 1U << 15;
inline constexpr std::uint32_t SAVE_IA32_PAT = 1U << 18;
inline constexpr std::uint32_t LOAD_IA32_PAT = 1U << 19;
inline constexpr std::uint32_t SAVE_IA32_EFER = 1U << 20;
inline constexpr std::uint32_t LOAD_IA32_EFER = 1U << 21;
inline constexpr std::uint32_t SAVE_PREEMPTION_TIMER = 1U << 22;
}  // namespace vm_exit

namespace vm_entry {
inline constexpr std::uint32_t LOAD_DEBUG_CONTROLS = 1U << 2;
inline constexpr std::uint32_t IA32E_MODE_GUEST = 1U << 9;
inline constexpr std::uint32_t LOAD_IA32_PAT = 1U << 14;
inline constexpr std::uint32_t LOAD_IA32_EFER = 1U << 15;
}  // namespace vm_entry

// --- capability MSRs [sdm3 App. A VMX Capability Reporting Facility]
// -----------------------------------------------------
struct VmxBasic {  ///< IA32_VMX_BASIC [sdm3 A.1 Basic VMX Information]
    using Revision = Bits<30, 0>;
    using RegionSize = Bits<44, 32>;
    using MemoryType = Bits<53, 50>;
    using TrueControls = Bits<55>;
};
struct VmxMisc {                             ///< IA32_VMX_MISC [sdm3 A.6 Miscellaneous Data]
    using PreemptionTimerRate = Bits<4, 0>;  ///< the timer counts down when this bit of the TSC changes
    using StoresLma = Bits<5>;               ///< VM exits store EFER.LMA into the "IA-32e mode guest" control
};
struct EptVpidCap {  ///< IA32_VMX_EPT_VPID_CAP [sdm3 A.10 VPID and EPT Capabilities]
    using ExecuteOnly = Bits<0>;
    using WalkLength4 = Bits<6>;
    using WriteBack = Bits<14>;
    using Page2M = Bits<16>;
    using Page1G = Bits<17>;
    using Invept = Bits<20>;
    using AccessedDirty = Bits<21>;
    using InveptSingle = Bits<25>;
    using InveptAll = Bits<26>;
    using Invvpid = Bits<32>;
    using InvvpidAddress = Bits<40>;
    using InvvpidSingle = Bits<41>;
    using InvvpidAll = Bits<42>;
};

/// VM-entry and VM-exit interruption information, IDT-vectoring information [sdm3 25.8.3 VM-Entry Controls
/// for Event Injection] [sdm3 25.9.2 Information for VM Exits Due to Vectored Events].
struct InterruptionInfo {
    using Vector = Bits<7, 0>;
    using Type = Bits<10, 8>;
    using HasErrorCode = Bits<11>;
    using NmiUnblocking = Bits<12>;  ///< VM-exit interruption information only
    using Valid = Bits<31>;
};
enum class InterruptionType : std::uint8_t {
    external_interrupt = 0,
    nmi = 2,
    hardware_exception = 3,
    software_interrupt = 4,
    privileged_software_exception = 5,  ///< INT1
    software_exception = 6,             ///< INT3, INTO
};

/// GUEST_INTERRUPTIBILITY_STATE [sdm3 25.4.2 Guest Non-Register State].
struct Interruptibility {
    using BlockingBySti = Bits<0>;
    using BlockingByMovSs = Bits<1>;
    using BlockingByNmi = Bits<3>;
    using Shadow = Bits<1, 0>;
};
inline constexpr std::uint32_t ACTIVITY_STATE_ACTIVE = 0;

/// GUEST_INTERRUPT_STATUS [sdm3 25.4.2 Guest Non-Register State]: RVI and SVI.
struct InterruptStatus {
    using Requesting = Bits<7, 0>;
    using Servicing = Bits<15, 8>;
};

/// GUEST_PENDING_DEBUG_EXCEPTIONS [sdm3 25.4.2 Guest Non-Register State].
inline constexpr std::uint64_t PENDING_DEBUG_ENABLED_BREAKPOINT = 1U << 12;
inline constexpr std::uint64_t PENDING_DEBUG_BS = 1U << 14;

/// Segment access rights [sdm3 25.4.1 Guest Register State].
struct AccessRights {
    using Type = Bits<3, 0>;
    using CodeOrData = Bits<4>;
    using Dpl = Bits<6, 5>;
    using Present = Bits<7>;
    using Granularity = Bits<15>;
    using Unusable = Bits<16>;
};

// --- exit qualifications [sdm3 28.2.1 Basic VM-Exit Information]
// -------------------------------------------------------
struct CrQualification {
    using Register = Bits<3, 0>;
    using Access = Bits<5, 4>;  ///< 0: MOV to CR, 1: MOV from CR, 2: CLTS, 3: LMSW
    using Gpr = Bits<11, 8>;
};
struct IoQualification {
    using SizeMinus1 = Bits<2, 0>;
    using In = Bits<3>;
    using String = Bits<4>;
    using Rep = Bits<5>;
    using Port = Bits<31, 16>;
};
struct TaskSwitchQualification {
    using Selector = Bits<15, 0>;
    using Source = Bits<31, 30>;  ///< 0: CALL, 1: IRET, 2: JMP, 3: task gate in the IDT
};
struct ApicAccessQualification {
    using Offset = Bits<11, 0>;
    using Type = Bits<15, 12>;
};
enum class ApicAccessType : std::uint8_t {
    read = 0,
    write = 1,
    fetch = 2,
    event_delivery = 3,
    physical_event_delivery = 10,
    physical = 15,  ///< by a fetch or an instruction, without a linear address: a page walk
};
struct EptViolation {
    using Read = Bits<0>;
    using Write = Bits<1>;
    using Execute = Bits<2>;
    using Mapped = Bits<5, 3>;         ///< what the translation allows; 0: there is none
    using LinearValid = Bits<7>;       ///< clear: a load of PDPTEs by MOV to CR
    using FinalTranslation = Bits<8>;  ///< clear: the access was to a paging-structure entry
    using NmiUnblocking = Bits<12>;
};
/// Of #DB: bits as in DR6 [sdm3 28.2.1 Basic VM-Exit Information].
inline constexpr std::uint64_t DEBUG_QUALIFICATION_MASK = 0x600f;

// --- invalidation [sdm3 31.3 VMX Instructions]
// --------------------------------------------------------------------------
enum class InveptType : std::uint64_t { single_context = 1, all_contexts = 2 };
enum class InvvpidType : std::uint64_t {
    individual_address = 0,
    single_context = 1,
    all_contexts = 2,
    single_context_retaining_globals = 3
};

struct InveptDescriptor {
    std::uint64_t eptp;
    std::uint64_t reserved;
};
struct InvvpidDescriptor {
    std::uint64_t vpid;  ///< 63:16 are zero
    std::uint64_t linear_address;
};
static_assert(sizeof(InveptDescriptor) == 16 && sizeof(InvvpidDescriptor) == 16);

/// VM-instruction error numbers [sdm3 31.4 VM Instruction Error Numbers].
constexpr const char* vm_instruction_error(std::uint32_t number) {
    switch (number) {
    case 1: return "VMCALL executed in VMX root operation";
    case 2: return "VMCLEAR with invalid physical address";
    case 3: return "VMCLEAR with VMXON pointer";
    case 4: return "VMLAUNCH with non-clear VMCS";
    case 5: return "VMRESUME with non-launched VMCS";
    case 6: return "VMRESUME after VMXOFF";
    case 7: return "VM entry with invalid control field(s)";
    case 8: return "VM entry with invalid host-state field(s)";
    case 9: return "VMPTRLD with invalid physical address";
    case 10: return "VMPTRLD with VMXON pointer";
    case 11: return "VMPTRLD with incorrect VMCS revision identifier";
    case 12: return "VMREAD/VMWRITE from/to unsupported VMCS component";
    case 13: return "VMWRITE to read-only VMCS component";
    case 15: return "VMXON executed in VMX root operation";
    case 16: return "VM entry with invalid executive-VMCS pointer";
    case 17: return "VM entry with non-launched executive VMCS";
    case 18: return "VM entry with executive-VMCS pointer not VMXON pointer";
    case 19: return "VMCALL with non-clear VMCS";
    case 20: return "VMCALL with invalid VM-exit control fields";
    case 22: return "VMCALL with incorrect MSEG revision identifier";
    case 23: return "VMXOFF under dual-monitor treatment";
    case 24: return "VMCALL with invalid SMM-monitor features";
    case 25: return "VM entry with invalid VM-execution control fields in executive VMCS";
    case 26: return "VM entry with events blocked by MOV SS";
    case 28: return "invalid operand to INVEPT/INVVPID";
    default: return "unknown error";
    }
}

}  // namespace hv::vmx
