// SPDX-License-Identifier: MIT
#include "vmm/x86/alu.hpp"

#include "arch/x86_64/defs/cr.hpp"

#include <bit>
#include <utility>

namespace hv::x86 {
namespace {

constexpr std::uint64_t kStatus = RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF;

constexpr std::uint64_t when(bool condition, std::uint64_t flag) {
    return condition ? flag : 0;
}

/// ZF, SF and PF of a result.
std::uint64_t result_flags(std::uint64_t value, unsigned size) {
    return when(value == 0, RFLAGS_ZF) | when((value >> (size * 8 - 1) & 1) != 0, RFLAGS_SF) |
           when(std::popcount(value & 0xff) % 2 == 0, RFLAGS_PF);
}

AluResult add(std::uint64_t a, std::uint64_t b, bool carry, unsigned size, std::uint64_t rflags) {
    a = cut(a, size);
    b = cut(b, size);
    const std::uint64_t value = cut(a + b + carry, size);
    const unsigned top = size * 8 - 1;
    const bool carry_out = ((a & b) | ((a | b) & ~value)) >> top & 1;
    const bool overflow = ((a ^ value) & (b ^ value)) >> top & 1;
    return {value, (rflags & ~kStatus) | result_flags(value, size) | when(carry_out, RFLAGS_CF) |
                       when(overflow, RFLAGS_OF) | ((a ^ b ^ value) & RFLAGS_AF)};
}

AluResult subtract(std::uint64_t a, std::uint64_t b, bool borrow, unsigned size, std::uint64_t rflags) {
    a = cut(a, size);
    b = cut(b, size);
    const std::uint64_t value = cut(a - b - borrow, size);
    const unsigned top = size * 8 - 1;
    const bool borrow_out = ((~a & b) | ((~a | b) & value)) >> top & 1;
    const bool overflow = ((a ^ b) & (a ^ value)) >> top & 1;
    return {value, (rflags & ~kStatus) | result_flags(value, size) | when(borrow_out, RFLAGS_CF) |
                       when(overflow, RFLAGS_OF) | ((a ^ b ^ value) & RFLAGS_AF)};
}

AluResult logic(std::uint64_t value, unsigned size, std::uint64_t rflags) {
    value = cut(value, size);
    return {value, (rflags & ~kStatus) | result_flags(value, size)};
}

std::uint64_t with(std::uint64_t rflags, std::uint64_t flag, bool set) {
    return set ? rflags | flag : rflags & ~flag;
}

/// RCL and RCR rotate through CF: one bit at a time, at most 63 of them.
AluResult rotate_through_carry(bool left, std::uint64_t value, unsigned count, unsigned size,
                               std::uint64_t rflags) {
    const unsigned bits = size * 8;
    const unsigned top = bits - 1;
    bool carry = (rflags & RFLAGS_CF) != 0;
    if (!left)  // OF comes from the operands of a rotation by one
        rflags = with(rflags, RFLAGS_OF, ((value >> top & 1) != 0) != carry);
    for (unsigned i = 0; i < count % (bits + 1); ++i) {
        const bool out = (left ? value >> top : value) & 1;
        value = left ? cut(value << 1, size) | carry : value >> 1 | std::uint64_t{carry} << top;
        carry = out;
    }
    if (left)
        rflags = with(rflags, RFLAGS_OF, ((value >> top & 1) != 0) != carry);
    return {value, with(rflags, RFLAGS_CF, carry)};
}

AluResult rotate(bool left, std::uint64_t value, unsigned count, unsigned size, std::uint64_t rflags) {
    const unsigned bits = size * 8;
    const unsigned turn = (left ? count : bits - count % bits) % bits;
    if (turn != 0)
        value = cut(value << turn | value >> (bits - turn), size);
    const bool top = value >> (bits - 1) & 1;
    const bool carry = left ? value & 1 : top;
    const bool overflow = left ? top != carry : top != ((value >> (bits - 2) & 1) != 0);
    return {value, with(with(rflags, RFLAGS_CF, carry), RFLAGS_OF, overflow)};
}

}  // namespace

AluResult alu(Operation operation, std::uint64_t target, std::uint64_t source, unsigned size,
              std::uint64_t rflags) {
    const bool carry = (rflags & RFLAGS_CF) != 0;
    switch (operation) {
    case Operation::add: return add(target, source, false, size, rflags);
    case Operation::adc: return add(target, source, carry, size, rflags);
    case Operation::sub: return subtract(target, source, false, size, rflags);
    case Operation::sbb: return subtract(target, source, carry, size, rflags);
    case Operation::and_: return logic(target & source, size, rflags);
    case Operation::or_: return logic(target | source, size, rflags);
    case Operation::xor_: return logic(target ^ source, size, rflags);
    case Operation::cmp: return {target, subtract(target, source, false, size, rflags).rflags};
    case Operation::test: return {target, logic(target & source, size, rflags).rflags};
    case Operation::not_: return {cut(~target, size), rflags};
    case Operation::neg: return subtract(0, target, false, size, rflags);
    case Operation::inc:
    case Operation::dec: {  // CF stays
        const AluResult result = operation == Operation::inc ? add(target, 1, false, size, rflags)
                                                             : subtract(target, 1, false, size, rflags);
        return {result.value, (result.rflags & ~RFLAGS_CF) | (rflags & RFLAGS_CF)};
    }
    default: return {target, rflags};
    }
}

AluResult shift(Operation operation, std::uint64_t target, unsigned count, unsigned size,
                std::uint64_t rflags) {
    count &= size == 8 ? 63 : 31;
    target = cut(target, size);
    if (count == 0)
        return {target, rflags};
    const unsigned top = size * 8 - 1;
    bool carry = false;
    bool overflow = false;
    std::uint64_t value = 0;
    switch (operation) {
    case Operation::rol:
    case Operation::ror: return rotate(operation == Operation::rol, target, count, size, rflags);
    case Operation::rcl:
    case Operation::rcr:
        return rotate_through_carry(operation == Operation::rcl, target, count, size, rflags);
    case Operation::shr:
        value = target >> count;
        carry = target >> (count - 1) & 1;
        overflow = target >> top & 1;
        break;
    case Operation::sar: {
        const auto wide = static_cast<std::int64_t>(sign_extend(target, size));
        value = cut(static_cast<std::uint64_t>(wide >> count), size);
        carry = wide >> (count - 1) & 1;
        break;
    }
    default:  // SHL and its alias
        value = cut(target << count, size);
        carry = count <= top + 1 && (target >> (top + 1 - count) & 1) != 0;
        overflow = ((value >> top & 1) != 0) != carry;
        break;
    }
    return {value, (rflags & ~kStatus) | (rflags & RFLAGS_AF) | result_flags(value, size) |
                       when(carry, RFLAGS_CF) | when(overflow, RFLAGS_OF)};
}

AluResult bit_test(Operation operation, std::uint64_t target, unsigned index, std::uint64_t rflags) {
    const std::uint64_t mask = std::uint64_t{1} << index;
    rflags = with(rflags, RFLAGS_CF, (target & mask) != 0);
    switch (operation) {
    case Operation::bts: return {target | mask, rflags};
    case Operation::btr: return {target & ~mask, rflags};
    case Operation::btc: return {target ^ mask, rflags};
    default: return {target, rflags};
    }
}

AluResult shift_double(Operation operation, std::uint64_t target, std::uint64_t source, unsigned count,
                       unsigned size, std::uint64_t rflags) {
    const unsigned bits = size * 8;
    count &= size == 8 ? 63 : 31;
    target = cut(target, size);
    source = cut(source, size);
    if (count == 0)
        return {target, rflags};
    // 16-bit operands by more than 16: as if the target came round again behind the source.
    const bool left = operation == Operation::shld;
    if (count > bits) {
        std::swap(target, source);
        count -= bits;
    }
    const bool whole = count == bits;
    const std::uint64_t value = whole  ? source
                                : left ? cut(target << count | source >> (bits - count), size)
                                       : cut(target >> count | source << (bits - count), size);
    const bool carry = (left ? target >> (bits - count) : target >> (count - 1)) & 1;
    const bool overflow = (value ^ target) >> (bits - 1) & 1;
    return {value, (rflags & ~kStatus) | (rflags & RFLAGS_AF) | result_flags(value, size) |
                       when(carry, RFLAGS_CF) | when(overflow, RFLAGS_OF)};
}

AluResult count_bits(Operation operation, std::uint64_t target, std::uint64_t source, unsigned size,
                     std::uint64_t rflags) {
    const unsigned bits = size * 8;
    source = cut(source, size);
    const bool none = source == 0;
    const auto trailing = static_cast<unsigned>(std::countr_zero(source));
    const unsigned leading = static_cast<unsigned>(std::countl_zero(source)) - (64 - bits);
    std::uint64_t value = 0;
    switch (operation) {
    case Operation::bsf:
    case Operation::bsr:
        value = none ? target : operation == Operation::bsf ? trailing : bits - 1 - leading;
        return {value, with(rflags, RFLAGS_ZF, none)};
    case Operation::tzcnt:
    case Operation::lzcnt:
        value = none ? bits : operation == Operation::tzcnt ? trailing : leading;
        return {value, with(with(rflags, RFLAGS_CF, none), RFLAGS_ZF, value == 0)};
    default:
        return {static_cast<std::uint64_t>(std::popcount(source)),
                (rflags & ~kStatus) | when(none, RFLAGS_ZF)};
    }
}

Product multiply(Signedness sign, std::uint64_t a, std::uint64_t b, unsigned size, std::uint64_t rflags) {
    __extension__ using Wide = unsigned __int128;
    const unsigned bits = size * 8;
    const bool is_signed = sign == Signedness::with;
    a = is_signed ? sign_extend(a, size) : cut(a, size);
    b = is_signed ? sign_extend(b, size) : cut(b, size);
    const Wide product = static_cast<Wide>(a) * b;
    const auto low = static_cast<std::uint64_t>(product);
    auto high = static_cast<std::uint64_t>(product >> 64);
    if (is_signed) {
        high -= (a >> 63 != 0 ? b : 0);
        high -= (b >> 63 != 0 ? a : 0);
    }
    Product result{cut(low, size), size == 8 ? high : cut(low >> bits, size), rflags};
    const std::uint64_t expected = is_signed ? cut(sign_extend(low, size) >> 63 != 0 ? ~0ULL : 0, size) : 0;
    const bool matters = result.high != expected;
    result.rflags = with(with(rflags, RFLAGS_CF, matters), RFLAGS_OF, matters);
    return result;
}

std::optional<Quotient> divide(Signedness sign, std::uint64_t high, std::uint64_t low, std::uint64_t divisor,
                               unsigned size) {
    const unsigned top = size * 8 - 1;
    high = cut(high, size);
    low = cut(low, size);
    divisor = cut(divisor, size);
    const bool is_signed = sign == Signedness::with;
    const bool negative = is_signed && high >> top != 0;
    const bool negative_divisor = is_signed && divisor >> top != 0;
    if (negative) {
        high = cut(low == 0 ? 0 - high : ~high, size);
        low = cut(0 - low, size);
    }
    if (negative_divisor)
        divisor = cut(0 - divisor, size);
    if (high >= divisor)  // zero among them
        return std::nullopt;
    // Bit by bit: there is no 128-bit division without a library.
    std::uint64_t remainder = high;
    std::uint64_t quotient = 0;
    for (unsigned i = 0; i <= top; ++i) {
        const bool carry = remainder >> top & 1;
        remainder = cut(remainder << 1, size) | (low >> (top - i) & 1);
        quotient <<= 1;
        if (carry || remainder >= divisor) {
            remainder = cut(remainder - divisor, size);
            quotient |= 1;
        }
    }
    if (is_signed) {
        const bool negative_quotient = negative != negative_divisor;
        if (quotient > (std::uint64_t{1} << top) - (negative_quotient ? 0 : 1))
            return std::nullopt;
        if (negative_quotient)
            quotient = cut(0 - quotient, size);
        if (negative)
            remainder = cut(0 - remainder, size);
    }
    return Quotient{quotient, remainder};
}

bool condition(unsigned code, std::uint64_t rflags) {
    const bool carry = rflags & RFLAGS_CF, zero = rflags & RFLAGS_ZF;
    const bool less = ((rflags & RFLAGS_SF) != 0) != ((rflags & RFLAGS_OF) != 0);
    bool holds = false;
    switch (code >> 1 & 7) {
    case 0: holds = rflags & RFLAGS_OF; break;
    case 1: holds = carry; break;
    case 2: holds = zero; break;
    case 3: holds = carry || zero; break;
    case 4: holds = rflags & RFLAGS_SF; break;
    case 5: holds = rflags & RFLAGS_PF; break;
    case 6: holds = less; break;
    default: holds = less || zero; break;
    }
    return holds != ((code & 1) != 0);
}

}  // namespace hv::x86
