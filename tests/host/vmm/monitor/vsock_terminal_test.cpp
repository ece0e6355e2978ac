// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/vsock_guest.hpp"
#include "tests/host/vmm/monitor/console_mux_fixture.hpp"
#include "vmm/monitor/vsock_terminal.hpp"

using namespace hv;
using namespace hv::test;
using namespace hv::virtio;

namespace {

constexpr std::uint32_t kPort = 1024;
constexpr std::uint32_t kBuffer = VsockConnection::kBufferSize;

/// A terminal at the monitor, and a guest with sockets.
struct Terminal : Interactive {
    void serve() {
        mux.service();
        terminal.service();
    }
    void type(std::string_view keys) {
        line.type(keys);
        serve();
    }
    /// Asks the guest; returns the host's port.
    std::uint32_t connect(std::uint32_t port = kPort) {
        REQUIRE(terminal.connect("web", *guest.device, port));
        serve();
        const auto request = guest.take();
        REQUIRE(request);
        REQUIRE(request->header.op == VIRTIO_VSOCK_OP_REQUEST);
        CHECK(request->header.dst_port == port);
        host_port = request->header.src_port;
        return host_port;
    }
    void send(std::uint16_t op, std::string_view payload = {}) {
        VsockHeader header = fake::VsockGuest::header(op, kPort, host_port);
        header.len = static_cast<std::uint32_t>(payload.size());
        header.flags = op == VIRTIO_VSOCK_OP_SHUTDOWN ? 3 : 0;
        guest.send(header, payload);
        guest.sent();
    }
    void open() {
        connect();
        send(VIRTIO_VSOCK_OP_RESPONSE);
        line.take();
    }
    /// What was shown, but for what the console does to colours and the prompt.
    std::string shown() {
        std::string text = line.take();
        for (const std::string_view part : {"\x1b[m", "\r\x1b[K"})
            for (std::size_t at = 0; (at = text.find(part)) != std::string::npos;)
                text.erase(at, part.size());
        return text;
    }
    /// What the guest got since, and how it went on.
    std::string got() {
        std::string bytes;
        while (const auto packet = guest.take()) {
            last_op = packet->header.op;
            fwd_cnt = packet->header.fwd_cnt;
            bytes += packet->payload;
            guest.fill(1);
        }
        return bytes;
    }

    VsockTerminal terminal{mux};
    fake::VsockGuest guest{{}};
    std::uint32_t host_port{0};
    unsigned last_op{0};
    std::uint32_t fwd_cnt{0};
};

constexpr const char* kBack = "[cairn] console of monitor (Ctrl-A ? for help)\r\n";

}  // namespace

TEST_CASE("the terminal is the other end of a stream", "[monitor]") {
    Terminal t;
    t.connect();
    CHECK(contains(t.line.take(), "[cairn] console of web:1024 (Ctrl-A ? for help)\r\n"));
    t.type("ls");  // ahead of the answer
    CHECK(t.got().empty());
    t.send(VIRTIO_VSOCK_OP_RESPONSE);
    CHECK(t.got() == "ls");
    t.type("\r");
    CHECK(t.got() == "\r");
    t.send(VIRTIO_VSOCK_OP_RW, "\x1b[1mfile\xff\r\n");
    CHECK(t.line.take() == "\x1b[1mfile\xff\r\n");
    CHECK(t.monitor.input.got.empty());
    t.type("\x01\x01");
    CHECK(t.got() == "\x01");
}

TEST_CASE("a stream ends when it loses the line", "[monitor]") {
    Terminal t;
    SECTION("to the monitor") {
        t.open();
        t.type("bye\x01m");
        CHECK(t.got() == "bye");
        CHECK(t.last_op == VIRTIO_VSOCK_OP_SHUTDOWN);
        CHECK(t.line.take() == std::string{kBack} + "[cairn] connection to web:1024 ended\r\n");
        t.send(VIRTIO_VSOCK_OP_RW, "unheard");
        t.send(VIRTIO_VSOCK_OP_RST);
        t.serve();
        CHECK(t.line.take().empty());
        CHECK(t.guest.device->connections() == 0);
    }
    SECTION("before the guest has answered") {
        t.connect();
        t.type("\x01m");
        CHECK(contains(t.line.take(), "connection to web:1024 ended\r\n"));
        t.guest.board.clock.advance(VirtioVsock::kAnswerNs);
        CHECK(t.guest.device->connections() == 0);
        CHECK_FALSE(contains(t.line.take(), "connection"));
    }
    SECTION("to the next one, even if no time passes between") {
        t.open();
        t.line.type("\x01m");
        t.mux.service();
        t.line.take();
        const std::uint32_t first = t.host_port;
        CHECK(t.terminal.connect("web", *t.guest.device, kPort));
        t.serve();
        CHECK(contains(t.shown(), "connection to web:1024 ended\r\n[cairn] console of web:1024"));
        CHECK(t.guest.take_op() == VIRTIO_VSOCK_OP_SHUTDOWN);
        t.host_port = t.guest.take()->header.src_port;
        CHECK(t.host_port != first);
        t.send(VIRTIO_VSOCK_OP_RESPONSE);
        t.guest.send(VIRTIO_VSOCK_OP_RST, kPort, first);
        t.type("x");
        CHECK(t.got() == "x");
        CHECK_FALSE(contains(t.line.take(), "ended"));
    }
}

TEST_CASE("it is said how a stream ended, and the monitor has the line again", "[monitor]") {
    Terminal t;
    std::string ending;
    SECTION("refused") {
        t.connect();
        t.line.take();
        t.send(VIRTIO_VSOCK_OP_RST);
        ending = "was refused by the guest";
    }
    SECTION("unanswered") {
        t.connect();
        t.line.take();
        t.guest.board.clock.advance(VirtioVsock::kAnswerNs);
        ending = "was not answered by the guest";
    }
    SECTION("over") {
        t.open();
        t.send(VIRTIO_VSOCK_OP_SHUTDOWN);
        ending = "ended";
    }
    SECTION("the guest says no more, and agrees to the end") {
        t.open();
        VsockHeader end = fake::VsockGuest::header(VIRTIO_VSOCK_OP_SHUTDOWN, kPort, t.host_port);
        end.flags = VIRTIO_VSOCK_SHUTDOWN_F_SEND;
        t.guest.send(end);
        CHECK(t.got().empty());
        CHECK(t.last_op == VIRTIO_VSOCK_OP_SHUTDOWN);
        t.send(VIRTIO_VSOCK_OP_RST);
        ending = "ended";
    }
    SECTION("with the driver") {
        t.open();
        t.guest.driver->set_status(0);
        ending = "ended: the guest's driver is gone";
    }
    SECTION("with the device") {
        t.open();
        t.guest.driver->set_status(0);
        t.guest.device->stop();
        ending = "ended: the guest's driver is gone";
    }
    CHECK(t.mux.has_work());
    t.serve();
    t.serve();  // the channel's end, too
    CHECK_FALSE(t.mux.has_work());
    CHECK(t.shown() == "-- connection to web:1024 " + ending + " --\r\n" + kBack);
    t.type("m");
    CHECK(t.monitor.input.got == "m");
}

TEST_CASE("a guest that cannot be asked leaves the line with the monitor", "[monitor]") {
    Terminal t;
    t.guest.driver->set_status(0);
    CHECK(t.terminal.connect("web", *t.guest.device, kPort).error() == Error::not_found);
    t.type("m");
    CHECK(t.line.take().empty());
    CHECK(t.monitor.input.got == "m");
}

TEST_CASE("a guest that says more than the line carries waits for credit, and nothing is lost", "[monitor]") {
    Terminal t;
    t.open();
    t.line.room = 0;
    std::string sent;
    const auto send = [&](std::size_t size) {
        std::string text;
        for (std::size_t i = 0; i < size; ++i)
            text += static_cast<char>('a' + (sent.size() + i) % 26);
        sent += text;
        t.send(VIRTIO_VSOCK_OP_RW, text);
    };
    while (sent.size() + 1000 - t.fwd_cnt <= kBuffer) {
        send(1000);
        t.got();
    }
    const std::size_t held = sent.size();
    CHECK(held < 2 * kBuffer);
    t.serve();
    t.got();
    CHECK(sent.size() + 1000 - t.fwd_cnt > kBuffer);
    SECTION("it goes on") {
        for (unsigned step = 0; step < 2000 && t.line.text.size() < 50'000; ++step) {
            t.line.room = 100;
            t.serve();
            t.got();
            if (sent.size() < 50'000 && sent.size() + 1000 - t.fwd_cnt <= kBuffer)
                send(1000);
        }
        CHECK(t.line.text == sent);
        CHECK(sent.size() == 50'000);
    }
    SECTION("it ends: the last of it is shown before that is said") {
        t.send(VIRTIO_VSOCK_OP_SHUTDOWN);
        for (unsigned step = 0; step < 500; ++step) {
            t.line.room = 100;
            t.serve();
        }
        CHECK(t.shown() == sent + "\r\n-- connection to web:1024 ended --\r\n" + kBack);
    }
}

TEST_CASE("what is typed waits for the guest, up to a bound", "[monitor]") {
    Terminal t;
    t.connect();
    VsockHeader response = fake::VsockGuest::header(VIRTIO_VSOCK_OP_RESPONSE, kPort, t.host_port);
    response.buf_alloc = 10;
    t.guest.send(response);
    t.line.take();
    std::string typed;
    while (!contains(t.line.take(), "\a")) {
        REQUIRE(typed.size() < 2 * kBuffer);
        t.type("k");
        typed += 'k';
    }
    CHECK(typed.size() > kBuffer);
    CHECK(t.got().size() == 10);
    VsockHeader credit = fake::VsockGuest::header(VIRTIO_VSOCK_OP_CREDIT_UPDATE, kPort, t.host_port);
    credit.buf_alloc = 1 << 20;
    t.guest.send(credit);
    t.serve();
    CHECK(t.got().size() + 10 == typed.size() - 1);
}
