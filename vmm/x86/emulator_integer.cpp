// SPDX-License-Identifier: MIT
// The emulator's moves, arithmetic, bit operations and exchanges.
#include "arch/x86_64/defs/cr.hpp"
#include "vmm/x86/alu.hpp"
#include "vmm/x86/emulator.hpp"
#include "vmm/x86/emulator_step.hpp"

#include <bit>
#include <cstring>

namespace hv::x86 {
namespace {

std::uint64_t swap_bytes(std::uint64_t value, unsigned size) {
    return __builtin_bswap64(value) >> (64 - size * 8);
}

}  // namespace

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
    const unsigned half = in.memory_size / 2U;
    Place place;
    HV_STEP(operand(in, Access::write, place));
    if (half == 8) {  // CMPXCHG16B
        if ((operands_.linear(in.segment, effective_address(in, backend_.regs)) & 15) != 0)
            return operands_.fail(EXCEPTION_GP);
        if (!place.touches_device())
            return Outcome::retry;  // there is nothing that the guest cannot do by itself, and atomically
    }
    std::uint64_t* gprs = backend_.regs.gpr;
    std::uint64_t old[2]{};  // low, high
    std::uint8_t bytes[16];
    operands_.read_bytes(place, bytes);
    std::memcpy(&old[0], bytes, half);
    std::memcpy(&old[1], bytes + half, half);
    const bool equal = old[0] == cut(gprs[RAX], half) && old[1] == cut(gprs[RDX], half);
    // The processor writes in either case.
    const std::uint64_t now[2] = {equal ? gprs[RBX] : old[0], equal ? gprs[RCX] : old[1]};
    if (half == 4) {
        if (!operands_.replace(place, old[0] | old[1] << 32, cut(now[0], 4) | now[1] << 32))
            return Outcome::retry;
    } else {
        std::memcpy(bytes, now, sizeof now);
        operands_.write_bytes(place, bytes);
    }
    if (!equal) {
        gprs[RAX] = old[0];
        gprs[RDX] = old[1];
    }
    set_rflags(equal ? backend_.regs.rflags | RFLAGS_ZF : backend_.regs.rflags & ~RFLAGS_ZF);
    return Outcome::ok;
}

Outcome Emulator::double_shift(const Instruction& in) {
    Place place;
    HV_STEP(operand(in, Access::write, place));
    const std::uint64_t count = in.form == Form::rm_reg_cl ? backend_.regs.gpr[RCX] : in.immediate;
    const std::uint64_t old = operands_.read(place);
    const AluResult result = shift_double(in.operation, old, source(in), static_cast<unsigned>(count & 0xff),
                                          in.operand_size, backend_.regs.rflags);
    if (!operands_.replace(place, old, result.value))
        return Outcome::retry;
    set_rflags(result.rflags);
    return Outcome::ok;
}

Outcome Emulator::bit_count(const Instruction& in) {
    Place place;
    HV_STEP(operand(in, Access::read, place));
    const std::uint64_t value = operands_.read(place);
    const bool scan = in.operation == Operation::bsf || in.operation == Operation::bsr;
    const AluResult result =
        count_bits(in.operation, source(in), value, in.operand_size, backend_.regs.rflags);
    if (!scan || value != 0)
        set_gpr(in, in.reg, in.operand_size, result.value);
    set_rflags(result.rflags);
    return Outcome::ok;
}

Outcome Emulator::multiplication(const Instruction& in) {
    Place place;
    HV_STEP(operand(in, Access::read, place));
    const bool one_operand = in.form == Form::rm;
    const std::uint64_t factor = one_operand                   ? backend_.regs.gpr[RAX]
                                 : in.form == Form::reg_rm_imm ? in.immediate
                                                               : source(in);
    const unsigned size = in.operand_size;
    const Product product = multiply(in.operation == Operation::mul ? Signedness::without : Signedness::with,
                                     operands_.read(place), factor, size, backend_.regs.rflags);
    if (!one_operand) {
        set_gpr(in, in.reg, size, product.low);
    } else if (size == 1) {
        set_gpr(in, RAX, 2, product.high << 8 | product.low);
    } else {
        set_gpr(in, RAX, size, product.low);
        set_gpr(in, RDX, size, product.high);
    }
    set_rflags(product.rflags);
    return Outcome::ok;
}

/// Flags are undefined afterwards: they stay.
Outcome Emulator::division(const Instruction& in) {
    Place place;
    HV_STEP(operand(in, Access::read, place));
    const unsigned size = in.operand_size;
    const std::uint64_t* gprs = backend_.regs.gpr;
    const std::uint64_t high = size == 1 ? gprs[RAX] >> 8 : gprs[RDX];
    const auto result = divide(in.operation == Operation::div ? Signedness::without : Signedness::with, high,
                               gprs[RAX], operands_.read(place), size);
    if (!result)
        return operands_.fail(EXCEPTION_DE);
    if (size == 1) {
        set_gpr(in, RAX, 2, result->remainder << 8 | result->quotient);
    } else {
        set_gpr(in, RAX, size, result->quotient);
        set_gpr(in, RDX, size, result->remainder);
    }
    return Outcome::ok;
}

}  // namespace hv::x86
