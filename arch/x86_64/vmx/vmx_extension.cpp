// SPDX-License-Identifier: MIT
#include "arch/x86_64/vmx/vmx_extension.hpp"

#include "arch/x86_64/cpu/per_cpu.hpp"
#include "arch/x86_64/defs/cpuid.hpp"
#include "arch/x86_64/defs/cr.hpp"
#include "arch/x86_64/vmx/ept.hpp"
#include "arch/x86_64/vmx/hardware.hpp"
#include "arch/x86_64/vmx/vcpu.hpp"
#include "vmm/base/bytes.hpp"
#include "vmm/base/log.hpp"
#include "vmm/base/machine.hpp"

namespace hv::vmx {

/// The vCPU of the kernel.
using VmxVcpu = BasicVcpu<Hardware>;

namespace {

Mitigations probe_mitigations() {
    if (cpu::cpuid(0).eax < cpuid::kStructured)
        return {};
    const cpu::CpuidLeaf leaf = cpu::cpuid(cpuid::kStructured);
    const bool told = (leaf.edx & cpuid::leaf7_edx::ARCH_CAPABILITIES) != 0;
    return choose_mitigations(leaf.ebx, leaf.edx,
                              told ? Hardware{}.read_msr(Msr::IA32_ARCH_CAPABILITIES) : 0);
}

/// Bits that VMX operation fixes in a control register [sdm3 A.7 VMX-Fixed Bits in CR0].
constexpr std::uint64_t with_fixed_bits(std::uint64_t value, std::uint64_t fixed0, std::uint64_t fixed1) {
    return (value | fixed0) & fixed1;
}

}  // namespace

bool VmxExtension::present() {
    return (cpu::cpuid(cpuid::kFeatures).ecx & cpuid::leaf1_ecx::VMX) != 0;
}

Expected<std::unique_ptr<VirtExtension>> VmxExtension::create(FrameSource& frames, ApicUse apic) {
    if (!present())
        return Unexpected{Error::unsupported};
    Hardware hardware;
    if (auto unlocked = unlock_feature_control(hardware); !unlocked) {
        log::error(log::Topic::vmx,
                   "VT-x is switched off by the firmware (IA32_FEATURE_CONTROL); enable it in its setup");
        return Unexpected{unlocked.error()};
    }
    const Controls controls = HV_TRY(negotiate(read_capabilities(hardware), apic));
    auto shared = HV_TRY(Shared::create(frames, controls, probe_mitigations(), cpu::kMaxCpus));
    std::unique_ptr<VirtExtension> extension = HV_TRY(make<VmxExtension>(std::move(shared)));

    const Mitigations& mitigations = static_cast<VmxExtension&>(*extension).shared_->mitigations;
    log::info(log::Topic::vmx, "VT-x: EPT%s, unrestricted guest%s%s%s%s%s%s%s",
              EptVpidCap::Page1G::test(controls.caps.ept_vpid)   ? " with 1 GiB pages"
              : EptVpidCap::Page2M::test(controls.caps.ept_vpid) ? " with 2 MiB pages"
                                                                 : "",
              controls.has_vpid() ? ", VPID" : "",
              controls.has_preemption_timer() ? ", preemption timer" : "",
              (controls.secondary & secondary::PAUSE_LOOP_EXITING) != 0 ? ", pause-loop exiting" : "",
              controls.delivers_interrupts() ? ", TPR shadow, APIC registers, virtual-interrupt delivery"
              : controls.has_tpr_shadow()    ? ", TPR shadow"
                                             : "",
              mitigations.predictor_barrier ? ", IBPB" : "", mitigations.flush_l1d ? ", L1D flush" : "",
              mitigations.clear_buffers ? ", MD_CLEAR" : "");
    return extension;
}

Expected<void> VmxExtension::enable_on_this_cpu() {
    Hardware hardware;
    HV_TRY(unlock_feature_control(hardware));
    const CapabilityMsrs& caps = shared_->controls.caps;
    if (read_capabilities(hardware) != caps) {
        log::error(log::Topic::vmx, "CPU %u has other VMX capabilities than the boot CPU",
                   machine::cpu_index());
        return Unexpected{Error::unsupported};
    }
    CpuSlot& slot = shared_->cpus[machine::cpu_index()];
    slot.vmxon_region = HV_TRY(OwnedFrames::create(shared_->frames, 0, std::byte{0}));
    store(slot.vmxon_region.data(), static_cast<std::uint32_t>(VmxBasic::Revision::get(caps.basic)));
    cpu::write_cr0(with_fixed_bits(cpu::read_cr0(), caps.cr0_fixed0, caps.cr0_fixed1));
    cpu::write_cr4(with_fixed_bits(cpu::read_cr4() | CR4_VMXE, caps.cr4_fixed0, caps.cr4_fixed1));
    // Translations that an earlier user of VMX left are flushed as each vCPU arrives.
    HV_TRY(hardware.vmxon(slot.vmxon_region.hpa()));
    return {};
}

Expected<std::unique_ptr<GuestAddressSpace>> VmxExtension::create_address_space() {
    return EptAddressSpace::create(shared_->frames, EptFormat{shared_->controls.caps.ept_vpid});
}

Expected<std::unique_ptr<VcpuBackend>> VmxExtension::create_vcpu(GuestAddressSpace& space) {
    return VmxVcpu::create(Hardware{}, *shared_, EptAddressSpace::of(space));
}

}  // namespace hv::vmx
