// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/net_device.hpp"
#include "vmm/net/switch_fixture.hpp"
#include "vmm/net/uplink.hpp"

#include <map>
#include <set>
#include <thread>

using namespace hv;
using namespace hv::net;
using namespace hv::test;

TEST_CASE("a frame reaches the station that has its address, and nobody else", "[net]") {
    Network network;
    SwitchPort& a = network.access(1);
    network.access(2);
    network.access(3);
    const Bytes bytes = frame_bytes(mac(2), mac(1));
    CHECK(network.send(a, bytes) == Delivery::taken);
    CHECK(network.stations[1].take() == std::vector<Bytes>{bytes});
    CHECK(network.stations[0].frames.empty());
    CHECK(network.stations[2].frames.empty());
    CHECK(network.send(a, frame_bytes(mac(1), mac(1))) == Delivery::dropped);
    CHECK(a.counters().frames_in == 1);
    CHECK(a.counters().bytes_in == 60);
}

TEST_CASE("broadcasts reach all others of the VLAN, unknown addresses the uplinks", "[net]") {
    Network network;
    SwitchPort& a = network.access(1);
    network.access(2);
    network.access(3, 7);
    network.uplink();
    network.send(a, frame_bytes(kBroadcast, mac(1)));
    CHECK(network.stations[0].take().empty());
    CHECK(network.stations[1].take().size() == 1);
    CHECK(network.stations[2].take().empty());
    CHECK(network.stations[3].take().size() == 1);
    network.send(a, frame_bytes(mac(99), mac(1)));
    CHECK(network.stations[1].take().empty());
    CHECK(network.stations[3].take().size() == 1);
}

TEST_CASE("a station sends from its own address only, and untagged", "[net]") {
    Network network;
    SwitchPort& a = network.access(1);
    network.access(2);
    CHECK(network.send(a, frame_bytes(mac(2), mac(3))) == Delivery::dropped);
    CHECK(network.send(a, frame_bytes(mac(2), mac(2))) == Delivery::dropped);
    CHECK(network.send(a, frame_bytes(mac(2), mac(1), 5)) == Delivery::dropped);
    CHECK(network.send(a, frame_bytes(mac(2), mac(1), 0)) == Delivery::dropped);
    CHECK(refused(a, Refusal::source) == 2);
    CHECK(refused(a, Refusal::vlan) == 2);
    CHECK(network.stations[1].frames.empty());
}

TEST_CASE("an uplink cannot take over a station's address", "[net]") {
    Network network;
    SwitchPort& a = network.access(1);
    network.access(2);
    SwitchPort& up = network.uplink();
    CHECK(network.send(up, frame_bytes(mac(1), mac(2))) == Delivery::dropped);
    CHECK(network.send(up, frame_bytes(kBroadcast, mac(2))) == Delivery::dropped);
    CHECK(refused(up, Refusal::source) == 2);
    network.send(a, frame_bytes(mac(2), mac(1)));
    CHECK(network.stations[1].take().size() == 1);
    CHECK(network.send(up, frame_bytes(mac(1), kBroadcast)) == Delivery::dropped);
}

TEST_CASE("what lies behind uplinks is learned, moves, and is forgotten", "[net]") {
    Network network;
    SwitchPort& a = network.access(1);
    SwitchPort& up1 = network.uplink();
    SwitchPort& up2 = network.uplink();
    network.send(up1, frame_bytes(mac(1), mac(50)));
    CHECK(network.stations[0].take().size() == 1);
    network.send(a, frame_bytes(mac(50), mac(1)));
    CHECK(network.stations[1].take().size() == 1);
    CHECK(network.stations[2].take().empty());
    network.send(up2, frame_bytes(mac(1), mac(50)));
    network.send(a, frame_bytes(mac(50), mac(1)));
    CHECK(network.stations[1].take().empty());
    CHECK(network.stations[2].take().size() == 1);
    network.clock.advance(301'000'000'000);
    network.send(a, frame_bytes(mac(50), mac(1)));
    CHECK(network.stations[1].take().size() == 1);
    CHECK(network.stations[2].take().size() == 1);
}

TEST_CASE("VLANs meet on the uplink as tags and nowhere else", "[net]") {
    Network network;
    SwitchPort& plain = network.access(1);
    SwitchPort& ten = network.access(1, 10);
    network.access(2, 10);
    SwitchPort& up = network.uplink();
    network.send(ten, frame_bytes(mac(2), mac(1)));
    CHECK(network.stations[2].take() == std::vector<Bytes>{frame_bytes(mac(2), mac(1))});
    CHECK(network.send(plain, frame_bytes(mac(2), mac(1))) == Delivery::taken);
    CHECK(network.stations[2].take().empty());
    network.stations[3].take();
    network.send(ten, frame_bytes(kBroadcast, mac(1)));
    CHECK(network.stations[0].take().empty());
    CHECK(network.stations[3].take() == std::vector<Bytes>{frame_bytes(kBroadcast, mac(1), 10)});
    network.stations[2].take();
    network.send(up, frame_bytes(kBroadcast, mac(60), 10));
    CHECK(network.stations[0].take().empty());
    CHECK(network.stations[1].take() == std::vector<Bytes>{frame_bytes(kBroadcast, mac(60))});
    CHECK(network.stations[2].take().size() == 1);
    network.send(ten, frame_bytes(mac(60), mac(1)));
    CHECK(network.stations[3].take() == std::vector<Bytes>{frame_bytes(mac(60), mac(1), 10)});
    network.send(up, frame_bytes(mac(1), mac(61)));
    CHECK(network.stations[0].take().size() == 1);
    CHECK(network.stations[1].take().empty());
    network.send(up, frame_bytes(mac(2), mac(61), 4095));
    CHECK(network.stations[2].take().empty());
}

TEST_CASE("a frame waits for room for a bounded time", "[net]") {
    Network network;
    SwitchPort& a = network.access(1);
    SwitchPort& b = network.access(2);
    TestStation& sender = network.stations[0];
    TestStation& receiver = network.stations[1];
    const Bytes bytes = frame_bytes(mac(2), mac(1));
    receiver.room = 0;
    const std::uint64_t start = network.clock.now();
    CHECK(network.send(a, bytes) == Delivery::no_room);
    CHECK(network.retry_at == start + 10'000'000);
    receiver.room = 1;
    b.room_made();
    CHECK(sender.resumed == 1);
    CHECK(network.send(a, bytes) == Delivery::taken);
    b.room_made();
    CHECK(sender.resumed == 1);

    CHECK(network.send(a, bytes) == Delivery::no_room);
    network.clock.advance(10'000'000);
    CHECK(network.send(a, bytes) == Delivery::dropped);
    CHECK(network.send(a, bytes) == Delivery::dropped);
    CHECK(b.counters().lost == 2);
    // One frame taken does not make up for that, a hundred do.
    receiver.room = 1;
    CHECK(network.send(a, bytes) == Delivery::taken);
    CHECK(network.send(a, bytes) == Delivery::no_room);
    network.clock.advance(100'000);
    CHECK(network.send(a, bytes) == Delivery::dropped);
    receiver.room = 101;
    for (unsigned i = 0; i < 101; ++i)
        CHECK(network.send(a, bytes) == Delivery::taken);
    CHECK(network.send(a, bytes) == Delivery::no_room);
    network.clock.advance(9'900'000);
    CHECK(network.send(a, bytes) == Delivery::no_room);
}

TEST_CASE("broadcasts and uplinks do not wait", "[net]") {
    Network network;
    SwitchPort& a = network.access(1);
    network.access(2);
    SwitchPort& up = network.uplink();
    network.stations[1].room = 0;
    CHECK(network.send(a, frame_bytes(kBroadcast, mac(1))) == Delivery::taken);
    CHECK(network.send(up, frame_bytes(mac(2), mac(60))) == Delivery::dropped);
}

TEST_CASE("room that is made at the last moment is found", "[net]") {
    // The station gets its buffers back just after it said that it has none, before the sender is on the
    // waiting list.
    struct Late final : Station {
        Delivery receive(const Frame&) override { return calls++ == 0 ? Delivery::no_room : Delivery::taken; }
        void resume() override {}
        unsigned calls{0};
        void network_changed() override {}
    } late;
    Network network;
    SwitchPort& a = network.access(1);
    REQUIRE(network.lan->add_port(late, {PortOptions::Kind::access, mac(2), 0, 0}));
    CHECK(network.send(a, frame_bytes(mac(2), mac(1))) == Delivery::taken);
}

TEST_CASE("a port sends at its rate over time", "[net]") {
    Network network;
    SwitchPort& a = network.access(1, 0, 80'000'000);  // 10 MB/s
    network.access(2);
    const Bytes bytes = frame_bytes(mac(2), mac(1), {}, 1500);
    std::uint64_t sent = 0;
    unsigned waits = 0;
    const std::uint64_t end = network.clock.now() + 1'000'000'000;
    while (network.clock.now() < end) {
        if (network.send(a, bytes) == Delivery::taken) {
            sent += bytes.size();
        } else {
            ++waits;
            REQUIRE(network.retry_at > network.clock.now());
            fake::set_tsc(network.retry_at);
        }
    }
    CHECK(sent > 9'990'000);
    CHECK(sent < 10'000'000 + 131'072 + 3000);
    CHECK(waits > 1000);
}

TEST_CASE("ports come and go", "[net]") {
    Network network;
    SwitchPort& a = network.access(1);
    SwitchPort& b = network.access(2);
    TestStation other;
    CHECK(network.lan->add_port(other, {PortOptions::Kind::access, mac(2), 0, 0}).error() ==
          Error::already_exists);
    CHECK(network.lan->add_port(other, {PortOptions::Kind::access, kBroadcast, 0, 0}).error() ==
          Error::invalid_argument);
    CHECK(network.lan->add_port(other, {PortOptions::Kind::access, {}, 0, 0}).error() ==
          Error::invalid_argument);
    CHECK(network.lan->add_port(other, {PortOptions::Kind::access, mac(4), 4095, 0}).error() ==
          Error::invalid_argument);
    network.stations[1].room = 0;
    CHECK(network.send(a, frame_bytes(mac(2), mac(1))) == Delivery::no_room);
    network.lan->remove_port(b);
    CHECK(network.stations[0].resumed == 1);
    network.send(a, frame_bytes(mac(2), mac(1)));
    CHECK(network.lan->add_port(other, {PortOptions::Kind::access, mac(2), 0, 0}));
    network.send(a, frame_bytes(mac(2), mac(1)));
    CHECK(other.frames.size() == 1);
    for (unsigned i = 0; i < SwitchPort::kMaxPorts - 2; ++i)
        network.access(100 + i);
    TestStation last;
    CHECK(network.lan->add_port(last, {PortOptions::Kind::access, mac(9), 0, 0}).error() == Error::no_memory);
}

TEST_CASE("a flood of addresses costs forgotten ones only", "[net]") {
    Network network;
    SwitchPort& a = network.access(1);
    SwitchPort& up = network.uplink();
    for (unsigned i = 0; i < 20'000; ++i)
        network.send(up,
                     frame_bytes(mac(1), {2, 0, 9, static_cast<std::uint8_t>(i >> 16),
                                          static_cast<std::uint8_t>(i >> 8), static_cast<std::uint8_t>(i)}));
    CHECK(network.stations[0].take().size() == 20'000);
    network.send(up, frame_bytes(mac(1), mac(70)));
    CHECK(network.send(a, frame_bytes(mac(70), mac(1))) == Delivery::taken);
    CHECK(network.stations[1].take().size() == 1);
}

TEST_CASE("the switch agrees with a model of it", "[net]") {
    Network network;
    struct Model {
        SwitchPort* port;
        TestStation* station;
        bool uplink;
        unsigned index;
        std::uint16_t vlan;
    };
    std::vector<Model> ports;
    for (unsigned i = 0; i < 8; ++i) {
        const auto vlan = static_cast<std::uint16_t>(i % 3 * 10);
        SwitchPort& port = i < 6 ? network.access(i, vlan) : network.uplink();
        ports.push_back({&port, &network.stations.back(), i >= 6, i, vlan});
    }
    std::map<std::pair<unsigned, unsigned>, std::size_t> learned;  // (address, vlan) -> port
    for (const Model& port : ports)
        if (!port.uplink)
            learned[{port.index, port.vlan}] = port.index;
    std::mt19937 random{8};
    for (unsigned step = 0; step < 20'000; ++step) {
        const Model& from = ports[random() % ports.size()];
        const unsigned source =
            from.uplink ? static_cast<unsigned>(random() % 12 + (random() % 8 == 0 ? 0 : 6)) : from.index;
        const unsigned target = static_cast<unsigned>(random() % 18);
        const bool broadcast = random() % 5 == 0;
        const std::uint16_t vlan = from.uplink ? static_cast<std::uint16_t>(random() % 3 * 10) : from.vlan;
        const bool tagged = from.uplink && vlan != 0;
        network.send(*from.port, frame_bytes(broadcast ? kBroadcast : mac(target), mac(source),
                                             tagged ? std::optional<unsigned>{vlan} : std::nullopt));

        std::set<std::size_t> expected;
        const auto owner = learned.find({source, vlan});
        const bool spoofed = from.uplink && owner != learned.end() && owner->second < 6;
        if (!spoofed) {
            if (from.uplink)
                learned[{source, vlan}] = from.index;
            const auto known = learned.find({target, vlan});
            for (std::size_t i = 0; i < ports.size(); ++i) {
                if (i == from.index || (from.uplink && ports[i].uplink))
                    continue;
                if (broadcast                ? (ports[i].uplink || ports[i].vlan == vlan)
                    : known != learned.end() ? known->second == i
                                             : ports[i].uplink)
                    expected.insert(i);
            }
        }
        for (std::size_t i = 0; i < ports.size(); ++i) {
            const auto got = ports[i].station->take();
            REQUIRE(got.size() == expected.count(i));
            if (!got.empty())
                REQUIRE(got[0].size() == 60u + (ports[i].uplink && vlan != 0 ? 4 : 0));
        }
    }
}

TEST_CASE("an uplink sums and segments for its NIC", "[net]") {
    struct Nic final : fake::IdleNic {
        bool transmit(const Frame& frame) override {
            frames.push_back(copy_of(frame));
            return up;
        }
        std::vector<Received> frames;
        bool up{true};
    } nic;
    Network network;
    SwitchPort& a = network.access(1);
    Uplink uplink{nic};
    const Bytes incoming = frame_bytes(mac(1), mac(60));
    std::mt19937 random{9};
    const ScatteredFrame frame{incoming, {}, random};
    CHECK_FALSE(uplink.transmit(frame.frame));
    uplink.connect(network.lan->add_port(uplink, {PortOptions::Kind::uplink, {}, 0, 0}).value());
    CHECK(uplink.transmit(frame.frame));
    CHECK(network.stations[0].take().size() == 1);

    const TcpFrame tcp{.payload = 4000};
    Bytes bytes = tcp.build(random);
    const Bytes addresses = frame_bytes(mac(60), mac(1));
    std::copy_n(addresses.begin(), 12, bytes.begin());
    const ScatteredFrame large{bytes, tcp.offload(1448), random, 4};
    CHECK(a.send(large.frame, network.retry_at) == Delivery::taken);
    REQUIRE(nic.frames.size() == 3);
    for (const auto& segment : nic.frames)
        CHECK(tcp.sums_right(segment.bytes));
    nic.up = false;
    CHECK(a.send(large.frame, network.retry_at) == Delivery::dropped);
}

TEST_CASE("an uplink does what lies behind its NIC's reach", "[net]") {
    struct Nic final : fake::IdleNic {
        bool transmit(const Frame& frame) override {
            frames.push_back(copy_of(frame));
            return true;
        }
        std::vector<Received> frames;
    } nic;
    nic.support = {.checksum = true, .tcp4 = true, .tcp6 = true, .ecn = true, .max_offset = 255};
    Uplink uplink{nic};
    std::mt19937 random{10};
    const auto send = [&](const TcpFrame& tcp, std::size_t extension, std::uint16_t gso_size) {
        Bytes bytes = tcp.build(random);
        bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(tcp.tcp()), extension, 0);
        put16(bytes, tcp.ip() + 4, static_cast<unsigned>(bytes.size() - tcp.tcp()));
        FrameOffload offload = tcp.offload(gso_size);
        offload.checksum_start = static_cast<std::uint16_t>(offload.checksum_start + extension);
        const ScatteredFrame frame{bytes, offload, random, 3};
        CHECK(uplink.receive(frame.frame) == Delivery::taken);
        return std::exchange(nic.frames, {});
    };
    const TcpFrame tcp{.ipv6 = true, .tcp_options = 40, .payload = 4000};
    const TcpFrame small{.ipv6 = true, .payload = 1000};
    const std::size_t near = 255 - 60 - tcp.tcp();
    CHECK(send(tcp, near, 1000).size() == 1);
    CHECK(send(small, near, 0)[0].offload.needs_checksum);
    for (const std::size_t far : {near + 1, std::size_t{384}}) {
        auto segments = send(tcp, far, 1000);
        REQUIRE(segments.size() == 4);
        for (const auto& whole : send(small, far, 0))
            segments.push_back(whole);
        for (std::size_t i = 0; i < 5; ++i) {
            Bytes& bytes = segments[i].bytes;
            CHECK_FALSE(segments[i].offload.needs_checksum);
            const auto from = bytes.begin() + static_cast<std::ptrdiff_t>(tcp.tcp());
            bytes.erase(from, from + static_cast<std::ptrdiff_t>(far));
            CHECK(tcp.sums_right(bytes));
        }
    }
}

TEST_CASE("stations hear when an uplink's network may have forgotten them", "[net]") {
    fake::IdleNic nic;
    Network network;
    network.access(1);
    network.access(2, 10);
    network.access(3, 20);
    network.uplink();
    Uplink uplink{nic};
    uplink.link_restored();  // not connected yet
    PortOptions options{PortOptions::Kind::uplink, {}, 0, 0};
    options.vlans.add(0);
    options.vlans.add(20);
    SwitchPort* port = network.lan->add_port(uplink, options).value();
    uplink.connect(port);
    uplink.link_restored();
    for (unsigned i = 0; i < 4; ++i)
        CHECK(network.stations[i].changes == (i % 2 == 0 ? 1 : 0));
    network.lan->remove_port(*port);
}

TEST_CASE("ports are used and removed on several CPUs at once", "[net]") {
    Network network;
    struct Sink final : Station {
        Delivery receive(const Frame&) override {
            ++count;
            return Delivery::taken;
        }
        void resume() override {}
        void network_changed() override {}
        std::atomic<unsigned> count{0};
    };
    Sink first, second;
    SwitchPort* one = network.lan->add_port(first, {PortOptions::Kind::access, mac(1), 0, 0}).value();
    SwitchPort* two = network.lan->add_port(second, {PortOptions::Kind::access, mac(2), 0, 0}).value();
    std::atomic<bool> done{false};
    const auto sender = [&](unsigned cpu, SwitchPort* port, unsigned from) {
        fake::set_cpu(cpu);
        std::mt19937 random{cpu};
        std::uint64_t retry_at = 0;
        for (unsigned i = 0; !done; ++i) {
            const Bytes bytes = frame_bytes(i % 3 == 0   ? kBroadcast
                                            : i % 3 == 1 ? mac(3 - from)
                                                         : mac(3),
                                            mac(from));
            const ScatteredFrame frame{bytes, {}, random};
            port->send(frame.frame, retry_at);
        }
    };
    std::thread a{sender, 1, one, 1};
    std::thread b{sender, 2, two, 2};
    for (unsigned i = 0; i < 300; ++i) {
        auto guest = std::make_unique<Sink>();
        SwitchPort* port = network.lan->add_port(*guest, {PortOptions::Kind::access, mac(3), 0, 0}).value();
        while (guest->count < 3)
            std::this_thread::yield();
        network.lan->remove_port(*port);
    }
    done = true;
    a.join();
    b.join();
    CHECK(first.count > 0);
    CHECK(second.count > 0);
}
