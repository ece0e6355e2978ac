// SPDX-License-Identifier: MIT
// What is written into a VMCS once, or once for each CPU that the vCPU comes to.
#pragma once

#include "arch/x86_64/defs/cr.hpp"
#include "arch/x86_64/vmx/guest_state.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace hv::vmx {

/// MSRs that the guest reads and writes without an exit: the VMCS holds them, or they are switched with the
/// vCPU.
inline constexpr Msr kUninterceptedMsrs[] = {
    Msr::IA32_SYSENTER_CS, Msr::IA32_SYSENTER_ESP,   Msr::IA32_SYSENTER_EIP, Msr::IA32_STAR,
    Msr::IA32_LSTAR,       Msr::IA32_CSTAR,          Msr::IA32_FMASK,        Msr::IA32_FS_BASE,
    Msr::IA32_GS_BASE,     Msr::IA32_KERNEL_GS_BASE,
};

/// Clears the bits of `bitmap` for reads and writes of `msr`; of the layout [sdm3 25.6.9 MSR-Bitmap Address]:
/// reads of low MSRs (0 to 0x1fff), of high MSRs (0xc0000000 to 0xc0001fff), then writes, 1 KiB each.
inline void allow_msr(std::span<std::byte, kPageSize> bitmap, Msr msr) {
    const auto index = static_cast<std::uint32_t>(msr);
    const std::size_t byte = (index >= 0xc000'0000 ? 1024U : 0U) + (index & 0x1fff) / 8;
    const std::byte mask = ~(std::byte{1} << (index % 8));
    bitmap[byte] &= mask;
    bitmap[2048 + byte] &= mask;
}

/// x2APIC registers that the processor reads and writes in the virtual-APIC page. The other ones are
/// computed, have 64 bits, or do something when they are written [sdm3 30.5 Virtualizing MSR-Based APIC
/// Accesses].
inline void allow_x2apic_msrs(std::span<std::byte, kPageSize> bitmap) {
    constexpr std::uint32_t kBase = 0x800;  // [sdm3 11.12.1.2 x2APIC Register Address Space]
    constexpr std::size_t kWrites = 2048;
    const auto allow = [&](std::uint32_t index, std::size_t part) {
        const std::uint32_t msr = kBase + index;
        bitmap[part + msr / 8] &= ~(std::byte{1} << (msr % 8));
    };
    constexpr std::uint32_t kId = 0x02, kVersion = 0x03, kTpr = 0x08, kPpr = 0x0a, kEoi = 0x0b, kLdr = 0x0d,
                            kSvr = 0x0f, kFirstVectors = 0x10, kLastVectors = 0x27, kEsr = 0x28,
                            kFirstLvt = 0x32, kLastLvt = 0x37, kDivide = 0x3e, kSelfIpi = 0x3f;
    for (const std::uint32_t index : {kId, kVersion, kTpr, kPpr, kLdr, kSvr, kEsr, kDivide})
        allow(index, 0);
    for (std::uint32_t index = kFirstVectors; index <= kLastVectors; ++index)
        allow(index, 0);
    for (std::uint32_t index = kFirstLvt; index <= kLastLvt; ++index)
        allow(index, 0);
    for (const std::uint32_t index : {kTpr, kEoi, kSelfIpi})
        allow(index, kWrites);
}

/// Physical addresses and numbers that a vCPU's VMCS refers to.
struct VmcsParts {
    Hpa msr_bitmap;
    Hpa io_bitmaps;  ///< A, then B
    std::uint64_t eptp;
    std::uint16_t vpid;              ///< if the controls use VPIDs
    std::uint32_t preemption_ticks;  ///< in the preemption timer's unit
    Hpa virtual_apic;                ///< if the controls use a TPR shadow
    Hpa apic_access;                 ///< if they deliver interrupts
};

/// Exceptions that exit. #DB and #AC: a guest can make the delivery of either raise it again for ever, and no
/// interrupt would get through between (CVE-2015-8104, CVE-2015-5307); an exit at each round lets the host
/// in. #UD: it may have been VMMCALL. #MC is the host's.
inline constexpr std::uint32_t kInterceptedExceptions =
    1U << EXCEPTION_DB | 1U << EXCEPTION_UD | 1U << EXCEPTION_AC | 1U << EXCEPTION_MC;

/// Pause-loop exiting: PAUSEs closer than `gap` ticks of the TSC are one loop, which exits after `window`
/// ticks.
inline constexpr std::uint32_t kPauseLoopGap = 128;
inline constexpr std::uint32_t kPauseLoopWindow = 4096;

/// The control fields [sdm3 25.6 VM-Execution Control Fields], [sdm3 25.7 VM-Exit Control Fields], [sdm3 25.8
/// VM-Entry Control Fields].
template <VmcsIo Io>
void write_controls(Io& vmcs, const Controls& controls, const VmcsParts& parts) {
    vmcs.write(PIN_BASED_CONTROLS, controls.pin);
    vmcs.write(PRIMARY_PROCESSOR_BASED_CONTROLS, controls.primary);
    vmcs.write(SECONDARY_PROCESSOR_BASED_CONTROLS, controls.secondary);
    vmcs.write(VM_EXIT_CONTROLS, controls.exit);
    vmcs.write(VM_ENTRY_CONTROLS, controls.entry);
    vmcs.write(EXCEPTION_BITMAP, kInterceptedExceptions);
    vmcs.write(PAGE_FAULT_ERROR_CODE_MASK, 0U);
    vmcs.write(PAGE_FAULT_ERROR_CODE_MATCH, 0U);
    vmcs.write(CR3_TARGET_COUNT, 0U);
    vmcs.write(VM_EXIT_MSR_STORE_COUNT, 0U);
    vmcs.write(VM_EXIT_MSR_LOAD_COUNT, 0U);
    vmcs.write(VM_ENTRY_MSR_LOAD_COUNT, 0U);
    vmcs.write(VM_ENTRY_INTERRUPTION_INFORMATION, 0U);
    vmcs.write(IO_BITMAP_A, parts.io_bitmaps.raw);
    vmcs.write(IO_BITMAP_B, parts.io_bitmaps.raw + kPageSize);
    vmcs.write(MSR_BITMAP, parts.msr_bitmap.raw);
    vmcs.write(TSC_OFFSET, std::uint64_t{0});
    vmcs.write(EPT_POINTER, parts.eptp);
    vmcs.write(CR0_GUEST_HOST_MASK, ~CR0_GUEST_OWNED);
    vmcs.write(CR4_GUEST_HOST_MASK, ~CR4_GUEST_OWNED);
    vmcs.write(VMCS_LINK_POINTER, ~std::uint64_t{0});
    // Fields that exist with the control that uses them.
    if (controls.has_vpid())
        vmcs.write(VIRTUAL_PROCESSOR_ID, parts.vpid);
    if (controls.has_preemption_timer())
        vmcs.write(VMX_PREEMPTION_TIMER_VALUE, parts.preemption_ticks);
    if (controls.has_tpr_shadow()) {
        vmcs.write(VIRTUAL_APIC_ADDRESS, parts.virtual_apic.raw);
        vmcs.write(TPR_THRESHOLD, 0U);
    }
    if (controls.delivers_interrupts())
        vmcs.write(APIC_ACCESS_ADDRESS, parts.apic_access.raw);
    if ((controls.secondary & secondary::PAUSE_LOOP_EXITING) != 0) {
        vmcs.write(PLE_GAP, kPauseLoopGap);
        vmcs.write(PLE_WINDOW, kPauseLoopWindow);
    }
    if ((controls.secondary & secondary::ENABLE_XSAVES) != 0)
        vmcs.write(XSS_EXITING_BITMAP, std::uint64_t{0});
    if ((controls.secondary & secondary::ENCLS_EXITING) != 0)
        vmcs.write(ENCLS_EXITING_BITMAP, ~std::uint64_t{0});
    if ((controls.secondary & secondary::ENCLV_EXITING) != 0)
        vmcs.write(ENCLV_EXITING_BITMAP, ~std::uint64_t{0});
}

/// [sdm3 25.5 Host-State Area]; HOST_RSP is the entry stub's. Data segments are null: 64-bit code needs none.
template <VmcsIo Io>
void write_host_state(Io& vmcs, const HostState& host) {
    vmcs.write(HOST_CR0, host.cr0);
    vmcs.write(HOST_CR3, host.cr3);
    vmcs.write(HOST_CR4, host.cr4);
    vmcs.write(HOST_IA32_EFER, host.efer);
    vmcs.write(HOST_IA32_PAT, host.pat);
    vmcs.write(HOST_CS_SELECTOR, host.cs);
    vmcs.write(HOST_TR_SELECTOR, host.tr);
    for (const Vmcs16 field :
         {HOST_SS_SELECTOR, HOST_DS_SELECTOR, HOST_ES_SELECTOR, HOST_FS_SELECTOR, HOST_GS_SELECTOR})
        vmcs.write(field, std::uint16_t{0});
    vmcs.write(HOST_FS_BASE, host.fs_base);
    vmcs.write(HOST_GS_BASE, host.gs_base);
    vmcs.write(HOST_TR_BASE, host.tr_base);
    vmcs.write(HOST_GDTR_BASE, host.gdtr_base);
    vmcs.write(HOST_IDTR_BASE, host.idtr_base);
    vmcs.write(HOST_IA32_SYSENTER_CS, 0U);
    vmcs.write(HOST_IA32_SYSENTER_ESP, std::uint64_t{0});
    vmcs.write(HOST_IA32_SYSENTER_EIP, std::uint64_t{0});
    vmcs.write(HOST_RIP, host.rip);
}

/// Guest state that CpuState does not hold.
template <VmcsIo Io>
void write_hidden_guest_state(Io& vmcs) {
    vmcs.write(GUEST_IA32_DEBUGCTL, std::uint64_t{0});
    vmcs.write(GUEST_INTERRUPTIBILITY_STATE, 0U);
    vmcs.write(GUEST_ACTIVITY_STATE, ACTIVITY_STATE_ACTIVE);
    vmcs.write(GUEST_PENDING_DEBUG_EXCEPTIONS, std::uint64_t{0});
    for (const Vmcs64 field : {GUEST_PDPTE0, GUEST_PDPTE1, GUEST_PDPTE2, GUEST_PDPTE3})
        vmcs.write(field, std::uint64_t{0});
}

}  // namespace hv::vmx
