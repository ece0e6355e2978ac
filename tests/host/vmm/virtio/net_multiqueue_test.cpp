// SPDX-License-Identifier: MIT
// Several queue pairs, and how flows find theirs.
#include "vmm/virtio/net_fixture.hpp"

#include <set>
#include <thread>

namespace {

using namespace hv;
using namespace hv::virtio;
using namespace hv::test;

constexpr std::uint64_t kMulti = kFull | kControls | VIRTIO_NET_F_MQ;

Bytes pairs(unsigned count) {
    return {VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, static_cast<std::uint8_t>(count),
            static_cast<std::uint8_t>(count >> 8)};
}

struct Multi : Guest {
    Multi(Network& network, unsigned index, unsigned count, std::uint64_t features = kMulti)
        : Guest{*network.lan, index, features, 64, 1500, count} {
        const unsigned usable = (features & VIRTIO_NET_F_MQ) != 0 ? count : 1;
        for (unsigned pair = 0; pair < usable; ++pair)
            fill(8, 2048, pair);
    }
    /// The pair on which a frame arrived, which is taken off; nothing if none did.
    std::optional<unsigned> received_on() {
        for (unsigned pair = 0; 2 * pair + 1 < device->queue_count(); ++pair)
            if (take(pair)) {
                fill(1, 2048, pair);
                return pair;
            }
        return std::nullopt;
    }
};

/// One direction of a flow between guests 1 and 2, of which `port` tells it from others.
struct Flow {
    unsigned from;
    unsigned to;
    unsigned port;
    bool ipv6{false};
    unsigned tags{0};
    unsigned protocol{6};
    unsigned ip_options{0};
    unsigned fragment{0x4000};

    [[nodiscard]] Bytes build() const {
        const std::size_t ip = 14 + 4 * tags;
        const std::size_t ports = ip + (ipv6 ? 40 : 20 + ip_options);
        Bytes bytes(ports + 20);
        for (unsigned i = 0; i < tags; ++i)
            put16(bytes, 12 + 4 * i, 0x8100);
        put16(bytes, 12 + 4 * tags, ipv6 ? 0x86dd : 0x0800);
        bytes[ip] = static_cast<std::uint8_t>(ipv6 ? 0x60 : 0x45 + ip_options / 4);
        bytes[ip + (ipv6 ? 6 : 9)] = static_cast<std::uint8_t>(protocol);
        if (!ipv6)
            put16(bytes, ip + 6, fragment);
        const std::size_t addresses = ip + (ipv6 ? 8 : 12);
        const std::size_t size = ipv6 ? 16 : 4;
        bytes[addresses] = bytes[addresses + size] = 10;
        bytes[addresses + size - 1] = static_cast<std::uint8_t>(from);
        bytes[addresses + 2 * size - 1] = static_cast<std::uint8_t>(to);
        put16(bytes, ports, from < to ? port : 80);
        put16(bytes, ports + 2, from < to ? 80 : port);
        return addressed(bytes, to, from);
    }
    [[nodiscard]] Flow back() const {
        Flow other = *this;
        std::swap(other.from, other.to);
        return other;
    }
};

}  // namespace

TEST_CASE("queues lie where the specification wants them", "[virtio]") {
    Network network;
    Multi a{network, 1, 3};
    CHECK(a.device->queue_count() == 7);
    CHECK(a.driver->device_config(8, 2) == 3);
    CHECK((a.driver->offered() & VIRTIO_NET_F_MQ) != 0);
    CHECK(a.accepts(pairs(3)));
    CHECK(a.driver->interrupts(6) == 1);
    Multi b{network, 2, 3, kFull | kControls};
    CHECK(b.refuses(pairs(1)));
    CHECK(b.driver->interrupts(2) == 1);
    Multi most{network, 4, VirtioNet::kMaxPairs};
    CHECK(most.accepts(pairs(VirtioNet::kMaxPairs)));
    Multi c{network, 3, 1, kFull | kControls};
    CHECK((c.driver->offered() & VIRTIO_NET_F_MQ) == 0);
    CHECK(c.driver->device_config(8, 2) == 1);
    CHECK_FALSE(a.driver->negotiate(kFull | VIRTIO_NET_F_MQ));
}

TEST_CASE("a device has at least one pair, and no more than it can tell the driver", "[virtio]") {
    fake::Board board;
    const auto create = [&](unsigned count) {
        return VirtioNet::create(board.memory, board.clock, {mac(1), 1500, count}).has_value();
    };
    CHECK_FALSE(create(0));
    CHECK(create(VirtioNet::kMaxPairs));
    CHECK_FALSE(create(VirtioNet::kMaxPairs + 1));
}

TEST_CASE("only pairs that exist and have queues can be used", "[virtio]") {
    Network network;
    Multi a{network, 1, 4};
    for (const unsigned count : {0u, 5u, 0x104u, 0xffffu})
        CHECK(a.refuses(pairs(count)));
    CHECK(a.refuses({VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, 1}));
    CHECK(a.refuses({VIRTIO_NET_CTRL_MQ, 1, 1, 0}));
    CHECK(a.accepts(pairs(4)));
    // A driver that sets up the first two and the control queue.
    REQUIRE(a.driver->negotiate(kMulti));
    a.driver->queues.clear();
    for (const unsigned queue : {0u, 1u, 2u, 3u, 8u})
        a.driver->add_queue(queue, 64);
    a.driver->driver_ok();
    CHECK(a.accepts(pairs(2)));
    CHECK(a.refuses(pairs(3)));
    CHECK_FALSE(a.needs_reset());
}

TEST_CASE("until the driver says how many pairs it uses, the first one receives", "[virtio]") {
    Network network;
    Multi a{network, 1, 4};
    Multi b{network, 2, 4};
    for (unsigned port = 0; port < 20; ++port) {
        const Flow flow{1, 2, 1000 + port};
        b.send(flow.back().build(), {}, 2, 3);
        CHECK(a.received_on() == 0);
        a.send(flow.build());
        CHECK(b.received_on() == 0);
    }
}

TEST_CASE("a flow is received on the pair that it is sent on", "[virtio]") {
    Network network;
    Multi a{network, 1, 4};
    Multi b{network, 2, 4};
    REQUIRE(a.accepts(pairs(4)));
    for (const bool ipv6 : {false, true})
        for (const unsigned protocol : {6u, 17u, 1u})
            for (unsigned i = 0; i < 8; ++i) {
                Flow flow{1, 2, 1000 + 7 * i, ipv6};
                flow.protocol = protocol;
                flow.ip_options = ipv6 ? 0 : 4 * i;
                flow.fragment = i == 7 ? 0x2000 : 0x4000;
                const unsigned pair = (i + protocol) % 4;
                a.send(flow.build(), {}, 1 + i, pair);
                CHECK(b.received_on() == 0);
                CHECK(a.reclaim(pair) == 1);
                b.send(flow.back().build(), {}, 3);
                CHECK(a.received_on() == pair);
                CHECK(b.reclaim() == 1);
            }
    CHECK(a.driver->interrupts(2) > 0);
    CHECK(a.driver->interrupts(6) > 0);
}

TEST_CASE("flows are told apart by ports, fragments are not", "[virtio]") {
    Network network;
    Multi a{network, 1, 4};
    Multi b{network, 2, 1, kFull | kControls};
    REQUIRE(a.accepts(pairs(4)));
    std::set<unsigned> used;
    std::set<unsigned> used_by_fragments;
    for (unsigned port = 0; port < 100; ++port) {
        Flow flow{2, 1, 1000 + port};
        b.send(flow.build());
        used.insert(a.received_on().value());
        flow.fragment = port % 2 == 0 ? 0x2000 : 0x00ff;
        b.send(flow.build());
        used_by_fragments.insert(a.received_on().value());
        b.reclaim();
    }
    CHECK(used.size() == 4);
    CHECK(used_by_fragments.size() == 1);
}

TEST_CASE("short frames and tagged ones find a pair", "[virtio]") {
    Network network;
    Multi a{network, 1, 4};
    REQUIRE(a.accepts(pairs(4)));
    REQUIRE(a.accepts({VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 1}));
    for (unsigned tags = 0; tags < 4; ++tags)
        for (const bool ipv6 : {false, true}) {
            const Bytes whole = Flow{2, 1, 1000, ipv6, tags, 6, ipv6 ? 0u : 40u}.build();
            for (std::size_t size = 14; size <= whole.size(); ++size) {
                CHECK(a.takes(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size))));
                CHECK(a.received_on());
            }
        }
}

TEST_CASE("pairs that are given up receive nothing more", "[virtio]") {
    Network network;
    Multi a{network, 1, 4};
    Multi b{network, 2, 1, kFull | kControls};
    REQUIRE(a.accepts(pairs(4)));
    const Flow flow{1, 2, 1000};
    a.send(flow.build(), {}, 2, 3);
    b.send(flow.back().build());
    CHECK(a.received_on() == 3);
    SECTION("by a command") {
        REQUIRE(a.accepts(pairs(2)));
        b.send(flow.back().build());
        CHECK(a.received_on().value() < 2);
        REQUIRE(a.accepts(pairs(4)));
        b.send(flow.back().build());
        CHECK(a.received_on() == 3);
    }
    SECTION("while a frame waits for room there") {
        for (unsigned i = 0; i < 9; ++i)
            b.queue(flow.back().build());
        b.driver->kick(1);
        CHECK(b.reclaim() == 1 + 8);
        REQUIRE(a.accepts(pairs(1)));
        CHECK(b.reclaim() == 1);
        CHECK(a.take(0));
    }
    SECTION("by a reset") {
        a.driver->start(kMulti);
        a.buffers.clear();
        a.fill(8, 2048);
        b.send(flow.back().build());
        CHECK(a.received_on() == 0);
    }
}

TEST_CASE("pairs work on several CPUs at once while their number changes", "[virtio]") {
    Network network;
    Multi a{network, 1, 2};
    Multi b{network, 2, 2};
    REQUIRE(a.accepts(pairs(2)));
    std::atomic<bool> done{false};
    std::atomic<unsigned> sent{0};
    const auto send = [&](unsigned pair) {
        fake::set_cpu(1 + pair);
        for (unsigned i = 0; !done; ++i) {
            const Bytes bytes = Flow{2, 1, 1000 + 2 * (i % 8) + pair}.build();
            const Gpa at = Guest::kTransmit + 0x1'0000 * pair;
            b.board.put(at, NetHeader{});
            b.board.memory.write(at + 12, std::as_bytes(std::span{bytes})).value();
            b.tx(pair).add({{at, static_cast<std::uint32_t>(bytes.size() + 12), false}});
            b.driver->kick(2 * pair + 1);
            while (!done && b.reclaim(pair) == 0) {
                b.driver->notify(2 * pair + 1);
                std::this_thread::yield();
            }
            ++sent;
        }
    };
    std::thread first{send, 0u};
    std::thread second{send, 1u};
    unsigned received = 0;
    for (unsigned round = 0; round < 400 || (received < 100 && round < 20'000); ++round) {
        const unsigned count = 1 + round % 2;
        REQUIRE(a.accepts(pairs(count)));
        while (a.received_on())
            ++received;
        std::this_thread::yield();
        CHECK((count == 2 || !a.take(1)));
    }
    done = true;
    first.join();
    second.join();
    CHECK(sent > 0);
    CHECK(received > 0);
    CHECK_FALSE(a.needs_reset());
    CHECK_FALSE(b.needs_reset());
}
