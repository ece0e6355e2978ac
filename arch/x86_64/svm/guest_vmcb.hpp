// SPDX-License-Identifier: MIT
// A vCPU's VMCB between two VMRUNs: registers in and out, events, windows, NMI blocking, clean bits. Touches
// memory alone; what takes instructions is SvmVcpu's.
#pragma once

#include "arch/x86_64/defs/cr.hpp"
#include "arch/x86_64/defs/vmcb.hpp"
#include "arch/x86_64/svm/exit_decode.hpp"
#include "vmm/base/address.hpp"
#include "vmm/core/vcpu_backend.hpp"

namespace hv::svm {

class GuestVmcb {
public:
    struct Setup {
        ExitAssists assists;
        bool clean_bits;  ///< the processor keeps what the clean bits say is unchanged
        bool pause_filter;
        Hpa io_permissions;
        Hpa msr_permissions;
        std::uint64_t nested_root;
    };

    /// Writes all of `vmcb`, which outlives this: the state after RESET.
    GuestVmcb(Vmcb& vmcb, const Setup& setup);

    /// VcpuBackend's calls, but for DR0 to DR3, which VMRUN does not switch.
    void get_state(CpuState& out, RegSet which) const;
    /// True: translations that were cached for the guest are void.
    [[nodiscard]] bool set_state(const CpuState& in, RegSet which);
    [[nodiscard]] bool can_take_interrupt(const VcpuRegs& regs) const {
        return !something_goes_in() && (regs.rflags & RFLAGS_IF) != 0 && !interrupt_shadow(regs) &&
               !stepping();
    }
    /// A maskable interrupt goes in as a virtual interrupt [apm2 15.21.4 Injecting Virtual (INTR)
    /// Interrupts], which the guest takes as one from its own interrupt controller; docs/decisions/0012 has
    /// the reason.
    bool inject(Event event, const VcpuRegs& regs) {
        if (event.type != Event::Type::external_interrupt)
            return inject_at_entry(event, regs);
        if (!can_take_interrupt(regs))
            return false;
        end_window_request();
        begin_virtual_interrupt(event.vector);
        return true;
    }
    enum class Window : std::uint8_t {
        exits,    ///< the guest's run ends when it can take the event
        at_once,  ///< when it has taken what is injected: the caller makes a physical interrupt pending,
                  ///< which ends the run before the guest's next instruction
    };
    Window request_window(Event::Type type);
    void set_nmi_blocking(bool blocked);
    [[nodiscard]] bool nmi_blocking() const { return nmi_blocking_ != NmiBlocking::none; }
    [[nodiscard]] bool interrupt_shadow(const VcpuRegs& regs) const {
        return (vmcb_.control.interrupt_shadow & 1) != 0 && regs.rip == vmcb_.save.rip;
    }
    [[nodiscard]] unsigned cpl() const { return vmcb_.save.cpl & 3U; }
    [[nodiscard]] const VmcbSegment& segment(SegmentName name) const {
        constexpr VmcbSegment VmcbSave::*kSegments[] = {&VmcbSave::es, &VmcbSave::cs, &VmcbSave::ss,
                                                        &VmcbSave::ds, &VmcbSave::fs, &VmcbSave::gs};
        return vmcb_.save.*kSegments[static_cast<unsigned>(name)];
    }
    [[nodiscard]] bool runs_in(const CodeContext& context) const {
        const VmcbSave& s = vmcb_.save;
        return s.cr0 == context.cr0 && s.cr3 == context.cr3 && s.cr4 == context.cr4 &&
               s.efer == (context.efer | EFER_SVME) && s.cs.base == context.cs_base &&
               (s.cs.attributes & VmcbSegment::kAttributes) == context.cs_attributes && cpl() == context.cpl;
    }
    void set_tsc_offset(std::int64_t offset);
    /// Without a pause filter: whether PAUSE is intercepted.
    void set_pause_exits(bool wanted) {
        if (!pause_filter_ && wanted != intercepted(Intercept::pause))
            set_intercept(Intercept::pause, wanted);
    }

    /// Translations are cached under `asid` from now on.
    void set_asid(std::uint32_t asid, TlbControl flush);
    /// This CPU knows nothing of the VMCB.
    void arrive() { vmcb_.control.clean = 0; }
    /// Before VMRUN.
    void enter(const VcpuRegs& regs) {
        Vmcb& vmcb = vmcb_;
        if (regs.rip != vmcb.save.rip) {
            vmcb.save.rip = regs.rip;
            vmcb.control.interrupt_shadow = 0;
        }
        vmcb.save.rax = regs.gpr[RAX];
        vmcb.save.rsp = regs.gpr[RSP];
        vmcb.save.rflags = regs.rflags;
    }
    /// After #VMEXIT: the guest's registers, and why it stopped.
    void leave(VcpuRegs& regs, VmExit& exit) {
        Vmcb& vmcb = vmcb_;
        regs.gpr[RAX] = vmcb.save.rax;
        regs.gpr[RSP] = vmcb.save.rsp;
        regs.rip = vmcb.save.rip;
        regs.rflags = vmcb.save.rflags;
        vmcb.control.tlb_control = static_cast<std::uint8_t>(TlbControl::nothing);
        vmcb.control.event_injection = 0;
        vmcb.control.clean = clean_after_exit_;
        if (nmi_blocking_ != NmiBlocking::none || EventInjection::Valid::test(vmcb.control.exit_int_info) ||
            VirtualInterrupt::Pending::test(vmcb.control.virtual_interrupt) ||
            !decode_frequent_exit(vmcb, assists_, exit)) [[unlikely]]
            leave_with_care(regs, exit);
    }

private:
    /// How far the guest is with its NMI handler, whose IRET unblocks NMIs [apm2 15.13.3 NMI Intercept]. The
    /// processor does not tell when that has completed: IRET is intercepted, then executed with TF set and
    /// all exceptions intercepted.
    enum class NmiBlocking : std::uint8_t { none, until_iret, stepping_over_iret };

    void init_controls(const Setup& setup);
    void init_state();
    void set_intercept(Intercept intercept, bool on);
    [[nodiscard]] bool intercepted(Intercept intercept) const {
        const auto index = static_cast<unsigned>(intercept);
        return (vmcb_.control.intercepts[index / 32] & 1U << index % 32) != 0;
    }
    void set_exception_intercepts(std::uint32_t vectors);
    void end_window_request() {
        if (waits_for_window()) [[unlikely]]
            close_window();
    }
    void close_window();
    [[nodiscard]] bool waits_for_window() const { return intercepted(Intercept::vintr); }
    [[nodiscard]] bool interrupt_goes_in() const {
        return VirtualInterrupt::Pending::test(vmcb_.control.virtual_interrupt) && !waits_for_window();
    }
    [[nodiscard]] bool something_goes_in() const {
        return EventInjection::Valid::test(vmcb_.control.event_injection) || interrupt_goes_in();
    }
    void begin_virtual_interrupt(std::uint8_t vector) {
        vmcb_.control.virtual_interrupt =
            VirtualInterrupt::Masking::kMask | VirtualInterrupt::Pending::kMask |
            VirtualInterrupt::IgnoreTpr::kMask | VirtualInterrupt::Priority::kMask |
            VirtualInterrupt::Vector::make(vector);
        dirty(Clean::tpr);
    }
    /// All else [apm2 15.20 Event Injection].
    [[gnu::noinline]] bool inject_at_entry(Event event, const VcpuRegs& regs);
    void end_virtual_interrupt();
    void dirty(Clean bits) { vmcb_.control.clean &= ~static_cast<std::uint32_t>(bits); }
    void leave_with_care(VcpuRegs& regs, VmExit& exit);
    void settle_nmi_blocking(VmExit& exit, VcpuRegs& regs);
    [[nodiscard]] bool stepping() const { return nmi_blocking_ == NmiBlocking::stepping_over_iret; }
    void begin_step(VcpuRegs& regs);
    void end_step(VmExit& exit, VcpuRegs& regs);
    void block_nmis();
    void unblock_nmis();

    Vmcb& vmcb_;
    const ExitAssists assists_;
    const bool pause_filter_;
    const std::uint32_t clean_after_exit_;
    NmiBlocking nmi_blocking_{NmiBlocking::none};
    // Of the guest, while stepping.
    std::uint64_t step_rip_{0};
    std::uint64_t trap_flag_{0};
    std::uint64_t dr6_{0};
};

}  // namespace hv::svm
