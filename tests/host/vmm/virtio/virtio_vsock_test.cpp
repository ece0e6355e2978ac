// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/vsock_guest.hpp"
#include "vmm/virtio/virtio_vsock.hpp"
#include "vmm/virtio/vsock_echo.hpp"

#include <string>

namespace {

using namespace hv;
using namespace hv::virtio;

using fake::VsockGuest;

constexpr std::uint64_t kRing = VsockGuest::kRing;
constexpr std::uint64_t kCid = VsockGuest::kCid;
constexpr std::uint32_t kHeader = VsockGuest::kHeader;
constexpr std::uint32_t kBuffer = VsockConnection::kBufferSize;
constexpr std::uint32_t kLocal = VsockGuest::kLocal;
constexpr std::uint32_t kTestPort = 99;

/// Does nothing by itself; tests act in its place.
class TestService final : public VsockService {
public:
    bool accept(VsockConnection& connection) override {
        last = &connection;
        return willing;
    }
    void ready(VsockConnection&) override { ++readies; }
    void closed(VsockConnection&, VsockEnd end) override {
        ++closes;
        ended = end;
    }
    VsockConnection* last{nullptr};
    unsigned readies{0}, closes{0};
    std::optional<VsockEnd> ended;
    bool willing{true};
};

struct Services {
    VsockEcho echo;
    TestService test;
    std::array<VsockPort, 2> services{{{VsockEcho::kPort, &echo}, {kTestPort, &test}}};
};
struct Guest : Services, VsockGuest {
    explicit Guest(std::uint64_t features = kRing, unsigned count = 32)
        : VsockGuest{services, features, count} {}
};

}  // namespace

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
