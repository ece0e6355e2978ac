// SPDX-License-Identifier: MIT
// The fields of the VMCS by their encodings [sdm3 App. B Field Encoding in VMCS]. The encoding tells a
// field's width and whether it can be written; the type of each constant follows from it, and a wrong one
// does not compile.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace hv::vmx {

enum class FieldArea : std::uint8_t { control, read_only, guest_state, host_state };

/// Bits 11:10 of an encoding.
constexpr FieldArea field_area(std::uint32_t encoding) {
    return static_cast<FieldArea>((encoding >> 10) & 3);
}

/// Bits 14:13: 16-bit, 64-bit, 32-bit, natural width.
constexpr std::size_t field_bytes(std::uint32_t encoding) {
    constexpr std::size_t kBytes[] = {2, 8, 4, 8};
    return kBytes[(encoding >> 13) & 3];
}

/// Called, and thereby not a constant expression, where a field is declared with a type that is not its own.
void wrong_type_for_vmcs_field();

/// A field that can be written.
template <class T>
struct VmcsField {
    using Value = T;
    std::uint32_t encoding;

    consteval explicit VmcsField(std::uint32_t e) : encoding{e} {
        if (field_bytes(e) != sizeof(T) || field_area(e) == FieldArea::read_only)
            wrong_type_for_vmcs_field();
    }
};

/// A VM-exit information field.
template <class T>
struct VmcsReadOnlyField {
    using Value = T;
    std::uint32_t encoding;

    consteval explicit VmcsReadOnlyField(std::uint32_t e) : encoding{e} {
        if (field_bytes(e) != sizeof(T) || field_area(e) != FieldArea::read_only)
            wrong_type_for_vmcs_field();
    }
};

using Vmcs16 = VmcsField<std::uint16_t>;
using Vmcs32 = VmcsField<std::uint32_t>;
using Vmcs64 = VmcsField<std::uint64_t>;  ///< 64-bit and natural width
using VmcsRead32 = VmcsReadOnlyField<std::uint32_t>;
using VmcsRead64 = VmcsReadOnlyField<std::uint64_t>;

// [sdm3 B.1 16-Bit Fields]
inline constexpr Vmcs16 VIRTUAL_PROCESSOR_ID{0x0000};
inline constexpr Vmcs16 POSTED_INTERRUPT_NOTIFICATION_VECTOR{0x0002};
inline constexpr Vmcs16 EPTP_INDEX{0x0004};
inline constexpr Vmcs16 GUEST_ES_SELECTOR{0x0800};
inline constexpr Vmcs16 GUEST_CS_SELECTOR{0x0802};
inline constexpr Vmcs16 GUEST_SS_SELECTOR{0x0804};
inline constexpr Vmcs16 GUEST_DS_SELECTOR{0x0806};
inline constexpr Vmcs16 GUEST_FS_SELECTOR{0x0808};
inline constexpr Vmcs16 GUEST_GS_SELECTOR{0x080a};
inline constexpr Vmcs16 GUEST_LDTR_SELECTOR{0x080c};
inline constexpr Vmcs16 GUEST_TR_SELECTOR{0x080e};
inline constexpr Vmcs16 GUEST_INTERRUPT_STATUS{0x0810};
inline constexpr Vmcs16 PML_INDEX{0x0812};
inline constexpr Vmcs16 HOST_ES_SELECTOR{0x0c00};
inline constexpr Vmcs16 HOST_CS_SELECTOR{0x0c02};
inline constexpr Vmcs16 HOST_SS_SELECTOR{0x0c04};
inline constexpr Vmcs16 HOST_DS_SELECTOR{0x0c06};
inline constexpr Vmcs16 HOST_FS_SELECTOR{0x0c08};
inline constexpr Vmcs16 HOST_GS_SELECTOR{0x0c0a};
inline constexpr Vmcs16 HOST_TR_SELECTOR{0x0c0c};

// [sdm3 B.2 64-Bit Fields]
inline constexpr Vmcs64 IO_BITMAP_A{0x2000};
inline constexpr Vmcs64 IO_BITMAP_B{0x2002};
inline constexpr Vmcs64 MSR_BITMAP{0x2004};
inline constexpr Vmcs64 VM_EXIT_MSR_STORE_ADDRESS{0x2006};
inline constexpr Vmcs64 VM_EXIT_MSR_LOAD_ADDRESS{0x2008};
inline constexpr Vmcs64 VM_ENTRY_MSR_LOAD_ADDRESS{0x200a};
inline constexpr Vmcs64 EXECUTIVE_VMCS_POINTER{0x200c};
inline constexpr Vmcs64 PML_ADDRESS{0x200e};
inline constexpr Vmcs64 TSC_OFFSET{0x2010};
inline constexpr Vmcs64 VIRTUAL_APIC_ADDRESS{0x2012};
inline constexpr Vmcs64 APIC_ACCESS_ADDRESS{0x2014};
inline constexpr Vmcs64 POSTED_INTERRUPT_DESCRIPTOR{0x2016};
inline constexpr Vmcs64 VM_FUNCTION_CONTROLS{0x2018};
inline constexpr Vmcs64 EPT_POINTER{0x201a};
inline constexpr Vmcs64 EOI_EXIT_BITMAP_0{0x201c};
inline constexpr Vmcs64 EOI_EXIT_BITMAP_1{0x201e};
inline constexpr Vmcs64 EOI_EXIT_BITMAP_2{0x2020};
inline constexpr Vmcs64 EOI_EXIT_BITMAP_3{0x2022};
inline constexpr Vmcs64 EPTP_LIST_ADDRESS{0x2024};
inline constexpr Vmcs64 VMREAD_BITMAP{0x2026};
inline constexpr Vmcs64 VMWRITE_BITMAP{0x2028};
inline constexpr Vmcs64 VIRTUALIZATION_EXCEPTION_INFORMATION{0x202a};
inline constexpr Vmcs64 XSS_EXITING_BITMAP{0x202c};
inline constexpr Vmcs64 ENCLS_EXITING_BITMAP{0x202e};
inline constexpr Vmcs64 TSC_MULTIPLIER{0x2032};
inline constexpr Vmcs64 TERTIARY_PROCESSOR_BASED_CONTROLS{0x2034};
inline constexpr Vmcs64 ENCLV_EXITING_BITMAP{0x2036};
inline constexpr VmcsRead64 GUEST_PHYSICAL_ADDRESS{0x2400};
inline constexpr Vmcs64 VMCS_LINK_POINTER{0x2800};
inline constexpr Vmcs64 GUEST_IA32_DEBUGCTL{0x2802};
inline constexpr Vmcs64 GUEST_IA32_PAT{0x2804};
inline constexpr Vmcs64 GUEST_IA32_EFER{0x2806};
inline constexpr Vmcs64 GUEST_IA32_PERF_GLOBAL_CTRL{0x2808};
inline constexpr Vmcs64 GUEST_PDPTE0{0x280a};
inline constexpr Vmcs64 GUEST_PDPTE1{0x280c};
inline constexpr Vmcs64 GUEST_PDPTE2{0x280e};
inline constexpr Vmcs64 GUEST_PDPTE3{0x2810};
inline constexpr Vmcs64 GUEST_IA32_BNDCFGS{0x2812};
inline constexpr Vmcs64 HOST_IA32_PAT{0x2c00};
inline constexpr Vmcs64 HOST_IA32_EFER{0x2c02};
inline constexpr Vmcs64 HOST_IA32_PERF_GLOBAL_CTRL{0x2c04};

// [sdm3 B.3 32-Bit Fields]
inline constexpr Vmcs32 PIN_BASED_CONTROLS{0x4000};
inline constexpr Vmcs32 PRIMARY_PROCESSOR_BASED_CONTROLS{0x4002};
inline constexpr Vmcs32 EXCEPTION_BITMAP{0x4004};
inline constexpr Vmcs32 PAGE_FAULT_ERROR_CODE_MASK{0x4006};
inline constexpr Vmcs32 PAGE_FAULT_ERROR_CODE_MATCH{0x4008};
inline constexpr Vmcs32 CR3_TARGET_COUNT{0x400a};
inline constexpr Vmcs32 VM_EXIT_CONTROLS{0x400c};
inline constexpr Vmcs32 VM_EXIT_MSR_STORE_COUNT{0x400e};
inline constexpr Vmcs32 VM_EXIT_MSR_LOAD_COUNT{0x4010};
inline constexpr Vmcs32 VM_ENTRY_CONTROLS{0x4012};
inline constexpr Vmcs32 VM_ENTRY_MSR_LOAD_COUNT{0x4014};
inline constexpr Vmcs32 VM_ENTRY_INTERRUPTION_INFORMATION{0x4016};
inline constexpr Vmcs32 VM_ENTRY_EXCEPTION_ERROR_CODE{0x4018};
inline constexpr Vmcs32 VM_ENTRY_INSTRUCTION_LENGTH{0x401a};
inline constexpr Vmcs32 TPR_THRESHOLD{0x401c};
inline constexpr Vmcs32 SECONDARY_PROCESSOR_BASED_CONTROLS{0x401e};
inline constexpr Vmcs32 PLE_GAP{0x4020};
inline constexpr Vmcs32 PLE_WINDOW{0x4022};
inline constexpr VmcsRead32 VM_INSTRUCTION_ERROR{0x4400};
inline constexpr VmcsRead32 EXIT_REASON{0x4402};
inline constexpr VmcsRead32 VM_EXIT_INTERRUPTION_INFORMATION{0x4404};
inline constexpr VmcsRead32 VM_EXIT_INTERRUPTION_ERROR_CODE{0x4406};
inline constexpr VmcsRead32 IDT_VECTORING_INFORMATION{0x4408};
inline constexpr VmcsRead32 IDT_VECTORING_ERROR_CODE{0x440a};
inline constexpr VmcsRead32 VM_EXIT_INSTRUCTION_LENGTH{0x440c};
inline constexpr VmcsRead32 VM_EXIT_INSTRUCTION_INFORMATION{0x440e};
inline constexpr Vmcs32 GUEST_ES_LIMIT{0x4800};
inline constexpr Vmcs32 GUEST_CS_LIMIT{0x4802};
inline constexpr Vmcs32 GUEST_SS_LIMIT{0x4804};
inline constexpr Vmcs32 GUEST_DS_LIMIT{0x4806};
inline constexpr Vmcs32 GUEST_FS_LIMIT{0x4808};
inline constexpr Vmcs32 GUEST_GS_LIMIT{0x480a};
inline constexpr Vmcs32 GUEST_LDTR_LIMIT{0x480c};
inline constexpr Vmcs32 GUEST_TR_LIMIT{0x480e};
inline constexpr Vmcs32 GUEST_GDTR_LIMIT{0x4810};
inline constexpr Vmcs32 GUEST_IDTR_LIMIT{0x4812};
inline constexpr Vmcs32 GUEST_ES_ACCESS_RIGHTS{0x4814};
inline constexpr Vmcs32 GUEST_CS_ACCESS_RIGHTS{0x4816};
inline constexpr Vmcs32 GUEST_SS_ACCESS_RIGHTS{0x4818};
inline constexpr Vmcs32 GUEST_DS_ACCESS_RIGHTS{0x481a};
inline constexpr Vmcs32 GUEST_FS_ACCESS_RIGHTS{0x481c};
inline constexpr Vmcs32 GUEST_GS_ACCESS_RIGHTS{0x481e};
inline constexpr Vmcs32 GUEST_LDTR_ACCESS_RIGHTS{0x4820};
inline constexpr Vmcs32 GUEST_TR_ACCESS_RIGHTS{0x4822};
inline constexpr Vmcs32 GUEST_INTERRUPTIBILITY_STATE{0x4824};
inline constexpr Vmcs32 GUEST_ACTIVITY_STATE{0x4826};
inline constexpr Vmcs32 GUEST_SMBASE{0x4828};
inline constexpr Vmcs32 GUEST_IA32_SYSENTER_CS{0x482a};
inline constexpr Vmcs32 VMX_PREEMPTION_TIMER_VALUE{0x482e};
inline constexpr Vmcs32 HOST_IA32_SYSENTER_CS{0x4c00};

// [sdm3 B.4 Natural-Width Fields]
inline constexpr Vmcs64 CR0_GUEST_HOST_MASK{0x6000};
inline constexpr Vmcs64 CR4_GUEST_HOST_MASK{0x6002};
inline constexpr Vmcs64 CR0_READ_SHADOW{0x6004};
inline constexpr Vmcs64 CR4_READ_SHADOW{0x6006};
inline constexpr VmcsRead64 EXIT_QUALIFICATION{0x6400};
inline constexpr VmcsRead64 IO_RCX{0x6402};
inline constexpr VmcsRead64 IO_RSI{0x6404};
inline constexpr VmcsRead64 IO_RDI{0x6406};
inline constexpr VmcsRead64 IO_RIP{0x6408};
inline constexpr VmcsRead64 GUEST_LINEAR_ADDRESS{0x640a};
inline constexpr Vmcs64 GUEST_CR0{0x6800};
inline constexpr Vmcs64 GUEST_CR3{0x6802};
inline constexpr Vmcs64 GUEST_CR4{0x6804};
inline constexpr Vmcs64 GUEST_ES_BASE{0x6806};
inline constexpr Vmcs64 GUEST_CS_BASE{0x6808};
inline constexpr Vmcs64 GUEST_SS_BASE{0x680a};
inline constexpr Vmcs64 GUEST_DS_BASE{0x680c};
inline constexpr Vmcs64 GUEST_FS_BASE{0x680e};
inline constexpr Vmcs64 GUEST_GS_BASE{0x6810};
inline constexpr Vmcs64 GUEST_LDTR_BASE{0x6812};
inline constexpr Vmcs64 GUEST_TR_BASE{0x6814};
inline constexpr Vmcs64 GUEST_GDTR_BASE{0x6816};
inline constexpr Vmcs64 GUEST_IDTR_BASE{0x6818};
inline constexpr Vmcs64 GUEST_DR7{0x681a};
inline constexpr Vmcs64 GUEST_RSP{0x681c};
inline constexpr Vmcs64 GUEST_RIP{0x681e};
inline constexpr Vmcs64 GUEST_RFLAGS{0x6820};
inline constexpr Vmcs64 GUEST_PENDING_DEBUG_EXCEPTIONS{0x6822};
inline constexpr Vmcs64 GUEST_IA32_SYSENTER_ESP{0x6824};
inline constexpr Vmcs64 GUEST_IA32_SYSENTER_EIP{0x6826};
inline constexpr Vmcs64 HOST_CR0{0x6c00};
inline constexpr Vmcs64 HOST_CR3{0x6c02};
inline constexpr Vmcs64 HOST_CR4{0x6c04};
inline constexpr Vmcs64 HOST_FS_BASE{0x6c06};
inline constexpr Vmcs64 HOST_GS_BASE{0x6c08};
inline constexpr Vmcs64 HOST_TR_BASE{0x6c0a};
inline constexpr Vmcs64 HOST_GDTR_BASE{0x6c0c};
inline constexpr Vmcs64 HOST_IDTR_BASE{0x6c0e};
inline constexpr Vmcs64 HOST_IA32_SYSENTER_ESP{0x6c10};
inline constexpr Vmcs64 HOST_IA32_SYSENTER_EIP{0x6c12};
inline constexpr Vmcs64 HOST_RSP{0x6c14};
inline constexpr Vmcs64 HOST_RIP{0x6c16};

/// The four fields of a guest segment register.
struct VmcsSegment {
    Vmcs16 selector;
    Vmcs64 base;
    Vmcs32 limit;
    Vmcs32 access_rights;
};

/// ES, CS, SS, DS, FS, GS, then LDTR and TR.
inline constexpr std::array<VmcsSegment, 8> GUEST_SEGMENTS{{
    {GUEST_ES_SELECTOR, GUEST_ES_BASE, GUEST_ES_LIMIT, GUEST_ES_ACCESS_RIGHTS},
    {GUEST_CS_SELECTOR, GUEST_CS_BASE, GUEST_CS_LIMIT, GUEST_CS_ACCESS_RIGHTS},
    {GUEST_SS_SELECTOR, GUEST_SS_BASE, GUEST_SS_LIMIT, GUEST_SS_ACCESS_RIGHTS},
    {GUEST_DS_SELECTOR, GUEST_DS_BASE, GUEST_DS_LIMIT, GUEST_DS_ACCESS_RIGHTS},
    {GUEST_FS_SELECTOR, GUEST_FS_BASE, GUEST_FS_LIMIT, GUEST_FS_ACCESS_RIGHTS},
    {GUEST_GS_SELECTOR, GUEST_GS_BASE, GUEST_GS_LIMIT, GUEST_GS_ACCESS_RIGHTS},
    {GUEST_LDTR_SELECTOR, GUEST_LDTR_BASE, GUEST_LDTR_LIMIT, GUEST_LDTR_ACCESS_RIGHTS},
    {GUEST_TR_SELECTOR, GUEST_TR_BASE, GUEST_TR_LIMIT, GUEST_TR_ACCESS_RIGHTS},
}};
inline constexpr unsigned kLdtr = 6;
inline constexpr unsigned kTr = 7;

static_assert(field_bytes(GUEST_RIP.encoding) == 8 &&
              field_area(GUEST_RIP.encoding) == FieldArea::guest_state);
static_assert(field_bytes(EXIT_REASON.encoding) == 4 &&
              field_area(EXIT_REASON.encoding) == FieldArea::read_only);
static_assert(field_bytes(EPT_POINTER.encoding) == 8 &&
              field_area(EPT_POINTER.encoding) == FieldArea::control);
static_assert(field_bytes(HOST_TR_SELECTOR.encoding) == 2 &&
              field_area(HOST_TR_SELECTOR.encoding) == FieldArea::host_state);

}  // namespace hv::vmx
