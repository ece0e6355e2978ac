// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/base/log.hpp"
#include "vmm/net/switch_fixture.hpp"

using namespace hv;
using namespace hv::net;
using namespace hv::test;

TEST_CASE("an address that another CPU learned a moment later is known", "[net]") {
    MacTable table;
    REQUIRE(table.learn(mac(1), 0, 3, 1000));
    CHECK(table.lookup(mac(1), 0, 999, 100) == 3);
    CHECK(table.lookup(mac(1), 0, 1100, 100) == 3);
    CHECK(table.lookup(mac(1), 0, 1101, 100) == std::nullopt);
}

TEST_CASE("a port gets frames at its rate over time, and its senders wait", "[net]") {
    Network network;
    SwitchPort& a = network.access(1);
    PortOptions options{PortOptions::Kind::access, mac(2), 0, 0};
    options.receive_bits_per_second = 800'000'000;  // 100 MB/s
    SwitchPort& b = network.add(options);
    const Bytes bytes = frame_bytes(mac(2), mac(1), {}, 1500);
    std::uint64_t sent = 0;
    unsigned waits = 0;
    const std::uint64_t end = network.clock.now() + 100'000'000;
    while (network.clock.now() < end) {
        const Delivery delivery = network.send(a, bytes);
        REQUIRE(delivery != Delivery::dropped);
        if (delivery == Delivery::taken) {
            sent += bytes.size();
            continue;
        }
        ++waits;
        REQUIRE(network.retry_at > network.clock.now());
        fake::set_tsc(network.retry_at);
    }
    CHECK(sent > 9'990'000);
    CHECK(sent < 10'000'000 + 1'000'000 + 3000);
    CHECK(a.counters().waits == waits);
    CHECK(b.counters().bytes_out == sent);
    CHECK(b.counters().over_rate == 0);
}

TEST_CASE("what is taken of a frame in parts counts for its rates, whatever the rest becomes", "[net]") {
    constexpr std::uint64_t kRate = 80'000'000;  // 10 bytes a microsecond; 128 KiB pass at once
    const bool sends = GENERATE(true, false);
    Network network;
    SwitchPort& a = network.access(1, 0, sends ? kRate : 0);
    network.add({PortOptions::Kind::access, mac(2), 0, 0, sends ? 0 : kRate});
    network.stations[1].takes = 50'000;
    std::mt19937 random{1};
    const Bytes bytes = frame_bytes(mac(2), mac(1), {}, 60'000);
    const ScatteredFrame scattered{bytes, {}, random, 3};
    // Each time, the sender has put another frame in the place of the one that waits.
    const auto passes = [&] {
        std::uint32_t progress = 0;
        Frame frame = scattered.frame;
        frame.progress = &progress;
        CHECK(a.send(frame, network.retry_at) == Delivery::no_room);
        return progress != 0;
    };
    CHECK((passes() && passes() && passes()));
    CHECK_FALSE(passes());
    // 18,928 bytes too many were taken.
    network.clock.advance(1'890'000);
    CHECK_FALSE(passes());
    network.clock.advance(10'000);
    CHECK(passes());
    CHECK_FALSE(passes());
}

TEST_CASE("the end of a frame in parts costs what is left of it, a smaller one in its place nothing",
          "[net]") {
    constexpr std::uint64_t kRate = 80'000'000;
    const bool sends = GENERATE(true, false);
    Network network;
    SwitchPort& a = network.access(1, 0, sends ? kRate : 0);
    network.add({PortOptions::Kind::access, mac(2), 0, 0, sends ? 0 : kRate});
    std::mt19937 random{1};
    const auto size = GENERATE(std::size_t{60}, std::size_t{60'000});
    const Bytes bytes = frame_bytes(mac(2), mac(1), {}, size);
    const ScatteredFrame scattered{bytes, {}, random, 3};
    std::uint32_t progress = 50'000;
    Frame frame = scattered.frame;
    frame.progress = &progress;
    // 13 times the 10,000 bytes that are left of the large one still pass.
    for (unsigned i = 0; i < 14; ++i)
        CHECK(a.send(frame, network.retry_at) == Delivery::taken);
    CHECK((a.send(frame, network.retry_at) == Delivery::taken) == (size == 60));
}

TEST_CASE("a slow receiver holds its senders up for a bounded time", "[net]") {
    Network network;
    SwitchPort& a = network.access(1);
    PortOptions options{PortOptions::Kind::access, mac(2), 0, 0};
    options.receive_bits_per_second = 8'000;
    SwitchPort& b = network.add(options);
    const Bytes bytes = frame_bytes(mac(2), mac(1), {}, 60'000);
    while (network.send(a, bytes) == Delivery::taken) {
    }
    CHECK(b.counters().frames_out == 3);
    CHECK(network.retry_at == network.clock.now() + 10'000'000);
    network.clock.advance(10'000'000);
    CHECK(network.send(a, bytes) == Delivery::dropped);
    CHECK(b.counters().over_rate == 1);
    CHECK(b.counters().lost == 0);
    // Nobody waits with a broadcast, and an uplink never.
    CHECK(network.send(a, frame_bytes(kBroadcast, mac(1))) == Delivery::taken);
    CHECK(network.send(network.uplink(), frame_bytes(mac(2), mac(60))) == Delivery::dropped);
    CHECK(b.counters().over_rate == 3);
    network.clock.advance(60'000'000'000);
    CHECK(network.send(a, bytes) == Delivery::taken);
}

TEST_CASE("a storm is cut off at the limit, and harms nobody else", "[net]") {
    Network network{{.storm_limit = 100}};
    SwitchPort& a = network.access(1);
    SwitchPort& b = network.access(2);
    SwitchPort& up = network.uplink();
    unsigned passed = 0;
    for (unsigned i = 0; i < 1000; ++i)
        passed += network.send(a, frame_bytes(i % 2 == 0 ? kBroadcast : mac(99), mac(1))) == Delivery::taken;
    CHECK(passed == 100);
    CHECK(a.counters().storm == 900);
    CHECK(network.stations[1].take().size() == 50);
    CHECK(network.stations[2].take().size() == 100);
    CHECK(network.send(a, frame_bytes(mac(2), mac(1))) == Delivery::taken);
    CHECK(network.send(b, frame_bytes(kBroadcast, mac(2))) == Delivery::taken);
    network.clock.advance(50'000'000);
    for (passed = 0; network.send(a, frame_bytes(kBroadcast, mac(1))) == Delivery::taken;)
        ++passed;
    CHECK(passed == 5);
    // What comes in by an uplink for nobody here is no flood.
    for (unsigned i = 0; i < 200; ++i)
        network.send(up, frame_bytes(mac(99), mac(60)));
    CHECK(up.counters().storm == 0);
    for (unsigned i = 0; i < 200; ++i)
        network.send(up, frame_bytes(kBroadcast, mac(60)));
    CHECK(up.counters().storm == 100);
}

TEST_CASE("an unsegmented frame for many counts as all that it becomes", "[net]") {
    Network network{{.storm_limit = 100}};
    SwitchPort& a = network.access(1);
    network.access(2);
    std::mt19937 random{1};
    FrameOffload offload{};
    offload.needs_checksum = true;
    offload.gso_type = net::kGsoTcpV4;
    offload.gso_size = 1000;
    const Bytes bytes = frame_bytes(kBroadcast, mac(1), {}, 60'000);
    const ScatteredFrame large{bytes, offload, random, 3};
    const auto passes = [&] { return a.send(large.frame, network.retry_at) == Delivery::taken; };
    CHECK((passes() && passes()));
    CHECK_FALSE(passes());
    network.clock.advance(220'000'000);  // 22 were too many
    CHECK_FALSE(passes());
    network.clock.advance(10'000'000);
    CHECK(passes());
}

TEST_CASE("without a limit there is no storm", "[net]") {
    Network network{{.storm_limit = 0}};
    SwitchPort& a = network.access(1);
    for (unsigned i = 0; i < 5000; ++i)
        REQUIRE(network.send(a, frame_bytes(kBroadcast, mac(1))) == Delivery::taken);
    CHECK(SwitchOptions{}.storm_limit == 1000);
}

TEST_CASE("a port that is used again counts anew", "[net]") {
    Network network;
    SwitchPort& a = network.access(1);
    network.access(2);
    network.send(a, frame_bytes(mac(2), mac(1)));
    network.send(a, frame_bytes(mac(2), mac(2)));
    network.lan->remove_port(a);
    SwitchPort& again = network.access(3);
    REQUIRE(&again == &a);
    CHECK(again.counters().frames_in == 0);
    CHECK(refused(again, Refusal::source) == 0);
}

TEST_CASE("a flood of sources does not push out who has a port, nor grow the table", "[net]") {
    Network network;
    std::vector<SwitchPort*> ports;
    for (unsigned i = 1; i <= 100; ++i)
        ports.push_back(&network.access(i));
    SwitchPort& up = network.uplink();
    for (unsigned i = 0; i < 20'000; ++i)
        network.send(up,
                     frame_bytes(mac(1), {2, 0, 9, static_cast<std::uint8_t>(i >> 16),
                                          static_cast<std::uint8_t>(i >> 8), static_cast<std::uint8_t>(i)}));
    std::size_t learned = 0;
    network.lan->for_each_learned(
        [&](const MacAddress& address, std::uint16_t vlan, std::uint16_t port, std::uint64_t seconds) {
            ++learned;
            CHECK((address[0] == 2 && vlan == 0 && port == 100 && seconds == 0));
        });
    CHECK(learned > 500);
    CHECK(learned <= MacTable::kSets * MacTable::kWays - 100);
    network.stations[0].take();
    for (unsigned i = 2; i <= 100; ++i) {
        REQUIRE(network.send(*ports[0], frame_bytes(mac(i), mac(1))) == Delivery::taken);
        CHECK(network.stations[i - 1].take().size() == 1);
    }
    CHECK(network.stations[100].frames.empty());
    network.clock.advance(302'000'000'000);
    network.lan->for_each_learned([&](auto&&...) { FAIL("forgotten by now"); });
}

TEST_CASE("as many stations as a switch has ports find room, whatever their addresses are", "[net]") {
    std::vector<MacAddress> alike;  // all in one set of the table
    for (std::uint32_t i = 1; alike.size() < SwitchPort::kMaxPorts + 1; ++i) {
        const std::uint64_t key = 0x5254'0000'0000 + i;
        if (key * 0x9e37'79b9'7f4a'7c15 >> 57 == 0)
            alike.push_back({0x52, 0x54, static_cast<std::uint8_t>(i >> 24),
                             static_cast<std::uint8_t>(i >> 16), static_cast<std::uint8_t>(i >> 8),
                             static_cast<std::uint8_t>(i)});
    }
    MacTable table;
    const auto port = [](std::size_t i) { return static_cast<std::uint16_t>(i); };
    for (std::size_t i = 0; i < SwitchPort::kMaxPorts; ++i)
        REQUIRE(table.fix(alike[i], 0, port(i)));
    for (std::size_t i = 0; i < SwitchPort::kMaxPorts; ++i) {
        REQUIRE(table.lookup(alike[i], 0, 1000, 1) == port(i));
        REQUIRE(table.fix(alike[i], 0, 300).error() == Error::already_exists);
        REQUIRE(table.learn(alike[i], 0, port(i), 1));
        REQUIRE_FALSE(table.learn(alike[i], 0, port(i + 1), 1));
    }
    CHECK(table.lookup(alike.back(), 0, 1, 1) == std::nullopt);
    CHECK(table.lookup(alike[100], 1, 1, 1) == std::nullopt);
    for (const std::size_t gone : {3, 100, 255}) {
        table.forget(port(gone));
        CHECK(table.lookup(alike[gone], 0, 1, 1) == std::nullopt);
        CHECK(table.fix(alike[gone], 0, port(gone)));
        CHECK(table.lookup(alike[gone], 0, 1, 1) == port(gone));
    }
    CHECK(table.lookup(alike[200], 0, 1, 1) == 200);
}

TEST_CASE("what comes in by an uplink beyond its rate is lost", "[net]") {
    Network network;
    network.access(1);
    PortOptions options{PortOptions::Kind::uplink, {}, 0, 8'000'000};
    SwitchPort& up = network.add(options);
    unsigned passed = 0;
    while (network.send(up, frame_bytes(mac(1), mac(60), {}, 1500)) == Delivery::taken)
        ++passed;
    CHECK(passed >= 128 * 1024 / 1500);
    CHECK(passed <= 128 * 1024 / 1500 + 1);
    network.clock.advance(10'000'000);
    CHECK(network.send(up, frame_bytes(mac(1), mac(60), {}, 1500)) == Delivery::taken);
}

TEST_CASE("an address that is used outside as well is said in the log", "[net]") {
    struct Lines final : log::Sink {
        void log_line(log::Level, std::string_view line) override { lines.emplace_back(line); }
        std::vector<std::string> lines;
    } log_lines;
    Network network;
    network.access(1);
    SwitchPort& up = network.uplink();
    log::set_sink(&log_lines);
    for (unsigned i = 0; i < 100; ++i)
        CHECK(network.send(up, frame_bytes(kBroadcast, mac(1))) == Delivery::dropped);
    CHECK(network.send(up, frame_bytes(kBroadcast, kBroadcast)) == Delivery::dropped);
    log::set_sink(nullptr);
    REQUIRE_FALSE(log_lines.lines.empty());
    CHECK(log_lines.lines.size() < 20);
    CHECK(log_lines.lines[0].find("52:54:00:00:00:01 is a VM's address here") != std::string::npos);
    CHECK(refused(up, Refusal::source) == 101);
}
