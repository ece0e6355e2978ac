// SPDX-License-Identifier: MIT
// A set of VLANs. 0 stands for untagged frames.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace hv::net {

/// The largest VLAN identifier that a network may use [ieee802.1q 9.6 VLAN Tag Control Information].
inline constexpr std::uint16_t kMaxVlan = 4094;

class VlanSet {
public:
    /// 0 to kMaxVlan.
    static constexpr VlanSet all() {
        VlanSet set;
        for (std::uint64_t& word : set.words_)
            word = ~std::uint64_t{0};
        set.words_.back() >>= 1;
        return set;
    }
    /// `vlan` <= kMaxVlan.
    constexpr void add(std::uint16_t vlan) { words_[vlan / 64] |= std::uint64_t{1} << vlan % 64; }
    /// `vlan` <= 4095.
    [[nodiscard]] constexpr bool contains(std::uint16_t vlan) const {
        return (words_[vlan / 64] >> vlan % 64 & 1) != 0;
    }
    [[nodiscard]] constexpr bool empty() const {
        return std::all_of(words_.begin(), words_.end(), [](std::uint64_t word) { return word == 0; });
    }
    [[nodiscard]] constexpr bool meets(const VlanSet& other) const {
        for (std::size_t i = 0; i < words_.size(); ++i)
            if ((words_[i] & other.words_[i]) != 0)
                return true;
        return false;
    }
    bool operator==(const VlanSet&) const = default;

private:
    std::array<std::uint64_t, 4096 / 64> words_{};
};

}  // namespace hv::net
