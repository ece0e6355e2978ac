// SPDX-License-Identifier: MIT
#include "vmm/x86/emulator.hpp"

#include "arch/x86_64/defs/cr.hpp"
#include "vmm/x86/alu.hpp"
#include "vmm/x86/finish_instruction.hpp"

#include <algorithm>
#include <utility>

/// Leaves the function unless the step succeeded.
#define HV_STEP(expression)                                                                                  \
    do {                                                                                                     \
        if (const ::hv::x86::Outcome hv_outcome = (expression); hv_outcome != ::hv::x86::Outcome::ok)        \
            [[unlikely]]                                                                                     \
            return hv_outcome;                                                                               \
    } while (false)

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
    case Operation::call: return false;
    default: return true;
    }
}

std::uint64_t swap_bytes(std::uint64_t value, unsigned size) {
    return __builtin_bswap64(value) >> (64 - size * 8);
}

}  // namespace

/// Needs state_ and mode_.
const Instruction* Emulator::fetch(Result& failure) {
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
    const std::uint64_t address = operands_.linear(in.segment, effective_address(in, backend_.regs));
    const std::uint64_t offset = address & (kPageSize - 1);
    if (offset != fault.gpa.page_offset() || offset + in.memory_size > kPageSize)
        return false;
    if (in.form == Form::reg_rm) {
        std::uint64_t value = 0;
        if (!bus_.mmio_read(fault.gpa, in.memory_size, value))
            return false;
        set_gpr(in, in.reg, in.operand_size, cut(value, in.memory_size));
    } else if (in.form == Form::acc_moffs || !bus_.mmio_write(fault.gpa, in.memory_size, source(in))) {
        return false;
    }
    finish_instruction(backend_, events_, in.length);
    return true;
}

Emulator::Result Emulator::emulate_mmio(const NestedFault& fault) {
    backend_.get_state(state_, RegSet::control | RegSet::segments);
    mode_ = code_mode(state_);
    operands_.begin(state_, backend_.regs.rflags, mode_, nullptr);
    Result failure{};
    const Instruction* in = fetcher_.cached(state_, mode_);
    if (in == nullptr) [[unlikely]]
        in = fetch(failure);
    if (in == nullptr) [[unlikely]]
        return failure;
    if (quick_move(*in, fault)) [[likely]]
        return Result::done;
    const bool address_known =
        !fault.during_walk && !fault.execute && in->form != Form::string && has_one_operand(in->operation);
    return run(*in, address_known ? &fault : nullptr);
}

Emulator::Result Emulator::emulate() {
    backend_.get_state(state_, RegSet::control | RegSet::segments);
    mode_ = code_mode(state_);
    Result failure{};
    const Instruction* in = fetch(failure);
    return in == nullptr ? failure : run(*in, nullptr);
}

Emulator::Result Emulator::run(const Instruction& in, const NestedFault* fault) {
    operands_.begin(state_, backend_.regs.rflags, mode_, fault);
    jumped_ = unfinished_ = false;
    return conclude(in, execute(in));
}

Emulator::Result Emulator::conclude(const Instruction& in, Outcome outcome) {
    switch (outcome) {
    case Outcome::ok:
        if (!unfinished_) [[likely]]
            finish_instruction(backend_, events_, jumped_ ? 0 : in.length);
        else if ((backend_.regs.rflags & RFLAGS_TF) != 0)
            raise_single_step(backend_, events_);
        return Result::done;
    case Outcome::exception:
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
    if (in.operation == Operation::mov && in.memory) [[likely]]
        return move(in);
    if (in.form == Form::string)
        return string(in);
    if (!in.memory)
        return Outcome::unsupported;  // nothing of it can have caused an exit
    switch (in.operation) {
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
    case Operation::push: return push(in);
    case Operation::pop: return pop(in);
    case Operation::call:
    case Operation::jmp: return branch(in);
    default: return Outcome::unsupported;
    }
}

// --- registers and operands
// ----------------------------------------------------------------------------------------------

std::uint64_t Emulator::gpr(const Instruction& in, unsigned reg, unsigned size) const {
    const std::uint64_t* gprs = backend_.regs.gpr;
    return is_high_byte(in, reg, size) ? (gprs[reg - 4] >> 8) & 0xff : cut(gprs[reg], size);
}

void Emulator::set_gpr(const Instruction& in, unsigned reg, unsigned size, std::uint64_t value) {
    std::uint64_t* gprs = backend_.regs.gpr;
    if (size >= 4)
        gprs[reg] = cut(value, size);  // 32-bit results are zero-extended
    else if (is_high_byte(in, reg, size))
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

// --- moves
// ---------------------------------------------------------------------------------------------------------------

Outcome Emulator::move(const Instruction& in) {
    Place place;
    if (in.form == Form::reg_rm || in.form == Form::acc_moffs) {
        HV_STEP(operand(in, Access::read, place));
        set_gpr(in, in.form == Form::acc_moffs ? unsigned{RAX} : in.reg, in.operand_size,
                operands_.read(place));
        return Outcome::ok;
    }
    HV_STEP(operand(in, Access::write, place));
    operands_.write(place, source(in));
    return Outcome::ok;
}

Outcome Emulator::load(const Instruction& in) {
    Place place;
    HV_STEP(operand(in, Access::read, place));
    std::uint64_t value = operands_.read(place);
    switch (in.operation) {
    case Operation::movsx: value = sign_extend(value, in.memory_size); break;
    case Operation::movbe: value = swap_bytes(value, in.memory_size); break;
    case Operation::cmov:
        if (!condition(in.opcode, backend_.regs.rflags))
            value = gpr(in, in.reg, in.operand_size);  // 32-bit registers are zero-extended all the same
        break;
    default: break;
    }
    set_gpr(in, in.reg, in.operand_size, value);
    return Outcome::ok;
}

Outcome Emulator::store(const Instruction& in) {
    Place place;
    HV_STEP(operand(in, Access::write, place));
    operands_.write(place, in.operation == Operation::set_cc ? condition(in.opcode, backend_.regs.rflags)
                                                             : swap_bytes(source(in), in.memory_size));
    return Outcome::ok;
}

// --- arithmetic
// ----------------------------------------------------------------------------------------------------------

Outcome Emulator::arithmetic_to_register(const Instruction& in) {
    Place place;
    HV_STEP(operand(in, Access::read, place));
    const AluResult result =
        alu(in.operation, source(in), operands_.read(place), in.operand_size, backend_.regs.rflags);
    if (in.operation != Operation::cmp)
        set_gpr(in, in.reg, in.operand_size, result.value);
    set_rflags(result.rflags);
    return Outcome::ok;
}

Outcome Emulator::arithmetic_to_memory(const Instruction& in) {
    const bool reads_only = in.operation == Operation::cmp || in.operation == Operation::test;
    Place place;
    HV_STEP(operand(in, reads_only ? Access::read : Access::write, place));
    const std::uint64_t old = operands_.read(place);
    const std::uint64_t rflags = backend_.regs.rflags;
    const bool shifts = in.operation >= Operation::rol && in.operation <= Operation::sar;
    const AluResult result =
        shifts ? shift(in.operation, old, static_cast<unsigned>(source(in) & 0xff), in.operand_size, rflags)
               : alu(in.operation, old, source(in), in.operand_size, rflags);
    if (!reads_only && !operands_.replace(place, old, result.value))
        return Outcome::retry;
    set_rflags(result.rflags);
    return Outcome::ok;
}

/// With a register as index the bit string goes beyond the operand, in both directions [sdm2 3.3 BT--Bit
/// Test].
Outcome Emulator::bit_operation(const Instruction& in) {
    const unsigned bits = in.operand_size * 8U;
    std::uint64_t offset = effective_address(in, backend_.regs);
    const std::uint64_t index = source(in);
    if (in.form == Form::rm_reg) {
        const auto string_index = static_cast<std::int64_t>(sign_extend(index, in.operand_size));
        offset += static_cast<std::uint64_t>((string_index >> (std::countr_zero(bits))) * in.operand_size);
        offset = cut(offset, in.address_size);
    }
    const bool reads_only = in.operation == Operation::bt;
    Place place;
    HV_STEP(operands_.resolve(in.segment, offset, in.operand_size, reads_only ? Access::read : Access::write,
                              place));
    const std::uint64_t old = operands_.read(place);
    const AluResult result =
        bit_test(in.operation, old, static_cast<unsigned>(index & (bits - 1)), backend_.regs.rflags);
    if (!reads_only && !operands_.replace(place, old, result.value))
        return Outcome::retry;
    set_rflags(result.rflags);
    return Outcome::ok;
}

Outcome Emulator::exchange(const Instruction& in) {
    Place place;
    HV_STEP(operand(in, Access::write, place));
    const std::uint64_t old = operands_.read(place);
    const AluResult sum = alu(Operation::add, old, source(in), in.operand_size, backend_.regs.rflags);
    const bool adds = in.operation == Operation::xadd;
    if (!operands_.replace(place, old, adds ? sum.value : source(in)))
        return Outcome::retry;
    set_gpr(in, in.reg, in.operand_size, old);
    if (adds)
        set_rflags(sum.rflags);
    return Outcome::ok;
}

Outcome Emulator::compare_exchange(const Instruction& in) {
    Place place;
    HV_STEP(operand(in, Access::write, place));
    const std::uint64_t old = operands_.read(place);
    const std::uint64_t accumulator = cut(backend_.regs.gpr[RAX], in.operand_size);
    const bool equal = old == accumulator;
    // The processor writes in either case.
    if (!operands_.replace(place, old, equal ? source(in) : old))
        return Outcome::retry;
    set_rflags(alu(Operation::cmp, accumulator, old, in.operand_size, backend_.regs.rflags).rflags);
    if (!equal)
        set_gpr(in, RAX, in.operand_size == 1 ? 1 : in.operand_size, old);
    return Outcome::ok;
}

Outcome Emulator::compare_exchange_8b(const Instruction& in) {
    if (in.memory_size != 8)
        return Outcome::unsupported;  // CMPXCHG16B
    Place place;
    HV_STEP(operand(in, Access::write, place));
    std::uint64_t* gprs = backend_.regs.gpr;
    const auto pair = [&](Gpr high, Gpr low) { return gprs[high] << 32 | cut(gprs[low], 4); };
    const std::uint64_t old = operands_.read(place);
    const bool equal = old == pair(RDX, RAX);
    if (!operands_.replace(place, old, equal ? pair(RCX, RBX) : old))
        return Outcome::retry;
    if (!equal) {
        gprs[RAX] = cut(old, 4);
        gprs[RDX] = old >> 32;
    }
    set_rflags(equal ? backend_.regs.rflags | RFLAGS_ZF : backend_.regs.rflags & ~RFLAGS_ZF);
    return Outcome::ok;
}

// --- stack and branches
// --------------------------------------------------------------------------------------------------

unsigned Emulator::stack_address_size() const {
    return mode_ == CodeMode::bits64 ? 8 : state_.seg(SegmentName::ss).big() ? 4 : 2;
}

Outcome Emulator::push_value(std::uint64_t value, unsigned size) {
    const unsigned width = stack_address_size();
    std::uint64_t& rsp = backend_.regs.gpr[RSP];
    const std::uint64_t top = cut(rsp - size, width);
    Place place;
    HV_STEP(operands_.resolve(SegmentName::ss, top, size, Access::write, place));
    operands_.write(place, value);
    rsp = width == 2 ? (rsp & ~std::uint64_t{0xffff}) | top : top;
    return Outcome::ok;
}

Outcome Emulator::push(const Instruction& in) {
    Place place;
    HV_STEP(operand(in, Access::read, place));
    return push_value(operands_.read(place), in.operand_size);
}

/// An operand addressed by RSP sees it after the increment [sdm2 4.3 POP--Pop a Value From the Stack].
Outcome Emulator::pop(const Instruction& in) {
    const unsigned width = stack_address_size();
    std::uint64_t& rsp = backend_.regs.gpr[RSP];
    const std::uint64_t old = rsp;
    Place from;
    HV_STEP(operands_.resolve(SegmentName::ss, cut(old, width), in.operand_size, Access::read, from));
    const std::uint64_t top = cut(old + in.operand_size, width);
    rsp = width == 2 ? (old & ~std::uint64_t{0xffff}) | top : top;
    Place to;
    if (const Outcome outcome = operand(in, Access::write, to); outcome != Outcome::ok) {
        rsp = old;
        return outcome;
    }
    operands_.write(to, operands_.read(from));
    return Outcome::ok;
}

Outcome Emulator::branch(const Instruction& in) {
    Place place;
    HV_STEP(operand(in, Access::read, place));
    const std::uint64_t target = operands_.read(place);
    const bool allowed =
        mode_ == CodeMode::bits64 ? is_canonical(target) : target <= state_.seg(SegmentName::cs).limit;
    if (!allowed)
        return operands_.fail(EXCEPTION_GP);
    if (in.operation == Operation::call)
        HV_STEP(push_value(backend_.regs.rip + in.length, in.operand_size));
    backend_.regs.rip = target;
    jumped_ = true;
    return Outcome::ok;
}

// --- string instructions
// -------------------------------------------------------------------------------------------------

Outcome Emulator::string(const Instruction& in) {
    const bool repeats = in.repeat != Repeat::none;
    if (!repeats)
        return string_step(in);
    const bool compares = in.operation == Operation::cmps || in.operation == Operation::scas;
    std::uint64_t& rcx = backend_.regs.gpr[RCX];
    const auto count = [&] { return cut(rcx, in.address_size); };
    const unsigned limit = (backend_.regs.rflags & RFLAGS_TF) != 0 ? 1 : kBatch;
    for (unsigned done = 0; count() != 0; ++done) {
        if (done == limit) {
            unfinished_ = true;
            return Outcome::ok;
        }
        HV_STEP(string_step(in));  // on a fault, registers say how far it came
        const std::uint64_t left = count() - 1;
        rcx =
            in.address_size == 2 ? (rcx & ~std::uint64_t{0xffff}) | cut(left, 2) : cut(left, in.address_size);
        const bool equal = (backend_.regs.rflags & RFLAGS_ZF) != 0;
        if (compares && equal != (in.repeat == Repeat::rep))
            return Outcome::ok;
    }
    return Outcome::ok;
}

Outcome Emulator::string_step(const Instruction& in) {
    VcpuRegs& regs = backend_.regs;
    const unsigned size =
        in.operand_size == 8 && (in.operation == Operation::ins || in.operation == Operation::outs)
            ? 4
            : in.operand_size;
    const bool has_source = in.operation == Operation::movs || in.operation == Operation::cmps ||
                            in.operation == Operation::lods || in.operation == Operation::outs;
    const bool has_target = in.operation != Operation::lods && in.operation != Operation::outs;
    const bool writes =
        in.operation == Operation::movs || in.operation == Operation::stos || in.operation == Operation::ins;
    Place from;
    Place to;
    if (has_source)
        HV_STEP(operands_.resolve(in.segment, cut(regs.gpr[RSI], in.address_size), size, Access::read, from));
    if (has_target)
        HV_STEP(operands_.resolve(SegmentName::es, cut(regs.gpr[RDI], in.address_size), size,
                                  writes ? Access::write : Access::read, to));

    const auto port = static_cast<std::uint16_t>(regs.gpr[RDX]);
    const std::uint64_t accumulator = cut(regs.gpr[RAX], size);
    std::uint64_t value = 0;
    switch (in.operation) {
    case Operation::movs: operands_.write(to, operands_.read(from)); break;
    case Operation::stos: operands_.write(to, accumulator); break;
    case Operation::lods: set_gpr(in, RAX, size, operands_.read(from)); break;
    case Operation::cmps:
        value = operands_.read(from);
        set_rflags(alu(Operation::cmp, value, operands_.read(to), size, regs.rflags).rflags);
        break;
    case Operation::scas:
        set_rflags(alu(Operation::cmp, accumulator, operands_.read(to), size, regs.rflags).rflags);
        break;
    case Operation::ins:
        if (!bus_.port_read(port, size, value))
            value = ~std::uint64_t{0};
        operands_.write(to, cut(value, size));
        break;
    case Operation::outs: bus_.port_write(port, size, operands_.read(from)); break;
    default: return Outcome::unsupported;
    }

    const std::uint64_t step = (regs.rflags & RFLAGS_DF) != 0 ? std::uint64_t{0} - size : size;
    const auto advance = [&](Gpr reg) { set_gpr(in, reg, in.address_size, regs.gpr[reg] + step); };
    if (has_source)
        advance(RSI);
    if (has_target)
        advance(RDI);
    return Outcome::ok;
}

}  // namespace hv::x86

#undef HV_STEP
