// SPDX-License-Identifier: MIT
// The network device's control queue, and the receive filter behind it.
#include "vmm/virtio/net_fixture.hpp"

namespace {

using namespace hv;
using namespace hv::virtio;
using namespace hv::test;

constexpr MacAddress kBroadcast{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
constexpr MacAddress kGroup{0x33, 0x33, 0, 0, 0, 1};
constexpr MacAddress kOtherGroup{1, 0, 0x5e, 0, 0, 1};

Bytes mode(std::uint8_t command, unsigned on) {
    return {VIRTIO_NET_CTRL_RX, command, static_cast<std::uint8_t>(on)};
}
Bytes vlan(std::uint8_t command, unsigned id) {
    return {VIRTIO_NET_CTRL_VLAN, command, static_cast<std::uint8_t>(id), static_cast<std::uint8_t>(id >> 8)};
}
void append(Bytes& bytes, const std::vector<MacAddress>& list) {
    for (unsigned i = 0; i < 4; ++i)
        bytes.push_back(static_cast<std::uint8_t>(list.size() >> (8 * i)));
    for (const MacAddress& each : list)
        bytes.insert(bytes.end(), each.begin(), each.end());
}
Bytes table(const std::vector<MacAddress>& unicast, const std::vector<MacAddress>& multicast) {
    Bytes bytes{VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET};
    append(bytes, unicast);
    append(bytes, multicast);
    return bytes;
}
Bytes to(const MacAddress& target) {
    return addressed(plain(0, 9), target);
}
Bytes tagged(unsigned id, unsigned type = 0x8100, unsigned target = 1) {
    Bytes bytes = plain(target, 9);
    put16(bytes, 12, type);
    put16(bytes, 14, id | 0xe000);
    return bytes;
}

/// A guest whose device can be asked what it takes.
struct Filtered : Guest {
    explicit Filtered(Network& network, std::uint64_t features = kFull | kControls)
        : Guest{*network.lan, 1, features} {
        fill(60, 2048);
    }
};

}  // namespace

TEST_CASE("a driver that cannot filter gets everything", "[virtio]") {
    Network network;
    Filtered a{network, kFull};
    for (const MacAddress& target : {mac(1), mac(2), kBroadcast, kGroup})
        CHECK(a.takes(to(target)));
    CHECK(a.takes(tagged(5)));
    CHECK(a.device->counters().filtered == 0);
}

TEST_CASE("a driver that can filter gets its own frames and broadcasts until it says more", "[virtio]") {
    Network network;
    Filtered a{network};
    CHECK(a.takes(to(mac(1))));
    CHECK(a.takes(to(kBroadcast)));
    CHECK_FALSE(a.takes(to(mac(2))));
    CHECK_FALSE(a.takes(to(kGroup)));
    CHECK_FALSE(a.takes(tagged(5)));
    CHECK(a.device->counters().filtered == 3);
    net::StationCounters told;
    a.device->tell(told);
    REQUIRE(told.count == 2);
    CHECK(told.counters[1].value == 3);
}

TEST_CASE("receive modes let frames through and keep them away", "[virtio]") {
    Network network;
    Filtered a{network};
    const auto check = [&](bool own, bool foreign, bool broadcast, bool group) {
        CHECK(a.takes(to(mac(1))) == own);
        CHECK(a.takes(to(mac(2))) == foreign);
        CHECK(a.takes(to(kBroadcast)) == broadcast);
        CHECK(a.takes(to(kGroup)) == group);
    };
    check(true, false, true, false);
    CHECK(a.accepts(mode(VIRTIO_NET_CTRL_RX_ALLMULTI, 1)));
    check(true, false, true, true);
    CHECK(a.accepts(mode(VIRTIO_NET_CTRL_RX_NOMULTI, 1)));
    check(true, false, true, false);
    CHECK(a.accepts(mode(VIRTIO_NET_CTRL_RX_ALLUNI, 1)));
    check(true, true, true, false);
    CHECK(a.accepts(mode(VIRTIO_NET_CTRL_RX_NOUNI, 1)));
    check(false, false, true, false);
    CHECK(a.accepts(mode(VIRTIO_NET_CTRL_RX_NOBCAST, 1)));
    check(false, false, false, false);
    CHECK(a.accepts(mode(VIRTIO_NET_CTRL_RX_PROMISC, 1)));
    check(true, true, true, true);
    CHECK(a.takes(tagged(5)));
    CHECK(a.accepts(mode(VIRTIO_NET_CTRL_RX_PROMISC, 0)));
    CHECK(a.accepts(mode(VIRTIO_NET_CTRL_RX_NOUNI, 0)));
    CHECK(a.accepts(mode(VIRTIO_NET_CTRL_RX_NOMULTI, 0)));
    check(true, true, false, true);
    CHECK(a.driver->interrupts(2) == 9);
}

TEST_CASE("the address table is what the driver last set", "[virtio]") {
    Network network;
    Filtered a{network};
    CHECK(a.accepts(table({mac(7)}, {kGroup}), 3));
    CHECK(a.takes(to(mac(7))));
    CHECK(a.takes(to(kGroup)));
    CHECK(a.takes(to(mac(1))));
    CHECK_FALSE(a.takes(to(mac(8))));
    CHECK_FALSE(a.takes(to(kOtherGroup)));
    CHECK(a.accepts(table({}, {kOtherGroup}), 64));
    CHECK_FALSE(a.takes(to(mac(7))));
    CHECK_FALSE(a.takes(to(kGroup)));
    CHECK(a.takes(to(kOtherGroup)));
}

TEST_CASE("of more addresses than are kept all pass", "[virtio]") {
    Network network;
    Filtered a{network};
    const std::vector<MacAddress> most(NetReceiveFilter::kMaxAddresses, mac(7));
    const std::vector<MacAddress> more(NetReceiveFilter::kMaxAddresses + 1, mac(7));
    CHECK(a.accepts(table(most, {}), 4096));
    CHECK(a.takes(to(mac(7))));
    CHECK_FALSE(a.takes(to(mac(8))));
    CHECK(a.accepts(table(more, {kGroup}), 100));
    CHECK(a.takes(to(mac(8))));
    CHECK(a.takes(to(kGroup)));
    CHECK_FALSE(a.takes(to(kOtherGroup)));
    CHECK(a.accepts(table({}, std::vector<MacAddress>(300, kGroup)), 4096));
    CHECK_FALSE(a.takes(to(mac(8))));
    CHECK(a.takes(to(kOtherGroup)));
}

TEST_CASE("frames of VLANs that the driver named pass", "[virtio]") {
    Network network;
    Filtered a{network};
    CHECK(a.accepts(vlan(VIRTIO_NET_CTRL_VLAN_ADD, 5)));
    CHECK(a.accepts(vlan(VIRTIO_NET_CTRL_VLAN_ADD, 4095)));
    CHECK(a.takes(tagged(5)));
    CHECK(a.takes(tagged(4095)));
    CHECK_FALSE(a.takes(tagged(6)));
    CHECK_FALSE(a.takes(tagged(5, 0x8100, 2)));
    CHECK(a.takes(tagged(0)));
    CHECK(a.takes(tagged(6, 0x88a8)));
    CHECK(a.accepts(vlan(VIRTIO_NET_CTRL_VLAN_DEL, 5)));
    CHECK_FALSE(a.takes(tagged(5)));
    CHECK(a.refuses(vlan(VIRTIO_NET_CTRL_VLAN_ADD, 4096)));
    CHECK(a.refuses(vlan(VIRTIO_NET_CTRL_VLAN_ADD, 0xffff)));
}

TEST_CASE("a reset forgets what the driver wanted to receive", "[virtio]") {
    Network network;
    Filtered a{network};
    CHECK(a.accepts(mode(VIRTIO_NET_CTRL_RX_NOUNI, 1)));
    CHECK(a.accepts(table({mac(7)}, std::vector<MacAddress>(300, kGroup)), 4096));
    CHECK(a.accepts(vlan(VIRTIO_NET_CTRL_VLAN_ADD, 5)));
    a.driver->start(kFull | kControls);
    a.buffers.clear();
    a.fill(8, 2048);
    CHECK(a.takes(to(mac(1))));
    CHECK_FALSE(a.takes(to(mac(7))));
    CHECK_FALSE(a.takes(to(kGroup)));
    CHECK_FALSE(a.takes(tagged(5)));
}

TEST_CASE("the address can be set to what it is", "[virtio]") {
    Network network;
    Filtered a{network};
    const auto set = [](const MacAddress& address) {
        Bytes bytes{VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET};
        bytes.insert(bytes.end(), address.begin(), address.end());
        return bytes;
    };
    CHECK(a.accepts(set(mac(1))));
    CHECK(a.refuses(set(mac(2))));
    CHECK(a.driver->device_config(5, 1) == 1);
    CHECK(a.takes(to(mac(1))));
    CHECK_FALSE(a.takes(to(mac(2))));
}

TEST_CASE("commands that say too little, too much or nonsense are refused and change nothing", "[virtio]") {
    Network network;
    Filtered a{network};
    CHECK(a.accepts(table({mac(7)}, {kGroup})));
    CHECK(a.refuses({}));
    CHECK(a.refuses({VIRTIO_NET_CTRL_RX}));
    CHECK(a.refuses({VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC}));
    CHECK(a.refuses(mode(VIRTIO_NET_CTRL_RX_PROMISC, 2)));
    CHECK(a.refuses(mode(6, 1)));
    CHECK(a.refuses({VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, 5}));
    CHECK(a.refuses(vlan(2, 5)));
    CHECK(a.refuses({VIRTIO_NET_CTRL_ANNOUNCE, 1}));
    CHECK(a.refuses({VIRTIO_NET_CTRL_MAC, 2, 0, 0, 0, 0, 0, 0, 0, 0}));
    CHECK(a.refuses({VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, 0x52, 0x54, 0, 0, 0}));
    CHECK(a.refuses({5, 0, 0}));
    CHECK(a.refuses({0xff, 0xff}));
    Bytes bytes = table({}, {});
    bytes.pop_back();
    CHECK(a.refuses(bytes));
    for (const std::size_t at : {2u, 6u})
        for (const auto size : {1u, 0x80u}) {
            bytes = table({}, {});
            bytes[at + 3] = static_cast<std::uint8_t>(size);  // far more than there are, in 64 bits as well
            CHECK(a.refuses(bytes));
            bytes = table({}, {});
            bytes[at] = static_cast<std::uint8_t>(size);
            CHECK(a.refuses(bytes));
        }
    bytes = table({}, {});
    for (unsigned i = 0; i < 4; ++i)
        bytes[2 + i] = i == 0 ? 0xab : 0xaa;  // times six: 2 in 32 bits
    CHECK(a.refuses(bytes));
    CHECK(a.takes(to(mac(7))));
    CHECK(a.takes(to(kGroup)));
    CHECK_FALSE(a.takes(to(mac(8))));
    CHECK_FALSE(a.takes(tagged(5)));
    CHECK_FALSE(a.needs_reset());
}

TEST_CASE("commands of features that were not negotiated are refused", "[virtio]") {
    Network network;
    Filtered a{network, kFull | VIRTIO_NET_F_CTRL_VQ};
    CHECK(a.refuses(mode(VIRTIO_NET_CTRL_RX_PROMISC, 0)));
    CHECK(a.refuses(mode(VIRTIO_NET_CTRL_RX_NOBCAST, 1)));
    CHECK(a.refuses(table({}, {})));
    CHECK(a.refuses({VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, 0x52, 0x54, 0, 0, 0, 1}));
    CHECK(a.refuses(vlan(VIRTIO_NET_CTRL_VLAN_ADD, 5)));
    CHECK(a.refuses({VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK}));
    CHECK(a.takes(to(kGroup)));
}

TEST_CASE("a command without room for its answer breaks the device", "[virtio]") {
    Network network;
    Filtered a{network};
    SECTION("nothing is writable") {
        a.driver->queues.at(2).add({{Guest::kControl, 3, false}});
        a.driver->kick(2);
    }
    SECTION("nothing at all, outside RAM") {
        a.driver->queues.at(2).add({{Gpa{fake::Board::kRam}, 3, false}, {Guest::kControl, 1, true}});
        a.driver->kick(2);
    }
    SECTION("the index jumps") {
        a.driver->queues.at(2).next_avail = 1000;
        a.driver->kick(2);
    }
    CHECK(a.needs_reset());
    CHECK_FALSE(a.driver->queues.at(2).take_used());
    a.driver->start(kFull | kControls);
    CHECK(a.accepts(mode(VIRTIO_NET_CTRL_RX_PROMISC, 1)));
}

TEST_CASE("the control queue is dead without its feature", "[virtio]") {
    Network network;
    Filtered a{network, kFull};
    CHECK_FALSE(a.control(mode(VIRTIO_NET_CTRL_RX_NOBCAST, 1)));
    CHECK(a.takes(to(kBroadcast)));
    CHECK_FALSE(a.needs_reset());
    for (const std::uint64_t alone : {VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_VLAN,
                                      VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_GUEST_ANNOUNCE})
        CHECK_FALSE(a.driver->negotiate(kRing | alone));
    CHECK(a.driver->negotiate(kRing | kControls));
}

TEST_CASE("a long row of commands is answered in parts", "[virtio]") {
    Network network;
    Guest a{*network.lan, 1, kFull | kControls, 256};
    fake::DriverQueue& queue = a.driver->queues.at(2);
    const auto answered = [&] {
        unsigned count = 0;
        while (queue.take_used())
            ++count;
        return count;
    };
    const Bytes command = mode(VIRTIO_NET_CTRL_RX_ALLMULTI, 1);
    a.board.memory.write(Guest::kControl, std::as_bytes(std::span{command})).value();
    for (unsigned i = 0; i < 100; ++i)
        queue.add({{Guest::kControl, 3, false}, {Guest::kControl + 0x8000, 1, true}});
    a.driver->kick(2);
    CHECK(answered() == 64);
    CHECK(a.board.clock.run() == 1);
    CHECK(answered() == 36);
    CHECK(a.board.clock.armed() == 0);
}

TEST_CASE("an announcement is asked for until it is acknowledged", "[virtio]") {
    Network network;
    Filtered a{network};
    constexpr unsigned kStatus = 6;
    const Bytes acknowledge{VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK};
    const unsigned before = a.driver->config_interrupts();
    a.device->announce();
    CHECK(a.driver->config_interrupts() == before + 1);
    CHECK(a.driver->device_config(kStatus, 2) == (VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE));
    CHECK(a.accepts(acknowledge));
    CHECK(a.driver->device_config(kStatus, 2) == VIRTIO_NET_S_LINK_UP);
    a.device->announce();
    a.driver->start(kFull | kControls);
    CHECK(a.driver->device_config(kStatus, 2) == VIRTIO_NET_S_LINK_UP);
    a.driver->start(kFull);
    const unsigned silent = a.driver->config_interrupts();
    a.device->announce();
    CHECK(a.driver->device_config(kStatus, 2) == VIRTIO_NET_S_LINK_UP);
    CHECK(a.driver->config_interrupts() == silent);
}

TEST_CASE("a guest announces itself once it has seen its link come back", "[virtio]") {
    Network network;
    Filtered a{network};
    constexpr unsigned kStatus = 6;
    const auto status = [&] { return a.driver->device_config(kStatus, 2); };
    a.device->set_link(VirtioNet::Link::down);
    a.board.clock.advance(1'000'000'000);
    CHECK(status() == 0);
    a.device->network_changed();  // an uplink's, which is nothing to who has no link
    CHECK(status() == 0);
    a.device->set_link(VirtioNet::Link::up);
    const unsigned interrupts = a.driver->config_interrupts();
    CHECK(status() == VIRTIO_NET_S_LINK_UP);
    a.board.clock.advance(100'000'000);
    CHECK(status() == (VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE));
    CHECK(a.driver->config_interrupts() == interrupts + 1);
    CHECK(a.accepts({VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK}));
    a.device->network_changed();
    CHECK(status() == (VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE));
    a.device->set_link(VirtioNet::Link::down);
    a.device->set_link(VirtioNet::Link::up);
    CHECK(a.board.clock.armed() == 1);
    a.device->connect(nullptr);
    CHECK(a.board.clock.armed() == 0);
}

TEST_CASE("the filter applies to what the switch brings", "[virtio]") {
    Network network;
    Filtered a{network};
    Guest b{*network.lan, 2};
    b.send(addressed(plain(0, 2), kGroup));
    CHECK_FALSE(a.take());
    CHECK(a.accepts(table({}, {kGroup})));
    b.send(addressed(plain(0, 2), kGroup));
    CHECK(a.take());
    CHECK(b.reclaim() == 2);
}

TEST_CASE("a trusted NIC's driver may change its address until it resets the device", "[virtio]") {
    Network network;
    const Bytes change{VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, 0x52, 0x54, 0, 0, 0, 9};
    const Bytes group{VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, 0x53, 0x54, 0, 0, 0, 9};
    Guest a{*network.lan, 1, kFull | kControls, 64, 1500, 1, net::PortOptions::Kind::trusted};
    Guest b{*network.lan, 2};
    a.fill(20, 2048);
    CHECK(a.refuses(group));
    CHECK_FALSE(a.takes(plain(9, 2)));
    CHECK(a.accepts(change));
    CHECK(a.driver->device_config(5, 1) == 9);
    CHECK(a.takes(plain(9, 2)));
    CHECK_FALSE(a.takes(plain(1, 2)));
    // What it sends from there is taken, and finds its way back.
    b.fill(1, 2048);
    a.send(plain(2, 9));
    CHECK(b.take());
    while (a.take()) {
    }
    b.send(plain(9, 2));
    CHECK(a.take());
    a.driver->start(kFull | kControls);
    CHECK(a.driver->device_config(5, 1) == 1);
}
