// SPDX-License-Identifier: MIT
// IP addresses that a station may have: single ones, or all that begin with the same bits.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace hv::net {

struct IpPrefix {
    enum class Family : std::uint8_t { ipv4, ipv6 };
    Family family{Family::ipv4};
    std::uint8_t bits{0};  ///< how many count: 32 or 128 for a single address
    std::array<std::uint8_t, 16> address{};

    [[nodiscard]] constexpr std::size_t size() const { return family == Family::ipv4 ? 4 : 16; }
    /// Whether `other`, an address of this family, is one of them.
    [[nodiscard]] constexpr bool contains(std::span<const std::uint8_t> other) const {
        for (std::size_t i = 0; i < bits / 8u; ++i)
            if (address[i] != other[i])
                return false;
        const unsigned rest = bits % 8;
        return rest == 0 || (address[bits / 8] ^ other[bits / 8]) >> (8 - rest) == 0;
    }
    /// Whether all of `other` are among them.
    [[nodiscard]] constexpr bool covers(const IpPrefix& other) const {
        return family == other.family && bits <= other.bits && contains(other.address);
    }
    bool operator==(const IpPrefix&) const = default;
};

/// A station's addresses; none: they are not looked at.
struct IpPrefixList {
    static constexpr std::size_t kMax = 8;
    std::array<IpPrefix, kMax> prefixes{};
    std::uint8_t count{0};

    [[nodiscard]] constexpr std::span<const IpPrefix> span() const {
        return std::span{prefixes}.first(count);
    }
};

}  // namespace hv::net
