// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/virtio_driver.hpp"
#include "tests/host/vmm/monitor/fake_console.hpp"
#include "vmm/devices/uart16550.hpp"
#include "vmm/monitor/console_mux.hpp"
#include "vmm/monitor/vm_console.hpp"
#include "vmm/virtio/virtio_console.hpp"

#include <string>

using namespace hv;
using namespace hv::fake;

namespace {

struct Fixture {
    explicit Fixture(ConsoleMux::Mode mode) : mux{line, mode} {}
    /// What the guest reads from its UART.
    std::string received() {
        std::string out;
        while ((uart.read_byte(5) & 1) != 0)
            out += static_cast<char>(uart.read_byte(0));
        return out;
    }
    void transmit(std::string_view text) {
        for (const char c : text)
            uart.write_byte(0, static_cast<std::uint8_t>(c));
    }
    FakeConsole line;
    ConsoleMux mux;
    std::unique_ptr<VmConsole> console{std::move(VmConsole::create(mux, "web")).value()};
    ManualClock clock;
    RecordingLine irq;
    Uart16550 uart{clock, irq, console->serial()};
};

}  // namespace

TEST_CASE("a guest's serial port is the VM's console", "[monitor]") {
    Fixture f{ConsoleMux::Mode::interactive};
    f.console->connect(f.uart, nullptr);
    f.mux.focus(f.console->channel());
    f.line.take();
    f.transmit("login: ");
    CHECK(f.line.take() == "login: ");
    f.line.type("root\r");
    f.mux.service();
    CHECK(f.received() == "root\r");
}

TEST_CASE("what is typed goes to the virtio console once a driver uses it", "[monitor]") {
    Fixture f{ConsoleMux::Mode::interactive};
    Board board;
    const auto device =
        std::move(virtio::VirtioConsole::create(f.console->serial(), board.memory, board.clock)).value();
    virtio::VirtioPciTransport transport{*device, board.interrupts, &board.line};
    REQUIRE(board.bridge.attach(1, transport));
    f.console->connect(f.uart, device.get());
    f.mux.focus(f.console->channel());
    const auto type = [&](std::string_view text) {
        f.line.type(std::string{text});
        f.mux.service();
    };
    type("early");
    CHECK(f.received() == "early");
    VirtioDriver driver{board, 1};
    driver.start(virtio::VIRTIO_F_VERSION_1);
    driver.queues.at(0).add({{Gpa{0x20'0000}, 8, true}});
    driver.kick(0);
    type("x");
    CHECK(f.received().empty());
    CHECK(board.get<char>(Gpa{0x20'0000}) == 'x');
    f.console->disconnect();
    type("y");
    CHECK(board.get<char>(Gpa{0x20'0001}) == 0);
}

TEST_CASE("typing more than the guest reads rings the bell", "[monitor]") {
    Fixture f{ConsoleMux::Mode::interactive};
    f.console->connect(f.uart, nullptr);
    f.mux.focus(f.console->channel());
    f.line.take();
    f.line.type(std::string(3000, 'x'));
    f.mux.service();
    while (f.mux.has_work())
        f.mux.service();
    const std::size_t bells = f.line.take().size();
    CHECK(bells > 0);
    CHECK(f.received().size() + bells == 3000);
}

TEST_CASE("serial port and debug port of a VM share its prefix, not its lines", "[monitor]") {
    Fixture f{ConsoleMux::Mode::headless};
    f.transmit("boo");
    f.console->debug().put("pass\n");
    f.transmit("ting\n");
    CHECK(f.line.take() == "[web] pass\r\n[web] booting\r\n");
}

TEST_CASE("a VM that ends leaves its last words, and takes no keys", "[monitor]") {
    Fixture headless{ConsoleMux::Mode::headless};
    headless.transmit("panic");
    headless.console->debug().put("fail");
    headless.console->disconnect();
    CHECK(headless.line.take() == "[web] panic\r\n[web] fail\r\n");

    Fixture f{ConsoleMux::Mode::interactive};
    f.console->connect(f.uart, nullptr);
    f.mux.focus(f.console->channel());
    f.transmit("panic");
    f.line.take();
    f.console->disconnect();
    CHECK(f.line.take() == "\r\n-- this VM is off; Ctrl-A m leads to the monitor --\r\n");
    f.line.type("x");
    f.mux.service();
    CHECK(f.line.take() == "\a");
    CHECK(f.received().empty());
    f.console->connect(f.uart, nullptr);
    f.line.type("y");
    f.mux.service();
    CHECK(f.received() == "y");
}
