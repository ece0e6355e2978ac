// SPDX-License-Identifier: MIT
#include "drivers/net/e1000_fixture.hpp"

#include <algorithm>

using namespace hv;
using namespace hv::netdrv;
using namespace hv::test;

TEST_CASE("frames are sent as they are, short ones padded with zeroes", "[net]") {
    E1000Fixture f{each_kind()};
    f.start();
    std::uint64_t bytes_sent = 0;
    for (unsigned i = 0; i < 2000; ++i) {
        Bytes bytes = f.random_bytes(14 + f.random() % 1505);
        REQUIRE(f.send(bytes, {}, f.random() % 8 + 1));
        bytes_sent += bytes.size();
        bytes.resize(std::max<std::size_t>(bytes.size(), 60));
        REQUIRE(f.device.sent.back() == bytes);
    }
    CHECK(f.nic->counters().frames_sent == 2000);
    CHECK(f.nic->counters().bytes_sent == bytes_sent);
    CHECK(f.nic->counters().no_room == 0);
    CHECK_FALSE(f.device.interrupt());
}

TEST_CASE("what does not fit the wire is not sent", "[net]") {
    E1000Fixture f{each_kind()};
    f.start();
    CHECK_FALSE(f.send(Bytes(13)));
    CHECK_FALSE(f.send(Bytes(1519)));
    CHECK(f.send(Bytes(1518)));
    CHECK(f.device.sent.size() == 1);
    CHECK(f.nic->counters().frames_sent == 1);
    CHECK(f.nic->counters().no_room == 0);
}

TEST_CASE("what is sent is the frame as it was when it was taken", "[net]") {
    E1000Fixture f{each_kind()};
    f.start();
    f.device.hung = true;
    Bytes bytes = f.random_bytes(1000);
    const Bytes original = bytes;
    const ScatteredFrame frame{bytes, {}, f.random, 3};
    REQUIRE(f.nic->transmit(frame.frame));
    bytes.assign(bytes.size(), 0xee);
    f.device.go_on();
    REQUIRE(f.device.sent.size() == 1);
    CHECK(f.device.sent[0] == original);
}

TEST_CASE("frames for which the ring has no room are dropped and counted", "[net]") {
    E1000Fixture f{each_kind()};
    f.start();
    f.device.hung = true;
    for (unsigned i = 0; i < 255; ++i)
        REQUIRE(f.send(Bytes(60, static_cast<std::uint8_t>(i))));
    CHECK_FALSE(f.send(Bytes(60)));
    CHECK_FALSE(f.send(Bytes(60)));
    CHECK(f.nic->counters().no_room == 2);
    f.device.go_on();
    CHECK(f.send(Bytes(60, 0xff)));
    REQUIRE(f.device.sent.size() == 256);
    for (unsigned i = 0; i < 256; ++i)
        CHECK(f.device.sent[i][0] == i);
    // A large frame needs several places at once.
    f.device.hung = true;
    for (unsigned i = 0; i < 250; ++i)
        REQUIRE(f.send(Bytes(60)));
    const TcpFrame tcp{.payload = 30'000};
    const Bytes large = tcp.build(f.random);
    CHECK_FALSE(f.send(large, tcp.offload(1448)));
    CHECK(f.send(Bytes(60)));
    CHECK(f.nic->counters().no_room == 3);
}

TEST_CASE("checksums left to the device come out as software's", "[net]") {
    E1000Fixture f{each_kind()};
    f.start();
    for (unsigned round = 0; round < 500; ++round) {
        const TcpFrame tcp{.ipv6 = f.random() % 2 == 0,
                           .tags = static_cast<unsigned>(f.random() % 2),
                           .tcp_options = static_cast<unsigned>(f.random() % 11 * 4),
                           .payload = f.random() % 1380 + 2};
        const Bytes bytes = tcp.build(f.random);
        f.device.sent.clear();
        REQUIRE(f.send(bytes, tcp.offload(0), f.random() % 6 + 1));
        f.check_sent(f.software(bytes, tcp.offload(0)));
    }
}

TEST_CASE("the padding of short frames is not summed up by the device", "[net]") {
    E1000Fixture f{each_kind()};
    f.start();
    unsigned sums = 0;  // of frames that need no padding
    for (std::size_t payload = 0; payload <= 8; ++payload) {
        const TcpFrame tcp{.payload = payload};
        const Bytes bytes = tcp.build(f.random);
        std::vector<Received> expected = f.software(bytes, tcp.offload(0));
        expected[0].bytes.resize(std::max<std::size_t>(bytes.size(), 60));
        f.device.sent.clear();
        REQUIRE(f.send(bytes, tcp.offload(0)));
        f.check_sent(expected);
        sums += bytes.size() < 60 ? 0 : 1;
        CHECK(f.device.checksums == sums);
    }
}

TEST_CASE("segments that the device cuts are those that software cuts", "[net]") {
    E1000Fixture f{each_kind()};
    f.start();
    for (unsigned round = 0; round < 300; ++round) {
        TcpFrame tcp{.ipv6 = f.kind == E1000Kind::i82574 && f.random() % 2 == 0,
                     .tags = static_cast<unsigned>(f.random() % 3),
                     .ip_options = static_cast<unsigned>(f.random() % 11 * 4),
                     .tcp_options = static_cast<unsigned>(f.random() % 11 * 4),
                     .payload = f.random() % 65'000 + 1,
                     .flags = static_cast<std::uint8_t>(f.random() & 0x7f)};
        if (tcp.ipv6)
            tcp.ip_options = 0;
        tcp.payload = std::min<std::size_t>(tcp.payload, 65'553 - tcp.data());
        const auto gso_size = static_cast<std::uint16_t>(48 + f.random() % (1518 - tcp.data() - 47));
        const Bytes bytes = tcp.build(f.random);
        f.device.sent.clear();
        REQUIRE(f.send(bytes, tcp.offload(gso_size), f.random() % 20 + 1));
        f.check_sent(f.software(bytes, tcp.offload(gso_size)));
    }
    CHECK(f.nic->counters().frames_sent == 300);
}

TEST_CASE("a TCP segmentation does not depend on the checksum that the sender left", "[net]") {
    E1000Fixture f{each_kind()};
    f.start();
    const TcpFrame tcp{.payload = 5000};
    Bytes bytes = tcp.build(f.random);
    put16(bytes, tcp.tcp() + 16, 0x1234);
    put16(bytes, tcp.ip() + 2, 0x1234);
    put16(bytes, tcp.ip() + 10, 0x1234);
    REQUIRE(f.send(bytes, tcp.offload(1000)));
    REQUIRE(f.device.sent.size() == 5);
    for (const Bytes& segment : f.device.sent)
        CHECK(tcp.sums_right(segment));
}

TEST_CASE("offloads that make no sense are refused", "[net]") {
    E1000Fixture f{each_kind()};
    f.start();
    const TcpFrame tcp{.payload = 5000};
    const Bytes good = tcp.build(f.random);
    Bytes bytes = good;
    FrameOffload offload = tcp.offload(1000);
    SECTION("the start lies too far behind") {
        bytes.resize(1000);
        offload.gso_type = 0;
        offload.checksum_start = 250;
    }
    SECTION("the checksum is behind the end") {
        bytes.resize(60);
        offload.gso_type = 0;
        offload.checksum_start = 43;
    }
    SECTION("another protocol") {
        bytes[tcp.ip() + 9] = 17;
    }
    SECTION("another type") {
        put16(bytes, 12, 0x86dd);
    }
    SECTION("IPv6 that is IPv4") {
        offload.gso_type = net::kGsoTcpV6;
    }
    SECTION("UDP segmentation") {
        offload.gso_type = 3;
    }
    SECTION("congestion notification") {
        offload.gso_type |= net::kGsoEcn;
    }
    SECTION("no checksum") {
        offload.needs_checksum = false;
    }
    SECTION("segments of no size") {
        offload.gso_size = 0;
    }
    SECTION("segments too long for the wire") {
        offload.gso_size = 1465;
    }
    SECTION("no payload") {
        bytes.resize(tcp.data());
    }
    SECTION("a header cut short") {
        bytes.resize(tcp.data() - 1);
    }
    SECTION("a TCP header that is too short") {
        bytes[tcp.tcp() + 12] = 0x40;
    }
    SECTION("TCP elsewhere") {
        offload.checksum_start += 4;
    }
    SECTION("too long") {
        bytes.resize(65'554);
    }
    CHECK_FALSE(f.send(bytes, offload));
    CHECK(f.device.sent.empty());
    CHECK(f.send(good, tcp.offload(1464)));
    CHECK(f.device.sent.size() == 4);
}

TEST_CASE("no frame makes the driver tell the device nonsense", "[net]") {
    E1000Fixture f{each_kind()};
    f.start();
    unsigned taken = 0;
    for (unsigned round = 0; round < 6000; ++round) {
        const TcpFrame tcp{.ipv6 = f.random() % 2 == 0, .payload = f.random() % 4000};
        Bytes bytes = tcp.build(f.random);
        FrameOffload offload = tcp.offload(static_cast<std::uint16_t>(f.random() % 1500));
        for (unsigned i = f.random() % 3; i > 0; --i)
            bytes[f.random() % 80 % bytes.size()] = static_cast<std::uint8_t>(f.random());
        bytes.resize(f.random() % 4 == 0 ? f.random() % 200 + 14 : bytes.size());
        if (f.random() % 4 == 0)
            offload.checksum_start = static_cast<std::uint16_t>(f.random() % 300);
        if (f.random() % 4 == 0)
            offload.checksum_offset = static_cast<std::uint16_t>(f.random() % 300);
        if (f.random() % 4 == 0)
            offload.gso_type = static_cast<std::uint8_t>(f.random() % 6);
        taken += f.send(bytes, offload, f.random() % 4 + 1) ? 1 : 0;
        f.device.sent.clear();
    }
    CHECK(taken > 500);
}
