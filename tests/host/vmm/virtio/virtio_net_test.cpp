// SPDX-License-Identifier: MIT
#include "vmm/virtio/net_fixture.hpp"

#include <thread>

namespace {

using namespace hv;
using namespace hv::virtio;
using namespace hv::test;

}  // namespace

TEST_CASE("a frame passes from guest to guest", "[virtio]") {
    for (const std::uint64_t features : {VIRTIO_F_VERSION_1, kRing, kFull}) {
        Network network;
        Guest a{*network.lan, 1, features};
        Guest b{*network.lan, 2, features};
        b.fill(4, 2048);
        for (unsigned pieces = 1; pieces < 6; ++pieces) {
            b.fill(1, 2048);
            const Bytes bytes = plain(2, 1, 100 * pieces);
            a.send(bytes, {}, pieces);
            const auto packet = b.take();
            REQUIRE(packet);
            CHECK(packet->bytes == bytes);
            CHECK(packet->header.num_buffers == 1);
            CHECK(packet->header.flags == 0);
            CHECK(a.reclaim() == 1);
            CHECK_FALSE(b.take());
        }
        CHECK(b.driver->interrupts(0) == 5);
    }
}

TEST_CASE("the configuration space tells address, MTU and link", "[virtio]") {
    Network network;
    Guest a{*network.lan, 7};
    CHECK(a.driver->device_config(0, 4) == 0x0000'5452);
    CHECK(a.driver->device_config(5, 1) == 7);
    CHECK(a.driver->device_config(6, 2) == 1);
    CHECK(a.driver->device_config(10, 2) == 1500);
    const auto interrupts = a.driver->config_interrupts();
    a.device->connect(nullptr);
    CHECK(a.driver->device_config(6, 2) == 0);
    CHECK(a.driver->config_interrupts() == interrupts + 1);
    a.send(plain(2, 7));
    CHECK(a.reclaim() == 1);
}

TEST_CASE("while the link is down frames are lost, and nobody waits", "[virtio]") {
    Network network;
    Guest a{*network.lan, 1};
    Guest b{*network.lan, 2};
    const auto status = [&] { return b.driver->device_config(6, 2); };
    b.fill(1, 2048);
    for (unsigned i = 0; i < 3; ++i)
        a.queue(plain(2, 1));
    a.driver->kick(1);
    CHECK(a.reclaim() == 1);  // the others wait for buffers
    const unsigned interrupts = b.driver->config_interrupts();
    b.device->set_link(VirtioNet::Link::down);
    CHECK(a.reclaim() == 2);
    CHECK(status() == 0);
    b.device->set_link(VirtioNet::Link::down);
    CHECK(b.driver->config_interrupts() == interrupts + 1);
    b.fill(2, 2048);
    CHECK(b.take());
    a.send(plain(2, 1));
    b.send(plain(1, 2));
    CHECK_FALSE(b.take());
    CHECK(a.reclaim() == 1);
    CHECK(b.reclaim() == 1);
    b.device->set_link(VirtioNet::Link::up);
    CHECK(status() == VIRTIO_NET_S_LINK_UP);
    CHECK(b.driver->config_interrupts() == interrupts + 2);
    a.send(plain(2, 1));
    CHECK(b.take());
}

TEST_CASE("a cable that is plugged in while the link is down waits for it", "[virtio]") {
    Network network;
    Guest a{*network.lan, 1};
    a.device->set_link(VirtioNet::Link::down);
    a.device->connect(nullptr);
    a.device->connect(a.port);
    CHECK(a.driver->device_config(6, 2) == 0);
    a.device->set_link(VirtioNet::Link::up);
    CHECK(a.driver->device_config(6, 2) == VIRTIO_NET_S_LINK_UP);
}

TEST_CASE("frames beyond the MTU reach no driver that knows it", "[virtio]") {
    Network network;
    Guest a{*network.lan, 1, kFull, 64, 9000};
    Guest b{*network.lan, 2, kFull | VIRTIO_NET_F_MTU};
    Guest c{*network.lan, 3};
    b.fill(8, 9100);
    c.fill(8, 9100);
    CHECK(a.driver->device_config(10, 2) == 9000);
    a.send(plain(2, 1, 1519));
    CHECK_FALSE(b.take());
    a.send(plain(2, 1, 1518));
    CHECK(b.take());
    a.send(plain(3, 1, 9018));
    CHECK(c.take());
    a.send(plain(3, 1, 9019));
    CHECK_FALSE(c.take());
    CHECK(a.device->counters().malformed == 1);
}

TEST_CASE("large frames pass unsegmented over as many buffers as they need", "[virtio]") {
    Network network;
    Guest a{*network.lan, 1};
    Guest b{*network.lan, 2};
    std::mt19937 random{1};
    for (const std::uint32_t buffer : {1526u, 4096u, 65562u, 13u}) {
        const bool ipv6 = buffer == 4096;
        const std::size_t most = 65'535 - (ipv6 ? 60 : 40);
        const test::TcpFrame tcp{.ipv6 = ipv6, .payload = buffer == 13 ? 40u : most};
        const Bytes bytes = addressed(tcp.build(random), 2, 1);
        b.fill(44, buffer);
        a.send(bytes, header_for(tcp.offload(1448)), 17);
        const auto packet = b.take();
        REQUIRE(packet);
        CHECK(a.reclaim() == 1);
        CHECK(packet->bytes == bytes);
        CHECK(packet->header.gso_type == (tcp.ipv6 ? net::kGsoTcpV6 : net::kGsoTcpV4));
        CHECK(packet->header.gso_size == 1448);
        CHECK(packet->header.flags == VIRTIO_NET_HDR_F_NEEDS_CSUM);
        CHECK(packet->header.csum_start == tcp.tcp());
        b.driver->start(kFull);
        b.buffers.clear();
    }
}

TEST_CASE("a receiver without offloads gets finished segments", "[virtio]") {
    Network network;
    Guest a{*network.lan, 1};
    Guest b{*network.lan, 2, kRing};
    std::mt19937 random{2};
    b.fill(40, 1526);
    const test::TcpFrame tcp{.payload = 20'000};
    a.send(addressed(tcp.build(random), 2, 1), header_for(tcp.offload(1448)), 6);
    for (unsigned i = 0; i < 14; ++i) {
        const auto packet = b.take();
        REQUIRE(packet);
        CHECK(tcp.sums_right(packet->bytes));
        CHECK(packet->header.flags == 0);
        CHECK(packet->header.gso_type == 0);
    }
    CHECK_FALSE(b.take());
    CHECK(a.reclaim() == 1);
}

TEST_CASE("segments wait for buffers as frames do, and none is lost", "[virtio]") {
    Network network;
    Guest a{*network.lan, 1};
    Guest b{*network.lan, 2, kRing};
    std::mt19937 random{2};
    b.fill(3, 1526);
    const test::TcpFrame tcp{.payload = 20'000};
    const Bytes bytes = addressed(tcp.build(random), 2, 1);
    a.queue(bytes, header_for(tcp.offload(1448)), 6);
    a.queue(plain(2, 1));
    a.driver->kick(1);
    Bytes payload;
    // In all, it takes longer than a frame may wait, but each buffer that is filled earns some time.
    for (unsigned i = 0; i < 14; ++i) {
        const auto packet = b.take();
        REQUIRE(packet);
        CHECK(tcp.sums_right(packet->bytes));
        payload.insert(payload.end(), packet->bytes.begin() + static_cast<long>(tcp.data()),
                       packet->bytes.end());
        if (i >= 2 && i < 13) {
            CHECK(a.reclaim() == 0);
            a.board.clock.advance(950'000);
            b.fill(i == 12 ? 2 : 1, 1526);
        }
    }
    CHECK(std::equal(payload.begin(), payload.end(), bytes.begin() + static_cast<long>(tcp.data()),
                     bytes.end()));
    REQUIRE(b.take());
    CHECK(a.reclaim() == 2);
    CHECK(b.port->counters().lost == 0);
    CHECK(b.port->counters().frames_out == 2);
    // The rest of a frame whose receiver gave up is lost, and the next one begins at its begin.
    b.fill(2, 1526);
    a.send(bytes, header_for(tcp.offload(1448)), 6);
    a.board.clock.advance(20'000'000);
    CHECK(a.reclaim() == 1);
    CHECK(b.port->counters().lost == 1);
    CHECK((b.take() && b.take()));
    b.fill(20, 1526);
    a.send(bytes, header_for(tcp.offload(1448)), 6);
    for (unsigned i = 0; i < 14; ++i)
        REQUIRE(b.take());
}

TEST_CASE("a full receiver pauses its sender and loses nothing", "[virtio]") {
    Network network;
    Guest a{*network.lan, 1};
    Guest b{*network.lan, 2};
    b.fill(2, 2048);
    for (unsigned i = 0; i < 8; ++i)
        a.queue(plain(2, 1, 60 + i));
    a.driver->kick(1);
    CHECK(a.reclaim() == 2);
    CHECK(a.board.clock.armed() == 1);
    unsigned received = 0;
    while (received < 8) {
        while (const auto packet = b.take()) {
            CHECK(packet->bytes.size() == 60 + received);
            ++received;
        }
        b.fill(1, 2048);
    }
    CHECK(a.reclaim() == 6);
}

TEST_CASE("a frame that needs more buffers than there are waits for them", "[virtio]") {
    Network network;
    Guest a{*network.lan, 1};
    Guest b{*network.lan, 2};
    std::mt19937 random{3};
    const test::TcpFrame tcp{.payload = 6000};
    const Bytes bytes = addressed(tcp.build(random), 2, 1);
    b.fill(2, 1526);
    a.send(bytes, header_for(tcp.offload(1448)));
    CHECK_FALSE(b.take());
    b.fill(1, 1526);
    CHECK_FALSE(b.take());
    b.fill(1, 1526);
    const auto packet = b.take();
    REQUIRE(packet);
    CHECK(packet->header.num_buffers == 4);
    CHECK(packet->bytes == bytes);
    CHECK(a.reclaim() == 1);
}

TEST_CASE("a ring of as many frames as a turn sends is not the last one", "[virtio]") {
    Network network;
    const auto end_of_turn = [](Guest& guest, unsigned frames) {
        guest.driver->kick(1);
        CHECK(guest.reclaim() == frames);
        CHECK(guest.board.clock.run() == 1);  // the turn's end left the ring to a timer
        guest.send(plain(2, 1), {}, 1);
        CHECK(guest.reclaim() == 1);
        CHECK_FALSE(guest.needs_reset());
    };
    for (const std::uint64_t features : {kFull, kFull & ~VIRTIO_F_EVENT_IDX}) {
        Guest guest{*network.lan, 1, features, Virtqueue::kMaxSize};
        for (unsigned i = 0; i < Virtqueue::kMaxSize; ++i)
            guest.queue(plain(2, 1), {}, 1);
        end_of_turn(guest, Virtqueue::kMaxSize);
        // The same by bytes.
        std::mt19937 random{5};
        const test::TcpFrame tcp{.payload = 65'000};
        for (unsigned i = 0; i < 17; ++i)
            guest.queue(addressed(tcp.build(random), 2, 1), header_for(tcp.offload(1448)));
        end_of_turn(guest, 17);
    }
}

TEST_CASE("that a frame is sent is told with the next one, or by an interrupt a little later", "[virtio]") {
    Network network;
    Guest a{*network.lan, 1};
    Guest b{*network.lan, 2};
    b.fill(40, 2048);
    const Bytes frame = plain(2, 1);
    const auto interrupts = [&] { return a.driver->interrupts(1); };
    const auto before = interrupts();
    a.tx().want_interrupts(true);
    a.send(frame);
    CHECK(b.take());
    CHECK(a.reclaim() == 0);
    SECTION("the next one") {
        a.send(frame);
        CHECK(a.reclaim() == 2);  // it asked for an interrupt after the first one alone
    }
    SECTION("an interrupt") {
        a.board.clock.advance(200'000);
        CHECK(a.reclaim() == 0);
        CHECK(interrupts() == before);
        a.board.clock.advance(100'000);
        CHECK(interrupts() == before + 1);
        CHECK(a.reclaim() == 1);
        a.send(frame);
        a.board.clock.advance(300'000);
        CHECK(interrupts() == before + 2);
    }
    SECTION("a driver that wants no interrupt looks itself") {
        a.tx().want_interrupts(false);
        a.send(frame);
        CHECK(a.reclaim() == 2);
        CHECK(interrupts() == before);
    }
    SECTION("much of a ring is told at once") {
        for (unsigned i = 0; i < 17; ++i)
            a.queue(frame, {}, 1);
        a.driver->kick(1);
        CHECK(a.reclaim() == 18);
        CHECK(interrupts() == before + 1);
    }
    SECTION("a reset forgets it") {
        a.driver->start(kFull, 64);
        a.board.clock.advance(300'000);
        CHECK(a.reclaim() == 0);
    }
}

TEST_CASE("a dead receiver holds its sender up once", "[virtio]") {
    Network network;
    Guest a{*network.lan, 1};
    Guest dead{*network.lan, 2};
    Guest c{*network.lan, 3};
    c.fill(8, 2048);
    a.queue(plain(2, 1));
    a.queue(plain(3, 1));
    a.driver->kick(1);
    CHECK(a.reclaim() == 0);
    a.board.clock.advance(10'000'000);
    CHECK(a.reclaim() == 2);
    CHECK(c.take());
    a.queue(plain(2, 1));
    a.queue(plain(3, 1));
    a.driver->kick(1);
    CHECK(a.reclaim() == 2);
    CHECK(c.take());
}

TEST_CASE("what no network has is not sent", "[virtio]") {
    Network network;
    Guest a{*network.lan, 1};
    Guest b{*network.lan, 2};
    b.fill(40, 2048);
    std::mt19937 random{4};
    a.send(Bytes(13));
    a.send(plain(2, 1, 1519));
    const test::TcpFrame tcp{.payload = 5000};
    NetHeader header = header_for(tcp.offload(1448));
    header.csum_start = 0xffff;
    a.send(addressed(tcp.build(random), 2, 1), header);
    header = header_for(tcp.offload(1448));
    header.gso_type = 3;
    a.send(addressed(tcp.build(random), 2, 1), header);
    header.gso_type = net::kGsoTcpV4 | net::kGsoEcn;  // not negotiated
    a.send(addressed(tcp.build(random), 2, 1), header);
    CHECK(a.device->counters().malformed == 5);
    a.send(plain(2, 3));  // a foreign source
    CHECK(a.reclaim() == 6);
    CHECK_FALSE(b.take());
    CHECK_FALSE(a.needs_reset());
    a.send(plain(2, 1, 1518));
    CHECK(b.take());
}

TEST_CASE("a driver that breaks its rings needs a reset, its neighbour notices nothing", "[virtio]") {
    Network network;
    Guest a{*network.lan, 1};
    Guest b{*network.lan, 2};
    SECTION("transmit without a header") {
        a.tx().add({{Guest::kTransmit, 11, false}});
        a.driver->kick(1);
    }
    SECTION("transmit outside RAM") {
        a.tx().add({{Gpa{fake::Board::kRam}, 100, false}});
        a.driver->kick(1);
    }
    SECTION("receive buffer that is not writable") {
        a.rx().add({{Guest::kReceive, 2048, false}});
        a.driver->kick(0);
        b.send(plain(1, 2));
        CHECK(b.reclaim() == 1);
    }
    SECTION("receive buffer outside RAM") {
        a.rx().add({{Gpa{~0ull - 10}, 2048, true}});
        a.driver->kick(0);
        b.send(plain(1, 2));
        CHECK(b.reclaim() == 1);
    }
    SECTION("receive index that jumps") {
        a.rx().next_avail = 1000;
        a.driver->kick(0);
        b.send(plain(1, 2));
        CHECK(b.reclaim() == 1);
    }
    CHECK(a.needs_reset());
    CHECK_FALSE(b.needs_reset());
    a.driver->start(kFull);
    a.fill(1, 2048);
    b.send(plain(1, 2));
    CHECK(a.take());
}

TEST_CASE("a stopped device takes and sends nothing", "[virtio]") {
    Network network;
    Guest a{*network.lan, 1};
    Guest b{*network.lan, 2};
    b.fill(4, 2048);
    b.driver->set_status(0);
    a.send(plain(2, 1));
    CHECK(a.reclaim() == 1);
    CHECK_FALSE(b.take());
    b.send(plain(1, 2));
    CHECK(b.reclaim() == 0);
}

TEST_CASE("features that need others are refused alone", "[virtio]") {
    Network network;
    Guest a{*network.lan, 1};
    for (const std::uint64_t alone :
         {VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_HOST_ECN})
        CHECK_FALSE(a.driver->negotiate(kRing | alone));
    CHECK(a.driver->negotiate(kRing | VIRTIO_NET_F_CSUM | VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_HOST_ECN));
}

TEST_CASE("what the switch checked is what arrives, whatever the sender writes meanwhile", "[virtio]") {
    Network network;
    Guest a{*network.lan, 1};
    /// Gets each broadcast first, and forges its source address in the sender's memory.
    struct Accomplice final : net::Station {
        explicit Accomplice(Guest& of) : sender{of} {}
        net::Delivery receive(const Frame& /*frame*/) override {
            sender.board.put<std::uint8_t>(Guest::kTransmit + 12 + 11, 9);
            return net::Delivery::taken;
        }
        void resume() override {}
        void network_changed() override {}
        Guest& sender;
    } accomplice{a};
    net::SwitchPort* port =
        network.lan->add_port(accomplice, {net::PortOptions::Kind::access, mac(5), 0, 0}).value();
    Guest b{*network.lan, 2};
    b.fill(1, 2048);
    Bytes bytes = plain(2, 1);
    std::fill_n(bytes.begin(), 6, std::uint8_t{0xff});
    a.send(bytes);
    CHECK(a.board.get<std::uint8_t>(Guest::kTransmit + 12 + 11) == 9);
    const auto packet = b.take();
    REQUIRE(packet);
    CHECK(packet->bytes == bytes);
    network.lan->remove_port(*port);
}

TEST_CASE("two guests send to each other from several CPUs, and resets race with that", "[virtio]") {
    Network network;
    Guest a{*network.lan, 1};
    Guest b{*network.lan, 2};
    std::atomic<bool> done{false};
    std::thread sender{[&] {
        fake::set_cpu(1);
        while (!done) {
            a.queue(plain(2, 1, 1000));
            a.driver->kick(1);
            a.driver->notify(1);
            a.reclaim();
            a.board.clock.run();
            if (a.tx().free_descriptors() < 4)
                std::this_thread::yield();
            while (!done && a.tx().free_descriptors() < 4) {
                a.driver->notify(1);
                a.board.clock.run();
                fake::advance_tsc(100'000);
                a.reclaim();
            }
        }
    }};
    std::thread ringer{[&] {
        fake::set_cpu(2);
        while (!done) {
            a.driver->notify(1);
            b.driver->notify(0);
            std::this_thread::yield();
        }
    }};
    unsigned received = 0;
    for (unsigned round = 0; round < 40; ++round) {
        for (unsigned i = 0; i < 50; ++i) {
            b.fill(1, 2048);
            while (b.take())
                ++received;
            std::this_thread::yield();
        }
        b.driver->set_status(0);
        b.board.next = 0x10'0000;
        b.buffers.clear();
        b.driver->start(kFull);
    }
    done = true;
    sender.join();
    ringer.join();
    CHECK(received > 0);
    CHECK_FALSE(a.needs_reset());
    CHECK_FALSE(b.needs_reset());
}
