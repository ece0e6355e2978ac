// SPDX-License-Identifier: MIT
// Which VMX controls this processor lets us set, and which of them we use [sdm3 App. A VMX Capability
// Reporting Facility].
#pragma once

#include "arch/x86_64/vmx/machine_io.hpp"

#include <cstdint>

namespace hv::vmx {

/// The capability MSRs, the TRUE ones where the processor has them; what does not exist is 0.
struct CapabilityMsrs {
    std::uint64_t basic;
    std::uint64_t pin, primary, secondary, exit, entry;
    std::uint64_t misc;
    std::uint64_t cr0_fixed0, cr0_fixed1, cr4_fixed0, cr4_fixed1;
    std::uint64_t ept_vpid;

    bool operator==(const CapabilityMsrs&) const = default;
};

template <MsrIo Io>
CapabilityMsrs read_capabilities(Io& io) {
    CapabilityMsrs caps{};
    caps.basic = io.read_msr(Msr::IA32_VMX_BASIC);
    const bool exact = VmxBasic::TrueControls::test(caps.basic);
    caps.pin = io.read_msr(exact ? Msr::IA32_VMX_TRUE_PINBASED_CTLS : Msr::IA32_VMX_PINBASED_CTLS);
    caps.primary = io.read_msr(exact ? Msr::IA32_VMX_TRUE_PROCBASED_CTLS : Msr::IA32_VMX_PROCBASED_CTLS);
    caps.exit = io.read_msr(exact ? Msr::IA32_VMX_TRUE_EXIT_CTLS : Msr::IA32_VMX_EXIT_CTLS);
    caps.entry = io.read_msr(exact ? Msr::IA32_VMX_TRUE_ENTRY_CTLS : Msr::IA32_VMX_ENTRY_CTLS);
    caps.misc = io.read_msr(Msr::IA32_VMX_MISC);
    caps.cr0_fixed0 = io.read_msr(Msr::IA32_VMX_CR0_FIXED0);
    caps.cr0_fixed1 = io.read_msr(Msr::IA32_VMX_CR0_FIXED1);
    caps.cr4_fixed0 = io.read_msr(Msr::IA32_VMX_CR4_FIXED0);
    caps.cr4_fixed1 = io.read_msr(Msr::IA32_VMX_CR4_FIXED1);
    // The upper half tells which bits may be 1. [sdm3 A.3.3 Secondary Processor-Based VM-Execution Controls],
    // [sdm3 A.10 VPID and EPT Capabilities] say when these two exist.
    if (((caps.primary >> 32) & primary::SECONDARY_CONTROLS) != 0) {
        caps.secondary = io.read_msr(Msr::IA32_VMX_PROCBASED_CTLS2);
        if (((caps.secondary >> 32) & (secondary::ENABLE_EPT | secondary::ENABLE_VPID)) != 0)
            caps.ept_vpid = io.read_msr(Msr::IA32_VMX_EPT_VPID_CAP);
    }
    return caps;
}

/// What every VMCS gets. The bits that change while a vCPU lives (interrupt window, NMI window, IA-32e mode
/// guest) are known to be settable and are clear here.
struct Controls {
    std::uint32_t pin, primary, secondary, exit, entry;
    CapabilityMsrs caps;

    [[nodiscard]] constexpr bool has_vpid() const { return (secondary & secondary::ENABLE_VPID) != 0; }
    [[nodiscard]] constexpr bool has_rdtscp() const { return (secondary & secondary::ENABLE_RDTSCP) != 0; }
    [[nodiscard]] constexpr bool has_invpcid() const { return (secondary & secondary::ENABLE_INVPCID) != 0; }
    [[nodiscard]] constexpr bool has_preemption_timer() const { return (pin & pin::PREEMPTION_TIMER) != 0; }
    [[nodiscard]] constexpr bool has_tpr_shadow() const { return (primary & primary::USE_TPR_SHADOW) != 0; }
    /// Then the mode's own control (virtualize APIC accesses, virtualize x2APIC mode) can be set as well.
    [[nodiscard]] constexpr bool delivers_interrupts() const {
        return (secondary & secondary::VIRTUAL_INTERRUPT_DELIVERY) != 0;
    }
    /// Whether PAUSE exiting, which can be set and is clear here, has to stand in for pause-loop exiting.
    [[nodiscard]] constexpr bool lacks_pause_loop_exiting() const {
        return (secondary & secondary::PAUSE_LOOP_EXITING) == 0 &&
               ((caps.primary >> 32) & ~std::uint64_t{primary} & primary::PAUSE_EXITING) != 0;
    }
    [[nodiscard]] constexpr InveptType invept_type() const {
        return EptVpidCap::InveptSingle::test(caps.ept_vpid) ? InveptType::single_context
                                                             : InveptType::all_contexts;
    }
    [[nodiscard]] constexpr InvvpidType invvpid_type() const {
        return EptVpidCap::InvvpidSingle::test(caps.ept_vpid) ? InvvpidType::single_context
                                                              : InvvpidType::all_contexts;
    }
};

/// How much of APIC virtualization may be used where the processor offers it.
enum class ApicUse : std::uint8_t {
    none,
    tpr_shadow,
    automatic,  ///< all where posted interrupts are offered as well, as far as is known on every real
                ///< processor that offers all; else the TPR shadow
    all,
};

/// Error::unsupported: the processor lacks something that this backend cannot do without; each such thing is
/// named in the log.
Expected<Controls> negotiate(const CapabilityMsrs& caps, ApicUse apic = ApicUse::automatic);

/// Sees to it that VMXON is allowed outside SMX. Error::disabled: the firmware locked it off.
template <MsrIo Io>
Expected<void> unlock_feature_control(Io& io) {
    const std::uint64_t value = io.read_msr(Msr::IA32_FEATURE_CONTROL);
    if ((value & FEATURE_CONTROL_LOCK) == 0) {
        io.write_msr(Msr::IA32_FEATURE_CONTROL,
                     value | FEATURE_CONTROL_VMX_OUTSIDE_SMX | FEATURE_CONTROL_LOCK);
        return {};
    }
    if ((value & FEATURE_CONTROL_VMX_OUTSIDE_SMX) == 0)
        return Unexpected{Error::disabled};
    return {};
}

/// From CPUID.(EAX=7,ECX=0) and IA32_ARCH_CAPABILITIES (0 if there is none).
Mitigations choose_mitigations(std::uint32_t leaf7_ebx, std::uint32_t leaf7_edx,
                               std::uint64_t arch_capabilities);

}  // namespace hv::vmx
