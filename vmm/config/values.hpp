// SPDX-License-Identifier: MIT
// The values that are written as strings: sizes, rates, MAC addresses, names.
#pragma once

#include "drivers/net/net_device.hpp"
#include "vmm/net/ip_prefix.hpp"

#include <cstdint>
#include <optional>
#include <string_view>

namespace hv::config {

/// Bytes of "4096", "16K", "256M", "1G", "2T" (powers of 1024); nothing if it is no size or does not fit in
/// 64 bits.
std::optional<std::uint64_t> parse_size(std::string_view text);

/// Bits per second of "500kbit", "100Mbit", "10Gbit" (powers of 1000).
std::optional<std::uint64_t> parse_rate(std::string_view text);

/// Six pairs of hexadecimal digits between colons.
std::optional<MacAddress> parse_mac(std::string_view text);

/// "10.0.0.2", "10.0.0.0/24", "2001:db8::2", "fe80::/10" [rfc4291 2.2 Text Representation of Addresses],
/// without IPv4 inside IPv6.
std::optional<net::IpPrefix> parse_prefix(std::string_view text);

/// An address for the NIC `index` of the VM `vm` on the host `host`, which may have no name, the same in
/// every run: 52:54 (locally administered) and four bytes of FNV-1a over these and `attempt`, which is raised
/// while the address is taken.
MacAddress derive_mac(std::string_view host, std::string_view vm, std::size_t index, unsigned attempt);

/// What VMs and switches may be called: 1 to 32 letters, digits, '-', '_' and '.', the first a letter or
/// digit.
bool is_name(std::string_view text);

/// Whether there is a control character in `text`, which would disturb whoever prints it.
bool has_control(std::string_view text);

}  // namespace hv::config
