// SPDX-License-Identifier: MIT
// Integer operations with their effect on RFLAGS, as pure functions. Flags that the manuals leave undefined
// are computed like processors of both vendors do.
#pragma once

#include "vmm/x86/instruction.hpp"

#include <cstdint>
#include <optional>

namespace hv::x86 {

struct AluResult {
    std::uint64_t value;
    std::uint64_t rflags;
};

/// `value` cut to `size` bytes: 1, 2, 4 or 8.
constexpr std::uint64_t cut(std::uint64_t value, unsigned size) {
    return size >= 8 ? value : value & ((std::uint64_t{1} << (size * 8)) - 1);
}
/// The low `size` bytes of `value`, sign-extended.
constexpr std::uint64_t sign_extend(std::uint64_t value, unsigned size) {
    const unsigned shift = 64 - size * 8;
    return static_cast<std::uint64_t>(static_cast<std::int64_t>(value << shift) >> shift);
}

/// `operation` is add, or_, adc, sbb, and_, sub, xor_, cmp, test, not_, neg, inc or dec; unary ones ignore
/// `source`. cmp and test return `target` as value.
AluResult alu(Operation operation, std::uint64_t target, std::uint64_t source, unsigned size,
              std::uint64_t rflags);

/// rol, ror, rcl, rcr, shl, shr, sal, sar by `count`, which is masked as the processor does.
AluResult shift(Operation operation, std::uint64_t target, unsigned count, unsigned size,
                std::uint64_t rflags);

/// bt, bts, btr, btc of bit `index` < size * 8.
AluResult bit_test(Operation operation, std::uint64_t target, unsigned index, std::uint64_t rflags);

/// SHLD and SHRD: `target` shifted by `count`, filled up from `source`. Beyond the operand's width, which
/// only the 16-bit forms allow, results are undefined.
AluResult shift_double(Operation operation, std::uint64_t target, std::uint64_t source, unsigned count,
                       unsigned size, std::uint64_t rflags);

/// bsf, bsr, tzcnt, lzcnt, popcnt of `source`. BSF and BSR leave their target alone if there is no bit: the
/// value is `target` then.
AluResult count_bits(Operation operation, std::uint64_t target, std::uint64_t source, unsigned size,
                     std::uint64_t rflags);

enum class Signedness : std::uint8_t { without, with };

/// MUL and IMUL: CF and OF tell whether the high half matters.
struct Product {
    std::uint64_t low, high;
    std::uint64_t rflags;
};
Product multiply(Signedness sign, std::uint64_t a, std::uint64_t b, unsigned size, std::uint64_t rflags);

/// DIV and IDIV of high:low. Nothing: #DE.
struct Quotient {
    std::uint64_t quotient, remainder;
};
std::optional<Quotient> divide(Signedness sign, std::uint64_t high, std::uint64_t low, std::uint64_t divisor,
                               unsigned size);

/// Whether condition `code`, the low 4 bits of Jcc, SETcc and CMOVcc, holds.
bool condition(unsigned code, std::uint64_t rflags);

}  // namespace hv::x86
