// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/net/sender_check.hpp"
#include "vmm/net/switch_fixture.hpp"

using namespace hv;
using namespace hv::net;
using namespace hv::test;

namespace {

using Ipv6 = std::array<std::uint8_t, 16>;
constexpr Ipv6 kOwn{0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2};
constexpr Ipv6 kForeign{0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3};
constexpr Ipv6 kUnspecified{};
/// Of 52:54:00:00:00:01.
constexpr Ipv6 kOwnLink{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 0x54, 0, 0xff, 0xfe, 0, 0, 1};
constexpr Ipv6 kRouterLink{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};

IpPrefixList own_addresses() {
    IpPrefixList list;
    list.prefixes[list.count++] = {IpPrefix::Family::ipv4, 32, {10, 0, 0, 2}};
    list.prefixes[list.count++] = {IpPrefix::Family::ipv4, 20, {172, 16, 16, 0}};
    list.prefixes[list.count++] = {IpPrefix::Family::ipv6, 128, kOwn};
    return list;
}

/// What station 1 may say, with addresses or without.
bool passes(const Bytes& bytes, const IpPrefixList& addresses, std::size_t type_at = 12) {
    std::mt19937 random{1};
    const ScatteredFrame frame{bytes, {}, random, 2};
    return speaks_for_itself(frame.frame, type_at, mac(1), addresses.span());
}
bool passes(const Bytes& bytes) {
    return passes(bytes, own_addresses());
}

Bytes arp(const MacAddress& sender, const std::array<std::uint8_t, 4>& address) {
    Bytes bytes = frame_bytes(kBroadcast, mac(1));
    const Bytes packet{8, 6, 0, 1, 8, 0, 6, 4, 0, 1};
    std::copy(packet.begin(), packet.end(), bytes.begin() + 12);
    std::copy(sender.begin(), sender.end(), bytes.begin() + 22);
    std::copy(address.begin(), address.end(), bytes.begin() + 28);
    return bytes;
}

Bytes ipv4(const std::array<std::uint8_t, 4>& source) {
    Bytes bytes = frame_bytes(mac(2), mac(1));
    bytes[14] = 0x45;
    std::copy(source.begin(), source.end(), bytes.begin() + 26);
    return bytes;
}

Bytes ipv6(const Ipv6& source, std::uint8_t next, const Bytes& payload, std::uint8_t hop_limit = 255) {
    Bytes bytes = frame_bytes(mac(2), mac(1), {}, 54);
    put16(bytes, 12, 0x86dd);
    bytes[14] = 0x60;
    put16(bytes, 18, static_cast<unsigned>(payload.size()));
    bytes[20] = next;
    bytes[21] = hop_limit;
    std::copy(source.begin(), source.end(), bytes.begin() + 22);
    bytes.insert(bytes.end(), payload.begin(), payload.end());
    return bytes;
}

/// A Neighbor Discovery message with an option that gives `link` as the link-layer address.
Bytes neighbour(std::uint8_t type, const Ipv6& target, std::optional<MacAddress> link = {}) {
    Bytes message(24);
    message[0] = type;
    std::copy(target.begin(), target.end(), message.begin() + 8);
    if (link) {
        message.push_back(type == 136 ? 2 : 1);
        message.push_back(1);
        message.insert(message.end(), link->begin(), link->end());
    }
    return message;
}
constexpr std::uint8_t kSolicitation = 135, kAdvertisement = 136, kIcmpv6 = 58, kUdp = 17;

}  // namespace

TEST_CASE("ARP gives the sender's own hardware address, with and without known addresses", "[net]") {
    CHECK(passes(arp(mac(1), {10, 0, 0, 9}), {}));
    CHECK_FALSE(passes(arp(mac(2), {10, 0, 0, 9}), {}));
    CHECK_FALSE(passes(arp(mac(2), {10, 0, 0, 2})));
    CHECK(passes(arp(mac(1), {10, 0, 0, 2})));
    CHECK_FALSE(passes(arp(mac(1), {10, 0, 0, 1})));
    CHECK(passes(arp(mac(1), {0, 0, 0, 0})));  // asks whether its address is taken
    Bytes other_hardware = arp(mac(1), {10, 0, 0, 2});
    other_hardware[15] = 6;
    CHECK_FALSE(passes(other_hardware, {}));
    Bytes cut = arp(mac(1), {10, 0, 0, 2});
    cut.resize(14 + 27);
    CHECK_FALSE(passes(cut, {}));
    cut.resize(14);
    CHECK_FALSE(passes(cut, {}));
}

TEST_CASE("IP packets come from the sender's addresses", "[net]") {
    CHECK(passes(ipv4({10, 0, 0, 1}), {}));
    CHECK(passes(ipv4({10, 0, 0, 2})));
    CHECK_FALSE(passes(ipv4({10, 0, 0, 1})));
    CHECK(passes(ipv4({0, 0, 0, 0})));
    CHECK(passes(ipv4({172, 16, 31, 255})));
    CHECK_FALSE(passes(ipv4({172, 16, 32, 0})));
    CHECK_FALSE(passes(ipv4({172, 16, 15, 255})));
    CHECK(passes(ipv6(kForeign, kUdp, Bytes(8)), {}));
    CHECK(passes(ipv6(kOwn, kUdp, Bytes(8))));
    CHECK(passes(ipv6(kOwnLink, kUdp, Bytes(8))));
    CHECK(passes(ipv6(kUnspecified, kUdp, Bytes(8))));
    CHECK_FALSE(passes(ipv6(kForeign, kUdp, Bytes(8))));
    CHECK_FALSE(passes(ipv6(kRouterLink, kUdp, Bytes(8))));
    Bytes cut = ipv6(kOwn, kUdp, {});
    cut.pop_back();
    CHECK_FALSE(passes(cut));
    cut = ipv4({10, 0, 0, 2});
    cut.resize(33);
    CHECK_FALSE(passes(cut));
    // What could carry addresses that nobody looks at.
    Bytes other = frame_bytes(mac(2), mac(1));
    put16(other, 12, 0x8864);
    CHECK(passes(other, {}));
    CHECK_FALSE(passes(other));
}

TEST_CASE("Neighbor Discovery speaks of the sender's own addresses", "[net]") {
    const auto nd = [](const Ipv6& source, const Bytes& message) {
        return passes(ipv6(source, kIcmpv6, message));
    };
    CHECK(nd(kOwn, neighbour(kSolicitation, kForeign, mac(1))));
    CHECK(nd(kUnspecified, neighbour(kSolicitation, kOwn)));
    CHECK_FALSE(nd(kRouterLink, neighbour(kSolicitation, kForeign, mac(1))));
    CHECK_FALSE(nd(kOwn, neighbour(kSolicitation, kForeign, mac(2))));
    CHECK(nd(kOwn, neighbour(kAdvertisement, kOwn, mac(1))));
    CHECK(nd(kOwnLink, neighbour(kAdvertisement, kOwnLink, mac(1))));
    CHECK_FALSE(nd(kOwn, neighbour(kAdvertisement, kForeign, mac(1))));
    CHECK_FALSE(nd(kOwn, neighbour(kAdvertisement, kRouterLink)));
    CHECK_FALSE(nd(kOwn, neighbour(kAdvertisement, kUnspecified)));
    CHECK_FALSE(nd(kOwn, neighbour(134, kOwn)));  // a router's advertisement
    CHECK_FALSE(nd(kOwn, neighbour(137, kOwn)));  // a redirect
    CHECK(nd(kOwn, Bytes{133, 0, 0, 0, 0, 0, 0, 0}));
    CHECK(nd(kOwn, Bytes{128, 0, 0, 0}));
    CHECK(passes(ipv6(kForeign, kIcmpv6, neighbour(kAdvertisement, kForeign, mac(2))), {}));
}

TEST_CASE("Neighbor Discovery that cannot be read whole is refused", "[net]") {
    const auto nd = [](const Bytes& message) { return passes(ipv6(kOwn, kIcmpv6, message)); };
    Bytes message = neighbour(kSolicitation, kForeign);
    message.resize(23);
    CHECK_FALSE(nd(message));
    CHECK_FALSE(nd({}));
    message = neighbour(kSolicitation, kForeign, mac(1));
    message[25] = 0;  // an option without a length would go on for ever
    CHECK_FALSE(nd(message));
    message[25] = 2;
    CHECK_FALSE(nd(message));
    // A harmless option first, and one that lies behind what is seen of the frame.
    message = neighbour(kSolicitation, kForeign);
    message.insert(message.end(), {14, 1, 0, 0, 0, 0, 0, 0});
    CHECK(nd(message));
    message.insert(message.end(), {1, 1, 2, 2, 2, 2, 2, 2});
    CHECK_FALSE(nd(message));
    // Behind an extension header; that it comes from this link is what would make it believed.
    CHECK_FALSE(passes(ipv6(kOwn, 0, neighbour(kAdvertisement, kForeign))));
    CHECK_FALSE(passes(ipv6(kOwn, 60, neighbour(kAdvertisement, kForeign))));
    CHECK(passes(ipv6(kOwn, 0, Bytes(16), 1)));
}

TEST_CASE("a port refuses what does not speak for itself, tagged frames as well", "[net]") {
    Network network;
    PortOptions options{PortOptions::Kind::access, mac(1), 0, 0};
    options.vlans.add(10);
    options.addresses = own_addresses();
    SwitchPort& a = network.add(options);
    network.access(2);
    network.access(2, 10);
    const auto tagged = [](Bytes bytes) {
        const Bytes tag{0x81, 0, 0, 10};
        bytes.insert(bytes.begin() + 12, tag.begin(), tag.end());
        return bytes;
    };
    CHECK(network.send(a, arp(mac(1), {10, 0, 0, 2})) == Delivery::taken);
    CHECK(network.send(a, ipv4({10, 0, 0, 2})) == Delivery::taken);
    CHECK(network.send(a, tagged(ipv4({10, 0, 0, 2}))) == Delivery::taken);
    CHECK(network.send(a, tagged(ipv6(kOwn, kIcmpv6, neighbour(kSolicitation, kForeign, mac(1))))) ==
          Delivery::taken);
    CHECK(refused(a, Refusal::sender) == 0);
    CHECK(network.send(a, arp(mac(2), {10, 0, 0, 2})) == Delivery::dropped);
    CHECK(network.send(a, ipv4({10, 0, 0, 3})) == Delivery::dropped);
    CHECK(network.send(a, tagged(ipv4({10, 0, 0, 3}))) == Delivery::dropped);
    CHECK(network.send(a, tagged(ipv6(kOwn, kIcmpv6, neighbour(kAdvertisement, kForeign, mac(1))))) ==
          Delivery::dropped);
    CHECK(refused(a, Refusal::sender) == 4);
    // Others are refused for ARP alone.
    SwitchPort& open = network.access(3);
    Bytes bytes = arp(mac(3), {10, 0, 0, 2});
    std::copy_n(mac(3).begin(), 6, bytes.begin() + 6);
    CHECK(network.send(open, bytes) == Delivery::taken);
    bytes[27] = 9;
    CHECK(network.send(open, bytes) == Delivery::dropped);
    CHECK(refused(open, Refusal::sender) == 1);
}
