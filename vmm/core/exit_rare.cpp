// SPDX-License-Identifier: MIT
// Exits that few guests ever cause, apart from those whose cost counts.
#include "arch/x86_64/defs/cr.hpp"
#include "vmm/core/vcpu.hpp"
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
