// SPDX-License-Identifier: MIT
// The Internet checksum [rfc1071] over bytes that come in pieces of any length and alignment.
#pragma once

#include "vmm/base/bytes.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace hv::net {

class Checksum {
public:
    void add(std::span<const std::byte> bytes) {
        std::uint64_t sum = 0;
        const std::byte* at = bytes.data();
        std::size_t left = bytes.size();
        for (; left >= 8; at += 8, left -= 8) {
            const auto word = load<std::uint64_t>(at);
            sum += (word & 0xffff'ffff) + (word >> 32);
        }
        for (unsigned shift = 0; left > 0; ++at, --left, shift ^= 8)
            sum += std::to_integer<std::uint64_t>(*at) << shift;
        // A piece that starts at an odd place counts with its bytes swapped [rfc1071 2 (B)].
        const std::uint64_t folded = fold(sum);
        sum_ += odd_ ? ((folded & 0xff) << 8 | folded >> 8) : folded;
        odd_ ^= bytes.size() % 2 != 0;
    }
    /// A 16-bit number, most significant byte first.
    void add_number(std::uint16_t value) {
        const std::byte bytes[]{std::byte(value >> 8), std::byte(value & 0xff)};
        add(bytes);
    }
    /// The sum as two bytes in memory hold it when stored as a native integer.
    [[nodiscard]] std::uint16_t sum() const { return static_cast<std::uint16_t>(fold(sum_)); }
    /// What goes into a checksum field that was zero, or held the pseudo header's sum, while it was added.
    [[nodiscard]] std::uint16_t complement() const { return static_cast<std::uint16_t>(~sum()); }

private:
    static constexpr std::uint64_t fold(std::uint64_t sum) {
        while (sum > 0xffff)
            sum = (sum & 0xffff) + (sum >> 16);
        return sum;
    }

    std::uint64_t sum_{0};
    bool odd_{false};
};

}  // namespace hv::net
