// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/board.hpp"
#include "fakes/step_clock.hpp"
#include "vmm/devices/uart16550.hpp"

#include <string>

using namespace hv;

namespace {

enum { RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR };
constexpr unsigned THR = RBR;
constexpr unsigned FCR = IIR;

struct Sink final : CharSink {
    void put(std::string_view text) override { received += text; }
    std::string received;
};

struct Fixture {
    std::uint8_t get(unsigned index) { return static_cast<std::uint8_t>(uart.read(index, 1)); }
    void put(unsigned index, unsigned value) { uart.write(index, 1, value); }
    bool receive(const std::string& text) {
        bool all = true;
        for (const char character : text)
            all &= uart.receive(character);
        return all;
    }
    std::string read_all() {
        std::string text;
        while ((get(LSR) & 1) != 0)
            text += static_cast<char>(get(RBR));
        return text;
    }

    fake::StepClock clock;
    fake::RecordingLine irq;
    Sink sink;
    Uart16550 uart{clock, irq, sink};
};

}  // namespace

TEST_CASE("the UART transmits at once", "[devices]") {
    Fixture f;
    CHECK(f.get(LSR) == 0x60);
    for (const char character : std::string{"hello"})
        f.put(THR, static_cast<std::uint8_t>(character));
    CHECK(f.sink.received == "hello");
    CHECK(f.get(LSR) == 0x60);
    CHECK_FALSE(f.irq.level);
}

TEST_CASE("divisor latch, line control and scratch keep what is written", "[devices]") {
    Fixture f;
    f.put(LCR, 0x83);
    f.put(RBR, 0x01);
    f.put(IER, 0x02);
    CHECK(f.get(RBR) == 0x01);
    CHECK(f.get(IER) == 0x02);
    f.put(LCR, 0x03);
    CHECK(f.get(IER) == 0);
    CHECK(f.sink.received.empty());
    f.put(IER, 0xff);
    CHECK(f.get(IER) == 0x0f);
    f.put(SCR, 0xa5);
    CHECK(f.get(SCR) == 0xa5);
    CHECK(f.get(LCR) == 0x03);
}

TEST_CASE("enabling the transmitter interrupt raises it, reading IIR takes it back", "[devices]") {
    Fixture f;
    f.put(IER, 0x02);
    CHECK(f.irq.level);
    CHECK(f.get(IIR) == 0x02);
    CHECK_FALSE(f.irq.level);
    CHECK(f.get(IIR) == 0x01);
    f.put(IER, 0x02);  // it was enabled already
    CHECK_FALSE(f.irq.level);
    f.put(THR, 'x');
    CHECK(f.irq.level);
    const unsigned edges = f.irq.edges;
    f.put(THR, 'y');  // without IIR read: a new edge all the same
    CHECK(f.irq.edges == edges + 1);
    f.put(IER, 0);
    CHECK_FALSE(f.irq.level);
    f.put(IER, 0x02);
    CHECK(f.irq.level);
}

TEST_CASE("without FIFO each character interrupts", "[devices]") {
    Fixture f;
    f.put(IER, 0x01);
    CHECK(f.receive("ab"));
    CHECK(f.irq.level);
    CHECK(f.get(IIR) == 0x04);
    CHECK(f.get(RBR) == 'a');
    CHECK(f.get(IIR) == 0x04);
    CHECK(f.get(RBR) == 'b');
    CHECK_FALSE(f.irq.level);
    CHECK(f.get(RBR) == 0);
}

TEST_CASE("with FIFO the trigger level interrupts, and the time-out what stays below it", "[devices]") {
    const std::pair<unsigned, unsigned> levels[]{{0x01, 1}, {0x41, 4}, {0x81, 8}, {0xc1, 14}};
    for (const auto& [fcr, level] : levels) {
        Fixture f;
        f.put(FCR, fcr);
        CHECK(f.get(IIR) == 0xc1);
        f.put(IER, 0x01);
        CHECK(f.receive(std::string(level - 1, 'x')));
        CHECK_FALSE(f.irq.level);
        CHECK(f.receive("y"));
        CHECK(f.get(IIR) == 0xc4);
        CHECK(f.get(RBR) == (level == 1 ? 'y' : 'x'));
        CHECK_FALSE(f.irq.level);
        if (level == 1)
            continue;
        // Four characters of ten bits at 9600 baud.
        f.clock.run_for(4'166'665);
        CHECK_FALSE(f.irq.level);
        f.clock.run_for(2);
        CHECK(f.irq.level);
        CHECK(f.get(IIR) == 0xcc);
        f.get(RBR);
        CHECK_FALSE(f.irq.level);
        if (level > 4) {
            f.clock.run_for(5'000'000);
            CHECK(f.irq.level);
        }
        CHECK(f.read_all().size() == level - 2);
        CHECK(f.clock.idle());
    }
}

TEST_CASE("interrupts come by priority", "[devices]") {
    Fixture f;
    f.put(FCR, 0x01);
    f.put(IER, 0x0f);
    f.put(MCR, 0x10);  // loopback: the modem lines change
    for (unsigned i = 0; i < 17; ++i)
        f.put(THR, i);  // one too many
    CHECK(f.get(IIR) == 0xc6);
    CHECK((f.get(LSR) & 0x03) == 0x03);
    CHECK((f.get(LSR) & 0x02) == 0);
    CHECK(f.get(IIR) == 0xc4);
    CHECK(f.read_all().size() == 16);
    CHECK(f.get(IIR) == 0xc2);
    CHECK(f.get(IIR) == 0xc0);
    CHECK((f.get(MSR) & 0x0f) == 0x0b);
    CHECK(f.get(IIR) == 0xc1);
    CHECK_FALSE(f.irq.level);
}

TEST_CASE("loopback connects modem control to modem status", "[devices]") {
    Fixture f;
    CHECK(f.get(MSR) == 0xb0);
    f.put(MCR, 0x1a);  // what Linux probes with: RTS and OUT2
    CHECK((f.get(MSR) & 0xf0) == 0x90);
    f.put(MCR, 0x14);
    CHECK((f.get(MSR) & 0xf0) == 0x40);
    f.put(MCR, 0x10);
    CHECK(f.get(MSR) == 0x04);  // RI's trailing edge
    f.put(MCR, 0x0b);
    CHECK((f.get(MSR) & 0xf0) == 0xb0);
    CHECK(f.sink.received.empty());
    CHECK(f.get(MCR) == 0x0b);
}

TEST_CASE("what arrives waits its turn, and too much is refused", "[devices]") {
    Fixture f;
    f.put(FCR, 0xc1);
    std::string text;
    while (f.uart.receive(static_cast<char>('a' + text.size() % 26)))
        text += static_cast<char>('a' + text.size() % 26);
    CHECK(text.size() == 1024 + 16);
    CHECK(f.get(RBR) == 'a');
    CHECK(f.uart.receive('!'));
    CHECK_FALSE(f.uart.receive('?'));
    CHECK(f.read_all() == text.substr(1) + "!");
    CHECK((f.get(LSR) & 0x02) == 0);
}

TEST_CASE("a FIFO reset drops what is in the FIFO only", "[devices]") {
    Fixture f;
    f.put(FCR, 0x01);
    CHECK(f.receive("0123456789abcdefXY"));
    f.put(FCR, 0x03);
    CHECK(f.read_all() == "XY");
    CHECK(f.receive("z"));
    f.put(FCR, 0x00);
    CHECK(f.get(IIR) == 0x01);
    CHECK(f.read_all().empty());
}

TEST_CASE("reset makes a new UART", "[devices]") {
    Fixture f;
    f.put(IER, 0x0f);
    f.put(FCR, 0xc1);
    CHECK(f.receive("abc"));
    f.uart.reset();
    CHECK_FALSE(f.irq.level);
    CHECK(f.get(IIR) == 0x01);
    CHECK(f.get(LSR) == 0x60);
    CHECK(f.clock.idle());
}
