// SPDX-License-Identifier: MIT
// Where things are in an Ethernet frame, and what they mean there.
#pragma once

#include "drivers/net/net_device.hpp"

#include <cstddef>
#include <cstdint>

namespace hv::net {

inline constexpr std::size_t kSourceAddress = 6;
inline constexpr std::size_t kTypeField = 12;
inline constexpr std::size_t kTagSize = 4;

inline constexpr std::uint16_t kTypeIpv4 = 0x0800;
inline constexpr std::uint16_t kTypeArp = 0x0806;
inline constexpr std::uint16_t kTypeVlan = 0x8100;
inline constexpr std::uint16_t kTypeIpv6 = 0x86dd;
inline constexpr std::uint16_t kTypeServiceVlan = 0x88a8;

/// Whether a frame with this EtherType has a VLAN tag.
constexpr bool is_tag(std::uint16_t type) {
    return type == kTypeVlan || type == kTypeServiceVlan;
}

/// The 16-bit number at `offset` of a frame's header, most significant byte first.
inline std::uint16_t number_at(const Frame& frame, std::size_t offset) {
    return static_cast<std::uint16_t>(std::to_integer<unsigned>(frame.header[offset]) << 8 |
                                      std::to_integer<unsigned>(frame.header[offset + 1]));
}

}  // namespace hv::net
