// SPDX-License-Identifier: MIT
// The emulator's stack operations and branches.
#include "arch/x86_64/defs/cr.hpp"
#include "vmm/x86/alu.hpp"
#include "vmm/x86/emulator.hpp"
#include "vmm/x86/emulator_step.hpp"

namespace hv::x86 {

// --- stack and branches
// --------------------------------------------------------------------------------------------------

unsigned Emulator::stack_address_size() const {
    return mode_ == CodeMode::bits64 ? 8 : state_.seg(SegmentName::ss).big() ? 4 : 2;
}

void Emulator::set_stack_pointer(std::uint64_t value) {
    std::uint64_t& rsp = backend_.regs.gpr[RSP];
    rsp = stack_address_size() == 2 ? (rsp & ~std::uint64_t{0xffff}) | cut(value, 2) : value;
}

/// Where a push of `size` bytes goes; `top` is the stack pointer then.
Outcome Emulator::push_place(unsigned size, Place& place, std::uint64_t& top) {
    top = cut(backend_.regs.gpr[RSP] - size, stack_address_size());
    return operands_.resolve(SegmentName::ss, top, size, Access::write, place);
}

Outcome Emulator::push_value(std::uint64_t value, unsigned size) {
    Place place;
    std::uint64_t top = 0;
    HV_STEP(push_place(size, place, top));
    operands_.write(place, value);
    set_stack_pointer(top);
    return Outcome::ok;
}

/// Reads what a pop of `size` bytes yields; `top` is the stack pointer afterwards.
Outcome Emulator::pop_value(unsigned size, std::uint64_t& value, std::uint64_t& top) {
    const unsigned width = stack_address_size();
    const std::uint64_t old = cut(backend_.regs.gpr[RSP], width);
    Place place;
    HV_STEP(operands_.resolve(SegmentName::ss, old, size, Access::read, place));
    value = operands_.read(place);
    top = cut(old + size, width);
    return Outcome::ok;
}

Outcome Emulator::push(const Instruction& in) {
    if (!in.memory)
        return push_value(in.form == Form::imm
                              ? in.immediate
                              : gpr(in, in.form == Form::reg ? in.reg : in.rm, in.operand_size),
                          in.operand_size);
    Place from;
    HV_STEP(operand(in, Access::read, from));
    Place to;
    std::uint64_t top = 0;
    HV_STEP(push_place(in.operand_size, to, top));
    operands_.write(to, operands_.read(from));
    set_stack_pointer(top);
    return Outcome::ok;
}

/// An operand addressed by RSP sees it after the increment [sdm2 4.3 POP--Pop a Value From the Stack].
Outcome Emulator::pop(const Instruction& in) {
    std::uint64_t value = 0;
    std::uint64_t top = 0;
    const std::uint64_t old = backend_.regs.gpr[RSP];
    HV_STEP(pop_value(in.operand_size, value, top));
    set_stack_pointer(top);
    if (!in.memory) {
        set_gpr(in, in.form == Form::reg ? in.reg : in.rm, in.operand_size, value);
        return Outcome::ok;
    }
    Place to;
    if (const Outcome outcome = operand(in, Access::write, to); outcome != Outcome::ok) {
        backend_.regs.gpr[RSP] = old;
        return outcome;
    }
    operands_.write(to, value);
    return Outcome::ok;
}

/// [sdm2 4.3 PUSHF/PUSHFD/PUSHFQ--Push EFLAGS Register Onto the Stack]
Outcome Emulator::push_flags(const Instruction& in) {
    const std::uint64_t rflags = backend_.regs.rflags;
    if ((rflags & RFLAGS_VM) != 0)
        return Outcome::unsupported;  // IOPL and VME rule
    return push_value(rflags & ~(RFLAGS_VM | RFLAGS_RF), in.operand_size);
}

/// [sdm2 4.3 POPF/POPFD/POPFQ--Pop Stack Into EFLAGS Register]
Outcome Emulator::pop_flags(const Instruction& in) {
    const std::uint64_t rflags = backend_.regs.rflags;
    if ((rflags & RFLAGS_VM) != 0)
        return Outcome::unsupported;
    std::uint64_t value = 0;
    std::uint64_t top = 0;
    HV_STEP(pop_value(in.operand_size, value, top));
    std::uint64_t writable = RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_TF |
                             RFLAGS_DF | RFLAGS_OF | RFLAGS_NT | RFLAGS_AC | RFLAGS_ID;
    const bool real = (state_.cr0 & CR0_PE) == 0;
    const unsigned cpl = real ? 0 : state_.cpl();
    if (cpl == 0)
        writable |= RFLAGS_IOPL;
    if (cpl <= ((rflags & RFLAGS_IOPL) >> kRflagsIoplShift))
        writable |= RFLAGS_IF;
    writable = cut(writable, in.operand_size);
    set_stack_pointer(top);
    set_rflags((rflags & ~writable) | (value & writable));
    return Outcome::ok;
}

Outcome Emulator::enter(const Instruction& in) {
    const unsigned level = static_cast<unsigned>(in.immediate >> 16) & 31;
    if (level != 0)
        return Outcome::unsupported;  // nested frames: no compiler makes them
    const std::uint64_t locals = in.immediate & 0xffff;
    HV_STEP(push_value(backend_.regs.gpr[RBP], in.operand_size));
    const std::uint64_t frame = backend_.regs.gpr[RSP];
    set_gpr(in, RBP, in.operand_size, frame);
    set_stack_pointer(cut(frame - locals, stack_address_size()));
    return Outcome::ok;
}

Outcome Emulator::leave(const Instruction& in) {
    const std::uint64_t old = backend_.regs.gpr[RSP];
    set_stack_pointer(cut(backend_.regs.gpr[RBP], stack_address_size()));
    std::uint64_t value = 0;
    std::uint64_t top = 0;
    if (const Outcome outcome = pop_value(in.operand_size, value, top); outcome != Outcome::ok) {
        backend_.regs.gpr[RSP] = old;
        return outcome;
    }
    set_stack_pointer(top);
    set_gpr(in, RBP, in.operand_size, value);
    return Outcome::ok;
}

/// Whether a near branch may go there.
bool Emulator::is_branch_target(std::uint64_t target) const {
    return mode_ == CodeMode::bits64 ? is_canonical(target) : target <= state_.seg(SegmentName::cs).limit;
}

void Emulator::jump(std::uint64_t target) {
    backend_.regs.rip = target;
    jumped_ = true;
}

Outcome Emulator::branch(const Instruction& in) {
    std::uint64_t target = 0;
    if (in.memory) {
        Place place;
        HV_STEP(operand(in, Access::read, place));
        target = operands_.read(place);
    } else if (in.form == Form::relative) {
        target = cut(backend_.regs.rip + in.length + in.immediate, in.operand_size);
    } else {
        target = gpr(in, in.rm, in.operand_size);
    }
    if (!is_branch_target(target))
        return operands_.fail(EXCEPTION_GP);
    if (in.operation == Operation::call)
        HV_STEP(push_value(backend_.regs.rip + in.length, in.operand_size));
    jump(target);
    return Outcome::ok;
}

Outcome Emulator::ret(const Instruction& in) {
    std::uint64_t target = 0;
    std::uint64_t top = 0;
    HV_STEP(pop_value(in.operand_size, target, top));
    if (!is_branch_target(target))
        return operands_.fail(EXCEPTION_GP);
    const std::uint64_t arguments = in.form == Form::imm ? in.immediate & 0xffff : 0;
    set_stack_pointer(cut(top + arguments, stack_address_size()));
    jump(target);
    return Outcome::ok;
}

}  // namespace hv::x86
