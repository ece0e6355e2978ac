// SPDX-License-Identifier: MIT
// A vCPU on VT-x: a VMCS, and what VM entries and exits leave to software. `Machine` is Hardware in the
// kernel (VmxVcpu in vmx_extension.cpp) and a fake in host tests.
//
// While a vCPU is on a CPU, that CPU holds its FPU, CR2, DR0-DR3, DR6 and the SYSCALL MSRs; the VMCS holds
// the rest.
#pragma once

#include "arch/x86_64/vmx/event.hpp"
#include "arch/x86_64/vmx/exit_decode.hpp"
#include "arch/x86_64/vmx/shared.hpp"
#include "arch/x86_64/vmx/vmcs_setup.hpp"
#include "vmm/base/machine.hpp"
#include "vmm/core/guest_address_space.hpp"
#include "vmm/core/vcpu_backend.hpp"

#include <cstdint>
#include <memory>
#include <utility>

namespace hv::vmx {

/// The longest that a guest runs without an exit, in parts of a second. It bounds the time for which a vCPU
/// can hold a CPU even where an interrupt's exit is missed: some processors deliver none while the guest's IF
/// is clear. VM entry loads the timer from the VMCS each time, since VM exits do not save it: it is written
/// once [sdm3 26.5.1 VMX-Preemption Timer].
inline constexpr std::uint64_t kEntriesPerSecond = 1000;

template <VmxMachine Machine>
class BasicVcpu final : public VcpuBackend {
    using Fpu = typename Machine::Fpu;

public:
    /// In the state after RESET. Error::no_memory; Error::busy: no VPID is left.
    static Expected<std::unique_ptr<VcpuBackend>> create(Machine machine, Shared& shared,
                                                         GuestAddressSpace& space);
    ~BasicVcpu() override;

    VmExit run() override;
    void get_state(CpuState& out, RegSet which) const override;
    void set_state(const CpuState& in, RegSet which) override;
    bool inject(const Event& event) override;
    void request_window(Event::Type type) override;
    void clear_interrupt_shadow() override;
    [[nodiscard]] bool interrupt_shadow() const override;
    void set_tsc_offset(std::int64_t offset) override;
    void set_xcr0(std::uint64_t value) override { fpu_.set_xcr0(value); }
    [[nodiscard]] std::uint64_t xcr0() const override { return fpu_.xcr0(); }
    void set_tsc_aux(std::uint64_t value) override;
    [[nodiscard]] std::uint64_t tsc_aux() const override { return tsc_aux_; }
    void get_vector(VectorFile file, unsigned index, VectorValue& out) override {
        fpu_.get_vector(file, index, out);
    }
    void set_vector(VectorFile file, unsigned index, const VectorValue& in) override {
        fpu_.set_vector(file, index, in);
    }
    void flush_guest_tlb() override { flush_linear_ = true; }
    void enter_cpu() override;
    void leave_cpu() override;
    void log_state() const override;

private:
    /// SYSCALL MSRs: VM entries and exits do not switch them.
    struct SyscallMsrs {
        std::uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
    };

    BasicVcpu(Machine machine, Shared& shared, GuestAddressSpace& space, OwnedFrames vmcs, std::uint16_t vpid,
              Fpu fpu)
        : machine_{std::move(machine)},
          shared_{shared},
          space_{space},
          vmcs_{std::move(vmcs)},
          fpu_{std::move(fpu)},
          vpid_{vpid} {}

    void write_reset_state();
    void load_pdptes(std::uint64_t cr3);
    void set_control(const CpuState& in);
    void flush_translations();
    VmExit entry_failed(EntryResult result);
    void settle(VmExit& exit);
    void settle_debug_exception();
    void restore_nmi_blocking(bool unblocked_by_iret);
    [[nodiscard]] std::uint32_t interruptibility() const {
        return machine_.read(GUEST_INTERRUPTIBILITY_STATE);
    }
    void set_interruptibility(std::uint32_t value) { machine_.write(GUEST_INTERRUPTIBILITY_STATE, value); }
    void set_primary_control(std::uint32_t bits, bool on);
    [[nodiscard]] SyscallMsrs syscall_msrs() const;
    void load_syscall_msrs(const SyscallMsrs& msrs);

    [[no_unique_address]] Machine machine_;
    Shared& shared_;
    GuestAddressSpace& space_;
    OwnedFrames vmcs_;
    Fpu fpu_;
    std::uint64_t host_rsp_{0};          ///< what HOST_RSP holds
    VcpuRegs written_{};                 ///< RSP, RIP and RFLAGS as the VMCS holds them
    std::uint64_t space_generation_{0};  ///< what this CPU has flushed up to
    std::uint32_t last_cpu_{~0U};
    std::uint32_t primary_controls_{0};  ///< as the VMCS holds them
    std::uint16_t vpid_;
    bool flush_guest_physical_{false};
    bool flush_linear_{false};
    bool injected_{false};  ///< the next entry delivers an event
    bool launched_{false};
    bool initialised_{false};
    bool on_cpu_{false};
    SyscallMsrs syscall_{};   ///< while not on a CPU
    DebugRegisters debug_{};  ///< likewise
    std::uint64_t cr2_{0};    ///< likewise
    std::uint64_t tsc_aux_{0};
};

}  // namespace hv::vmx

#include "arch/x86_64/vmx/vcpu_run.hpp"
#include "arch/x86_64/vmx/vcpu_state.hpp"
