// SPDX-License-Identifier: MIT
#include "arch/x86_64/svm/svm_vcpu.hpp"

#include "arch/x86_64/cpu/instructions.hpp"
#include "arch/x86_64/defs/cr.hpp"
#include "arch/x86_64/defs/msr.hpp"
#include "arch/x86_64/svm/instructions.hpp"
#include "arch/x86_64/svm/svm_extension.hpp"
#include "vmm/base/assert.hpp"
#include "vmm/base/log.hpp"
#include "vmm/base/machine.hpp"

#include <cstring>
#include <new>

namespace hv::svm {
namespace {

constexpr Intercept kIntercepts[] = {
    Intercept::intr,   Intercept::nmi,         Intercept::init,     Intercept::rdpmc,   Intercept::cpuid,
    Intercept::rsm,    Intercept::invd,        Intercept::hlt,      Intercept::invlpga, Intercept::ioio,
    Intercept::msr,    Intercept::task_switch, Intercept::shutdown, Intercept::vmrun,   Intercept::vmmcall,
    Intercept::vmload, Intercept::vmsave,      Intercept::stgi,     Intercept::clgi,    Intercept::skinit,
    Intercept::wbinvd, Intercept::monitor,     Intercept::mwait,    Intercept::xsetbv,  Intercept::rdpru,
};
constexpr std::uint32_t kIretIntercept = 20;  // third intercept word

/// CR0 and CR4 are checked by neutral code when written; CR8 belongs to the virtual local APIC.
constexpr std::uint16_t kCrWrites = 1U << 0 | 1U << 4 | 1U << 8;
constexpr std::uint16_t kCrReads = 1U << 8;
/// #DB and #AC: a guest that makes their delivery fault again would keep the processor in microcode for ever.
/// #MC is ours.
constexpr std::uint32_t kExceptions = 1U << EXCEPTION_DB | 1U << EXCEPTION_AC | 1U << EXCEPTION_MC;

constexpr std::uint16_t kPauseFilterCount = 3000;
constexpr std::uint16_t kPauseFilterThreshold = 128;
constexpr std::uint16_t kCodeReset = 0x9b, kDataReset = 0x93, kLdtReset = 0x82, kTssReset = 0x8b;
constexpr std::uint16_t kPackedAttributes = 0xfff;

Segment from_vmcb(const VmcbSegment& s) {
    return {s.selector, static_cast<std::uint16_t>(s.attributes & kPackedAttributes), s.limit, s.base};
}
VmcbSegment to_vmcb(const Segment& s) {
    return {s.selector, static_cast<std::uint16_t>(s.attributes & kPackedAttributes), s.limit, s.base};
}

}  // namespace

Expected<std::unique_ptr<VcpuBackend>> SvmVcpu::create(SvmExtension& extension, GuestAddressSpace& space) {
    auto fpu = HV_TRY(cpu::GuestFpu::create());
    const Hpa vmcb = HV_TRY(extension.frames().allocate(0));
    auto* vcpu = new (std::nothrow) SvmVcpu{extension, space, vmcb, std::move(fpu)};
    if (vcpu == nullptr) {
        extension.frames().free(vmcb, 0);
        return Unexpected{Error::no_memory};
    }
    return std::unique_ptr<VcpuBackend>{vcpu};
}

SvmVcpu::SvmVcpu(SvmExtension& extension, GuestAddressSpace& space, Hpa vmcb, cpu::GuestFpu fpu)
    : extension_{extension},
      space_{space},
      vmcb_{machine::hva<Vmcb>(vmcb)},
      vmcb_address_{vmcb},
      fpu_{std::move(fpu)} {
    std::memset(vmcb_, 0, sizeof *vmcb_);
    init_controls();
    // [apm2 14.1.3 Processor Initialization State]
    VmcbSave& s = vmcb_->save;
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
    regs.rip = 0xfff0;
    regs.rflags = RFLAGS_FIXED;
}

SvmVcpu::~SvmVcpu() {
    extension_.frames().free(vmcb_address_, 0);
}

void SvmVcpu::init_controls() {
    VmcbControl& c = vmcb_->control;
    for (const Intercept intercept : kIntercepts)
        set_intercept(intercept, true);
    c.intercept_cr_read = kCrReads;
    c.intercept_cr_write = kCrWrites;
    c.intercept_exceptions = kExceptions;
    if (extension_.has_pause_filter()) {
        set_intercept(Intercept::pause, true);
        c.pause_filter_count = kPauseFilterCount;
        c.pause_filter_threshold = kPauseFilterThreshold;
    }
    c.iopm_base = extension_.io_permissions().raw;
    c.msrpm_base = extension_.msr_permissions().raw;
    c.virtual_interrupt = VirtualInterrupt::Masking::kMask;
    c.nested_control = 1;
    c.nested_cr3 = space_.root();
}

void SvmVcpu::set_intercept(Intercept intercept, bool on) {
    const auto index = static_cast<unsigned>(intercept);
    std::uint32_t& word = vmcb_->control.intercepts[index / 32];
    word = on ? word | 1U << index % 32 : word & ~(1U << index % 32);
    dirty(Clean::intercepts);
}

void SvmVcpu::take_asid() {
    const SvmExtension::Asid asid = extension_.next_asid();
    vmcb_->control.asid = asid.value;
    vmcb_->control.tlb_control =
        static_cast<std::uint8_t>(asid.flush_all ? TlbControl::flush_all : TlbControl::nothing);
    dirty(Clean::asid);
    asid_cpu_ = machine::cpu_index();
    asid_generation_ = asid.generation;
    needs_asid_ = false;
}

VmExit SvmVcpu::run() {
    VmcbControl& c = vmcb_->control;
    VmcbSave& s = vmcb_->save;
    if (const std::uint64_t generation = space_.generation(); generation != space_generation_ || needs_asid_)
        [[unlikely]] {
        space_generation_ = generation;
        take_asid();
    }
    s.rax = regs.gpr[RAX];
    s.rsp = regs.gpr[RSP];
    s.rip = regs.rip;
    s.rflags = regs.rflags;
    svm_enter(&regs, vmcb_address_, host_state_);
    regs.gpr[RAX] = s.rax;
    regs.gpr[RSP] = s.rsp;
    regs.rip = s.rip;
    regs.rflags = s.rflags;
    c.tlb_control = static_cast<std::uint8_t>(TlbControl::nothing);
    c.event_injection = 0;
    c.clean = extension_.has_clean_bits() ? static_cast<std::uint32_t>(Clean::all) : 0;
    VmExit exit = decode_exit(*vmcb_, extension_.assists());
    if (exit.reason == VmExit::Reason::exception || nmi_blocking_ != NmiBlocking::none) [[unlikely]] {
        if (exit.reason == VmExit::Reason::exception && exit.exception.vector == EXCEPTION_MC)
            panic("machine check while a guest ran");
        finish_nmi_blocking(exit);
    }
    if (exit.reason == VmExit::Reason::interrupt_window) {
        c.virtual_interrupt &= ~VirtualInterrupt::Pending::kMask;
        set_intercept(Intercept::vintr, false);
    }
    return exit;
}

/// NMIs stay blocked until the handler's IRET has completed. Without help of the processor: intercept IRET,
/// then let the guest execute it with TF set, and take the #DB as the end [apm2 15.13.2 NMI Intercept].
bool SvmVcpu::finish_nmi_blocking(VmExit& exit) {
    constexpr std::uint64_t kExitIret = 0x74;
    const auto set_iret_intercept = [&](bool on) {
        std::uint32_t& word = vmcb_->control.intercepts[0];
        word = on ? word | 1U << kIretIntercept : word & ~(1U << kIretIntercept);
        dirty(Clean::intercepts);
    };
    if (nmi_blocking_ == NmiBlocking::until_iret && vmcb_->control.exit_code == kExitIret) {
        set_iret_intercept(false);
        guest_trap_flag_ = (regs.rflags & RFLAGS_TF) != 0;
        regs.rflags |= RFLAGS_TF;
        nmi_blocking_ = NmiBlocking::stepping_over_iret;
        exit.reason = VmExit::Reason::host_interrupt;  // nothing to do but to go on
        return true;
    }
    if (nmi_blocking_ == NmiBlocking::stepping_over_iret) {
        // Any exit means that IRET has completed, or faulted, which unblocks NMIs as well.
        nmi_blocking_ = NmiBlocking::none;
        if (exit.reason == VmExit::Reason::exception && exit.exception.vector == EXCEPTION_DB &&
            !guest_trap_flag_) {
            vmcb_->save.dr6 &= ~DR6_BS;
            dirty(Clean::debug_registers);
            exit.reason = VmExit::Reason::nmi_window;
        }
        return true;
    }
    return false;
}

void SvmVcpu::get_state(CpuState& out, RegSet which) const {
    const VmcbSave& s = vmcb_->save;
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
        for (unsigned i = 0; i < 4; ++i)
            out.dr[i] = dr_[i];
        if (on_cpu_) {
            out.dr[0] = cpu::read_dr0();
            out.dr[1] = cpu::read_dr1();
            out.dr[2] = cpu::read_dr2();
            out.dr[3] = cpu::read_dr3();
        }
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

void SvmVcpu::set_state(const CpuState& in, RegSet which) {
    VmcbSave& s = vmcb_->save;
    if (includes(which, RegSet::control)) {
        s.cr0 = in.cr0;
        s.cr2 = in.cr2;
        s.cr3 = in.cr3;
        s.cr4 = in.cr4;
        s.efer = in.efer | EFER_SVME;
        dirty(Clean::control_registers);
        dirty(Clean::cr2);
        needs_asid_ = true;
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
        for (unsigned i = 0; i < 4; ++i)
            dr_[i] = in.dr[i];
        if (on_cpu_) {
            cpu::write_dr0(in.dr[0]);
            cpu::write_dr1(in.dr[1]);
            cpu::write_dr2(in.dr[2]);
            cpu::write_dr3(in.dr[3]);
        }
        s.dr6 = in.dr6;
        s.dr7 = in.dr7;
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
}

bool SvmVcpu::inject(const Event& event) {
    VmcbControl& c = vmcb_->control;
    if (EventInjection::Valid::test(c.event_injection))
        return false;
    if (event.type == Event::Type::external_interrupt &&
        ((regs.rflags & RFLAGS_IF) == 0 || interrupt_shadow()))
        return false;
    if (event.type == Event::Type::nmi) {
        if (nmi_blocking_ != NmiBlocking::none || interrupt_shadow())
            return false;
        nmi_blocking_ = NmiBlocking::until_iret;
        c.intercepts[0] |= 1U << kIretIntercept;
        dirty(Clean::intercepts);
    }
    c.event_injection = encode_event(event);
    return true;
}

void SvmVcpu::request_window(Event::Type type) {
    // While NMIs are blocked the IRET intercept is on already; under an interrupt shadow the VINTR exit comes
    // after it.
    if (type == Event::Type::nmi && nmi_blocking_ != NmiBlocking::none)
        return;
    VmcbControl& c = vmcb_->control;
    c.virtual_interrupt |= VirtualInterrupt::Pending::kMask | VirtualInterrupt::IgnoreTpr::kMask |
                           VirtualInterrupt::Priority::kMask;
    dirty(Clean::tpr);
    set_intercept(Intercept::vintr, true);
}

void SvmVcpu::set_tsc_offset(std::int64_t offset) {
    vmcb_->control.tsc_offset = static_cast<std::uint64_t>(offset);
    dirty(Clean::intercepts);
}

void SvmVcpu::set_tsc_aux(std::uint64_t value) {
    tsc_aux_ = value;
    if (on_cpu_)
        cpu::wrmsr(static_cast<std::uint32_t>(Msr::IA32_TSC_AUX), value);
}

std::uint64_t SvmVcpu::tsc_aux() const {
    return on_cpu_ ? cpu::rdmsr(static_cast<std::uint32_t>(Msr::IA32_TSC_AUX)) : tsc_aux_;
}

void SvmVcpu::enter_cpu() {
    HV_ASSERT(!on_cpu_);
    on_cpu_ = true;
    host_state_ = extension_.host_state();
    // Another CPU's caches know nothing of this VMCB, and its ASIDs are others.
    vmcb_->control.clean = 0;
    if (asid_cpu_ != machine::cpu_index() || asid_generation_ != extension_.asid_generation())
        needs_asid_ = true;
    fpu_.load();
    cpu::write_dr0(dr_[0]);
    cpu::write_dr1(dr_[1]);
    cpu::write_dr2(dr_[2]);
    cpu::write_dr3(dr_[3]);
    cpu::wrmsr(static_cast<std::uint32_t>(Msr::IA32_TSC_AUX), tsc_aux_);
}

void SvmVcpu::leave_cpu() {
    HV_ASSERT(on_cpu_);
    tsc_aux_ = tsc_aux();
    dr_[0] = cpu::read_dr0();
    dr_[1] = cpu::read_dr1();
    dr_[2] = cpu::read_dr2();
    dr_[3] = cpu::read_dr3();
    fpu_.save();
    on_cpu_ = false;
}

void SvmVcpu::log_state() const {
    const auto u = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
    const VmcbSave& s = vmcb_->save;
    const VmcbControl& c = vmcb_->control;
    log::error(log::Topic::svm, "exit %llx info %llx %llx int %llx", u(c.exit_code), u(c.exit_info1),
               u(c.exit_info2), u(c.exit_int_info));
    log::error(log::Topic::svm, "rip %llx rsp %llx rax %llx rflags %llx cpl %u", u(s.rip), u(s.rsp), u(s.rax),
               u(s.rflags), s.cpl);
    log::error(log::Topic::svm, "cr0 %llx cr2 %llx cr3 %llx cr4 %llx efer %llx", u(s.cr0), u(s.cr2), u(s.cr3),
               u(s.cr4), u(s.efer));
    log::error(log::Topic::svm, "cs %x/%llx/%x/%x ss %x/%llx/%x/%x", s.cs.selector, u(s.cs.base), s.cs.limit,
               s.cs.attributes, s.ss.selector, u(s.ss.base), s.ss.limit, s.ss.attributes);
    log::error(log::Topic::svm, "gdtr %llx/%x idtr %llx/%x tr %x/%llx/%x", u(s.gdtr.base), s.gdtr.limit,
               u(s.idtr.base), s.idtr.limit, s.tr.selector, u(s.tr.base), s.tr.attributes);
}

}  // namespace hv::svm
