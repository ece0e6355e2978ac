// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "drivers/serial/debug_console.hpp"
#include "drivers/serial/uart16550.hpp"

#include <deque>
#include <string>
#include <utility>

namespace {

/// The registers of a UART, as far as the driver looks.
struct FakeUart {
    bool present = true;
    bool transmitter_empty = true;
    unsigned in_flight = 0;  ///< status reads until the last character is on the line
    bool overrun = false;
    bool garbled = false;  ///< programmed while characters were in flight
    std::uint8_t interrupt_enable = 0, fifo_control = 0, line_control = 0, modem_control = 0;
    std::uint16_t divisor = 0;
    std::deque<std::uint8_t> received;
    std::string sent;
};

struct FakeIo {
    FakeUart* uart;
    static constexpr std::uint16_t kBase = 0x3f8;

    std::uint8_t in8(std::uint16_t port) {
        if (!uart->present)
            return 0xff;
        switch (port - kBase) {
        case 0: {
            if (uart->received.empty())
                return 0;
            const auto byte = uart->received.front();
            uart->received.pop_front();
            return byte;
        }
        case 1: return (uart->line_control & 0x80) != 0 ? 0 : uart->interrupt_enable;
        case 5:
            if (uart->in_flight != 0) {
                --uart->in_flight;
                return 0;
            }
            return static_cast<std::uint8_t>((uart->received.empty() ? 0 : 1) |
                                             (std::exchange(uart->overrun, false) ? 2 : 0) |
                                             (uart->transmitter_empty ? 0x60 : 0));
        default: return 0;
        }
    }
    void out8(std::uint16_t port, std::uint8_t value) {
        uart->garbled = uart->garbled || uart->in_flight != 0;
        if (!uart->present)
            return;
        switch (port - kBase) {
        case 0:
            if ((uart->line_control & 0x80) != 0)
                uart->divisor = static_cast<std::uint16_t>((uart->divisor & 0xff00) | value);
            else
                uart->sent += static_cast<char>(value);
            break;
        case 1:
            if ((uart->line_control & 0x80) != 0)
                uart->divisor = static_cast<std::uint16_t>((uart->divisor & 0xff) | value << 8);
            else
                uart->interrupt_enable = value;
            break;
        case 2: uart->fifo_control = value; break;
        case 3: uart->line_control = value; break;
        case 4: uart->modem_control = value; break;
        default: break;
        }
    }
};

using Uart = hv::serial::Uart16550<FakeIo>;

}  // namespace

TEST_CASE("a UART is programmed to 115200 8N1 with an interrupt at each character", "[serial]") {
    FakeUart fake;
    Uart uart{FakeIo{&fake}, FakeIo::kBase};
    REQUIRE(uart.init());
    CHECK(fake.divisor == 1);
    CHECK(fake.line_control == 0x03);
    CHECK(fake.modem_control == 0x0b);
    CHECK(fake.interrupt_enable == 0x01);
    CHECK(fake.fifo_control == 0x07);
    CHECK(fake.received.empty());
}

TEST_CASE("what an earlier owner sent reaches the line before the port is programmed", "[serial]") {
    FakeUart fake;
    fake.in_flight = 20;
    Uart uart{FakeIo{&fake}, FakeIo::kBase};
    REQUIRE(uart.init());
    CHECK_FALSE(fake.garbled);
}

TEST_CASE("a UART that never gets rid of its characters is programmed all the same", "[serial]") {
    FakeUart fake;
    fake.in_flight = 1'000'000;
    Uart uart{FakeIo{&fake}, FakeIo::kBase};
    CHECK(uart.init());
}

TEST_CASE("a port without a UART is noticed", "[serial]") {
    FakeUart fake;
    fake.present = false;
    Uart uart{FakeIo{&fake}, FakeIo::kBase};
    CHECK_FALSE(uart.init());
    CHECK(fake.interrupt_enable == 0);
}

TEST_CASE("a FIFO's worth is written once the transmitter is empty", "[serial]") {
    FakeUart fake;
    Uart uart{FakeIo{&fake}, FakeIo::kBase};
    REQUIRE(uart.init());
    CHECK(uart.write_some("0123456789abcdefXYZ") == 16);
    CHECK(fake.sent == "0123456789abcdef");
    CHECK(uart.all_sent());
    fake.transmitter_empty = false;
    CHECK(uart.write_some("XYZ") == 0);
    CHECK_FALSE(uart.all_sent());
    CHECK(fake.sent.size() == 16);
}

TEST_CASE("the transmit interrupt is on only while it is wanted", "[serial]") {
    FakeUart fake;
    Uart uart{FakeIo{&fake}, FakeIo::kBase};
    REQUIRE(uart.init());
    uart.want_write_interrupt(true);
    CHECK(fake.interrupt_enable == 0x03);
    uart.want_write_interrupt(false);
    CHECK(fake.interrupt_enable == 0x01);
}

TEST_CASE("characters are read in order until there are none", "[serial]") {
    FakeUart fake;
    Uart uart{FakeIo{&fake}, FakeIo::kBase};
    REQUIRE(uart.init());
    fake.received = {'a', 'b'};
    CHECK(uart.read() == 'a');
    CHECK(uart.read() == 'b');
    CHECK(uart.read() == std::nullopt);
}

TEST_CASE("characters that came while the FIFO was full are told of once, whoever read the status",
          "[serial]") {
    FakeUart fake;
    Uart uart{FakeIo{&fake}, FakeIo::kBase};
    REQUIRE(uart.init());
    CHECK_FALSE(uart.take_input_lost());
    for (auto look : {+[](Uart& u) { u.read(); }, +[](Uart& u) { u.write_some("x"); },
                      +[](Uart& u) { static_cast<void>(u.all_sent()); }}) {
        fake.overrun = true;
        look(uart);
        CHECK(uart.take_input_lost());
        CHECK_FALSE(uart.take_input_lost());
    }
}
