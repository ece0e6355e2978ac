// SPDX-License-Identifier: MIT
// What the compilers and libstdc++'s headers call and a hosted program would get from libgcc, libc and
// libstdc++. The memory functions are in memory.S.
#include "vmm/base/assert.hpp"

#include <cstddef>
#include <cstdint>

namespace {

using Wide = unsigned __int128;

struct Division {
    Wide quotient, remainder;
};

Division divide_by_word(Wide dividend, std::uint64_t divisor) {
    const auto high = static_cast<std::uint64_t>(dividend >> 64);
    std::uint64_t low_quotient, remainder;
    // DIV faults where the quotient needs more than 64 bits: the high word is divided first, its remainder is
    // < divisor.
    asm("divq %4"
        : "=a"(low_quotient), "=d"(remainder)
        : "a"(static_cast<std::uint64_t>(dividend)), "d"(high % divisor), "r"(divisor)
        : "cc");
    return {static_cast<Wide>(high / divisor) << 64 | low_quotient, remainder};
}

Division divide(Wide dividend, Wide divisor) {
    if (divisor >> 64 == 0)
        return divide_by_word(dividend, static_cast<std::uint64_t>(divisor));
    Division result{0, 0};
    for (int position = 127; position >= 0; --position) {
        result.remainder = result.remainder << 1 | (dividend >> position & 1);
        if (result.remainder >= divisor) {
            result.remainder -= divisor;
            result.quotient |= static_cast<Wide>(1) << position;
        }
    }
    return result;
}

}  // namespace

extern "C" {

Wide __udivti3(Wide dividend, Wide divisor) {
    return divide(dividend, divisor).quotient;
}
__int128 __divti3(__int128 dividend, __int128 divisor) {
    const auto magnitude = [](__int128 value) {
        return value < 0 ? Wide{0} - static_cast<Wide>(value) : static_cast<Wide>(value);
    };
    const auto quotient = static_cast<__int128>(divide(magnitude(dividend), magnitude(divisor)).quotient);
    return (dividend < 0) != (divisor < 0) ? -quotient : quotient;
}
Wide __umodti3(Wide dividend, Wide divisor) {
    return divide(dividend, divisor).remainder;
}

int __popcountdi2(std::int64_t value) {
    int count = 0;
    for (auto rest = static_cast<std::uint64_t>(value); rest != 0; rest &= rest - 1)
        ++count;
    return count;
}

void* memchr(const void* memory, int wanted, std::size_t size) {
    const auto* bytes = static_cast<const unsigned char*>(memory);
    for (std::size_t i = 0; i < size; ++i) {
        if (bytes[i] == static_cast<unsigned char>(wanted))
            return const_cast<unsigned char*>(bytes + i);
    }
    return nullptr;
}

}  // extern "C"

namespace std {

[[noreturn]] void __throw_out_of_range_fmt(const char* format, ...) {
    hv::panic("out of range: %s", format);
}

}  // namespace std
