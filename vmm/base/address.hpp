// SPDX-License-Identifier: MIT
// Addresses of the three spaces that this program deals with, as types that do not mix. A host virtual
// address is a plain pointer.
#pragma once

#include <compare>
#include <cstdint>

namespace hv {

inline constexpr std::uint64_t kKiB = 1024;
inline constexpr std::uint64_t kMiB = 1024 * kKiB;
inline constexpr std::uint64_t kGiB = 1024 * kMiB;

inline constexpr unsigned kPageShift = 12;
inline constexpr std::uint64_t kPageSize = std::uint64_t{1} << kPageShift;
inline constexpr std::uint64_t kPage2M = 2 * kMiB;
inline constexpr std::uint64_t kPage1G = kGiB;

/// `alignment` is a power of two.
constexpr std::uint64_t align_down(std::uint64_t value, std::uint64_t alignment) {
    return value & ~(alignment - 1);
}
constexpr std::uint64_t align_up(std::uint64_t value, std::uint64_t alignment) {
    return (value + alignment - 1) & ~(alignment - 1);
}
constexpr bool is_aligned(std::uint64_t value, std::uint64_t alignment) {
    return (value & (alignment - 1)) == 0;
}

template <class Space>
struct Address {
    std::uint64_t raw{};

    constexpr Address() = default;
    constexpr explicit Address(std::uint64_t value) : raw{value} {}
    constexpr auto operator<=>(const Address&) const = default;
    constexpr Address operator+(std::uint64_t bytes) const { return Address{raw + bytes}; }
    constexpr Address operator-(std::uint64_t bytes) const { return Address{raw - bytes}; }
    constexpr std::uint64_t operator-(Address other) const { return raw - other.raw; }
    constexpr Address& operator+=(std::uint64_t bytes) {
        raw += bytes;
        return *this;
    }
    [[nodiscard]] constexpr Address page() const { return Address{align_down(raw, kPageSize)}; }
    [[nodiscard]] constexpr std::uint64_t page_offset() const { return raw & (kPageSize - 1); }
    [[nodiscard]] constexpr bool aligned(std::uint64_t alignment) const { return is_aligned(raw, alignment); }
};

using Gpa = Address<struct GuestPhysicalSpace>;  ///< guest physical
using Gva = Address<struct GuestVirtualSpace>;   ///< guest linear
using Hpa = Address<struct HostPhysicalSpace>;   ///< host physical

}  // namespace hv
