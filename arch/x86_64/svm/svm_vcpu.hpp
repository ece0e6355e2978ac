// SPDX-License-Identifier: MIT
// A vCPU on AMD-V: a VMCB and what VMRUN leaves to software.
#pragma once

#include "arch/x86_64/cpu/guest_fpu.hpp"
#include "arch/x86_64/svm/guest_vmcb.hpp"
#include "vmm/core/guest_address_space.hpp"
#include "vmm/core/vcpu_backend.hpp"
#include "vmm/mm/frame_source.hpp"

namespace hv::svm {

class SvmExtension;

class SvmVcpu final : public VcpuBackend {
public:
    static Expected<std::unique_ptr<VcpuBackend>> create(SvmExtension& extension, GuestAddressSpace& space);
    ~SvmVcpu() override;

    void run() override;
    void get_state(CpuState& out, RegSet which) const override;
    void set_state(const CpuState& in, RegSet which) override;
    bool inject(Event event) override { return vmcb_.inject(event, regs); }
    void request_window(Event::Type type) override;
    void set_nmi_blocking(bool blocked) override { vmcb_.set_nmi_blocking(blocked); }
    [[nodiscard]] bool nmi_blocking() const override { return vmcb_.nmi_blocking(); }
    [[nodiscard]] bool can_take_interrupt() const override { return vmcb_.can_take_interrupt(regs); }
    [[nodiscard]] unsigned cpl() const override { return vmcb_.cpl(); }
    [[nodiscard]] std::uint64_t segment_base(SegmentName name) const override {
        return vmcb_.segment(name).base;
    }
    [[nodiscard]] bool runs_in(const CodeContext& context) const override { return vmcb_.runs_in(context); }
    void set_tsc_offset(std::int64_t offset) override { vmcb_.set_tsc_offset(offset); }
    void set_pause_exits(bool wanted) override { vmcb_.set_pause_exits(wanted); }
    void reset() override;
    void set_xcr0(std::uint64_t value) override { fpu_.set_xcr0(value); }
    [[nodiscard]] std::uint64_t xcr0() const override { return fpu_.xcr0(); }
    void set_tsc_aux(std::uint64_t value) override;
    [[nodiscard]] std::uint64_t tsc_aux() const override;
    void get_vector(VectorFile file, unsigned index, VectorValue& out) override {
        fpu_.get_vector(file, index, out);
    }
    void set_vector(VectorFile file, unsigned index, const VectorValue& in) override {
        fpu_.set_vector(file, index, in);
    }
    void flush_guest_tlb() override { needs_asid_ = true; }
    void enter_cpu() override;
    void leave_cpu() override;
    void log_state() const override;

private:
    SvmVcpu(SvmExtension& extension, GuestAddressSpace& space, Hpa vmcb, cpu::GuestFpu fpu);
    void take_asid();
    void look_for_machine_check() const;

    SvmExtension& extension_;
    GuestAddressSpace& space_;
    Hpa vmcb_address_;
    Hpa host_state_{};  ///< of the CPU that this vCPU is on
    cpu::GuestFpu fpu_;
    GuestVmcb vmcb_;
    std::uint64_t space_generation_{0};
    std::uint64_t asid_generation_{0};
    std::uint32_t asid_cpu_{~0U};
    bool needs_asid_{true};
    bool on_cpu_{false};
    std::uint64_t dr_[4]{};  ///< while not on a CPU
    std::uint64_t tsc_aux_{0};
};

}  // namespace hv::svm
