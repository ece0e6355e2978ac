// SPDX-License-Identifier: MIT
// VT-x as a whole: what the processor offers, what each CPU needs, and the makers of vCPUs and address
// spaces.
#pragma once

#include "arch/x86_64/vmx/shared.hpp"
#include "vmm/core/vcpu_backend.hpp"
#include "vmm/mm/frame_source.hpp"

#include <memory>

namespace hv::vmx {

class VmxExtension final : public VirtExtension {
public:
    /// Whether the processor has VMX at all [sdm3 24.6 Discovering Support for VMX].
    static bool present();
    /// On the boot CPU. Error::unsupported: something needed is missing (named in the log); Error::disabled:
    /// locked off by the firmware; Error::no_memory.
    static Expected<std::unique_ptr<VirtExtension>> create(FrameSource& frames, ApicUse apic);

    explicit VmxExtension(std::unique_ptr<Shared> shared) : shared_{std::move(shared)} {}
    [[nodiscard]] const char* name() const override { return "VT-x"; }
    /// VMXON. It stays on until the machine is reset.
    Expected<void> enable_on_this_cpu() override;
    [[nodiscard]] GuestInstructions instructions() const override {
        return {shared_->controls.has_rdtscp(), shared_->controls.has_invpcid()};
    }
    Expected<std::unique_ptr<GuestAddressSpace>> create_address_space() override;
    Expected<std::unique_ptr<VcpuBackend>> create_vcpu(GuestAddressSpace& space) override;

private:
    std::unique_ptr<Shared> shared_;
};

}  // namespace hv::vmx
