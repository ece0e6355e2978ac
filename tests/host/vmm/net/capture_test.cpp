// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/net/capture.hpp"
#include "vmm/net/switch_fixture.hpp"

#include <thread>

using namespace hv;
using namespace hv::net;
using namespace hv::test;

namespace {

std::uint32_t number(const Bytes& bytes, std::size_t at) {
    std::uint32_t value = 0;
    std::memcpy(&value, bytes.data() + at, 4);
    return value;
}

struct Packet {
    std::uint64_t nanoseconds;
    std::uint32_t size;
    Bytes bytes;
};

struct CaptureNetwork : Network {
    CaptureNetwork() { fake::set_cpu(0); }
    /// What can be read, in pieces of this size.
    Bytes read(std::size_t piece = 7) {
        Bytes all;
        for (;;) {
            Bytes part(piece);
            part.resize(capture->read(std::as_writable_bytes(std::span{part})));
            if (part.empty())
                return all;
            all.insert(all.end(), part.begin(), part.end());
        }
    }
    void start(const Capture::Choice& choice = {}) {
        capture->start(choice);
        lan->set_tap(capture.get());
    }
    static std::vector<Packet> packets(const Bytes& stream, std::size_t at) {
        std::vector<Packet> found;
        while (at < stream.size()) {
            const std::uint32_t size = number(stream, at + 8);
            found.push_back({number(stream, at) * 1'000'000'000ull + number(stream, at + 4),
                             number(stream, at + 12),
                             Bytes(stream.begin() + at + 16, stream.begin() + at + 16 + size)});
            at += 16 + size;
        }
        return found;
    }
    std::unique_ptr<Capture> capture{std::move(Capture::create(clock, 1'700'000'000'000'000'000)).value()};
};

}  // namespace

TEST_CASE("a capture is a pcap file of what enters the switch", "[net]") {
    CaptureNetwork network;
    SwitchPort& a = network.access(1);
    SwitchPort& b = network.access(2);
    network.send(a, frame_bytes(mac(2), mac(1)));
    network.start();
    const std::uint64_t first = network.clock.to_nanoseconds(network.clock.now());
    network.send(a, frame_bytes(mac(2), mac(1)));
    network.clock.advance(2'500'000'000);
    network.send(b, frame_bytes(kBroadcast, mac(2), {}, 101));
    network.send(b, frame_bytes(mac(1), mac(3)));  // refused
    CHECK(network.capture->ready());
    const Bytes stream = network.read(GENERATE(1, 7, 96, 100'000));
    REQUIRE(stream.size() > 24);
    CHECK(number(stream, 0) == 0xa1b23c4d);
    CHECK(number(stream, 4) == 0x0004'0002);
    CHECK(number(stream, 16) == 65535);
    CHECK(number(stream, 20) == 1);
    const auto packets = CaptureNetwork::packets(stream, 24);
    REQUIRE(packets.size() == 2);
    CHECK(packets[0].nanoseconds == 1'700'000'000'000'000'000 + first);
    CHECK(packets[1].nanoseconds == packets[0].nanoseconds + 2'500'000'000);
    CHECK(packets[0].bytes == frame_bytes(mac(2), mac(1)));
    CHECK(packets[1].bytes == frame_bytes(kBroadcast, mac(2), {}, 101));
    CHECK_FALSE(network.capture->ended());
    network.lan->set_tap(nullptr);
    network.capture->stop();
    CHECK(network.capture->ended());
    CHECK(network.capture->frames() == 2);
    CHECK(network.capture->lost() == 0);
}

TEST_CASE("a capture of a port has what its station sends and gets", "[net]") {
    CaptureNetwork network;
    SwitchPort& a = network.access(1, 10);
    SwitchPort& b = network.access(2, 10);
    network.access(3, 10);
    SwitchPort& up = network.uplink();
    Capture::Choice choice;
    choice.add(up.index());
    network.start(choice);
    network.send(a, frame_bytes(mac(2), mac(1)));
    network.send(a, frame_bytes(mac(99), mac(1)));
    network.send(up, frame_bytes(mac(1), mac(99), 10));
    network.stations[1].room = 0;
    network.send(b, frame_bytes(kBroadcast, mac(2)));
    const auto packets = CaptureNetwork::packets(network.read(), 24);
    REQUIRE(packets.size() == 3);
    CHECK(packets[0].bytes == frame_bytes(mac(99), mac(1), 10));
    CHECK(packets[1].bytes == frame_bytes(mac(1), mac(99), 10));
    CHECK(packets[2].bytes == frame_bytes(kBroadcast, mac(2), 10));
}

TEST_CASE("a capture ends by itself after its number of frames", "[net]") {
    CaptureNetwork network;
    SwitchPort& a = network.access(1);
    network.access(2);
    Capture::Choice choice;
    choice.frames = 3;
    network.start(choice);
    for (unsigned i = 0; i < 5; ++i)
        network.send(a, frame_bytes(mac(2), mac(1)));
    CHECK_FALSE(network.capture->ended());
    CHECK(CaptureNetwork::packets(network.read(), 24).size() == 3);
    CHECK(network.capture->ended());
    // Nothing of it is in the next one, nor what came in between.
    network.capture->stop();
    network.send(a, frame_bytes(mac(2), mac(1)));
    network.start();
    network.send(a, frame_bytes(mac(2), mac(1), {}, 77));
    const auto packets = CaptureNetwork::packets(network.read(), 24);
    REQUIRE(packets.size() == 1);
    CHECK(packets[0].bytes.size() == 77);
}

TEST_CASE("a capture's ring loses and counts what does not fit, and cuts what is too long", "[net]") {
    CaptureNetwork network;
    SwitchPort& a = network.access(1);
    network.access(2);
    network.start();
    for (unsigned round = 0; round < 3; ++round) {
        for (unsigned i = 0; i < 10; ++i)
            network.send(a, frame_bytes(mac(2), mac(1), {}, kMaxFrameSize));
        const auto packets = CaptureNetwork::packets(network.read(4096), round == 0 ? 24 : 0);
        REQUIRE(packets.size() == 3);
        CHECK(packets[2].size == kMaxFrameSize);
        CHECK(packets[2].bytes.size() == Capture::kMaxSize);
        CHECK(network.capture->lost() == 7 * (round + 1));
    }
    for (unsigned i = 0; i < 20'000; ++i) {
        network.send(a, frame_bytes(mac(2), mac(1), {}, 60 + i % 300));
        const auto packets = CaptureNetwork::packets(network.read(1000), 0);
        REQUIRE(packets.size() == 1);
        REQUIRE(packets[0].bytes.size() == 60 + i % 300);
    }
}

TEST_CASE("frames of several CPUs are captured whole", "[net]") {
    CaptureNetwork network;
    SwitchPort* ports[] = {&network.access(1), &network.access(2)};
    network.start();
    std::atomic<unsigned> senders{2};
    const auto send = [&](unsigned cpu) {
        fake::set_cpu(cpu + 1);
        std::mt19937 random{cpu};
        std::uint64_t retry_at = 0;
        for (unsigned i = 0; i < 20'000; ++i) {
            const Bytes bytes = frame_bytes(mac(77), mac(cpu + 1), {}, 60 + i % 1000);
            const ScatteredFrame frame{bytes, {}, random, 2};
            ports[cpu]->send(frame.frame, retry_at);
        }
        --senders;
    };
    std::thread one{send, 0}, two{send, 1};
    Bytes stream;
    while (senders != 0) {
        const Bytes more = network.read(4096);
        stream.insert(stream.end(), more.begin(), more.end());
    }
    one.join();
    two.join();
    const Bytes rest = network.read(4096);
    stream.insert(stream.end(), rest.begin(), rest.end());
    const auto packets = CaptureNetwork::packets(stream, 24);
    CHECK(packets.size() + network.capture->lost() == 40'000);
    for (const Packet& packet : packets) {
        const unsigned cpu = packet.bytes[11];
        REQUIRE(packet.bytes == frame_bytes(mac(77), mac(cpu), {}, packet.size));
    }
}
