// SPDX-License-Identifier: MIT
// Fields of a raw word, named by their bit positions as manuals print them: Bits<5, 3> is bits 5:3, Bits<7>
// is bit 7.
#pragma once

#include <cstdint>

namespace hv {

template <unsigned Hi, unsigned Lo = Hi>
struct Bits {
    static_assert(Hi >= Lo && Hi < 64);
    static constexpr unsigned kShift = Lo;
    static constexpr unsigned kWidth = Hi - Lo + 1;
    static constexpr std::uint64_t kMask =
        (kWidth == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << kWidth) - 1) << Lo;

    /// The field's value, shifted down.
    static constexpr std::uint64_t get(std::uint64_t raw) { return (raw & kMask) >> Lo; }
    /// Whether any bit of the field is set.
    static constexpr bool test(std::uint64_t raw) { return (raw & kMask) != 0; }
    /// `raw` with the field replaced; excess bits of `value` are dropped.
    static constexpr std::uint64_t set(std::uint64_t raw, std::uint64_t value) {
        return (raw & ~kMask) | ((value << Lo) & kMask);
    }
    /// The field alone.
    static constexpr std::uint64_t make(std::uint64_t value) { return (value << Lo) & kMask; }
};

constexpr std::uint64_t bit(unsigned index) {
    return std::uint64_t{1} << index;
}

}  // namespace hv
