// SPDX-License-Identifier: MIT
// Stations that are bridges, routers or monitors.
#include "catch.hpp"
#include "vmm/net/switch_fixture.hpp"

using namespace hv;
using namespace hv::net;
using namespace hv::test;

namespace {

/// Two stations of VLAN 0 on ports 0 and 1, and a trusted one on port 2.
struct Trusting : Network {
    Trusting() {
        access(1);
        access(2);
        add({PortOptions::Kind::trusted, mac(3), 0, 0});
    }
    SwitchPort& port(std::size_t index) { return const_cast<SwitchPort&>(*lan->port(index)); }
    TestStation& bridge() { return stations[2]; }
};

}  // namespace

TEST_CASE("a trusted station sends from any address but other stations', and is found by these", "[net]") {
    Trusting network;
    CHECK(network.send(network.port(2), frame_bytes(mac(1), mac(3))) == Delivery::taken);
    CHECK(network.send(network.port(2), frame_bytes(mac(1), mac(50))) == Delivery::taken);
    CHECK(network.stations[0].take().size() == 2);
    CHECK(network.send(network.port(2), frame_bytes(mac(1), mac(2))) == Delivery::dropped);
    CHECK(refused(network.port(2), Refusal::source) == 1);
    CHECK(network.send(network.port(2), frame_bytes(mac(1), kBroadcast)) == Delivery::dropped);
    // It waits as for any station for what it has no room for.
    network.bridge().room = 0;
    CHECK(network.send(network.port(0), frame_bytes(mac(50), mac(1))) == Delivery::no_room);
    network.bridge().room = ~0u;
    CHECK(network.send(network.port(0), frame_bytes(mac(50), mac(1))) == Delivery::taken);
    CHECK(network.bridge().take().size() == 1);
    CHECK(network.stations[1].take().empty());
    Bytes arp = frame_bytes(kBroadcast, mac(50));
    put16(arp, 12, 0x0806);
    CHECK(network.send(network.port(2), arp) == Delivery::taken);
}

TEST_CASE("a trusted station gets what is for others in its VLANs", "[net]") {
    Trusting network;
    SwitchPort& up = network.uplink();
    SwitchPort& other = network.access(5, 10);
    network.access(6, 10);
    CHECK(network.send(network.port(0), frame_bytes(mac(2), mac(1))) == Delivery::taken);
    CHECK(network.stations[1].take().size() == 1);
    CHECK(network.bridge().take() == std::vector<Bytes>{frame_bytes(mac(2), mac(1))});
    CHECK(network.send(network.port(0), frame_bytes(mac(3), mac(1))) == Delivery::taken);
    CHECK(network.bridge().take().size() == 1);
    CHECK(network.send(network.port(0), frame_bytes(kBroadcast, mac(1))) == Delivery::taken);
    CHECK(network.bridge().take().size() == 1);
    CHECK(network.send(network.port(0), frame_bytes(mac(60), mac(1))) == Delivery::taken);
    CHECK(network.bridge().take().size() == 1);
    CHECK(network.send(up, frame_bytes(mac(61), mac(60))) == Delivery::taken);
    CHECK(network.bridge().take().size() == 1);
    CHECK(network.send(up, frame_bytes(mac(1), mac(60))) == Delivery::taken);
    CHECK(network.bridge().take().size() == 1);
    CHECK(network.send(other, frame_bytes(mac(6), mac(5))) == Delivery::taken);
    CHECK(network.send(other, frame_bytes(kBroadcast, mac(5))) == Delivery::taken);
    CHECK(network.bridge().take().empty());
    // Not its own frames.
    CHECK(network.send(network.port(2), frame_bytes(mac(2), mac(3))) == Delivery::taken);
    CHECK(network.bridge().take().empty());
}

TEST_CASE("nobody waits for a trusted station to take what is for others", "[net]") {
    Trusting network;
    network.bridge().room = 0;
    CHECK(network.send(network.port(0), frame_bytes(mac(2), mac(1))) == Delivery::taken);
    CHECK(network.port(2).counters().lost == 1);
    // And it gets one copy of what others have no room for.
    network.bridge().room = ~0u;
    network.stations[1].room = 0;
    CHECK(network.send(network.port(0), frame_bytes(mac(2), mac(1))) == Delivery::no_room);
    CHECK(network.bridge().take().empty());
    network.stations[1].room = 1;
    CHECK(network.send(network.port(0), frame_bytes(mac(2), mac(1))) == Delivery::taken);
    CHECK(network.bridge().take().size() == 1);
}

TEST_CASE("a switch whose trusted stations have left is as it was", "[net]") {
    Trusting network;
    SwitchPort& up = network.uplink();
    network.send(network.port(2), frame_bytes(mac(1), mac(50)));
    network.lan->remove_port(network.port(2));
    CHECK(network.send(up, frame_bytes(mac(50), mac(60))) == Delivery::dropped);
    CHECK(network.send(network.port(0), frame_bytes(mac(50), mac(1))) == Delivery::taken);
    CHECK(network.stations[3].take().size() == 1);
    CHECK(network.send(network.port(0), frame_bytes(mac(2), mac(1))) == Delivery::taken);
    CHECK(network.bridge().take().empty());
}

TEST_CASE("a trusted trunk has its own address in all of its VLANs", "[net]") {
    Network network;
    PortOptions options{PortOptions::Kind::trusted, mac(1), 0, 0};
    options.vlans.add(10);
    SwitchPort& trunk = network.add(options);
    network.access(2, 10);
    CHECK(network.send(trunk, frame_bytes(mac(2), mac(1), 10)) == Delivery::taken);
    CHECK(network.send(trunk, frame_bytes(mac(2), mac(1), 11)) == Delivery::dropped);
    CHECK(network.stations[1].take().size() == 1);
}
