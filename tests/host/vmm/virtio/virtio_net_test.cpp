// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/virtio_driver.hpp"
#include "vmm/net/frame_fixture.hpp"
#include "vmm/net/switch.hpp"
#include "vmm/virtio/virtio_net.hpp"
#include "vmm/virtio/virtio_pci.hpp"

#include <thread>

namespace {

using namespace hv;
using namespace hv::virtio;
using test::Bytes;

constexpr std::uint64_t kRing = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;
constexpr std::uint64_t kOffloads = VIRTIO_NET_F_CSUM | VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_GUEST_TSO4 |
                                    VIRTIO_NET_F_GUEST_TSO6 | VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_HOST_TSO6;
constexpr std::uint64_t kFull = kRing | kOffloads | VIRTIO_NET_F_MRG_RXBUF;

MacAddress mac(unsigned index) {
    return {0x52, 0x54, 0, 0, 0, static_cast<std::uint8_t>(index)};
}

/// A VM with one NIC, on a switch that it shares with others.
struct Guest {
    static constexpr Gpa kTransmit{0x20'0000};
    static constexpr Gpa kReceive{0x50'0000};

    Guest(net::Switch& lan, unsigned index, std::uint64_t features = kFull, std::uint16_t queue_size = 64)
        : board{index},
          own_mac{mac(index)},
          device{std::move(VirtioNet::create(board.memory, board.clock, {own_mac, 1500})).value()},
          transport{*device, board.interrupts, &board.line},
          lan_{lan} {
        REQUIRE(board.bridge.attach(1, transport));
        port = lan.add_port(*device, {net::PortOptions::Kind::access, own_mac, 0, 0}).value();
        device->connect(port);
        driver = std::make_unique<fake::VirtioDriver>(board, 1);
        driver->start(features, queue_size);
    }
    ~Guest() {
        device->connect(nullptr);
        lan_.remove_port(*port);
    }
    fake::DriverQueue& rx() { return driver->queues.at(0); }
    fake::DriverQueue& tx() { return driver->queues.at(1); }
    /// Gives the device `count` buffers of `size` bytes.
    void fill(unsigned count, std::uint32_t size) {
        for (unsigned i = 0; i < count; ++i) {
            const Gpa at = kReceive + std::uint64_t{next_buffer++ % 40} * 0x1'1000;
            buffers[rx().add({{at, size, true}})] = at;
        }
        driver->kick(0);
    }
    /// Puts a frame in the transmit ring, in `pieces` descriptors.
    void queue(const Bytes& bytes, const NetHeader& header = {}, unsigned pieces = 2) {
        const Gpa at = kTransmit + std::uint64_t{next_frame++ % 36} * 0x1'1000;
        board.put(at, header);
        board.memory.write(at + 12, std::as_bytes(std::span{bytes})).value();
        std::vector<fake::DriverBuffer> chain;
        const auto size = static_cast<std::uint32_t>(bytes.size() + 12);
        for (std::uint32_t done = 0, i = 0; done < size; ++i) {
            const std::uint32_t piece =
                i + 1 >= pieces ? size - done : std::min(size - done, i == 0 ? 7u : size / pieces);
            chain.push_back({at + done, piece, false});
            done += piece;
        }
        tx().add(chain);
    }
    void send(const Bytes& bytes, const NetHeader& header = {}, unsigned pieces = 2) {
        queue(bytes, header, pieces);
        driver->kick(1);
    }
    struct Packet {
        NetHeader header;
        Bytes bytes;
    };
    std::optional<Packet> take() {
        auto used = rx().take_used();
        if (!used)
            return std::nullopt;
        Packet packet{};
        Bytes all;
        for (unsigned count = 1;; ++count) {
            Bytes part(used->length);
            board.memory
                .read(buffers.at(static_cast<std::uint16_t>(used->id)),
                      std::as_writable_bytes(std::span{part}))
                .value();
            all.insert(all.end(), part.begin(), part.end());
            std::memcpy(&packet.header, all.data(), 12);
            if (count >= packet.header.num_buffers)
                break;
            used = rx().take_used();
            REQUIRE(used);
        }
        packet.bytes.assign(all.begin() + 12, all.end());
        return packet;
    }
    unsigned reclaim() {
        unsigned count = 0;
        while (tx().take_used())
            ++count;
        return count;
    }
    bool needs_reset() { return (driver->status() & DEVICE_NEEDS_RESET) != 0; }

    fake::Board board;
    MacAddress own_mac;
    std::unique_ptr<VirtioNet> device;
    VirtioPciTransport transport;
    net::SwitchPort* port{nullptr};
    std::unique_ptr<fake::VirtioDriver> driver;
    std::map<std::uint16_t, Gpa> buffers;

private:
    net::Switch& lan_;
    unsigned next_buffer{0};
    unsigned next_frame{0};
};

struct Network {
    fake::ManualClock clock;
    std::unique_ptr<net::Switch> lan{std::move(net::Switch::create(clock)).value()};
};

Bytes addressed(Bytes bytes, unsigned to, unsigned from) {
    const MacAddress target = mac(to);
    const MacAddress source = mac(from);
    std::copy(target.begin(), target.end(), bytes.begin());
    std::copy(source.begin(), source.end(), bytes.begin() + 6);
    return bytes;
}

Bytes plain(unsigned to, unsigned from, std::size_t size = 60) {
    Bytes bytes(size);
    for (std::size_t i = 0; i < size; ++i)
        bytes[i] = static_cast<std::uint8_t>(i * 3);
    test::put16(bytes, 12, 0x88b5);
    return addressed(bytes, to, from);
}

NetHeader header_for(const FrameOffload& offload) {
    return {VIRTIO_NET_HDR_F_NEEDS_CSUM, offload.gso_type,        0, offload.gso_size,
            offload.checksum_start,      offload.checksum_offset, 0};
}

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

TEST_CASE("large frames pass unsegmented over as many buffers as they need", "[virtio]") {
    Network network;
    Guest a{*network.lan, 1};
    Guest b{*network.lan, 2};
    std::mt19937 random{1};
    for (const std::uint32_t buffer : {1526u, 4096u, 65562u, 13u}) {
        const test::TcpFrame tcp{.ipv6 = buffer == 4096, .payload = buffer == 13 ? 40u : 60'000u};
        const Bytes bytes = addressed(tcp.build(random), 2, 1);
        b.fill(41, buffer);
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
