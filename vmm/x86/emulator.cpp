// SPDX-License-Identifier: MIT
#include "vmm/x86/emulator.hpp"

#include "arch/x86_64/defs/cr.hpp"
#include "vmm/x86/alu.hpp"
#include "vmm/x86/emulator_step.hpp"
#include "vmm/x86/finish_instruction.hpp"

#include <algorithm>
#include <utility>

namespace hv::x86 {
namespace {

bool is_high_byte(const Instruction& in, unsigned reg, unsigned size) {
    return size == 1 && !in.rex && reg >= 4 && reg < 8;
}

/// Whether the instruction has exactly one memory operand, so that the exit's address is that operand's.
bool has_one_operand(Operation operation) {
    switch (operation) {
    case Operation::push:
    case Operation::pop:
    case Operation::call:
    case Operation::call_far:
    case Operation::jmp_far:
    case Operation::mov_to_segment: return false;
    default: return true;
    }
}

/// [sdm2 3.3 LOCK--Assert LOCK# Signal Prefix]
bool takes_lock(const Instruction& in) {
    switch (in.operation) {
    case Operation::add:
    case Operation::or_:
    case Operation::adc:
    case Operation::sbb:
    case Operation::and_:
    case Operation::sub:
    case Operation::xor_: return in.memory && (in.form == Form::rm_reg || in.form == Form::rm_imm);
    case Operation::not_:
    case Operation::neg:
    case Operation::inc:
    case Operation::dec:
    case Operation::bts:
    case Operation::btr:
    case Operation::btc:
    case Operation::xchg:
    case Operation::xadd:
    case Operation::cmpxchg:
    case Operation::cmpxchg8b: return in.memory;
    default: return false;
    }
}

}  // namespace

/// Sets state_ and mode_.
const Instruction* Emulator::fetch(Result& failure) {
    backend_.get_state(state_, RegSet::control | RegSet::segments);
    mode_ = code_mode(state_);
    const InstructionFetcher::Fetched fetched = fetcher_.fetch(state_);
    using Status = InstructionFetcher::Fetched::Status;
    switch (fetched.status) {
    case Status::ok: [[likely]] return fetched.instruction;
    case Status::page_fault:
        events_.raise_page_fault(backend_, fetched.error_code, fetched.linear);
        failure = Result::exception;
        break;
    case Status::retry: failure = Result::retry; break;
    case Status::invalid:
    case Status::not_memory: failure = Result::unsupported; break;
    }
    byte_count_ = std::min(fetched.bytes.size(), bytes_.size());
    std::copy_n(fetched.bytes.begin(), byte_count_, bytes_.begin());
    return nullptr;
}

/// The device registers' path: MOV or MOVZX between a register and an operand that lies in one page and is
/// what the exit names, so that the processor has done all checks already. False: nothing was done.
bool Emulator::quick_move(const Instruction& in, const NestedFault& fault) {
    const bool moves = in.operation == Operation::mov || in.operation == Operation::movzx;
    if (!moves || !in.memory || fault.during_walk || fault.execute)
        return false;
    std::uint64_t address = uncut_address(in, backend_.regs);
    if (in.mode != CodeMode::bits64 || in.segment >= SegmentName::fs)
        address += backend_.segment_base(in.segment);
    const std::uint64_t offset = address & (kPageSize - 1);
    if (offset != fault.gpa.page_offset() || offset + in.memory_size > kPageSize)
        return false;
    if (in.form == Form::reg_rm) {
        set_gpr(in, in.reg, in.operand_size, cut(bus_.mmio_read(fault.gpa, in.memory_size), in.memory_size));
    } else if (in.form != Form::acc_moffs) {
        bus_.mmio_write(fault.gpa, in.memory_size, source(in));
    } else {
        return false;
    }
    finish_instruction(backend_, events_, in.length);
    return true;
}

Emulator::Result Emulator::emulate_mmio(const NestedFault& fault) {
    const Instruction* known = fetcher_.cached();
    if (known != nullptr && quick_move(*known, fault)) [[likely]]
        return Result::done;
    return emulate_mmio_slowly(fault);
}

Emulator::Result Emulator::emulate_mmio_slowly(const NestedFault& fault) {
    Result failure{};
    const Instruction* in = fetch(failure);
    if (in == nullptr)
        return failure;
    if (quick_move(*in, fault))
        return Result::done;
    const bool address_known =
        !fault.during_walk && !fault.execute && in->form != Form::string && has_one_operand(in->operation);
    return run(*in, address_known ? &fault : nullptr);
}

Emulator::Result Emulator::emulate() {
    Result failure{};
    const Instruction* in = fetch(failure);
    return in == nullptr ? failure : run(*in, nullptr);
}

Emulator::Result Emulator::emulate_watched() {
    CpuState state;
    backend_.get_state(state, RegSet::control | RegSet::debug);
    breakpoints_.begin(state);
    operands_.watch(&breakpoints_);
    const Result result = emulate();
    operands_.watch(nullptr);
    if (result == Result::done)
        breakpoints_.raise(backend_, events_);
    return result;
}

Emulator::Result Emulator::read_operand(const Instruction& in, std::uint64_t& value) {
    backend_.get_state(state_, RegSet::control | RegSet::segments);
    mode_ = code_mode(state_);
    operands_.begin(state_, backend_.regs.rflags, mode_, nullptr);
    Place place;
    if (const Outcome outcome = operand(in, Access::read, place); outcome != Outcome::ok)
        return conclude(in, outcome);
    value = operands_.read(place);
    return Result::done;
}

Emulator::Result Emulator::run(const Instruction& in, const NestedFault* fault) {
    operands_.begin(state_, backend_.regs.rflags, mode_, fault);
    jumped_ = unfinished_ = false;
    const bool wrong_lock = in.lock && !takes_lock(in);
    return conclude(in, wrong_lock ? operands_.fail(EXCEPTION_UD) : execute(in));
}

Emulator::Result Emulator::conclude(const Instruction& in, Outcome outcome) {
    switch (outcome) {
    case Outcome::ok:
        if (!unfinished_) [[likely]] {
            // A branch target in RIP is final: nothing is to be added or to wrap.
            finish_instruction(backend_, events_, jumped_ ? 0 : in.length);
            return Result::done;
        }
        // Between iterations RF is set, for what interrupts and traps push [sdm3 18.3.1.1
        // Instruction-Breakpoint Exception Condition].
        backend_.regs.rflags |= RFLAGS_RF;
        if ((backend_.regs.rflags & RFLAGS_TF) != 0)
            raise_single_step(backend_, events_);
        return Result::done;
    case Outcome::exception:
        backend_.regs.rflags |= RFLAGS_RF;  // as faults push it
        if (operands_.exception().vector == EXCEPTION_PF)
            events_.raise_page_fault(backend_, operands_.exception().error_code, operands_.fault_address());
        else
            events_.raise(operands_.exception());
        return Result::exception;
    case Outcome::retry: return Result::retry;
    case Outcome::unsupported: break;
    }
    const auto fetched = fetcher_.fetch(state_).bytes;
    byte_count_ = std::min(fetched.size(), bytes_.size());
    std::copy_n(fetched.begin(), byte_count_, bytes_.begin());
    return Result::unsupported;
}

Outcome Emulator::execute(const Instruction& in) {
    switch (in.operation) {
    case Operation::movs:
    case Operation::cmps:
    case Operation::stos:
    case Operation::lods:
    case Operation::scas:
    case Operation::ins:
    case Operation::outs: return string(in);
    // What reaches memory by the stack pointer, whatever its operand is.
    case Operation::push: return push(in);
    case Operation::pop: return pop(in);
    case Operation::call:
    case Operation::jmp: return branch(in);
    case Operation::ret: return ret(in);
    case Operation::enter: return enter(in);
    case Operation::leave: return leave(in);
    case Operation::pushf: return push_flags(in);
    case Operation::popf: return pop_flags(in);
    default: return in.memory ? execute_on_memory(in) : Outcome::unsupported;
    }
}

Outcome Emulator::execute_on_memory(const Instruction& in) {
    switch (in.operation) {
    case Operation::mov: return move(in);
    case Operation::movzx:
    case Operation::movsx:
    case Operation::cmov: return load(in);
    case Operation::movbe: return in.form == Form::reg_rm ? load(in) : store(in);
    case Operation::set_cc: return store(in);
    case Operation::add:
    case Operation::or_:
    case Operation::adc:
    case Operation::sbb:
    case Operation::and_:
    case Operation::sub:
    case Operation::xor_:
    case Operation::cmp:
        return in.form == Form::reg_rm ? arithmetic_to_register(in) : arithmetic_to_memory(in);
    case Operation::test:
    case Operation::not_:
    case Operation::neg:
    case Operation::inc:
    case Operation::dec:
    case Operation::rol:
    case Operation::ror:
    case Operation::rcl:
    case Operation::rcr:
    case Operation::shl:
    case Operation::shr:
    case Operation::sal:
    case Operation::sar: return arithmetic_to_memory(in);
    case Operation::bt:
    case Operation::bts:
    case Operation::btr:
    case Operation::btc: return bit_operation(in);
    case Operation::xchg:
    case Operation::xadd: return exchange(in);
    case Operation::cmpxchg: return compare_exchange(in);
    case Operation::cmpxchg8b: return compare_exchange_8b(in);
    case Operation::shld:
    case Operation::shrd: return double_shift(in);
    case Operation::bsf:
    case Operation::bsr:
    case Operation::tzcnt:
    case Operation::lzcnt:
    case Operation::popcnt: return bit_count(in);
    case Operation::mul:
    case Operation::imul: return multiplication(in);
    case Operation::div:
    case Operation::idiv: return division(in);
    case Operation::vector_move: return vector_move(in);
    case Operation::call_far:
    case Operation::jmp_far: return far_branch(in);
    case Operation::mov_from_segment: return store_segment(in);
    case Operation::mov_to_segment: return load_segment(in);
    case Operation::lgdt:
    case Operation::lidt: return load_table(in);
    case Operation::sgdt:
    case Operation::sidt: return store_table(in);
    case Operation::smsw: return store_status_word(in);
    default: return Outcome::unsupported;
    }
}

// --- registers and operands
// ----------------------------------------------------------------------------------------------

std::uint64_t Emulator::gpr(const Instruction& in, unsigned reg, unsigned size) const {
    const std::uint64_t* gprs = backend_.regs.gpr;
    return is_high_byte(in, reg, size) ? (gprs[reg - 4] >> 8) & 0xff : cut(gprs[reg], size);
}

void Emulator::set_gpr_part(const Instruction& in, unsigned reg, unsigned size, std::uint64_t value) {
    std::uint64_t* gprs = backend_.regs.gpr;
    if (is_high_byte(in, reg, size))
        gprs[reg - 4] = (gprs[reg - 4] & ~std::uint64_t{0xff00}) | (value & 0xff) << 8;
    else
        gprs[reg] = (gprs[reg] & ~cut(~std::uint64_t{0}, size)) | cut(value, size);
}

/// The operand that is not memory.
std::uint64_t Emulator::source(const Instruction& in) const {
    switch (in.form) {
    case Form::rm_imm: return cut(in.immediate, in.operand_size);
    case Form::rm_one: return 1;
    case Form::rm_cl: return backend_.regs.gpr[RCX] & 0xff;
    case Form::moffs_acc:
    case Form::acc_moffs: return cut(backend_.regs.gpr[RAX], in.operand_size);
    default: return gpr(in, in.reg, in.operand_size);
    }
}

Outcome Emulator::operand(const Instruction& in, Access access, Place& place) {
    return operands_.resolve(in.segment, effective_address(in, backend_.regs), in.memory_size, access, place);
}

}  // namespace hv::x86
