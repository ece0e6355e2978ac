// SPDX-License-Identifier: MIT
// What the VMM does about each kind of exit. Decoding an exit is the backends' work:
// arch/x86_64/{vmx,svm}/exit_decode.*.
#include "arch/x86_64/defs/cr.hpp"
#include "vmm/base/log.hpp"
#include "vmm/base/machine.hpp"
#include "vmm/base/text.hpp"
#include "vmm/core/cpu_loop.hpp"
#include "vmm/core/vcpu.hpp"
#include "vmm/x86/finish_instruction.hpp"

namespace hv {

using x86::Operation;

namespace {

/// A VM that is restarted when it crashes can do so all the time.
constinit log::RateLimit crash_log;

}  // namespace

const char* to_string(VmExit::Reason reason) {
    using Reason = VmExit::Reason;
    switch (reason) {
    case Reason::host_interrupt: return "host interrupt";
    case Reason::interrupt_window: return "interrupt window";
    case Reason::nmi_window: return "NMI window";
    case Reason::cpuid: return "CPUID";
    case Reason::rdmsr: return "RDMSR";
    case Reason::wrmsr: return "WRMSR";
    case Reason::apic_write: return "APIC write";
    case Reason::apic_eoi: return "APIC EOI";
    case Reason::io: return "I/O";
    case Reason::nested_fault: return "nested fault";
    case Reason::vmcall: return "VMCALL";
    case Reason::hlt: return "HLT";
    case Reason::pause: return "PAUSE";
    case Reason::cr_access: return "CR access";
    case Reason::dr_access: return "DR access";
    case Reason::xsetbv: return "XSETBV";
    case Reason::invd: return "INVD";
    case Reason::invlpg: return "INVLPG";
    case Reason::task_switch: return "task switch";
    case Reason::exception: return "exception";
    case Reason::undefined: return "undefined instruction";
    case Reason::shutdown: return "shutdown";
    case Reason::init_signal: return "INIT";
    case Reason::invalid_state: return "invalid state";
    case Reason::unhandled: return "unhandled";
    }
    return "?";
}

Vcpu::Next Vcpu::handle(const VmExit& exit) {
    using Reason = VmExit::Reason;
    if (exit.interrupted.pending() || exit.reason == Reason::exception) [[unlikely]] {
        events_.reinject(exit.interrupted);
        // An event whose delivery exits again and again would be injected each time before the processor
        // looks at physical interrupts: they are let in here, so that no guest keeps a CPU for itself.
        machine::let_interrupts_in();
        if (loop_->wants_cpu()) {
            const Next next = handle_reason(exit);
            return next == Next::enter ? Next::leave_cpu : next;
        }
    }
    return handle_reason(exit);
}

Vcpu::Next Vcpu::handle_reason(const VmExit& exit) {
    using Reason = VmExit::Reason;
    switch (exit.reason) {
    case Reason::host_interrupt:
        machine::let_interrupts_in();
        return loop_->wants_cpu() ? Next::leave_cpu : Next::enter;
    case Reason::interrupt_window:
    case Reason::nmi_window: return Next::enter;  // prepare() injects
    case Reason::cpuid: handle_cpuid(exit); return Next::enter;
    case Reason::rdmsr: handle_rdmsr(exit); return Next::enter;
    case Reason::wrmsr: handle_wrmsr(exit); return Next::enter;
    case Reason::apic_write: apic_.finish_write(exit.apic.offset); return Next::enter;
    case Reason::apic_eoi: apic_.finish_eoi(exit.apic.vector); return Next::enter;
    case Reason::io: return handle_io(exit);
    case Reason::nested_fault: return handle_nested_fault(exit);
    case Reason::vmcall: handle_vmcall(exit); return Next::enter;
    case Reason::hlt: return handle_halt(exit);
    case Reason::pause: return skip<Operation::pause>(exit) ? Next::yield : Next::enter;
    case Reason::cr_access: return handle_cr_access(exit);
    case Reason::xsetbv: handle_xsetbv(exit); return Next::enter;
    case Reason::invd: handle_cache_flush(exit); return Next::enter;
    case Reason::exception: events_.raise(exit.exception); return Next::enter;
    case Reason::undefined: raise_undefined(); return Next::enter;
    case Reason::shutdown: return crash("triple fault", exit);
    case Reason::init_signal: return Next::enter;
    case Reason::invalid_state: return crash("the processor refused the guest's state", exit);
    case Reason::dr_access:
    case Reason::invlpg:
    case Reason::task_switch:
    case Reason::unhandled: break;
    }
    return crash("an exit that is not handled", exit);
}

template <Operation Op>
bool Vcpu::skip(const VmExit& exit) {
    const unsigned length = exit.instruction_length != 0 ? exit.instruction_length : fetcher_.length<Op>();
    if (length == 0) [[unlikely]]
        return false;
    x86::finish_instruction(*backend_, events_, length);
    return true;
}

void Vcpu::handle_cpuid(const VmExit& exit) {
    VcpuRegs& regs = backend_->regs;
    const auto leaf = static_cast<std::uint32_t>(regs.gpr[RAX]);
    const auto subleaf = static_cast<std::uint32_t>(regs.gpr[RCX]);
    if (!skip<Operation::cpuid>(exit)) [[unlikely]]
        return;
    const CpuidRegs result = environment_.cpuid.lookup(leaf, subleaf, *backend_, index_, apic_.apic_base());
    regs.gpr[RAX] = result.eax;
    regs.gpr[RBX] = result.ebx;
    regs.gpr[RCX] = result.ecx;
    regs.gpr[RDX] = result.edx;
}

void Vcpu::handle_rdmsr(const VmExit& exit) {
    VcpuRegs& regs = backend_->regs;
    const auto value = msrs_.read(static_cast<std::uint32_t>(regs.gpr[RCX]));
    if (!value) {
        raise_general_protection();
        return;
    }
    if (!skip<Operation::rdmsr>(exit)) [[unlikely]]
        return;
    regs.gpr[RAX] = static_cast<std::uint32_t>(*value);
    regs.gpr[RDX] = *value >> 32;
}

void Vcpu::handle_wrmsr(const VmExit& exit) {
    VcpuRegs& regs = backend_->regs;
    const unsigned length =
        exit.instruction_length != 0 ? exit.instruction_length : fetcher_.length<Operation::wrmsr>();
    if (length == 0) [[unlikely]]
        return;
    const std::uint64_t value = regs.gpr[RDX] << 32 | static_cast<std::uint32_t>(regs.gpr[RAX]);
    if (!msrs_.write(static_cast<std::uint32_t>(regs.gpr[RCX]), value)) {
        raise_general_protection();
        return;
    }
    x86::finish_instruction(*backend_, events_, length);
}

/// KVM's hypercalls, as Linux' documentation of them numbers their results. None of the optional ones is
/// offered.
void Vcpu::handle_vmcall(const VmExit& exit) {
    constexpr std::int64_t kNotPermitted = -1, kNoSuchCall = -1000;
    if (!skip<Operation::vmmcall>(exit)) [[unlikely]]
        return;
    CpuState state;
    backend_->get_state(state, RegSet::segments);
    backend_->regs.gpr[RAX] = static_cast<std::uint64_t>(state.cpl() != 0 ? kNotPermitted : kNoSuchCall);
}

void Vcpu::handle_xsetbv(const VmExit& exit) {
    const unsigned length =
        exit.instruction_length != 0 ? exit.instruction_length : fetcher_.length<Operation::xsetbv>();
    if (length == 0) [[unlikely]]
        return;
    const VcpuRegs& regs = backend_->regs;
    const std::uint64_t value = regs.gpr[RDX] << 32 | static_cast<std::uint32_t>(regs.gpr[RAX]);
    const auto result = control_registers_.set_extended(static_cast<std::uint32_t>(regs.gpr[RCX]), value);
    if (result)
        x86::finish_instruction(*backend_, events_, length);
    else if (result.error() == Error::not_found)
        raise_undefined();
    else
        raise_general_protection();
}

/// Guest RAM is write-back and coherent: there is nothing to flush.
void Vcpu::handle_cache_flush(const VmExit& exit) {
    // INVD and WBINVD have the same length but for prefixes; whichever it is, the other does not match.
    if (!skip<Operation::wbinvd>(exit))
        skip<Operation::invd>(exit);
}

/// MOV to and from CR, CLTS, LMSW, SMSW: the decoder tells which, unless the exit does.
Vcpu::Next Vcpu::handle_cr_access(const VmExit& exit) {
    CpuState state;
    backend_->get_state(state, RegSet::control | RegSet::segments);
    const auto fetched = fetcher_.fetch(state);
    using Status = x86::InstructionFetcher::Fetched::Status;
    if (fetched.status != Status::ok) {
        if (fetched.status == Status::page_fault)
            events_.raise_page_fault(*backend_, fetched.error_code, fetched.linear);
        else if (fetched.status != Status::retry)
            return crash("a control register access that cannot be decoded", exit);
        return Next::enter;
    }
    const x86::Instruction instruction = *fetched.instruction;
    const auto result = access_control_register(instruction);
    if (result)
        x86::finish_instruction(*backend_, events_, instruction.length);
    else if (result.error() == Error::not_found)
        raise_undefined();
    else if (result.error() == Error::guest_fault)
        raise_general_protection();
    else
        return crash("a control register access that cannot be decoded", exit);
    return Next::enter;
}

/// Error::guest_fault: #GP(0); Error::not_found: #UD; Error::unsupported: another instruction.
Expected<void> Vcpu::access_control_register(const x86::Instruction& in) {
    constexpr unsigned kTaskPriority = 8;
    VcpuRegs& regs = backend_->regs;
    // Outside 64-bit mode the operand has 32 bits.
    const std::uint64_t source = regs.gpr[in.rm & 15] & all_ones(in.operand_size);
    switch (in.operation) {
    case Operation::mov_to_cr:
        if (in.reg != kTaskPriority)
            return control_registers_.write(in.reg, source);
        if (source > 0xf)
            return Unexpected{Error::guest_fault};
        apic_.set_tpr(static_cast<std::uint8_t>(source << 4));
        return {};
    case Operation::mov_from_cr:
        regs.gpr[in.rm] =
            in.reg == kTaskPriority ? apic_.tpr() >> 4 : HV_TRY(control_registers_.read(in.reg));
        return {};
    case Operation::clts: return control_registers_.clear_task_switched();
    case Operation::lmsw:
        if (in.memory)
            return Unexpected{Error::unsupported};
        return control_registers_.load_machine_status_word(static_cast<std::uint16_t>(regs.gpr[in.rm]));
    default: return Unexpected{Error::unsupported};
    }
}

Vcpu::Next Vcpu::handle_io(const VmExit& exit) {
    if (exit.io.string)
        return handle_emulation(emulator_.emulate(), exit);
    VcpuRegs& regs = backend_->regs;
    if (exit.io.in) {
        const std::uint64_t value = environment_.ports.read(exit.io.port, exit.io.size);
        const std::uint64_t mask = all_ones(exit.io.size);
        // IN EAX clears the upper half of RAX, the shorter forms leave the rest of it alone.
        regs.gpr[RAX] = exit.io.size == 4 ? value & mask : (regs.gpr[RAX] & ~mask) | (value & mask);
    } else {
        environment_.ports.write(exit.io.port, exit.io.size, regs.gpr[RAX] & all_ones(exit.io.size));
    }
    x86::finish_instruction(*backend_, events_, exit.instruction_length);
    return Next::enter;
}

Vcpu::Next Vcpu::handle_nested_fault(const VmExit& exit) {
    if (environment_.memory.contains(exit.fault.gpa, 1)) [[unlikely]]
        return crash("RAM that is not mapped", exit);
    if (exit.fault.execute)
        return crash("instruction fetch outside RAM", exit);
    // It is not the instruction at RIP that made the access. A real processor would end in shutdown.
    if (exit.interrupted.pending())
        return crash("an event's delivery reaches outside RAM (IDT, TSS or stack)", exit);
    if (exit.fault.during_walk)
        return crash("page tables outside RAM", exit);
    return handle_emulation(emulator_.emulate_mmio(exit.fault), exit);
}

Vcpu::Next Vcpu::handle_emulation(x86::Emulator::Result result, const VmExit& exit) {
    if (result != x86::Emulator::Result::unsupported) [[likely]]
        return Next::enter;
    TextBuffer<96> text;
    text.append("an instruction that cannot be emulated:");
    for (const std::uint8_t byte : emulator_.bytes())
        text.append(" %02x", byte);
    return crash(text.view(), exit);
}

Vcpu::Next Vcpu::handle_halt(const VmExit& exit) {
    if (!skip<Operation::hlt>(exit)) [[unlikely]]
        return Next::enter;
    if (wakes_from_halt() || events_.wakes())
        return Next::enter;
    activity_ = Activity::halted;
    return Next::block;
}

// The buses answer for what nobody claims.
bool Vcpu::mmio_read(Gpa gpa, unsigned size, std::uint64_t& value) {
    value = apic_.mmio_enabled() && gpa.page() == apic_.base() ? apic_.mmio_read(gpa.page_offset(), size)
                                                               : environment_.mmio.read(gpa.raw, size);
    return true;
}

bool Vcpu::mmio_write(Gpa gpa, unsigned size, std::uint64_t value) {
    if (apic_.mmio_enabled() && gpa.page() == apic_.base())
        apic_.mmio_write(gpa.page_offset(), size, value);
    else
        environment_.mmio.write(gpa.raw, size, value);
    return true;
}

bool Vcpu::port_read(std::uint16_t port, unsigned size, std::uint64_t& value) {
    value = environment_.ports.read(port, size);
    return true;
}

bool Vcpu::port_write(std::uint16_t port, unsigned size, std::uint64_t value) {
    environment_.ports.write(port, size, value);
    return true;
}

Vcpu::Next Vcpu::crash(std::string_view what, const VmExit& exit) {
    const auto u = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
    if (crash_log.admit()) {
        log::error(log::Topic::vm, "%s: %.*s (%s, code 0x%llx, 0x%llx, 0x%llx) at rip 0x%llx", name(),
                   static_cast<int>(what.size()), what.data(), to_string(exit.reason), u(exit.raw.code),
                   u(exit.raw.info1), u(exit.raw.info2), u(backend_->regs.rip));
        backend_->log_state();
    }
    environment_.control.request_stop(VmStop::crashed, 0);
    return Next::park;
}

}  // namespace hv
