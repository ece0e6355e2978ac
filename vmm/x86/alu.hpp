// SPDX-License-Identifier: MIT
// Integer operations with their effect on RFLAGS, as pure functions. Flags that the manuals leave undefined
// are computed like processors of both vendors do.
#pragma once

#include "vmm/x86/instruction.hpp"

#include <cstdint>

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

/// Whether condition `code`, the low 4 bits of Jcc, SETcc and CMOVcc, holds.
bool condition(unsigned code, std::uint64_t rflags);

}  // namespace hv::x86
