// SPDX-License-Identifier: MIT
// CRC-32 as Ethernet, gzip and GPT have it: polynomial 04c11db7 with bits reflected, all ones before and
// inverted after.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace hv {

/// What a byte does to the remainder that it is shifted out of.
inline constexpr std::array<std::uint32_t, 256> kCrc32Table = [] {
    constexpr std::uint32_t kPolynomial = 0xedb8'8320;  // 04c11db7, reflected
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t i = 0; i < table.size(); ++i) {
        table[i] = i;
        for (unsigned bit = 0; bit < 8; ++bit)
            table[i] = (table[i] >> 1) ^ ((table[i] & 1) != 0 ? kPolynomial : 0);
    }
    return table;
}();

/// Over bytes that come in any number of pieces.
class Crc32 {
public:
    constexpr Crc32& add(std::span<const std::byte> bytes) {
        for (const std::byte each : bytes)
            state_ = (state_ >> 8) ^ kCrc32Table[(state_ ^ std::to_integer<std::uint32_t>(each)) & 0xff];
        return *this;
    }
    [[nodiscard]] constexpr std::uint32_t value() const { return ~state_; }

private:
    std::uint32_t state_{~std::uint32_t{0}};
};

}  // namespace hv
