// SPDX-License-Identifier: MIT
// A vCPU on VT-x: a VMCS, and what VM entries and exits leave to software. `Machine` is Hardware in the
// kernel (VmxVcpu in vmx_extension.cpp) and a fake in host tests.
//
// While a vCPU is on a CPU, that CPU holds its FPU, CR2, DR0-DR3, DR6 and the SYSCALL MSRs; the VMCS holds
// the rest.
#pragma once

#include "arch/x86_64/vmx/ept.hpp"
#include "arch/x86_64/vmx/event.hpp"
#include "arch/x86_64/vmx/exit_decode.hpp"
#include "arch/x86_64/vmx/shared.hpp"
#include "arch/x86_64/vmx/vmcs_setup.hpp"
#include "vmm/base/machine.hpp"
#include "vmm/core/apic_acceleration.hpp"
#include "vmm/core/guest_address_space.hpp"
#include "vmm/core/vcpu_backend.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

namespace hv::vmx {

/// The longest that a guest runs before interrupts are let in, in parts of a second. It bounds the time for
/// which a vCPU can hold a CPU even where an interrupt's exit is missed: some processors deliver none while
/// the guest's IF is clear. VM exits save the timer if they can, so that a guest that exits often uses it up
/// as well; it is written anew when it has expired [sdm3 26.5.1 VMX-Preemption Timer].
inline constexpr std::uint64_t kEntriesPerSecond = 1000;

template <VmxMachine Machine>
class BasicVcpu final : public VcpuBackend, private ApicAcceleration {
    using Fpu = typename Machine::Fpu;

public:
    /// In the state after RESET. Error::no_memory; Error::busy: no VPID is
    /// left.
    static Expected<std::unique_ptr<VcpuBackend>> create(Machine machine, Shared& shared,
                                                         EptAddressSpace& space);
    ~BasicVcpu() override;

    void run() override;
    void get_state(CpuState& out, RegSet which) const override;
    void set_state(const CpuState& in, RegSet which) override;
    bool inject(Event event) override;
    void request_window(Event::Type type) override;
    [[nodiscard]] bool can_take_interrupt() const override {
        return !injected_ && (regs.rflags & RFLAGS_IF) != 0 && !interrupt_shadow();
    }
    [[nodiscard]] unsigned cpl() const override {
        return read_attributes(machine_, static_cast<unsigned>(SegmentName::ss)) >> 5 & 3U;
    }
    [[nodiscard]] std::uint64_t segment_base(SegmentName name) const override {
        return machine_.read(GUEST_SEGMENTS[static_cast<unsigned>(name)].base);
    }
    [[nodiscard]] bool runs_in(const CodeContext& context) const override {
        return is_code_context(machine_, context);
    }
    void set_nmi_blocking(bool blocked) override;
    [[nodiscard]] bool nmi_blocking() const override {
        return Interruptibility::BlockingByNmi::test(interruptibility());
    }
    void set_tsc_offset(std::int64_t offset) override;
    void set_pause_exits(bool wanted) override {
        if (shared_.controls.lacks_pause_loop_exiting())
            set_primary_control(primary::PAUSE_EXITING, wanted);
    }
    void reset() override {
        fpu_.reset();
        set_tsc_aux(0);
    }
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
    ApicAcceleration* apic_acceleration() override {
        return shared_.controls.has_tpr_shadow() ? this : nullptr;
    }
    void log_state() const override;

private:
    static constexpr std::uint32_t kTprIndex = 0x08;
    /// Exits about which settle() has something to do.
    static constexpr std::uint64_t kSettled = [] {
        std::uint64_t set = 0;
        for (const ExitReason reason :
             {ExitReason::EXCEPTION_OR_NMI, ExitReason::EPT_VIOLATION, ExitReason::APIC_ACCESS,
              ExitReason::INTERRUPT_WINDOW, ExitReason::NMI_WINDOW, ExitReason::ENTRY_FAILURE_MACHINE_CHECK,
              ExitReason::PREEMPTION_TIMER})
            set |= bit(static_cast<unsigned>(reason));
        return set;
    }();
    static constexpr Vmcs64 kEoiExitBitmaps[] = {EOI_EXIT_BITMAP_0, EOI_EXIT_BITMAP_1, EOI_EXIT_BITMAP_2,
                                                 EOI_EXIT_BITMAP_3};

    // ApicAcceleration
    [[nodiscard]] Extent extent() const override {
        return shared_.controls.delivers_interrupts() ? Extent::interrupts : Extent::task_priority;
    }
    [[nodiscard]] ApicPage& page() override { return *reinterpret_cast<ApicPage*>(virtual_apic_.data()); }
    void watch(Client& client, const int& highest_request) override {
        apic_.client = &client;
        apic_.highest_request = &highest_request;
    }
    void set_mode(Mode mode, Gpa base) override;
    [[nodiscard]] Status status() const override;
    void set_status(Status status) override;
    void set_eoi_exits(unsigned word, std::uint64_t vectors) override;

    /// What the VMCS is to hold of the APIC.
    struct ApicFields {
        Gpa base{};
        std::uint64_t eoi_exits[4]{};
        std::uint32_t secondary{0};  ///< the mode's control
        Status status{};             ///< while not on a CPU
        bool changed{false};         ///< while not on a CPU
        // With a TPR shadow alone.
        Client* client{nullptr};
        const int* highest_request{nullptr};
        std::uint32_t tpr_threshold{0};  ///< as the VMCS holds it
        std::uint32_t tpr{0};            ///< at the last entry
    };
    static std::uint16_t raw_status(Status status) {
        return static_cast<std::uint16_t>(InterruptStatus::Requesting::make(status.requested) |
                                          InterruptStatus::Servicing::make(status.in_service));
    }
    void write_apic_fields();
    void update_tpr_threshold();

    /// SYSCALL MSRs: VM entries and exits do not switch them.
    struct SyscallMsrs {
        std::uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
    };

    BasicVcpu(Machine machine, Shared& shared, EptAddressSpace& space, OwnedFrames vmcs,
              OwnedFrames virtual_apic, std::uint16_t vpid, Fpu fpu)
        : machine_{std::move(machine)},
          shared_{shared},
          space_{space},
          vmcs_{std::move(vmcs)},
          virtual_apic_{std::move(virtual_apic)},
          fpu_{std::move(fpu)},
          vpid_{vpid} {}

    void write_reset_state();
    void load_pdptes(std::uint64_t cr3);
    void set_control(const CpuState& in);
    void flush_translations();
    void entry_failed(EntryResult result);
    void settle();
    [[nodiscard]] std::uint32_t preemption_ticks() const;
    [[nodiscard]] bool interrupt_shadow() const;
    void clear_interrupt_shadow();
    void settle_debug_exception(bool by_instruction);
    void take_pending_debug_exceptions();
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
    EptAddressSpace& space_;
    OwnedFrames vmcs_;
    OwnedFrames virtual_apic_;  ///< if there is a TPR shadow
    ApicFields apic_{};
    std::optional<std::size_t> apic_slot_;  ///< in the VM's ApicAccess, if interrupts are delivered
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

#include "arch/x86_64/vmx/vcpu_apic.hpp"
#include "arch/x86_64/vmx/vcpu_run.hpp"
#include "arch/x86_64/vmx/vcpu_state.hpp"
