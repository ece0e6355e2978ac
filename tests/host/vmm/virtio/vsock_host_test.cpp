// SPDX-License-Identifier: MIT
// Connections that the host begins.
#include "vmm/virtio/vsock_fixture.hpp"

using namespace hv;
using namespace hv::test;
using Guest = SocketGuest;

namespace {

constexpr std::uint32_t kAsked = 1024;
constexpr std::uint32_t kFirst = VsockEndpoint::kFirstEphemeral;

/// A guest that the host has asked for a connection.
struct Asked : Guest {
    explicit Asked(unsigned count = 32) : Guest{kRing, count} { REQUIRE(device->connect(kAsked, test)); }
    VsockHeader header(std::uint16_t op) const { return Guest::header(op, kAsked, kFirst); }
    void open(std::uint32_t room = 1 << 20) {
        REQUIRE(take_op() == VIRTIO_VSOCK_OP_REQUEST);
        VsockHeader response = header(VIRTIO_VSOCK_OP_RESPONSE);
        response.buf_alloc = room;
        send(response);
        CHECK_FALSE(test.ended);
    }
    void write(std::string_view text) {
        CHECK(test.last->write(std::as_bytes(std::span{text})) == text.size());
    }
};

}  // namespace

TEST_CASE("the host connects to a port of the guest", "[virtio]") {
    Asked guest;
    const auto request = guest.take();
    REQUIRE(request);
    CHECK(request->header.op == VIRTIO_VSOCK_OP_REQUEST);
    CHECK(request->header.src_cid == kVsockHostCid);
    CHECK(request->header.src_port == kFirst);
    CHECK(request->header.dst_port == kAsked);
    CHECK(request->header.type == VIRTIO_VSOCK_TYPE_STREAM);
    CHECK(request->header.buf_alloc == kBuffer);
    CHECK(request->header.fwd_cnt == 0);
    CHECK(request->header.len == 0);
    // What is written before the guest accepts waits, and then for credit.
    guest.write("hello");
    guest.device->serve(guest.test);
    CHECK_FALSE(guest.take());
    VsockHeader response = guest.header(VIRTIO_VSOCK_OP_RESPONSE);
    response.buf_alloc = 3;
    const unsigned before = guest.test.readies;
    guest.send(response);
    CHECK(guest.test.readies > before);
    auto data = guest.take();
    REQUIRE(data);
    CHECK((data->header.op == VIRTIO_VSOCK_OP_RW && data->payload == "hel"));
    CHECK_FALSE(guest.take());
    VsockHeader credit = guest.header(VIRTIO_VSOCK_OP_CREDIT_UPDATE);
    credit.buf_alloc = credit.fwd_cnt = 3;
    guest.send(credit);
    data = guest.take();
    REQUIRE(data);
    CHECK(data->payload == "lo");

    VsockHeader answer = guest.header(VIRTIO_VSOCK_OP_RW);
    answer.len = 2;
    guest.send(answer, "hi");
    std::array<char, 8> got{};
    CHECK(guest.test.last->read(std::as_writable_bytes(std::span{got})) == 2);
    CHECK(std::string_view{got.data()} == "hi");
    guest.board.clock.advance(2 * VirtioVsock::kAnswerNs);
    CHECK(guest.device->connections() == 1);
    guest.test.last->close();
    guest.device->serve(guest.test);
    CHECK(guest.take_op() == VIRTIO_VSOCK_OP_SHUTDOWN);
    guest.send(guest.header(VIRTIO_VSOCK_OP_RST));
    CHECK(guest.test.ended == VsockEnd::over);
    CHECK(guest.device->connections() == 0);
    CHECK_FALSE(guest.take());
}

TEST_CASE("what was sent before the end can be read at the end", "[virtio]") {
    class Reader final : public VsockService {
    public:
        bool accept(VsockConnection&) override { return true; }
        void ready(VsockConnection&) override {}
        void closed(VsockConnection& connection, VsockEnd) override {
            std::array<char, 16> bytes;
            got.assign(bytes.data(), connection.read(std::as_writable_bytes(std::span{bytes})));
        }
        std::string got;
    } reader;
    Guest guest;
    REQUIRE(guest.device->connect(kAsked, reader));
    guest.send(Guest::header(VIRTIO_VSOCK_OP_RESPONSE, kAsked, kFirst));
    VsockHeader data = Guest::header(VIRTIO_VSOCK_OP_RW, kAsked, kFirst);
    data.len = 5;
    guest.send(data, "words");
    VsockHeader end = Guest::header(VIRTIO_VSOCK_OP_SHUTDOWN, kAsked, kFirst);
    end.flags = 3;
    guest.send(end);
    CHECK(reader.got == "words");
}

TEST_CASE("a connection that the guest refuses is over", "[virtio]") {
    Asked guest;
    REQUIRE(guest.take_op() == VIRTIO_VSOCK_OP_REQUEST);
    guest.send(guest.header(VIRTIO_VSOCK_OP_RST));
    CHECK(guest.test.ended == VsockEnd::refused);
    CHECK(guest.device->connections() == 0);
    CHECK_FALSE(guest.take());
    guest.board.clock.advance(VirtioVsock::kAnswerNs);
    CHECK(guest.test.closes == 1);
}

TEST_CASE("a guest has some time to answer", "[virtio]") {
    Asked guest;
    guest.board.clock.advance(VirtioVsock::kAnswerNs / 2);
    REQUIRE(guest.device->connect(kAsked + 1, guest.test));
    guest.board.clock.advance(VirtioVsock::kAnswerNs / 2 - 1);
    CHECK(guest.device->connections() == 2);
    guest.board.clock.advance(2);
    CHECK(guest.test.ended == VsockEnd::unanswered);
    CHECK(guest.device->connections() == 1);
    guest.board.clock.advance(VirtioVsock::kAnswerNs / 2);
    CHECK(guest.device->connections() == 0);
    CHECK(guest.test.closes == 2);
    CHECK(guest.board.clock.armed() == 0);
    // Too late, also if somebody connects to that port anew.
    REQUIRE(guest.device->connect(kAsked, guest.test));
    for (unsigned request = 0; request < 3; ++request)
        REQUIRE(guest.take_op() == VIRTIO_VSOCK_OP_REQUEST);
    guest.send(guest.header(VIRTIO_VSOCK_OP_RESPONSE));
    CHECK(guest.take_op() == VIRTIO_VSOCK_OP_RST);
    CHECK(guest.device->connections() == 1);
    CHECK(guest.test.closes == 2);
}

TEST_CASE("a request that finds no buffer is not sent once it is too late", "[virtio]") {
    Asked guest{0};
    guest.board.clock.advance(VirtioVsock::kAnswerNs);
    CHECK(guest.test.ended == VsockEnd::unanswered);
    guest.fill(2);
    CHECK_FALSE(guest.take());
}

TEST_CASE("a guest that answers what it was not asked gets a reset", "[virtio]") {
    SECTION("anything but an answer") {
        const std::uint16_t op =
            GENERATE(VIRTIO_VSOCK_OP_REQUEST, VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_OP_SHUTDOWN,
                     VIRTIO_VSOCK_OP_CREDIT_UPDATE, VIRTIO_VSOCK_OP_CREDIT_REQUEST);
        Asked guest;
        REQUIRE(guest.take_op() == VIRTIO_VSOCK_OP_REQUEST);
        VsockHeader wrong = guest.header(op);
        wrong.len = 5;
        guest.send(wrong, "12345");
        CHECK(guest.take_op() == VIRTIO_VSOCK_OP_RST);
        CHECK_FALSE(guest.take());
        CHECK(guest.test.ended == VsockEnd::refused);
        CHECK(guest.test.readies == 0);
        CHECK(guest.device->connections() == 0);
    }
    SECTION("twice") {
        Asked guest;
        guest.open();
        guest.send(guest.header(VIRTIO_VSOCK_OP_RESPONSE));
        CHECK(guest.take_op() == VIRTIO_VSOCK_OP_RST);
        CHECK(guest.test.ended == VsockEnd::over);
        CHECK(guest.device->connections() == 0);
    }
    SECTION("before it was asked") {
        Asked guest{0};
        guest.send(guest.header(VIRTIO_VSOCK_OP_RESPONSE));
        CHECK(guest.test.ended == VsockEnd::refused);
        guest.fill(2);
        CHECK(guest.take_op() == VIRTIO_VSOCK_OP_RST);
        CHECK_FALSE(guest.take());
    }
    SECTION("from or to another port") {
        Asked guest;
        REQUIRE(guest.take_op() == VIRTIO_VSOCK_OP_REQUEST);
        guest.send(Guest::header(VIRTIO_VSOCK_OP_RESPONSE, kAsked + 1, kFirst));
        CHECK(guest.take_op() == VIRTIO_VSOCK_OP_RST);
        guest.send(Guest::header(VIRTIO_VSOCK_OP_RESPONSE, kAsked, kFirst + 1));
        CHECK(guest.take_op() == VIRTIO_VSOCK_OP_RST);
        CHECK(guest.device->connections() == 1);
        guest.send(guest.header(VIRTIO_VSOCK_OP_RESPONSE));
        CHECK_FALSE(guest.take());
        CHECK(guest.test.readies == 1);
    }
    SECTION("nobody at all") {
        Guest guest;
        guest.send(Guest::header(VIRTIO_VSOCK_OP_RESPONSE, kAsked, kFirst));
        CHECK(guest.take_op() == VIRTIO_VSOCK_OP_RST);
        CHECK(guest.device->connections() == 0);
    }
}

TEST_CASE("a connection that is closed before the guest accepts ends when it does", "[virtio]") {
    Asked guest;
    guest.write("last words");
    guest.test.last->close();
    guest.device->serve(guest.test);
    SECTION("in order") {
        guest.open();
        const auto data = guest.take();
        REQUIRE(data);
        CHECK(data->payload == "last words");
        CHECK(guest.take_op() == VIRTIO_VSOCK_OP_SHUTDOWN);
    }
    SECTION("or at the end of its time") {
        guest.board.clock.advance(VirtioVsock::kAnswerNs);
        CHECK(guest.device->connections() == 0);
    }
}

TEST_CASE("a guest without a driver is not asked, and what it was asked goes with the driver", "[virtio]") {
    Asked guest;
    SECTION("unanswered") {}
    SECTION("open") {
        guest.open();
    }
    guest.driver->set_status(0);
    CHECK(guest.test.ended == VsockEnd::gone);
    CHECK(guest.device->connect(kAsked, guest.test).error() == Error::not_found);
    CHECK(guest.board.clock.armed() == 0);
    guest.driver->start(kRing);
    CHECK(guest.device->connect(kAsked, guest.test));
    CHECK(guest.device->connections() == 1);
}

TEST_CASE("a connection of the host has a port of its own", "[virtio]") {
    TestService test;
    const std::array<VsockPort, 1> services{{{kFirst + 1, &test}}};
    VsockGuest guest{services};
    for (const std::uint32_t port : {kFirst, kFirst + 2, kFirst + 3}) {
        REQUIRE(guest.device->connect(kAsked, test));
        CHECK(guest.take()->header.src_port == port);
    }
}

TEST_CASE("no connection is begun for which there is no room", "[virtio]") {
    Guest guest;
    SECTION("all are in use, but one that only waits for its end makes way") {
        for (unsigned i = 0; i < VsockEndpoint::kConnections; ++i)
            REQUIRE(guest.device->connect(kAsked, guest.test));
        CHECK(guest.device->connect(kAsked, guest.test).error() == Error::busy);
        CHECK(guest.device->connections() == VsockEndpoint::kConnections);
        guest.test.last->close();
        CHECK(guest.device->connect(kAsked, guest.test));
        CHECK(guest.test.closes == 1);
        CHECK(guest.device->connections() == VsockEndpoint::kConnections);
    }
    SECTION("the guest does not take what waits for it") {
        Guest full{kRing, 0};
        for (unsigned i = 0; i < VsockEndpoint::kResets; ++i)
            full.send(VIRTIO_VSOCK_OP_RW, i);
        CHECK(full.device->connect(kAsked, full.test).error() == Error::busy);
        full.fill(8);
        CHECK(full.device->connect(kAsked, full.test));
    }
    SECTION("the service does not want it any more") {
        guest.test.willing = false;
        CHECK(guest.device->connect(kAsked, guest.test).error() == Error::busy);
        CHECK_FALSE(guest.take());
    }
    CHECK_FALSE(guest.needs_reset());
}
