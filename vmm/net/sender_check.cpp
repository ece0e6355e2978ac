// SPDX-License-Identifier: MIT
#include "vmm/net/sender_check.hpp"

#include "vmm/net/ethernet.hpp"

#include <algorithm>
#include <array>
#include <cstdint>

namespace hv::net {
namespace {

using Family = IpPrefix::Family;
using Bytes = std::span<const std::uint8_t>;

// [rfc826 Packet format], for Ethernet and IPv4; offsets are those behind the EtherType.
constexpr std::size_t kArpSize = 28;
constexpr std::array<std::uint8_t, 6> kArpForIpv4{0, 1, 8, 0, 6, 4};
constexpr std::size_t kArpSenderHardware = 8;
constexpr std::size_t kArpSenderProtocol = 14;

// [rfc791 3.1 Internet Header Format]
constexpr std::size_t kIpv4Size = 20;
constexpr std::size_t kIpv4Source = 12;

// [rfc8200 3 IPv6 Header Format]
constexpr std::size_t kIpv6Size = 40;
constexpr std::size_t kIpv6Length = 4;
constexpr std::size_t kIpv6Next = 6;
constexpr std::size_t kIpv6HopLimit = 7;
constexpr std::size_t kIpv6Source = 8;
constexpr std::uint8_t kNextIcmpv6 = 58;

// [rfc4861 4 Message Formats]; the largest hop limit marks what comes from the same link.
constexpr std::uint8_t kLinkHopLimit = 255;
constexpr std::uint8_t kRouterSolicitation = 133;
constexpr std::uint8_t kNeighborSolicitation = 135;
constexpr std::uint8_t kNeighborAdvertisement = 136;
constexpr std::uint8_t kRedirect = 137;
constexpr std::size_t kNeighborTarget = 8;
constexpr std::size_t kNeighborSize = 24;
constexpr std::size_t kSolicitationSize = 8;
constexpr std::size_t kOptionUnit = 8;
constexpr std::uint8_t kSourceLinkLayerAddress = 1;
constexpr std::uint8_t kTargetLinkLayerAddress = 2;

/// [rfc8200 4 IPv6 Extension Headers], [rfc7045 4 IANA Considerations], without ESP: what it hides is for a
/// peer.
constexpr bool is_extension(std::uint8_t next_header) {
    constexpr std::uint8_t kExtensions[]{0, 43, 44, 51, 60, 135, 139, 140};
    return std::find(std::begin(kExtensions), std::end(kExtensions), next_header) != std::end(kExtensions);
}

bool is_zero(Bytes bytes) {
    return std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t byte) { return byte == 0; });
}

class Sender {
public:
    Sender(const MacAddress& mac, std::span<const IpPrefix> addresses) : mac_{mac}, addresses_{addresses} {}

    [[nodiscard]] bool sends_arp(Bytes packet) const {
        return packet.size() >= kArpSize &&
               std::equal(kArpForIpv4.begin(), kArpForIpv4.end(), packet.begin()) &&
               is_hardware(packet.subspan(kArpSenderHardware)) &&
               (addresses_.empty() || may_be(Family::ipv4, packet.subspan(kArpSenderProtocol, 4)));
    }
    [[nodiscard]] bool sends_ipv4(Bytes packet) const {
        return packet.size() >= kIpv4Size && may_be(Family::ipv4, packet.subspan(kIpv4Source, 4));
    }
    [[nodiscard]] bool sends_ipv6(Bytes packet) const {
        if (packet.size() < kIpv6Size || !may_be(Family::ipv6, packet.subspan(kIpv6Source, 16)))
            return false;
        const std::uint8_t next = packet[kIpv6Next];
        if (next == kNextIcmpv6)
            return sends_icmpv6(packet);
        // Behind other headers may be Neighbor Discovery, which nobody takes unless it comes from this link.
        return !is_extension(next) || packet[kIpv6HopLimit] != kLinkHopLimit;
    }

private:
    [[nodiscard]] bool sends_icmpv6(Bytes packet) const {
        const Bytes message = packet.subspan(kIpv6Size);
        if (message.empty())
            return false;
        const std::uint8_t type = message[0];
        if (type < kRouterSolicitation || type > kRedirect)
            return true;
        if (type != kRouterSolicitation && type != kNeighborSolicitation && type != kNeighborAdvertisement)
            return false;
        const std::size_t start = type == kRouterSolicitation ? kSolicitationSize : kNeighborSize;
        const std::size_t length = std::size_t{packet[kIpv6Length]} << 8 | packet[kIpv6Length + 1];
        // A longer one has options that we do not see.
        if (length < start || length > message.size())
            return false;
        return (type != kNeighborAdvertisement ||
                is_own(Family::ipv6, message.subspan(kNeighborTarget, 16))) &&
               options_are_own(message.subspan(start, length - start));
    }
    [[nodiscard]] bool options_are_own(Bytes options) const {
        while (!options.empty()) {
            const std::size_t size = options.size() > 1 ? options[1] * kOptionUnit : 0;
            if (size == 0 || size > options.size())
                return false;
            if ((options[0] == kSourceLinkLayerAddress || options[0] == kTargetLinkLayerAddress) &&
                !is_hardware(options.subspan(2)))
                return false;
            options = options.subspan(size);
        }
        return true;
    }

    [[nodiscard]] bool is_hardware(Bytes bytes) const {
        return std::equal(mac_.begin(), mac_.end(), bytes.begin());
    }
    [[nodiscard]] bool is_own(Family family, Bytes address) const {
        if (family == Family::ipv6 && is_own_link_local(address))
            return true;
        return std::any_of(addresses_.begin(), addresses_.end(), [&](const IpPrefix& each) {
            return each.family == family && each.contains(address);
        });
    }
    /// The unspecified address is who asks for one, or whether anybody has the one that it wants.
    [[nodiscard]] bool may_be(Family family, Bytes address) const {
        return is_zero(address) || is_own(family, address);
    }
    /// [rfc4291 Appendix A: Creating Modified EUI-64 Format Interface Identifiers]
    [[nodiscard]] bool is_own_link_local(Bytes address) const {
        const std::array<std::uint8_t, 16> own{
            0xfe,    0x80,    0,    0,    0,       0,       0,      0, static_cast<std::uint8_t>(mac_[0] ^ 2),
            mac_[1], mac_[2], 0xff, 0xfe, mac_[3], mac_[4], mac_[5]};
        return std::equal(own.begin(), own.end(), address.begin());
    }

    const MacAddress& mac_;
    std::span<const IpPrefix> addresses_;
};

}  // namespace

bool speaks_for_itself(const Frame& frame, std::size_t type_at, const MacAddress& mac,
                       std::span<const IpPrefix> addresses) {
    const Sender sender{mac, addresses};
    const std::size_t start = type_at + 2;
    const std::size_t end = std::clamp<std::size_t>(frame.size, start, frame.header.size());
    const Bytes packet =
        Bytes{reinterpret_cast<const std::uint8_t*>(frame.header.data()), end}.subspan(start);
    const std::uint16_t type = number_at(frame, type_at);
    if (type == kTypeArp)
        return sender.sends_arp(packet);
    if (addresses.empty())
        return true;
    return (type == kTypeIpv4 && sender.sends_ipv4(packet)) ||
           (type == kTypeIpv6 && sender.sends_ipv6(packet));
}

}  // namespace hv::net
