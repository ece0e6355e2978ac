// SPDX-License-Identifier: MIT
// A vCPU on a CPU with VT-x, and its way from one exit to the next.
#pragma once

#include "arch/x86_64/vmx/ept.hpp"
#include "arch/x86_64/vmx/fake_machine.hpp"
#include "arch/x86_64/vmx/recorded_msrs.hpp"
#include "arch/x86_64/vmx/vcpu.hpp"
#include "catch.hpp"
#include "fakes/machine.hpp"

#include <functional>
#include <memory>

namespace hv::vmx::test {

struct VcpuBench {
    explicit VcpuBench(const Controls& controls = broadwell_controls(), const Mitigations& mitigations = {})
        : shared{Shared::create(frames, controls, mitigations, 4).value()},
          space{EptAddressSpace::create(frames, EptFormat{controls.caps.ept_vpid}).value()},
          vcpu{make_vcpu()} {
        fake::set_cpu(0);
        for (const Msr msr :
             {Msr::IA32_STAR, Msr::IA32_LSTAR, Msr::IA32_CSTAR, Msr::IA32_FMASK, Msr::IA32_KERNEL_GS_BASE})
            cpu.msrs[msr] = 0xdead;
    }
    ~VcpuBench() { fake::set_cpu(0); }
    std::unique_ptr<VcpuBackend> make_vcpu() {
        return BasicVcpu<FakeMachine>::create(FakeMachine{cpu}, *shared, EptAddressSpace::of(*space)).value();
    }

    /// Runs the guest up to an exit for `reason`.
    VmExit run(ExitReason reason, std::function<void(FakeVmcs&)> more = {}) {
        cpu.guest = [=](FakeVmcs& vmcs, VcpuRegs&) {
            vmcs.set(EXIT_REASON, static_cast<std::uint64_t>(reason));
            vmcs.set(VM_ENTRY_INTERRUPTION_INFORMATION,
                     vmcs.read(VM_ENTRY_INTERRUPTION_INFORMATION) & 0x7fff'ffff);
            if (more)
                more(vmcs);
            return EntryResult::exited;
        };
        vcpu->run();
        return vcpu->exit;
    }
    FakeVmcs& vmcs() { return cpu.vmcs(); }

    FakeFrames frames;
    FakeCpu cpu;
    std::unique_ptr<Shared> shared;
    std::unique_ptr<GuestAddressSpace> space;
    std::unique_ptr<VcpuBackend> vcpu;
};

inline constexpr std::uint32_t kNmiBlocked = 8;

}  // namespace hv::vmx::test
