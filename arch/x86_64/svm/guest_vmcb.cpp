// SPDX-License-Identifier: MIT
#include "arch/x86_64/svm/guest_vmcb.hpp"

#include <cstring>

namespace hv::svm {
namespace {

constexpr Intercept kIntercepts[] = {
    Intercept::intr,   Intercept::nmi,         Intercept::init,     Intercept::rdpmc,   Intercept::cpuid,
    Intercept::rsm,    Intercept::invd,        Intercept::hlt,      Intercept::invlpga, Intercept::ioio,
    Intercept::msr,    Intercept::task_switch, Intercept::shutdown, Intercept::vmrun,   Intercept::vmmcall,
    Intercept::vmload, Intercept::vmsave,      Intercept::stgi,     Intercept::clgi,    Intercept::skinit,
    Intercept::wbinvd, Intercept::monitor,     Intercept::mwait,    Intercept::xsetbv,  Intercept::rdpru,
    Intercept::icebp,
};

/// CR0 and CR4 are checked by neutral code when written; CR8 belongs to the virtual local APIC.
constexpr std::uint16_t kCrWrites = 1U << 0 | 1U << 4 | 1U << 8;
constexpr std::uint16_t kCrReads = 1U << 8;
/// #DB and #AC: a guest that makes their delivery fault again would keep the processor in microcode for ever.
/// #UD: it may have been VMCALL. #MC is ours.
constexpr std::uint32_t kExceptions =
    1U << EXCEPTION_DB | 1U << EXCEPTION_UD | 1U << EXCEPTION_AC | 1U << EXCEPTION_MC;
constexpr std::uint32_t kAllExceptions = ~(1U << EXCEPTION_NMI);

constexpr std::uint16_t kPauseFilterCount = 3000;
constexpr std::uint16_t kPauseFilterThreshold = 128;
constexpr std::uint16_t kCodeReset = 0x9b, kDataReset = 0x93, kLdtReset = 0x82, kTssReset = 0x8b;

Segment from_vmcb(const VmcbSegment& s) {
    return {s.selector, static_cast<std::uint16_t>(s.attributes & VmcbSegment::kAttributes), s.limit, s.base};
}
VmcbSegment to_vmcb(const Segment& s) {
    return {s.selector, static_cast<std::uint16_t>(s.attributes & VmcbSegment::kAttributes), s.limit, s.base};
}

}  // namespace

GuestVmcb::GuestVmcb(Vmcb& vmcb, const Setup& setup)
    : vmcb_{vmcb},
      assists_{setup.assists},
      pause_filter_{setup.pause_filter},
      clean_after_exit_{setup.clean_bits ? static_cast<std::uint32_t>(Clean::all) : 0} {
    std::memset(&vmcb_, 0, sizeof vmcb_);
    init_controls(setup);
    init_state();
}

void GuestVmcb::init_controls(const Setup& setup) {
    VmcbControl& c = vmcb_.control;
    for (const Intercept intercept : kIntercepts)
        set_intercept(intercept, true);
    c.intercept_cr_read = kCrReads;
    c.intercept_cr_write = kCrWrites;
    c.intercept_exceptions = kExceptions;
    if (setup.pause_filter) {
        set_intercept(Intercept::pause, true);
        c.pause_filter_count = kPauseFilterCount;
        c.pause_filter_threshold = kPauseFilterThreshold;
    }
    c.iopm_base = setup.io_permissions.raw;
    c.msrpm_base = setup.msr_permissions.raw;
    c.virtual_interrupt = VirtualInterrupt::Masking::kMask;
    c.nested_control = 1;
    c.nested_cr3 = setup.nested_root;
}

/// [apm2 14.1.3 Processor Initialization State]
void GuestVmcb::init_state() {
    VmcbSave& s = vmcb_.save;
    s.cs = {0xf000, kCodeReset, 0xffff, 0xffff'0000};
    s.ds = s.es = s.ss = s.fs = s.gs = {0, kDataReset, 0xffff, 0};
    s.ldtr = {0, kLdtReset, 0xffff, 0};
    s.tr = {0, kTssReset, 0xffff, 0};
    s.gdtr.limit = s.idtr.limit = 0xffff;
    s.cr0 = CR0_ET | CR0_CD | CR0_NW;
    s.efer = EFER_SVME;
    s.dr6 = DR6_RESET;
    s.dr7 = DR7_RESET;
    s.g_pat = 0x0007'0406'0007'0406;
}

void GuestVmcb::set_intercept(Intercept intercept, bool on) {
    const auto index = static_cast<unsigned>(intercept);
    std::uint32_t& word = vmcb_.control.intercepts[index / 32];
    word = on ? word | 1U << index % 32 : word & ~(1U << index % 32);
    dirty(Clean::intercepts);
}

void GuestVmcb::set_exception_intercepts(std::uint32_t vectors) {
    vmcb_.control.intercept_exceptions = vectors;
    dirty(Clean::intercepts);
}

void GuestVmcb::set_tsc_offset(std::int64_t offset) {
    vmcb_.control.tsc_offset = static_cast<std::uint64_t>(offset);
    dirty(Clean::intercepts);
}

void GuestVmcb::set_asid(std::uint32_t asid, TlbControl flush) {
    vmcb_.control.asid = asid;
    vmcb_.control.tlb_control = static_cast<std::uint8_t>(flush);
    dirty(Clean::asid);
}

void GuestVmcb::leave_with_care(VcpuRegs& regs, VmExit& exit) {
    decode_exit(vmcb_, assists_, exit);
    if (interrupt_goes_in()) {  // it did not: the exit came first, or its delivery was interrupted
        if (!exit.interrupted.pending())
            exit.interrupted = Event::interrupt(
                static_cast<std::uint8_t>(VirtualInterrupt::Vector::get(vmcb_.control.virtual_interrupt)));
        end_virtual_interrupt();
    }
    if (nmi_blocking_ != NmiBlocking::none)
        settle_nmi_blocking(exit, regs);
    if (exit.reason == VmExit::Reason::interrupt_window)
        end_window_request();
}

void GuestVmcb::settle_nmi_blocking(VmExit& exit, VcpuRegs& regs) {
    if (exit.interrupted.type == Event::Type::nmi)
        unblock_nmis();  // it was not delivered, so it blocks nothing yet: it goes in again
    else if (stepping())
        end_step(exit, regs);
    else if (vmcb_.control.exit_code == static_cast<std::uint64_t>(ExitCode::iret)) {
        begin_step(regs);
        exit.reason = VmExit::Reason::host_interrupt;  // nothing to do but to go on
    }
}

void GuestVmcb::block_nmis() {
    nmi_blocking_ = NmiBlocking::until_iret;
    set_intercept(Intercept::iret, true);
}

void GuestVmcb::unblock_nmis() {
    nmi_blocking_ = NmiBlocking::none;
    set_intercept(Intercept::iret, false);
    set_exception_intercepts(kExceptions);
}

void GuestVmcb::set_nmi_blocking(bool blocked) {
    if (blocked)
        block_nmis();
    else
        unblock_nmis();
}

void GuestVmcb::begin_step(VcpuRegs& regs) {
    nmi_blocking_ = NmiBlocking::stepping_over_iret;
    set_intercept(Intercept::iret, false);
    set_exception_intercepts(kAllExceptions);
    end_window_request();  // it would come before the IRET, again and again
    step_rip_ = regs.rip;
    trap_flag_ = regs.rflags & RFLAGS_TF;
    regs.rflags |= RFLAGS_TF;
    dr6_ = vmcb_.save.dr6;
    vmcb_.save.dr6 &= ~DR6_BS;
    dirty(Clean::debug_registers);
}

void GuestVmcb::end_step(VmExit& exit, VcpuRegs& regs) {
    VmcbSave& s = vmcb_.save;
    const bool exception = exit.reason == VmExit::Reason::exception;
    const bool stepped = exception && exit.exception.vector == EXCEPTION_DB && (s.dr6 & DR6_BS) != 0;
    dirty(Clean::debug_registers);
    set_exception_intercepts(kExceptions);
    if (stepped || regs.rip != step_rip_) {
        unblock_nmis();
        if (stepped && trap_flag_ == 0) {  // our trap, not the guest's
            s.dr6 = dr6_;
            exit.reason = VmExit::Reason::nmi_window;
        }
        return;
    }
    // It has not been executed: the flags, with our TF, are not the guest's.
    regs.rflags = (regs.rflags & ~RFLAGS_TF) | trap_flag_;
    s.dr6 |= dr6_ & DR6_BS;
    if (exception && exit.exception.vector != EXCEPTION_DB) {
        unblock_nmis();  // an IRET that faults unblocks them as well
        if (exit.exception.vector == EXCEPTION_PF) {
            s.cr2 = vmcb_.control.exit_info2;  // not written when #PF is intercepted
            dirty(Clean::cr2);
        }
        return;
    }
    block_nmis();
}

// --- events
// -----------------------------------------------------------------------------------------------------------------

bool GuestVmcb::inject_at_entry(Event event, const VcpuRegs& regs) {
    if (something_goes_in())
        return false;
    VmcbControl& c = vmcb_.control;
    switch (event.type) {
    case Event::Type::none:
    case Event::Type::external_interrupt: return false;  // inject() has dealt with it
    case Event::Type::nmi:
        if (nmi_blocking_ != NmiBlocking::none || interrupt_shadow(regs))
            return false;
        block_nmis();
        break;
    case Event::Type::exception: c.interrupt_shadow = 0; break;  // it ends with the delivery
    case Event::Type::software_interrupt: break;
    }
    c.event_injection = encode_event(event);
    if ((vmcb_.save.cr0 & CR0_PE) == 0)  // real mode has no error codes
        c.event_injection &= ~(EventInjection::HasErrorCode::kMask | EventInjection::ErrorCode::kMask);
    return true;
}

/// By a virtual interrupt that exits instead of being taken. That waits for IF, which an NMI does not: behind
/// an injected event it comes at once. In the shadow of a MOV SS with IF clear it waits for IF or the next
/// exit.
GuestVmcb::Window GuestVmcb::request_window(Event::Type type) {
    VmcbControl& c = vmcb_.control;
    // The IRET intercept and the end of the step exit by themselves.
    if (stepping() || (type == Event::Type::nmi && nmi_blocking_ != NmiBlocking::none))
        return Window::exits;
    if (interrupt_goes_in()) {  // there is one virtual interrupt only
        c.event_injection = EventInjection::Vector::make(VirtualInterrupt::Vector::get(c.virtual_interrupt)) |
                            EventInjection::Valid::kMask;
        end_virtual_interrupt();
        return Window::at_once;
    }
    if (type == Event::Type::nmi && EventInjection::Valid::test(c.event_injection))
        return Window::at_once;
    if (!waits_for_window()) {
        begin_virtual_interrupt(0);
        set_intercept(Intercept::vintr, true);
    }
    return Window::exits;
}

void GuestVmcb::close_window() {
    end_virtual_interrupt();
    set_intercept(Intercept::vintr, false);
}

void GuestVmcb::end_virtual_interrupt() {
    vmcb_.control.virtual_interrupt &= ~VirtualInterrupt::Pending::kMask;
    dirty(Clean::tpr);
}

// --- registers
// --------------------------------------------------------------------------------------------------------------

void GuestVmcb::get_state(CpuState& out, RegSet which) const {
    const VmcbSave& s = vmcb_.save;
    if (includes(which, RegSet::control)) {
        out.cr0 = s.cr0;
        out.cr2 = s.cr2;
        out.cr3 = s.cr3;
        out.cr4 = s.cr4;
        out.efer = s.efer & ~EFER_SVME;
    }
    if (includes(which, RegSet::segments)) {
        out.seg(SegmentName::es) = from_vmcb(s.es);
        out.seg(SegmentName::cs) = from_vmcb(s.cs);
        out.seg(SegmentName::ss) = from_vmcb(s.ss);
        out.seg(SegmentName::ds) = from_vmcb(s.ds);
        out.seg(SegmentName::fs) = from_vmcb(s.fs);
        out.seg(SegmentName::gs) = from_vmcb(s.gs);
        out.tr = from_vmcb(s.tr);
        out.ldtr = from_vmcb(s.ldtr);
        // The VMCB's CPL rules; SS.DPL need not follow it everywhere [apm2 15.5.1 Basic Operation].
        Segment& ss = out.seg(SegmentName::ss);
        ss.attributes = static_cast<std::uint16_t>((ss.attributes & ~0x60U) | (s.cpl & 3U) << 5);
    }
    if (includes(which, RegSet::tables)) {
        out.gdtr = {s.gdtr.base, static_cast<std::uint16_t>(s.gdtr.limit)};
        out.idtr = {s.idtr.base, static_cast<std::uint16_t>(s.idtr.limit)};
    }
    if (includes(which, RegSet::debug)) {
        out.dr6 = s.dr6;
        out.dr7 = s.dr7;
    }
    if (includes(which, RegSet::msrs)) {
        out.star = s.star;
        out.lstar = s.lstar;
        out.cstar = s.cstar;
        out.sfmask = s.sfmask;
        out.kernel_gs_base = s.kernel_gs_base;
        out.sysenter_cs = s.sysenter_cs;
        out.sysenter_esp = s.sysenter_esp;
        out.sysenter_eip = s.sysenter_eip;
        out.pat = s.g_pat;
    }
}

bool GuestVmcb::set_state(const CpuState& in, RegSet which) {
    VmcbSave& s = vmcb_.save;
    bool translations_void = false;
    if (which == RegSet::all) {
        // A new start (RESET, INIT): nothing of what was blocked, asked for or on its way stays.
        vmcb_.control.event_injection = 0;
        vmcb_.control.interrupt_shadow = 0;
        unblock_nmis();
        end_window_request();
        end_virtual_interrupt();
    }
    if (includes(which, RegSet::control)) {
        const std::uint64_t efer = in.efer | EFER_SVME;
        translations_void = s.cr0 != in.cr0 || s.cr3 != in.cr3 || s.cr4 != in.cr4 || s.efer != efer;
        s.cr0 = in.cr0;
        s.cr2 = in.cr2;
        s.cr3 = in.cr3;
        s.cr4 = in.cr4;
        s.efer = efer;
        dirty(Clean::control_registers);
        dirty(Clean::cr2);
    }
    if (includes(which, RegSet::segments)) {
        s.es = to_vmcb(in.seg(SegmentName::es));
        s.cs = to_vmcb(in.seg(SegmentName::cs));
        s.ss = to_vmcb(in.seg(SegmentName::ss));
        s.ds = to_vmcb(in.seg(SegmentName::ds));
        s.fs = to_vmcb(in.seg(SegmentName::fs));
        s.gs = to_vmcb(in.seg(SegmentName::gs));
        s.tr = to_vmcb(in.tr);
        s.ldtr = to_vmcb(in.ldtr);
        s.cpl = static_cast<std::uint8_t>(in.cpl());
        dirty(Clean::segments);
    }
    if (includes(which, RegSet::tables)) {
        s.gdtr.base = in.gdtr.base;
        s.gdtr.limit = in.gdtr.limit;
        s.idtr.base = in.idtr.base;
        s.idtr.limit = in.idtr.limit;
        dirty(Clean::descriptor_tables);
    }
    if (includes(which, RegSet::debug)) {
        // VMRUN refuses upper halves that are not 0 [apm2 15.5.1 Basic Operation].
        s.dr6 = in.dr6 & 0xffff'ffff;
        s.dr7 = in.dr7 & 0xffff'ffff;
        dirty(Clean::debug_registers);
    }
    if (includes(which, RegSet::msrs)) {
        s.star = in.star;
        s.lstar = in.lstar;
        s.cstar = in.cstar;
        s.sfmask = in.sfmask;
        s.kernel_gs_base = in.kernel_gs_base;
        s.sysenter_cs = in.sysenter_cs;
        s.sysenter_esp = in.sysenter_esp;
        s.sysenter_eip = in.sysenter_eip;
        s.g_pat = in.pat;
        dirty(Clean::nested_paging);  // G_PAT belongs to it
    }
    return translations_void;
}

}  // namespace hv::svm
