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

#include <algorithm>
#include <new>

namespace hv::svm {
namespace {

void read_debug_addresses(std::uint64_t (&dr)[4]) {
    dr[0] = cpu::read_dr0();
    dr[1] = cpu::read_dr1();
    dr[2] = cpu::read_dr2();
    dr[3] = cpu::read_dr3();
}

void write_debug_addresses(const std::uint64_t (&dr)[4]) {
    cpu::write_dr0(dr[0]);
    cpu::write_dr1(dr[1]);
    cpu::write_dr2(dr[2]);
    cpu::write_dr3(dr[3]);
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
      vmcb_address_{vmcb},
      fpu_{std::move(fpu)},
      vmcb_{*machine::hva<Vmcb>(vmcb),
            {extension.assists(), extension.has_clean_bits(), extension.has_pause_filter(),
             extension.io_permissions(), extension.msr_permissions(), space.root()}} {
    regs.rip = 0xfff0;
    regs.rflags = RFLAGS_FIXED;
}

SvmVcpu::~SvmVcpu() {
    extension_.frames().free(vmcb_address_, 0);
}

void SvmVcpu::take_asid() {
    space_generation_ = space_.generation();
    const Asid asid = extension_.next_asid();
    vmcb_.set_asid(asid.value, asid.flush_all ? TlbControl::flush_all : TlbControl::nothing);
    asid_cpu_ = machine::cpu_index();
    asid_generation_ = asid.generation;
    needs_asid_ = false;
}

void SvmVcpu::run() {
    if (space_.generation() != space_generation_ || needs_asid_) [[unlikely]]
        take_asid();
    vmcb_.enter(regs);
    svm_enter(&regs, vmcb_address_, host_state_);
    vmcb_.leave(regs, exit);
    if (exit.reason == VmExit::Reason::exception) [[unlikely]]
        look_for_machine_check();
}

void SvmVcpu::look_for_machine_check() const {
    if (exit.exception.vector == EXCEPTION_MC)
        panic("machine check while a guest ran");
}

void SvmVcpu::request_window(Event::Type type) {
    // Interrupts are masked until VMRUN, and exit from the guest as soon as the injected event is delivered.
    if (vmcb_.request_window(type) == GuestVmcb::Window::at_once)
        machine::kick_cpu(machine::cpu_index());
}

void SvmVcpu::get_state(CpuState& out, RegSet which) const {
    vmcb_.get_state(out, which);
    if (!includes(which, RegSet::debug))
        return;
    if (on_cpu_)
        read_debug_addresses(out.dr);
    else
        std::copy_n(dr_, 4, out.dr);
}

void SvmVcpu::set_state(const CpuState& in, RegSet which) {
    if (vmcb_.set_state(in, which))
        needs_asid_ = true;
    if (!includes(which, RegSet::debug))
        return;
    std::copy_n(in.dr, 4, dr_);
    if (on_cpu_)
        write_debug_addresses(dr_);
}

void SvmVcpu::reset() {
    fpu_.reset();
    set_tsc_aux(0);
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
    vmcb_.arrive();
    const bool arrived = asid_cpu_ != machine::cpu_index();
    if (arrived || asid_generation_ != extension_.asid_generation())
        needs_asid_ = true;  // another CPU's ASIDs are others
    extension_.separate_vms(space_.root(), arrived);
    fpu_.load();
    write_debug_addresses(dr_);
    cpu::wrmsr(static_cast<std::uint32_t>(Msr::IA32_TSC_AUX), tsc_aux_);
}

void SvmVcpu::leave_cpu() {
    HV_ASSERT(on_cpu_);
    tsc_aux_ = tsc_aux();
    read_debug_addresses(dr_);
    fpu_.save();
    on_cpu_ = false;
}

void SvmVcpu::log_state() const {
    const auto u = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
    const auto* vmcb = machine::hva<Vmcb>(vmcb_address_);
    const VmcbSave& s = vmcb->save;
    const VmcbControl& c = vmcb->control;
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
