// SPDX-License-Identifier: MIT
// Exits that few guests ever cause, apart from those whose cost counts.
#include "arch/x86_64/defs/cr.hpp"
#include "vmm/core/vcpu.hpp"
#include "vmm/x86/breakpoints.hpp"
#include "vmm/x86/finish_instruction.hpp"
#include "vmm/x86/task_switch.hpp"

namespace hv {

const x86::Instruction* Vcpu::fetch_instruction(const VmExit& exit, Next& failure) {
    CpuState state;
    backend_->get_state(state, RegSet::control | RegSet::segments);
    const auto fetched = fetcher_.fetch(state);
    using Status = x86::InstructionFetcher::Fetched::Status;
    failure = Next::enter;
    switch (fetched.status) {
    case Status::ok: return fetched.instruction;
    case Status::page_fault: events_.raise_page_fault(*backend_, fetched.error_code, fetched.linear); break;
    case Status::retry: break;
    case Status::invalid:
    case Status::not_memory: failure = crash("an instruction that cannot be decoded", exit); break;
    }
    return nullptr;
}

/// #UD exits since KVM's guests may use either vendor's hypercall instruction, and the processor knows its
/// own alone.
Vcpu::Next Vcpu::handle_exception(const VmExit& exit) {
    if (exit.exception.vector == EXCEPTION_UD) {
        CpuState state;
        backend_->get_state(state, RegSet::control | RegSet::segments);
        const auto fetched = fetcher_.fetch(state);
        using x86::Operation;
        if (fetched.status == x86::InstructionFetcher::Fetched::Status::ok && !fetched.instruction->lock &&
            (fetched.instruction->operation == Operation::vmcall ||
             fetched.instruction->operation == Operation::vmmcall)) {
            VmExit call = exit;
            call.reason = VmExit::Reason::vmcall;
            call.instruction_length = fetched.instruction->length;
            return handle_vmcall(call);
        }
    }
    return raise(exit.exception);
}

Vcpu::Next Vcpu::handle_string_io(const VmExit& exit) {
    return handle_emulation(
        x86::Breakpoints::enabled(exit.dr7) ? emulator_.emulate_watched() : emulator_.emulate(), exit);
}

/// After IN or OUT.
void Vcpu::meet_port_breakpoints(const IoExit& io) {
    CpuState state;
    backend_->get_state(state, RegSet::control | RegSet::debug);
    x86::Breakpoints breakpoints;
    breakpoints.begin(state);
    breakpoints.note_port(io.port(), io.size());
    breakpoints.raise(*backend_, events_);
}

/// LMSW with a memory operand, which VT-x has read already and AMD-V has not: it is read here for both.
Vcpu::Next Vcpu::load_status_word(const x86::Instruction& instruction, const VmExit& exit) {
    std::uint64_t value = 0;
    if (const auto result = emulator_.read_operand(instruction, value); result != x86::Emulator::Result::done)
        return handle_emulation(result, exit);
    if (!control_registers_.load_machine_status_word(static_cast<std::uint16_t>(value)))
        return raise_general_protection();
    x86::finish_instruction(*backend_, events_, instruction.length);
    return Next::enter;
}

Vcpu::Next Vcpu::handle_task_switch(const VmExit& exit) {
    unsigned length = exit.instruction_length;
    if (exit.task.instruction && length == 0) {
        Next failure{};
        const x86::Instruction* instruction = fetch_instruction(exit, failure);
        if (instruction == nullptr)
            return failure;
        length = instruction->length;
    }
    x86::TaskSwitcher switcher{environment_.cpuid.cpu(), *backend_, environment_.memory, events_, exit.task};
    if (switcher.run(length) == x86::Outcome::unsupported)
        return crash("a task switch reaches outside RAM (descriptor table or TSS)", exit);
    return Next::enter;
}

/// #DB without a condition in DR6 and, unlike INT n, without a look at the gate's DPL; RIP is behind it, and
/// a single step of INT1 itself is not reported [sdm2 3.3 INT n/INTO/INT3/INT1--Call to Interrupt Procedure].
Vcpu::Next Vcpu::handle_int1(const VmExit& exit) {
    unsigned length = exit.instruction_length;
    if (length == 0) {
        Next failure{};
        const x86::Instruction* instruction = fetch_instruction(exit, failure);
        if (instruction == nullptr)
            return failure;
        length = instruction->length;
    }
    VcpuRegs& regs = backend_->regs;
    const std::uint64_t trap_flag = regs.rflags & RFLAGS_TF;
    regs.rflags &= ~RFLAGS_TF;
    x86::finish_instruction(*backend_, events_, length);
    regs.rflags |= trap_flag;
    events_.raise(Event::exception(EXCEPTION_DB));
    return Next::enter;
}

Vcpu::Next Vcpu::handle_invlpg(const VmExit& exit) {
    Next failure{};
    if (const x86::Instruction* instruction = fetch_instruction(exit, failure); instruction != nullptr) {
        backend_->flush_guest_tlb();
        x86::finish_instruction(*backend_, events_, instruction->length);
    }
    return failure;
}

}  // namespace hv
