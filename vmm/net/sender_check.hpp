// SPDX-License-Identifier: MIT
// Whether a station speaks for itself: the addresses that its ARP, IP and Neighbor Discovery packets give as
// their sender's are its own. Decided on the copied header alone.
#pragma once

#include "drivers/net/net_device.hpp"
#include "vmm/net/ip_prefix.hpp"

#include <cstddef>
#include <span>

namespace hv::net {

/// Whether a frame with its EtherType at `type_at` may come from the station with address `mac`.
/// ARP: only Ethernet's, from this hardware address. With `addresses` moreover: ARP, IPv4 and IPv6 alone,
/// from one of these, from the unspecified address, or from the link-local one that is made of `mac`; a
/// Neighbor Advertisement is for one of these, link-layer addresses in options are `mac`, and nothing is said
/// in a router's name.
[[nodiscard]] bool speaks_for_itself(const Frame& frame, std::size_t type_at, const MacAddress& mac,
                                     std::span<const IpPrefix> addresses);

}  // namespace hv::net
