// SPDX-License-Identifier: MIT
// The guest's registers between the neutral CpuState and the VMCS' guest-state area [sdm3 25.4 Guest-State
// Area]: what the guest believes to have, and what VM entry insists on [sdm3 27.3.1 Checks on the Guest State
// Area].
#pragma once

#include "arch/x86_64/defs/cr.hpp"
#include "arch/x86_64/vmx/controls.hpp"
#include "arch/x86_64/vmx/machine_io.hpp"

#include <cstdint>

namespace hv::vmx {

/// Bits that the guest changes without an exit; with "unrestricted guest" PE and PG are among them. The
/// others read from the shadow, and writes that would differ from it exit [sdm3 25.6.6 Guest/Host Masks and
/// Read Shadows for CR0 and CR4].
inline constexpr std::uint64_t CR0_GUEST_OWNED = CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_WP | CR0_AM | CR0_PG;
/// What every 64-bit processor has, so that no CPUID policy forbids it.
inline constexpr std::uint64_t CR4_GUEST_OWNED = CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE |
                                                 CR4_PGE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT;

/// What the processor runs with while the guest believes in `cr0`. VMX fixes NE. CD and NW are not the
/// guest's to set: they would act on the CPU's cache, EPT gives the memory type.
constexpr std::uint64_t hardware_cr0(std::uint64_t cr0, const CapabilityMsrs& caps) {
    const std::uint64_t fixed = caps.cr0_fixed0 & ~(CR0_PE | CR0_PG);  // [sdm3 A.7 VMX-Fixed Bits in CR0]
    return (cr0 & CR0_GUEST_OWNED) | fixed | CR0_NE | CR0_ET;
}

/// VMX fixes VMXE. MCE is on so that a machine check reaches the host: without it, the CPU would shut down.
constexpr std::uint64_t hardware_cr4(std::uint64_t cr4, const CapabilityMsrs& caps) {
    return ((cr4 | CR4_MCE) & caps.cr4_fixed1) | caps.cr4_fixed0 | CR4_VMXE;
}

/// What the guest sees: its own bits from the register, the rest from the read shadow.
constexpr std::uint64_t guest_view(std::uint64_t hardware, std::uint64_t shadow, std::uint64_t guest_owned) {
    return (hardware & guest_owned) | (shadow & ~guest_owned);
}

constexpr std::uint64_t with_lma(std::uint64_t efer, std::uint64_t cr0) {
    return (efer & EFER_LME) != 0 && (cr0 & CR0_PG) != 0 ? efer | EFER_LMA : efer & ~EFER_LMA;
}

/// PAE paging, whose four PDPTEs the processor keeps in registers [sdm3 4.4.1 PDPTE Registers].
constexpr bool uses_pdptes(std::uint64_t cr0, std::uint64_t cr4, std::uint64_t efer) {
    return (cr0 & CR0_PG) != 0 && (cr4 & CR4_PAE) != 0 && (efer & EFER_LMA) == 0;
}

/// VT-x' access rights of `segment`, made acceptable: what is loaded counts as accessed, TR is busy, LDTR is
/// an LDT or unusable, G follows the limit [sdm3 27.3.1.2 Checks on Guest Segment Registers].
constexpr std::uint32_t access_rights(const Segment& segment, unsigned index) {
    using Rights = AccessRights;
    std::uint64_t rights = (segment.attributes & 0xffU) | ((segment.attributes & 0xf00U) << 4);
    if (index == kTr) {
        const bool is_16bit = (Rights::Type::get(rights) & 0xd) == 1;
        rights = Rights::Type::set(rights & ~Rights::CodeOrData::kMask, is_16bit ? 3 : 11) |
                 Rights::Present::kMask;
    } else if (!segment.present()) {
        return static_cast<std::uint32_t>(rights | Rights::Unusable::kMask);
    } else if (index == kLdtr) {
        if (Rights::Type::get(rights) != 2 || Rights::CodeOrData::test(rights))
            return static_cast<std::uint32_t>(Rights::Unusable::kMask);
    } else {
        rights |= 1;
    }
    if (segment.limit > 0xf'ffff)
        rights |= Rights::Granularity::kMask;
    else if ((segment.limit & 0xfff) != 0xfff)
        rights &= ~Rights::Granularity::kMask;
    return static_cast<std::uint32_t>(rights);
}

/// An unusable segment is one that is not present; SS keeps its DPL, which is the CPL.
constexpr std::uint16_t attributes_of(std::uint32_t rights) {
    const std::uint32_t attributes = (rights & 0xff) | ((rights >> 4) & 0xf00);
    return static_cast<std::uint16_t>(AccessRights::Unusable::test(rights) ? attributes & ~0x80U
                                                                           : attributes);
}

template <VmcsIo Io>
std::uint16_t read_attributes(Io& vmcs, unsigned index) {
    return attributes_of(vmcs.read(GUEST_SEGMENTS[index].access_rights));
}

template <VmcsIo Io>
Segment read_segment(Io& vmcs, unsigned index) {
    const VmcsSegment& fields = GUEST_SEGMENTS[index];
    return {vmcs.read(fields.selector), read_attributes(vmcs, index), vmcs.read(fields.limit),
            vmcs.read(fields.base)};
}

template <VmcsIo Io>
void write_segment(Io& vmcs, unsigned index, const Segment& segment) {
    const VmcsSegment& fields = GUEST_SEGMENTS[index];
    vmcs.write(fields.selector, segment.selector);
    vmcs.write(fields.access_rights, access_rights(segment, index));
    vmcs.write(fields.limit, segment.limit);
    vmcs.write(fields.base, segment.base);
}

/// CR0 and CR4 as the guest sees them.
template <VmcsIo Io>
std::uint64_t read_cr0(Io& vmcs) {
    return guest_view(vmcs.read(GUEST_CR0), vmcs.read(CR0_READ_SHADOW), CR0_GUEST_OWNED);
}
template <VmcsIo Io>
std::uint64_t read_cr4(Io& vmcs) {
    return guest_view(vmcs.read(GUEST_CR4), vmcs.read(CR4_READ_SHADOW), CR4_GUEST_OWNED);
}

/// CR0, CR3, CR4 and EFER as the guest sees them; CR2 is not in the VMCS.
template <VmcsIo Io>
void read_control(Io& vmcs, CpuState& out) {
    out.cr0 = read_cr0(vmcs);
    out.cr3 = vmcs.read(GUEST_CR3);
    out.cr4 = read_cr4(vmcs);
    out.efer = vmcs.read(GUEST_IA32_EFER);
}

/// Whether the guest is in `context`. What changes most often comes first.
template <VmcsIo Io>
bool is_code_context(Io& vmcs, const CodeContext& context) {
    constexpr auto kCode = static_cast<unsigned>(SegmentName::cs);
    constexpr auto kStack = static_cast<unsigned>(SegmentName::ss);
    return vmcs.read(GUEST_CR3) == context.cr3 && (read_attributes(vmcs, kStack) >> 5 & 3U) == context.cpl &&
           read_attributes(vmcs, kCode) == context.cs_attributes &&
           vmcs.read(GUEST_SEGMENTS[kCode].base) == context.cs_base && read_cr0(vmcs) == context.cr0 &&
           read_cr4(vmcs) == context.cr4 && vmcs.read(GUEST_IA32_EFER) == context.efer;
}

template <VmcsIo Io>
void write_control(Io& vmcs, const CpuState& in, const Controls& controls) {
    vmcs.write(GUEST_CR0, hardware_cr0(in.cr0, controls.caps));
    vmcs.write(CR0_READ_SHADOW, in.cr0);
    vmcs.write(GUEST_CR3, in.cr3);
    vmcs.write(GUEST_CR4, hardware_cr4(in.cr4, controls.caps));
    vmcs.write(CR4_READ_SHADOW, in.cr4);
    const std::uint64_t efer = with_lma(in.efer, in.cr0);
    vmcs.write(GUEST_IA32_EFER, efer);
    // The guest may turn paging on and off by itself; VM exits then keep this bit up to date [sdm3 A.6
    // Miscellaneous Data].
    vmcs.write(VM_ENTRY_CONTROLS, controls.entry | ((efer & EFER_LMA) != 0 ? vm_entry::IA32E_MODE_GUEST : 0));
}

template <VmcsIo Io>
void read_tables(Io& vmcs, CpuState& out) {
    out.gdtr = {vmcs.read(GUEST_GDTR_BASE), static_cast<std::uint16_t>(vmcs.read(GUEST_GDTR_LIMIT))};
    out.idtr = {vmcs.read(GUEST_IDTR_BASE), static_cast<std::uint16_t>(vmcs.read(GUEST_IDTR_LIMIT))};
}

template <VmcsIo Io>
void write_tables(Io& vmcs, const CpuState& in) {
    vmcs.write(GUEST_GDTR_BASE, in.gdtr.base);
    vmcs.write(GUEST_GDTR_LIMIT, std::uint32_t{in.gdtr.limit});
    vmcs.write(GUEST_IDTR_BASE, in.idtr.base);
    vmcs.write(GUEST_IDTR_LIMIT, std::uint32_t{in.idtr.limit});
}

/// SYSENTER MSRs and PAT, which VM entries and exits switch.
template <VmcsIo Io>
void read_switched_msrs(Io& vmcs, CpuState& out) {
    out.sysenter_cs = vmcs.read(GUEST_IA32_SYSENTER_CS);
    out.sysenter_esp = vmcs.read(GUEST_IA32_SYSENTER_ESP);
    out.sysenter_eip = vmcs.read(GUEST_IA32_SYSENTER_EIP);
    out.pat = vmcs.read(GUEST_IA32_PAT);
}

template <VmcsIo Io>
void write_switched_msrs(Io& vmcs, const CpuState& in) {
    vmcs.write(GUEST_IA32_SYSENTER_CS, static_cast<std::uint32_t>(in.sysenter_cs));
    vmcs.write(GUEST_IA32_SYSENTER_ESP, in.sysenter_esp);
    vmcs.write(GUEST_IA32_SYSENTER_EIP, in.sysenter_eip);
    vmcs.write(GUEST_IA32_PAT, in.pat);
}

}  // namespace hv::vmx
