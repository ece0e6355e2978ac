// SPDX-License-Identifier: MIT
#include "arch/x86_64/vmx/controls.hpp"

#include "arch/x86_64/defs/cpuid.hpp"
#include "arch/x86_64/defs/ept.hpp"
#include "vmm/base/log.hpp"

#include <span>

namespace hv::vmx {
namespace {

using log::Topic;

struct Feature {
    std::uint32_t bit;
    const char* name;
};

constexpr Feature kPin[] = {
    {pin::EXTERNAL_INTERRUPT_EXITING, "external-interrupt exiting"},
    {pin::NMI_EXITING, "NMI exiting"},
    {pin::VIRTUAL_NMIS, "virtual NMIs"},
};
constexpr Feature kPrimary[] = {
    {primary::USE_TSC_OFFSETTING, "TSC offsetting"},   {primary::HLT_EXITING, "HLT exiting"},
    {primary::MWAIT_EXITING, "MWAIT exiting"},         {primary::MONITOR_EXITING, "MONITOR exiting"},
    {primary::RDPMC_EXITING, "RDPMC exiting"},         {primary::CR8_LOAD_EXITING, "CR8-load exiting"},
    {primary::CR8_STORE_EXITING, "CR8-store exiting"}, {primary::USE_IO_BITMAPS, "I/O bitmaps"},
    {primary::USE_MSR_BITMAPS, "MSR bitmaps"},         {primary::SECONDARY_CONTROLS, "secondary controls"},
};
constexpr Feature kPrimaryAtTimes[] = {
    {primary::INTERRUPT_WINDOW_EXITING, "interrupt-window exiting"},
    {primary::NMI_WINDOW_EXITING, "NMI-window exiting"},
};
constexpr Feature kSecondary[] = {
    {secondary::ENABLE_EPT, "extended page tables (EPT)"},
    {secondary::UNRESTRICTED_GUEST, "unrestricted guest"},
};
// Without its control an instruction is #UD: RDTSCP, RDPID and INVPCID get theirs, XSAVES, which guests are
// not offered, does not. Kept from guests where the processor has them: SGX instructions, and cache flushes
// that would slow all others down.
constexpr std::uint32_t kSecondaryWanted = secondary::ENABLE_VPID | secondary::ENABLE_RDTSCP |
                                           secondary::ENABLE_INVPCID | secondary::PAUSE_LOOP_EXITING |
                                           secondary::WBINVD_EXITING | secondary::ENCLS_EXITING |
                                           secondary::ENCLV_EXITING;
/// Virtual-interrupt delivery is used with all of these: without register virtualization the guest would
/// read what the processor does not keep, and one mode's control without the other's would do in one mode
/// only.
constexpr std::uint32_t kApicVirtualization =
    secondary::VIRTUALIZE_APIC_ACCESSES | secondary::VIRTUALIZE_X2APIC_MODE |
    secondary::APIC_REGISTER_VIRTUALIZATION | secondary::VIRTUAL_INTERRUPT_DELIVERY;
constexpr Feature kExit[] = {
    {vm_exit::SAVE_DEBUG_CONTROLS, "saving of debug controls"},
    {vm_exit::HOST_ADDRESS_SPACE_SIZE, "64-bit host"},
    {vm_exit::SAVE_IA32_PAT, "saving of IA32_PAT"},
    {vm_exit::LOAD_IA32_PAT, "loading of IA32_PAT on VM exit"},
    {vm_exit::SAVE_IA32_EFER, "saving of IA32_EFER"},
    {vm_exit::LOAD_IA32_EFER, "loading of IA32_EFER on VM exit"},
};
constexpr Feature kEntry[] = {
    {vm_entry::LOAD_DEBUG_CONTROLS, "loading of debug controls"},
    {vm_entry::LOAD_IA32_PAT, "loading of IA32_PAT on VM entry"},
    {vm_entry::LOAD_IA32_EFER, "loading of IA32_EFER on VM entry"},
};
constexpr Feature kEntryAtTimes[] = {{vm_entry::IA32E_MODE_GUEST, "64-bit guests"}};

/// Collects what is missing, so that one look at the log tells all of it.
class Requirements {
public:
    void require(bool present, const char* name) {
        if (present)
            return;
        met_ = false;
        log::error(Topic::vmx, "this processor lacks %s", name);
    }
    [[nodiscard]] bool met() const { return met_; }

    /// The low half of a capability tells which bits must be 1, the high half which may be 1 [sdm3 A.3
    /// VM-Execution Controls].
    std::uint32_t choose(std::uint64_t capability, std::span<const Feature> required,
                         std::uint32_t wanted = 0, std::span<const Feature> at_times = {}) {
        const auto must = static_cast<std::uint32_t>(capability);
        const auto may = static_cast<std::uint32_t>(capability >> 32);
        std::uint32_t value = wanted;
        for (const Feature& feature : required) {
            require((may & feature.bit) != 0, feature.name);
            value |= feature.bit;
        }
        for (const Feature& feature : at_times) {
            require((may & feature.bit) != 0, feature.name);
            require((must & feature.bit) == 0, feature.name);
        }
        return (value | must) & may;
    }

private:
    bool met_{true};
};

// IA32_ARCH_CAPABILITIES [sdm4 2.1 Architectural MSRs]
constexpr std::uint64_t RDCL_NO = 1U << 0;
constexpr std::uint64_t SKIP_L1DFL_VMENTRY = 1U << 3;
constexpr std::uint64_t MDS_NO = 1U << 5;
constexpr std::uint64_t TAA_NO = 1U << 8;

}  // namespace

/// [sdm3 27.2.1.1 VM-Execution Control Fields]: the rest needs the TPR shadow, virtual-interrupt delivery
/// also external-interrupt exiting, which is always set.
static void choose_apic_virtualization(Controls& controls, ApicUse use) {
    const std::uint64_t capability = controls.caps.primary;
    if (use == ApicUse::none || ((capability >> 32) & primary::USE_TPR_SHADOW) == 0)
        return;
    constexpr std::uint32_t kCr8Exits = primary::CR8_LOAD_EXITING | primary::CR8_STORE_EXITING;
    controls.primary |= primary::USE_TPR_SHADOW;
    controls.primary &= ~kCr8Exits | static_cast<std::uint32_t>(capability);
    const bool posted = ((controls.caps.pin >> 32) & pin::POSTED_INTERRUPTS) != 0;
    if ((use == ApicUse::all || (use == ApicUse::automatic && posted)) &&
        ((controls.caps.secondary >> 32) & kApicVirtualization) == kApicVirtualization)
        controls.secondary |= secondary::APIC_REGISTER_VIRTUALIZATION | secondary::VIRTUAL_INTERRUPT_DELIVERY;
}

Expected<Controls> negotiate(const CapabilityMsrs& caps, ApicUse apic) {
    Requirements need;
    Controls controls{};
    controls.caps = caps;
    controls.pin = need.choose(caps.pin, kPin, pin::PREEMPTION_TIMER);
    controls.primary = need.choose(caps.primary, kPrimary, 0, kPrimaryAtTimes);
    controls.secondary = need.choose(caps.secondary, kSecondary, kSecondaryWanted);
    controls.exit =
        need.choose(caps.exit, kExit, controls.has_preemption_timer() ? vm_exit::SAVE_PREEMPTION_TIMER : 0);
    controls.entry = need.choose(caps.entry, kEntry, 0, kEntryAtTimes);

    need.require(VmxBasic::MemoryType::get(caps.basic) == EPT_MEMORY_TYPE_WB, "a write-back VMCS");
    need.require(VmxMisc::StoresLma::test(caps.misc), "storing of EFER.LMA on VM exit");
    need.require(EptVpidCap::WalkLength4::test(caps.ept_vpid), "EPT with 4 levels");
    need.require(EptVpidCap::WriteBack::test(caps.ept_vpid), "write-back EPT paging structures");
    need.require(EptVpidCap::Invept::test(caps.ept_vpid) && (EptVpidCap::InveptSingle::test(caps.ept_vpid) ||
                                                             EptVpidCap::InveptAll::test(caps.ept_vpid)),
                 "INVEPT");
    if (!need.met())
        return Unexpected{Error::unsupported};
    choose_apic_virtualization(controls, apic);
    // Without INVVPID a VPID's translations could not be dropped: better none then, each VM entry flushes.
    if (!EptVpidCap::Invvpid::test(caps.ept_vpid) ||
        !(EptVpidCap::InvvpidSingle::test(caps.ept_vpid) || EptVpidCap::InvvpidAll::test(caps.ept_vpid)))
        controls.secondary &= ~secondary::ENABLE_VPID;
    return controls;
}

Mitigations choose_mitigations(std::uint32_t leaf7_ebx, std::uint32_t leaf7_edx,
                               std::uint64_t arch_capabilities) {
    namespace edx = cpuid::leaf7_edx;
    const bool has_tsx = (leaf7_ebx & cpuid::leaf7_ebx::RTM) != 0;
    const bool buffers_safe =
        (arch_capabilities & MDS_NO) != 0 && (!has_tsx || (arch_capabilities & TAA_NO) != 0);
    return {
        .predictor_barrier = (leaf7_edx & edx::IBRS_IBPB) != 0,
        .flush_l1d =
            (leaf7_edx & edx::L1D_FLUSH) != 0 && (arch_capabilities & (RDCL_NO | SKIP_L1DFL_VMENTRY)) == 0,
        .clear_buffers = (leaf7_edx & edx::MD_CLEAR) != 0 && !buffers_safe,
    };
}

}  // namespace hv::vmx
