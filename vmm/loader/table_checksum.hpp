// SPDX-License-Identifier: MIT
// What firmware tables of every kind have in common.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace hv::loader {

/// The byte that makes the sum of all bytes zero.
constexpr std::uint8_t table_checksum(std::span<const std::byte> bytes) {
    unsigned sum = 0;
    for (const std::byte each : bytes)
        sum += std::to_integer<unsigned>(each);
    return static_cast<std::uint8_t>(0 - sum);
}

}  // namespace hv::loader
