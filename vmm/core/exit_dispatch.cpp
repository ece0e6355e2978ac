// SPDX-License-Identifier: MIT
// What the VMM does about each kind of exit. Decoding an exit is the backends' work:
// arch/x86_64/{vmx,svm}/exit_decode.*.
#include "arch/x86_64/defs/cr.hpp"
#include "arch/x86_64/defs/msr.hpp"
#include "vmm/base/log.hpp"
#include "vmm/base/machine.hpp"
#include "vmm/base/text.hpp"
#include "vmm/core/cpu_loop.hpp"
#include "vmm/core/spare_memory.hpp"
#include "vmm/core/vcpu.hpp"
#include "vmm/x86/finish_instruction.hpp"
#include "vmm/x86/hypercalls.hpp"

namespace hv {

using x86::Operation;

namespace {

/// A VM that is restarted when it crashes can do so all the time.
constinit log::RateLimit crash_log;

/// WRMSR's operands.
std::uint32_t written_msr(const VcpuRegs& regs) {
    return static_cast<std::uint32_t>(regs.gpr[RCX]);
}
std::uint64_t written_value(const VcpuRegs& regs) {
    return regs.gpr[RDX] << 32 | static_cast<std::uint32_t>(regs.gpr[RAX]);
}

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
    case Reason::int1: return "INT1";
    case Reason::undefined: return "undefined instruction";
    case Reason::shutdown: return "shutdown";
    case Reason::init_signal: return "INIT";
    case Reason::invalid_state: return "invalid state";
    case Reason::unhandled: return "unhandled";
    }
    return "?";
}

Vcpu::Next Vcpu::handle(const VmExit& exit) {
    ++exits_.data()[static_cast<unsigned>(exit.reason)];  // unchecked: the enumerators are the indices
    if (exit.interrupted.pending() || exit.reason == VmExit::Reason::exception) [[unlikely]]
        return handle_interrupted(exit);
    return handle_reason(exit);
}

Vcpu::Next Vcpu::handle_interrupted(const VmExit& exit) {
    events_.reinject(exit.interrupted);
    // An event whose delivery exits again and again would be injected each time before the processor
    // looks at physical interrupts: they are let in here, so that no guest keeps a CPU for itself.
    machine::let_interrupts_in();
    // With them memory may have left, before this exit is handled.
    if ((signals_.fetch_and(~kSignalMemory, std::memory_order_acquire) & kSignalMemory) != 0)
        fetcher_.forget();
    const bool wanted = loop_->wants_cpu();
    const Next next = handle_reason(exit);
    return wanted && next == Next::enter ? Next::leave_cpu : next;
}

/// Each case is a tail call.
[[gnu::always_inline]] inline Vcpu::Next Vcpu::handle_reason(const VmExit& exit) {
    using Reason = VmExit::Reason;
    switch (exit.reason) {
    case Reason::host_interrupt: return handle_host_interrupt();
    case Reason::interrupt_window:
    case Reason::nmi_window: return look_again();
    case Reason::cpuid: return handle_cpuid(exit);
    case Reason::rdmsr: return handle_rdmsr(exit);
    case Reason::wrmsr:
        if (written_msr(backend_->regs) == static_cast<std::uint32_t>(Msr::IA32_TSC_DEADLINE))
            return handle_tsc_deadline(exit);  // the most frequent one
        return handle_wrmsr(exit);
    case Reason::apic_write:
    case Reason::apic_eoi: return handle_apic(exit);
    case Reason::io: return handle_io(exit);
    case Reason::nested_fault: return handle_nested_fault(exit);
    case Reason::vmcall: return handle_vmcall(exit);
    case Reason::hlt: return handle_halt(exit);
    case Reason::pause: return handle_pause(exit);
    case Reason::cr_access: return handle_cr_access(exit);
    case Reason::xsetbv: return handle_xsetbv(exit);
    case Reason::invd: return handle_cache_flush(exit);
    case Reason::exception: return handle_exception(exit);
    case Reason::undefined: return raise_undefined();
    case Reason::shutdown: return crash("triple fault", exit);
    case Reason::init_signal: return Next::enter;
    case Reason::invalid_state: return crash("the processor refused the guest's state", exit);
    case Reason::task_switch: return handle_task_switch(exit);
    case Reason::int1: return handle_int1(exit);
    case Reason::invlpg: return handle_invlpg(exit);
    case Reason::dr_access:
    case Reason::unhandled: break;
    }
    return crash("an exit that is not handled", exit);
}

// Out of line: a local Event would cost every exit a stack frame with its guard.
Vcpu::Next Vcpu::raise(const Event& exception) {
    events_.raise(exception);
    return Next::enter;
}

Vcpu::Next Vcpu::raise_general_protection() {
    return raise(Event::exception(EXCEPTION_GP, 0));
}

Vcpu::Next Vcpu::raise_undefined() {
    return raise(Event::exception(EXCEPTION_UD));
}

Vcpu::Next Vcpu::handle_apic(const VmExit& exit) {
    if (exit.reason == VmExit::Reason::apic_write)
        apic_.finish_write(exit.apic.offset);
    else
        apic_.finish_eoi(exit.apic.vector);
    return look_again();
}

Vcpu::Next Vcpu::handle_pause(const VmExit& exit) {
    return skip<Operation::pause>(exit) ? Next::yield : Next::enter;
}

Vcpu::Next Vcpu::handle_host_interrupt() {
    machine::let_interrupts_in();
    return loop_->wants_cpu() ? Next::leave_cpu : look_again();
}

template <Operation Op>
unsigned Vcpu::known_length(const VmExit& exit) const {
    return exit.instruction_length != 0 ? exit.instruction_length : fetcher_.known_length<Op>();
}

template <Operation Op>
unsigned Vcpu::length_of(const VmExit& exit) {
    return exit.instruction_length != 0 ? exit.instruction_length : fetcher_.length<Op>();
}

template <Operation Op>
bool Vcpu::skip(const VmExit& exit) {
    const unsigned length = length_of<Op>(exit);
    if (length == 0) [[unlikely]]
        return false;
    x86::finish_instruction(*backend_, events_, length);
    return true;
}

Vcpu::Next Vcpu::handle_cpuid(const VmExit& exit) {
    VcpuRegs& regs = backend_->regs;
    const CpuidRegs* answer = environment_.cpuid.constant(static_cast<std::uint32_t>(regs.gpr[RAX]),
                                                          static_cast<std::uint32_t>(regs.gpr[RCX]));
    const unsigned length = known_length<Operation::cpuid>(exit);
    if (answer == nullptr || length == 0 || msrs_.limits_cpuid()) [[unlikely]]
        return handle_cpuid_slowly(exit);
    return answer_cpuid(*answer, length);
}

inline Vcpu::Next Vcpu::answer_cpuid(const CpuidRegs& answer, unsigned length) {
    VcpuRegs& regs = backend_->regs;
    regs.gpr[RAX] = answer.eax;
    regs.gpr[RBX] = answer.ebx;
    regs.gpr[RCX] = answer.ecx;
    regs.gpr[RDX] = answer.edx;
    x86::finish_instruction(*backend_, events_, length);
    return Next::enter;
}

Vcpu::Next Vcpu::handle_cpuid_slowly(const VmExit& exit) {
    const VcpuRegs& regs = backend_->regs;
    const unsigned length = length_of<Operation::cpuid>(exit);
    if (length == 0) [[unlikely]]
        return Next::enter;
    const auto leaf = static_cast<std::uint32_t>(regs.gpr[RAX]);
    const auto subleaf = static_cast<std::uint32_t>(regs.gpr[RCX]);
    CpuidRegs answer = environment_.cpuid.lookup(leaf, subleaf, *backend_, index_, apic_.apic_base());
    if (msrs_.limits_cpuid())
        msrs_.limit_cpuid(leaf, answer);
    return answer_cpuid(answer, length);
}

Vcpu::Next Vcpu::handle_rdmsr(const VmExit& exit) {
    VcpuRegs& regs = backend_->regs;
    const auto value = msrs_.read(static_cast<std::uint32_t>(regs.gpr[RCX]));
    if (!value)
        return raise_general_protection();
    if (!skip<Operation::rdmsr>(exit)) [[unlikely]]
        return Next::enter;
    regs.gpr[RAX] = static_cast<std::uint32_t>(*value);
    regs.gpr[RDX] = *value >> 32;
    return Next::enter;
}

Vcpu::Next Vcpu::handle_wrmsr(const VmExit& exit) {
    const VcpuRegs& regs = backend_->regs;
    const unsigned length = length_of<Operation::wrmsr>(exit);
    if (length == 0) [[unlikely]]
        return Next::enter;
    if (!msrs_.write(written_msr(regs), written_value(regs)))
        return raise_general_protection();
    x86::finish_instruction(*backend_, events_, length);
    return Next::enter;
}

Vcpu::Next Vcpu::handle_tsc_deadline(const VmExit& exit) {
    const std::uint64_t deadline = written_value(backend_->regs);
    if (skip<Operation::wrmsr>(exit)) [[likely]]
        apic_.set_tsc_deadline(deadline);
    return Next::enter;
}

Vcpu::Next Vcpu::handle_vmcall(const VmExit& exit) {
    if (!skip<Operation::vmmcall>(exit)) [[unlikely]]
        return Next::enter;
    backend_->regs.gpr[RAX] =
        static_cast<std::uint64_t>(x86::hypercall(environment_.cpuid.cpu(), *backend_, environment_.fabric));
    return Next::enter;
}

Vcpu::Next Vcpu::handle_xsetbv(const VmExit& exit) {
    const unsigned length = length_of<Operation::xsetbv>(exit);
    if (length == 0) [[unlikely]]
        return Next::enter;
    const VcpuRegs& regs = backend_->regs;
    const std::uint64_t value = regs.gpr[RDX] << 32 | static_cast<std::uint32_t>(regs.gpr[RAX]);
    const auto result = control_registers_.set_extended(static_cast<std::uint32_t>(regs.gpr[RCX]), value);
    if (!result)
        return result.error() == Error::not_found ? raise_undefined() : raise_general_protection();
    x86::finish_instruction(*backend_, events_, length);
    return Next::enter;
}

/// Guest RAM is write-back and coherent: there is nothing to flush.
Vcpu::Next Vcpu::handle_cache_flush(const VmExit& exit) {
    // INVD and WBINVD have the same length but for prefixes; whichever it is, the other does not match.
    if (!skip<Operation::wbinvd>(exit))
        skip<Operation::invd>(exit);
    return Next::enter;
}

/// MOV to and from CR, CLTS, LMSW, SMSW: the decoder tells which, unless the exit does.
Vcpu::Next Vcpu::handle_cr_access(const VmExit& exit) {
    Next failure{};
    const x86::Instruction* fetched = fetch_instruction(exit, failure);
    if (fetched == nullptr)
        return failure;
    const x86::Instruction instruction = *fetched;
    if (instruction.operation == Operation::lmsw && instruction.memory) [[unlikely]]
        return load_status_word(instruction, exit);
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

/// LMSW has a register here. Error::guest_fault: #GP(0); Error::not_found: #UD; Error::unsupported: another
/// instruction.
Expected<void> Vcpu::access_control_register(const x86::Instruction& in) {
    constexpr unsigned kTaskPriority = 8;
    VcpuRegs& regs = backend_->regs;
    // LOCK names CR8 outside 64-bit mode, on AMD's processors [apm3 4 MOV CRn].
    const unsigned number = in.lock ? kTaskPriority : in.reg;
    // Outside 64-bit mode the operand has 32 bits.
    const std::uint64_t source = regs.gpr[in.rm & 15] & all_ones(in.operand_size);
    switch (in.operation) {
    case Operation::mov_to_cr:
        if (number != kTaskPriority)
            return control_registers_.write(number, source);
        if (source > 0xf)
            return Unexpected{Error::guest_fault};
        apic_.set_tpr(static_cast<std::uint8_t>(source << 4));
        return {};
    case Operation::mov_from_cr:
        regs.gpr[in.rm] =
            number == kTaskPriority ? apic_.tpr() >> 4 : HV_TRY(control_registers_.read(number));
        return {};
    case Operation::clts: return control_registers_.clear_task_switched();
    case Operation::lmsw:
        return control_registers_.load_machine_status_word(static_cast<std::uint16_t>(regs.gpr[in.rm]));
    default: return Unexpected{Error::unsupported};
    }
}

Vcpu::Next Vcpu::handle_io(const VmExit& exit) {
    if (exit.io.string()) [[unlikely]]
        return handle_string_io(exit);
    std::uint64_t& rax = backend_->regs.gpr[RAX];
    if (exit.io.in()) {
        const std::uint64_t value = environment_.ports.read(exit.io.port(), exit.io.size());
        switch (
            exit.io.size()) {  // IN EAX clears the upper half of RAX, the shorter forms leave the rest alone
        case 1: rax = (rax & ~std::uint64_t{0xff}) | static_cast<std::uint8_t>(value); break;
        case 2: rax = (rax & ~std::uint64_t{0xffff}) | static_cast<std::uint16_t>(value); break;
        default: rax = static_cast<std::uint32_t>(value);
        }
    } else {
        environment_.ports.write(exit.io.port(), exit.io.size(), rax & all_ones(exit.io.size()));
    }
    x86::finish_instruction(*backend_, events_, exit.instruction_length);
    if (x86::Breakpoints::enabled(exit.dr7)) [[unlikely]]
        meet_port_breakpoints(exit.io);
    return Next::enter;
}

Vcpu::Next Vcpu::handle_nested_fault(const VmExit& exit) {
    if (environment_.memory.is_ram(exit.fault.gpa)) [[unlikely]]
        return handle_absent_memory(exit);
    if (exit.fault.execute)
        return crash("instruction fetch outside RAM", exit);
    // It is not the instruction at RIP that made the access. A real processor would end in shutdown.
    if (exit.interrupted.pending())
        return crash("an event's delivery reaches outside RAM (IDT, TSS or stack)", exit);
    if (exit.fault.during_walk)
        return crash("page tables outside RAM", exit);
    if (x86::Breakpoints::enabled(exit.dr7)) [[unlikely]]
        return handle_emulation(emulator_.emulate_watched(), exit);
    return handle_emulation(emulator_.emulate_mmio(exit.fault), exit);
}

Vcpu::Next Vcpu::handle_absent_memory(const VmExit& exit) {
    if (environment_.spare == nullptr)
        return crash("RAM that is not mapped", exit);
    if (environment_.spare->resolve(exit.fault.gpa))
        return Next::enter;
    Clock& clock = environment_.clock;
    clock.arm(memory_retry_, clock.now() + clock.from_nanoseconds(kMemoryRetryNs));
    return Next::block;
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
    if (wakes_from_halt())
        return look_again();
    activity_ = Activity::halted;
    // It waits in its place once, which saves the way out and in again. What an interrupt brought that was
    // not for this vCPU finds the CPU free then; its kick came during the nap and does not come again.
    if (look_.load(std::memory_order_relaxed) || !loop_->nap())
        return Next::block;
    return loop_->wants_cpu() ? Next::leave_cpu : look_again();
}

// The buses answer for what nobody claims.
std::uint64_t Vcpu::mmio_read(Gpa gpa, unsigned size) {
    if (apic_.answers_at(gpa))
        return apic_.mmio_read(gpa.page_offset(), size);
    return environment_.mmio.read(gpa.raw, size);
}

void Vcpu::mmio_write(Gpa gpa, unsigned size, std::uint64_t value) {
    if (apic_.answers_at(gpa))
        return apic_.mmio_write(gpa.page_offset(), size, value);
    environment_.mmio.write(gpa.raw, size, value);
}

std::uint64_t Vcpu::port_read(std::uint16_t port, unsigned size) {
    return environment_.ports.read(port, size);
}

void Vcpu::port_write(std::uint16_t port, unsigned size, std::uint64_t value) {
    environment_.ports.write(port, size, value);
}

Vcpu::Next Vcpu::crash(std::string_view what, const VmExit& exit) {
    if (crash_log.admit()) {
        log::error(log::Topic::vm, "%s: %.*s (%s) at rip 0x%llx", name(), static_cast<int>(what.size()),
                   what.data(), to_string(exit.reason), static_cast<unsigned long long>(backend_->regs.rip));
        backend_->log_state();
    }
    environment_.control.request_stop(VmStop::crashed, 0);
    return Next::park;
}

}  // namespace hv
