// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/net/switch_fixture.hpp"

using namespace hv;
using namespace hv::net;
using namespace hv::test;

namespace {

VlanSet vlans(std::initializer_list<std::uint16_t> list) {
    VlanSet set;
    for (const std::uint16_t vlan : list)
        set.add(vlan);
    return set;
}

PortOptions trunk(unsigned index, std::uint16_t native, std::initializer_list<std::uint16_t> tagged) {
    PortOptions options{PortOptions::Kind::access, mac(index), native, 0};
    options.vlans = vlans(tagged);
    return options;
}

PortOptions uplink(std::initializer_list<std::uint16_t> list) {
    PortOptions options{PortOptions::Kind::uplink, {}, 0, 0};
    options.vlans = vlans(list);
    return options;
}

}  // namespace

TEST_CASE("a trunk sends and gets tagged frames of its VLANs, and untagged ones of its own", "[net]") {
    Network network;
    SwitchPort& router = network.add(trunk(1, 5, {10, 20}));
    SwitchPort& five = network.access(2, 5);
    SwitchPort& ten = network.access(2, 10);
    network.access(2, 30);
    auto& stations = network.stations;

    CHECK(network.send(router, frame_bytes(mac(2), mac(1))) == Delivery::taken);
    CHECK(stations[1].take() == std::vector<Bytes>{frame_bytes(mac(2), mac(1))});
    CHECK(network.send(router, frame_bytes(mac(2), mac(1), 10)) == Delivery::taken);
    CHECK(stations[2].take() == std::vector<Bytes>{frame_bytes(mac(2), mac(1))});
    CHECK(network.send(five, frame_bytes(mac(1), mac(2))) == Delivery::taken);
    CHECK(network.send(ten, frame_bytes(mac(1), mac(2))) == Delivery::taken);
    CHECK(network.send(ten, frame_bytes(kBroadcast, mac(2))) == Delivery::taken);
    CHECK(stations[0].take() == std::vector<Bytes>{frame_bytes(mac(1), mac(2)),
                                                   frame_bytes(mac(1), mac(2), 10),
                                                   frame_bytes(kBroadcast, mac(2), 10)});
    CHECK(stations[3].frames.empty());
}

TEST_CASE("a trunk's frames of other VLANs are refused and counted", "[net]") {
    Network network;
    SwitchPort& router = network.add(trunk(1, 5, {10, 20}));
    network.access(2, 30);
    network.access(2, 5);
    SwitchPort& up = network.uplink();
    for (const unsigned vlan : {0u, 5u, 30u, 4095u})
        CHECK(network.send(router, frame_bytes(mac(2), mac(1), vlan)) == Delivery::dropped);
    CHECK(refused(router, Refusal::vlan) == 4);
    // Its second tag would be the only one at a port without tags.
    Bytes twice = frame_bytes(mac(2), mac(1), 10);
    const Bytes tag{0x81, 0x00, 0x00, 30};
    twice.insert(twice.begin() + 12, tag.begin(), tag.end());
    put16(twice, 14, 10);
    CHECK(network.send(router, twice) == Delivery::dropped);
    put16(twice, 14, 0);
    CHECK(network.send(up, twice) == Delivery::dropped);
    CHECK(refused(router, Refusal::vlan) == 5);
    CHECK(refused(up, Refusal::vlan) == 1);
    for (const TestStation& station : network.stations)
        CHECK(station.frames.empty());
    // Another's frames of these VLANs do not come in.
    network.send(up, frame_bytes(kBroadcast, mac(60), 30));
    CHECK(network.stations[0].frames.empty());
    CHECK(network.stations[1].frames.size() == 1);
}

TEST_CASE("a trunk's address is its own in all its VLANs", "[net]") {
    Network network;
    SwitchPort& up = network.uplink();
    network.access(2, 10);
    // It was somebody's outside before the trunk came.
    network.send(up, frame_bytes(mac(2), mac(1), 10));
    SwitchPort& router = network.add(trunk(1, 0, {10, 20}));
    SwitchPort& user = network.access(3, 20);
    network.send(user, frame_bytes(mac(1), mac(3)));
    CHECK(network.stations[2].take() == std::vector<Bytes>{frame_bytes(mac(1), mac(3), 20)});
    CHECK(network.send(up, frame_bytes(mac(2), mac(1), 10)) == Delivery::dropped);
    CHECK(network.send(up, frame_bytes(mac(2), mac(1), 20)) == Delivery::dropped);
    CHECK(refused(up, Refusal::source) == 2);
    network.stations[0].take();
    CHECK(network.send(network.access(4, 10), frame_bytes(mac(1), mac(4))) == Delivery::taken);
    CHECK(network.stations[2].take().size() == 1);
    CHECK(network.stations[0].frames.empty());

    TestStation other;
    const auto added = [&](const PortOptions& options) { return network.lan->add_port(other, options); };
    CHECK(added({PortOptions::Kind::access, mac(1), 20, 0}).error() == Error::already_exists);
    CHECK(added(trunk(1, 30, {20})).error() == Error::already_exists);
    CHECK(added(trunk(3, 30, {20})).error() == Error::already_exists);
    CHECK(added(trunk(9, 1, {0})).error() == Error::invalid_argument);
    CHECK(added(trunk(9, 1, {4095})).error() == Error::invalid_argument);
    CHECK(added(trunk(1, 30, {40})));
    network.lan->remove_port(router);
    CHECK(network.lan->add_port(other, {PortOptions::Kind::access, mac(1), 20, 0}));
}

TEST_CASE("an uplink lets its VLANs pass and no others", "[net]") {
    Network network;
    SwitchPort& plain = network.access(1);
    SwitchPort& ten = network.access(1, 10);
    SwitchPort& twenty = network.access(1, 20);
    SwitchPort& up = network.add(uplink({10}));
    for (SwitchPort* port : {&plain, &ten, &twenty})
        network.send(*port, frame_bytes(kBroadcast, mac(1)));
    CHECK(network.stations[3].take() == std::vector<Bytes>{frame_bytes(kBroadcast, mac(1), 10)});
    CHECK(network.send(up, frame_bytes(mac(1), mac(60))) == Delivery::dropped);
    CHECK(network.send(up, frame_bytes(mac(1), mac(60), 20)) == Delivery::dropped);
    CHECK(network.send(up, frame_bytes(mac(1), mac(60), 10)) == Delivery::taken);
    CHECK(refused(up, Refusal::vlan) == 2);
    CHECK(network.stations[0].frames.empty());
    CHECK(network.stations[1].take() == std::vector<Bytes>{frame_bytes(mac(1), mac(60))});
}

TEST_CASE("frames do not pass between uplinks", "[net]") {
    Network network;
    SwitchPort& one = network.uplink();
    SwitchPort& two = network.uplink();
    network.access(1);
    network.send(one, frame_bytes(kBroadcast, mac(60)));
    network.send(one, frame_bytes(mac(61), mac(60)));
    CHECK(network.stations[1].take().empty());
    network.send(two, frame_bytes(mac(60), mac(61)));
    CHECK(network.stations[0].take().empty());
    CHECK(network.stations[2].take().size() == 1);
}

TEST_CASE("switches share nothing", "[net]") {
    Network office, lab;
    SwitchPort& a = office.access(1);
    SwitchPort& b = lab.access(1);
    office.access(2);
    lab.access(2);
    SwitchPort& up = lab.uplink();
    office.uplink();
    lab.send(up, frame_bytes(kBroadcast, mac(60)));
    CHECK(office.send(a, frame_bytes(mac(2), mac(1))) == Delivery::taken);
    CHECK(office.send(a, frame_bytes(kBroadcast, mac(1))) == Delivery::taken);
    CHECK(office.send(a, frame_bytes(mac(60), mac(1))) == Delivery::taken);
    for (const std::size_t station : {1, 2})
        CHECK(office.stations[station].take().size() == 2);
    CHECK(lab.stations[0].take().size() == 1);  // what came in by its own uplink
    CHECK(lab.stations[1].take().size() == 1);
    CHECK(lab.stations[2].frames.empty());
    CHECK(b.counters().frames_in == 0);
    CHECK(a.counters().frames_in == 3);
}
