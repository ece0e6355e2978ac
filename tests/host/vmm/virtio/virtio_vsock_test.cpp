// SPDX-License-Identifier: MIT
#include "vmm/virtio/vsock_fixture.hpp"

using namespace hv;
using namespace hv::test;
using Guest = SocketGuest;

TEST_CASE("a guest has a CID of its own", "[virtio]") {
    Guest guest;
    CHECK(guest.driver->read_config(2, 2) == 0x1053);
    CHECK(guest.driver->device_config(0, 4) == kCid);
    CHECK(guest.driver->device_config(4, 4) == 0);
    for (const std::uint64_t cid : {0ull, 1ull, 2ull, 0xffff'ffffull, 1ull << 32})
        CHECK(VirtioVsock::create(guest.board.memory, guest.board.clock, {cid, {}}).error() ==
              Error::invalid_argument);
}

TEST_CASE("what is sent to the echo comes back", "[virtio]") {
    for (const std::uint64_t features : {VIRTIO_F_VERSION_1, kRing}) {
        Guest guest{features};
        guest.send(VIRTIO_VSOCK_OP_REQUEST);
        const auto response = guest.take();
        REQUIRE(response);
        CHECK(response->header.op == VIRTIO_VSOCK_OP_RESPONSE);
        CHECK(response->header.src_cid == kVsockHostCid);
        CHECK(response->header.src_port == VsockEcho::kPort);
        CHECK(response->header.dst_port == kLocal);
        CHECK(response->header.type == VIRTIO_VSOCK_TYPE_STREAM);
        CHECK(response->header.buf_alloc == kBuffer);
        CHECK(response->header.fwd_cnt == 0);
        guest.send_data("hello");
        const auto answer = guest.take();
        REQUIRE(answer);
        CHECK(answer->header.op == VIRTIO_VSOCK_OP_RW);
        CHECK(answer->payload == "hello");
        CHECK(answer->header.fwd_cnt == 5);
        CHECK(guest.sent() == 2);
        CHECK(guest.driver->interrupts(0) == 2);
        // The guest ends its side, then the echo all of it, then the guest says so.
        VsockHeader end = Guest::header(VIRTIO_VSOCK_OP_SHUTDOWN);
        end.flags = VIRTIO_VSOCK_SHUTDOWN_F_SEND;
        guest.send(end);
        const auto over = guest.take();
        REQUIRE(over);
        CHECK(over->header.op == VIRTIO_VSOCK_OP_SHUTDOWN);
        CHECK(over->header.flags == 3);
        CHECK(guest.device->connections() == 1);
        guest.send(VIRTIO_VSOCK_OP_RST);
        CHECK(guest.device->connections() == 0);
        CHECK_FALSE(guest.take());
    }
}

TEST_CASE("a stream passes whole through small buffers and little credit", "[virtio]") {
    Guest guest{kRing, 0};
    guest.fill(2, 300);
    guest.connect();
    std::string sent, got;
    std::uint32_t told = 0;   // the host's fwd_cnt
    std::uint32_t taken = 0;  // ours
    const std::uint32_t kOurs = 500;
    for (unsigned step = 0; step < 4000 && got.size() < 60'000; ++step) {
        const std::uint32_t room = kBuffer - (static_cast<std::uint32_t>(sent.size()) - told);
        std::string piece(std::min<std::uint32_t>(room, 1 + step % 700), ' ');
        for (char& c : piece)
            c = static_cast<char>('a' + (sent.size() + static_cast<std::size_t>(&c - piece.data())) % 26);
        VsockHeader made = Guest::header(piece.empty() ? VIRTIO_VSOCK_OP_CREDIT_UPDATE : VIRTIO_VSOCK_OP_RW);
        made.buf_alloc = kOurs;
        made.fwd_cnt = taken;
        made.len = static_cast<std::uint32_t>(piece.size());
        sent += piece;
        guest.send(made, piece);
        guest.sent();
        std::uint32_t window = 0;
        while (const auto packet = guest.take()) {
            REQUIRE((packet->header.op == VIRTIO_VSOCK_OP_RW ||
                     packet->header.op == VIRTIO_VSOCK_OP_CREDIT_UPDATE));
            window += packet->header.len;
            got += packet->payload;
            told = packet->header.fwd_cnt;
            guest.fill(1, 300);
        }
        REQUIRE(window <= kOurs);
        taken = static_cast<std::uint32_t>(got.size());
    }
    CHECK(got.size() >= 60'000);
    CHECK(sent.substr(0, got.size()) == got);
    CHECK_FALSE(guest.needs_reset());
}

TEST_CASE("a guest that sends more than there is room for is reset", "[virtio]") {
    Guest guest;
    guest.connect(kLocal, kTestPort);
    guest.send_data(std::string(kBuffer, 'x'), 0, kTestPort);
    CHECK(guest.test.readies == 1);
    CHECK_FALSE(guest.take());
    SECTION("by a byte") {
        guest.send_data("y", 0, kTestPort);
        CHECK(guest.take_op() == VIRTIO_VSOCK_OP_RST);
        CHECK(guest.device->connections() == 0);
        CHECK(guest.test.closes == 1);
    }
    SECTION("and gets to know about room once half of it is free") {
        std::string bytes(kBuffer / 2 - 1, ' ');
        CHECK(guest.test.last->read(std::as_writable_bytes(std::span{bytes})) == bytes.size());
        guest.send(VIRTIO_VSOCK_OP_CREDIT_UPDATE, kLocal, kTestPort);
        CHECK_FALSE(guest.take());
        CHECK(guest.test.last->read(std::as_writable_bytes(std::span{bytes}).first(1)) == 1);
        guest.send(VIRTIO_VSOCK_OP_CREDIT_UPDATE, kLocal, kTestPort);
        const auto update = guest.take();
        REQUIRE(update);
        CHECK(update->header.op == VIRTIO_VSOCK_OP_CREDIT_UPDATE);
        CHECK(update->header.fwd_cnt == kBuffer / 2);
        guest.send(VIRTIO_VSOCK_OP_CREDIT_REQUEST, kLocal, kTestPort);
        CHECK(guest.take_op() == VIRTIO_VSOCK_OP_CREDIT_UPDATE);
    }
}

TEST_CASE("packets that nobody expects are answered by a reset", "[virtio]") {
    Guest guest;
    VsockHeader wrong = Guest::header(VIRTIO_VSOCK_OP_REQUEST);
    SECTION("a port without a service") {
        wrong.dst_port = 8;
    }
    SECTION("another host") {
        wrong.dst_cid = 43;
    }
    SECTION("another type") {
        wrong.type = 2;
    }
    SECTION("data of no connection") {
        wrong.op = VIRTIO_VSOCK_OP_RW;
    }
    SECTION("an operation that there is not") {
        wrong.op = 77;
    }
    SECTION("a service that refuses") {
        guest.test.willing = false;
        wrong.dst_port = kTestPort;
    }
    guest.send(wrong);
    const auto reset = guest.take();
    REQUIRE(reset);
    CHECK(reset->header.op == VIRTIO_VSOCK_OP_RST);
    CHECK(reset->header.src_cid == wrong.dst_cid);
    CHECK(reset->header.src_port == wrong.dst_port);
    CHECK(reset->header.dst_port == wrong.src_port);
    CHECK(reset->header.type == wrong.type);
    CHECK_FALSE(guest.take());
    CHECK(guest.device->connections() == 0);
    CHECK(guest.test.closes == 0);
}

TEST_CASE("no reset answers a reset, nor what comes under another's name", "[virtio]") {
    Guest guest;
    guest.send(VIRTIO_VSOCK_OP_RST);
    VsockHeader foreign = Guest::header(VIRTIO_VSOCK_OP_REQUEST);
    foreign.src_cid = 43;
    guest.send(foreign);
    foreign.src_cid |= kCid | 1ull << 32;
    guest.send(foreign);
    CHECK_FALSE(guest.take());
    CHECK(guest.device->connections() == 0);
    CHECK(guest.sent() == 3);
}

TEST_CASE("what breaks a connection's rules ends it", "[virtio]") {
    Guest guest;
    guest.connect(kLocal, kTestPort);
    VsockHeader wrong = Guest::header(VIRTIO_VSOCK_OP_RW, kLocal, kTestPort);
    SECTION("a second request") {
        wrong.op = VIRTIO_VSOCK_OP_REQUEST;
    }
    SECTION("a response") {
        wrong.op = VIRTIO_VSOCK_OP_RESPONSE;
    }
    SECTION("an operation that there is not") {
        wrong.op = 0;
    }
    SECTION("less data than it says") {
        wrong.len = 6;
    }
    SECTION("more data than there can be") {
        wrong.len = ~0u;
    }
    SECTION("data after the end") {
        VsockHeader end = Guest::header(VIRTIO_VSOCK_OP_SHUTDOWN, kLocal, kTestPort);
        end.flags = VIRTIO_VSOCK_SHUTDOWN_F_SEND;
        guest.send(end);
        CHECK(guest.test.last->ended());
        wrong.len = 5;
    }
    SECTION("an end of both sides, which is answered so") {
        wrong.op = VIRTIO_VSOCK_OP_SHUTDOWN;
        wrong.flags = 0xffff'ffff;
    }
    guest.send(wrong, "12345");
    CHECK(guest.take_op() == VIRTIO_VSOCK_OP_RST);
    CHECK_FALSE(guest.take());
    CHECK(guest.device->connections() == 0);
    CHECK(guest.test.closes == 1);
}

TEST_CASE("nothing is sent to who receives no more", "[virtio]") {
    Guest guest;
    guest.connect(kLocal, kTestPort);
    const std::array<std::byte, 4> bytes{};
    VsockHeader end = Guest::header(VIRTIO_VSOCK_OP_SHUTDOWN, kLocal, kTestPort);
    end.flags = VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE;
    CHECK(guest.test.last->write(bytes) == 4);
    guest.send(end);
    CHECK_FALSE(guest.take());
    CHECK(guest.test.last->room() == 0);
    CHECK(guest.test.last->write(bytes) == 0);
}

TEST_CASE("connections are bounded; one that only waits for its end makes way", "[virtio]") {
    Guest guest;
    for (std::uint32_t i = 0; i < VsockEndpoint::kConnections; ++i) {
        guest.connect(kLocal + i, kTestPort);
        guest.fill(1);
    }
    VsockConnection& last = *guest.test.last;
    guest.send(VIRTIO_VSOCK_OP_REQUEST, 1, kTestPort);
    CHECK(guest.take_op() == VIRTIO_VSOCK_OP_RST);
    last.close();
    guest.send(VIRTIO_VSOCK_OP_CREDIT_REQUEST, last.guest_port(), kTestPort);
    CHECK(guest.take_op() == VIRTIO_VSOCK_OP_SHUTDOWN);
    guest.send(VIRTIO_VSOCK_OP_REQUEST, 1, kTestPort);
    const auto reset = guest.take();
    REQUIRE(reset);
    CHECK(reset->header.op == VIRTIO_VSOCK_OP_RST);
    CHECK(reset->header.dst_port == kLocal + VsockEndpoint::kConnections - 1);
    CHECK(guest.take_op() == VIRTIO_VSOCK_OP_RESPONSE);
    CHECK(guest.test.closes == 1);
}

TEST_CASE("answers that find no buffers are bounded, and the guest's packets wait for them", "[virtio]") {
    Guest guest{kRing, 0};
    unsigned sent = 0, done = 0, resets = 0;
    for (; sent < 150; ++sent) {
        if (guest.driver->queues.at(1).free_descriptors() == 0)
            break;
        guest.send(VIRTIO_VSOCK_OP_RW, sent);
        done += guest.sent();
    }
    CHECK(done < VsockEndpoint::kResets);
    CHECK(done + 2 >= VsockEndpoint::kResets);
    const unsigned before = done;
    guest.fill(10);
    done += guest.sent();
    CHECK(done == before + 10);
    for (unsigned round = 0; round < 30; ++round) {
        while (const auto packet = guest.take()) {
            CHECK(packet->header.op == VIRTIO_VSOCK_OP_RST);
            CHECK(packet->header.dst_port == resets);
            ++resets;
        }
        if (guest.driver->queues.at(0).free_descriptors() >= 20)
            guest.fill(10);
    }
    CHECK(resets == sent);
    CHECK(done + guest.sent() == sent);
}

TEST_CASE("a guest's packets that wait go on once there is room, whoever makes it", "[virtio]") {
    Guest guest{VIRTIO_F_VERSION_1, 0};
    unsigned sent = 0;
    for (; guest.driver->queues.at(1).free_descriptors() != 0; ++sent)
        guest.send(VIRTIO_VSOCK_OP_RW, sent);
    const unsigned waiting = sent - guest.sent();
    REQUIRE(waiting > 0);
    // The guest does not say that these are there: it was told not to.
    guest.add_buffers(10);
    guest.driver->queues.at(0).publish();
    SECTION("a doorbell that is late") {
        guest.driver->notify(1);
    }
    SECTION("a service that has something to say") {
        guest.device->serve(guest.test);
    }
    SECTION("a connection that the host begins") {
        REQUIRE(guest.device->connect(1024, guest.test).error() == Error::busy);
    }
    CHECK(guest.sent() == waiting);
}

TEST_CASE("connections end with the driver", "[virtio]") {
    Guest guest;
    guest.connect(kLocal, kTestPort);
    guest.driver->set_status(0);
    CHECK(guest.device->connections() == 0);
    CHECK(guest.test.closes == 1);
    guest.driver->start(kRing);
    guest.fill(4);
    guest.connect();
}

TEST_CASE("buffers of the wrong kind break the device", "[virtio]") {
    Guest guest{kRing, 0};
    SECTION("a packet without a header") {
        guest.driver->queues.at(1).add({{Guest::kOut, kHeader - 1, false}});
        guest.driver->kick(1);
    }
    SECTION("no room for more than a header") {
        guest.driver->queues.at(0).add({{Guest::kIn, kHeader, true}});
        guest.driver->kick(0);
        guest.send(VIRTIO_VSOCK_OP_REQUEST);
    }
    CHECK(guest.needs_reset());
}
