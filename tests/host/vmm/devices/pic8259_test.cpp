// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/board.hpp"
#include "vmm/devices/pic8259.hpp"

using namespace hv;

namespace {

struct Fixture {
    Fixture() { initialize(); }
    void initialize(unsigned master_icw4 = 0x01, unsigned slave_icw4 = 0x01) {
        for (const unsigned value : {0x20u, 0x04u, master_icw4})
            master_sequence(value);
        started = false;
        for (const unsigned value : {0x28u, 0x02u, slave_icw4})
            slave_sequence(value);
        started = false;
    }
    void command(unsigned value) { pic.master().write(0, 1, value); }
    void slave_command(unsigned value) { pic.slave().write(0, 1, value); }
    void mask(unsigned value) { pic.master().write(1, 1, value); }
    std::uint8_t irr() {
        command(0x0a);
        return static_cast<std::uint8_t>(pic.master().read(0, 1));
    }
    std::uint8_t isr() {
        command(0x0b);
        return static_cast<std::uint8_t>(pic.master().read(0, 1));
    }
    void pulse(unsigned irq) {
        pic.line(irq).set(true);
        pic.line(irq).set(false);
    }

    fake::RecordingLine intr;
    Pic8259 pic{intr};

private:
    void master_sequence(unsigned value) { sequence(pic.master(), value); }
    void slave_sequence(unsigned value) { sequence(pic.slave(), value); }
    void sequence(IoDevice& chip, unsigned value) {
        if (!started)
            chip.write(0, 1, 0x11);
        started = true;
        chip.write(1, 1, value);
    }
    bool started{false};
};

}  // namespace

TEST_CASE("an 8259 request is acknowledged with its vector and ended by EOI", "[devices]") {
    Fixture f;
    CHECK_FALSE(f.intr.level);
    f.pic.line(4).set(true);
    CHECK(f.intr.level);
    CHECK(f.irr() == 0x10);
    CHECK(f.pic.acknowledge() == 0x24);
    CHECK_FALSE(f.intr.level);
    CHECK(f.irr() == 0);
    CHECK(f.isr() == 0x10);
    f.pic.line(4).set(false);
    f.pic.line(4).set(true);
    CHECK_FALSE(f.intr.level);  // in service
    f.command(0x20);
    CHECK(f.intr.level);
    CHECK(f.isr() == 0);
}

TEST_CASE("lower lines have priority and nest", "[devices]") {
    Fixture f;
    f.pulse(6);
    f.pulse(3);
    CHECK(f.pic.acknowledge() == 0x23);
    CHECK_FALSE(f.intr.level);
    f.pulse(1);
    CHECK(f.intr.level);
    CHECK(f.pic.acknowledge() == 0x21);
    CHECK(f.isr() == 0x0a);
    f.command(0x20);
    CHECK(f.isr() == 0x08);
    CHECK_FALSE(f.intr.level);
    f.command(0x63);  // specific EOI
    CHECK(f.intr.level);
    CHECK(f.pic.acknowledge() == 0x26);
}

TEST_CASE("the slave's requests come through line 2 and need two EOIs", "[devices]") {
    Fixture f;
    f.pic.line(12).set(true);
    CHECK(f.irr() == 0x04);
    CHECK(f.pic.acknowledge() == 0x2c);
    CHECK(f.isr() == 0x04);
    f.pulse(9);  // more urgent, but the master waits for the slave's level
    CHECK_FALSE(f.intr.level);
    f.slave_command(0x20);
    CHECK_FALSE(f.intr.level);
    f.command(0x20);
    CHECK(f.intr.level);
    CHECK(f.pic.acknowledge() == 0x29);
    f.slave_command(0x20);
    f.command(0x20);
    CHECK_FALSE(f.intr.level);
}

TEST_CASE("special fully nested mode lets a more urgent slave request through", "[devices]") {
    Fixture f;
    f.initialize(0x11);
    f.pulse(12);
    CHECK(f.pic.acknowledge() == 0x2c);
    f.pulse(9);
    CHECK(f.intr.level);
    CHECK(f.pic.acknowledge() == 0x29);
}

TEST_CASE("masked lines wait, a request that is gone is spurious", "[devices]") {
    Fixture f;
    f.mask(0x10);
    f.pulse(4);
    CHECK_FALSE(f.intr.level);
    f.mask(0x00);
    CHECK(f.intr.level);
    f.mask(0xff);
    CHECK_FALSE(f.intr.level);
    CHECK(f.pic.acknowledge() == 0x27);
    CHECK(f.isr() == 0);
    CHECK(f.pic.master().read(1, 1) == 0xff);
}

TEST_CASE("level-triggered lines follow their wires", "[devices]") {
    Fixture f;
    f.pic.reset(0xffff);
    CHECK(f.pic.elcr().read(0, 2) == 0xdef8);
    f.initialize();
    CHECK(f.pic.elcr().read(0, 2) == 0xdef8);
    f.pic.line(5).set(true);
    CHECK(f.pic.acknowledge() == 0x25);
    f.command(0x20);
    CHECK(f.intr.level);  // still asserted
    f.pic.line(5).set(false);
    CHECK_FALSE(f.intr.level);
    f.pic.line(5).set(true);
    f.pic.elcr().write(0, 1, 0);
    CHECK_FALSE(f.intr.level);  // an edge that came before does not count
}

TEST_CASE("automatic EOI leaves nothing in service and can rotate", "[devices]") {
    Fixture f;
    f.initialize(0x03);
    f.pulse(3);
    CHECK(f.pic.acknowledge() == 0x23);
    CHECK(f.isr() == 0);
    f.command(0x80);
    f.pulse(3);
    f.pic.acknowledge();
    f.pulse(3);
    f.pulse(4);
    CHECK(f.pic.acknowledge() == 0x24);  // line 3 is last now
    CHECK(f.pic.acknowledge() == 0x23);
    f.command(0x00);
}

TEST_CASE("priorities rotate", "[devices]") {
    Fixture f;
    f.command(0xc4);  // line 4 is lowest
    f.pulse(4);
    f.pulse(5);
    CHECK(f.pic.acknowledge() == 0x25);
    f.command(0xa0);  // EOI, and 5 becomes lowest
    f.pulse(5);
    CHECK(f.pic.acknowledge() == 0x24);
    f.command(0xe4);
    CHECK(f.pic.acknowledge() == 0x25);
}

TEST_CASE("in special mask mode a masked interrupt in service blocks nobody", "[devices]") {
    Fixture f;
    f.pulse(3);
    CHECK(f.pic.acknowledge() == 0x23);
    f.pulse(6);
    CHECK_FALSE(f.intr.level);
    f.mask(0x08);
    CHECK_FALSE(f.intr.level);
    f.command(0x68);
    CHECK(f.intr.level);
    CHECK(f.pic.acknowledge() == 0x26);
    f.command(0x20);  // ends 6, not the masked 3
    CHECK(f.isr() == 0x08);
    f.command(0x48);
    f.command(0x20);
    CHECK(f.isr() == 0);
}

TEST_CASE("a poll acknowledges", "[devices]") {
    Fixture f;
    f.command(0x0c);
    CHECK(f.pic.master().read(0, 1) == 0);
    f.pulse(4);
    f.command(0x0c);
    CHECK(f.pic.master().read(0, 1) == 0x84);
    CHECK(f.isr() == 0x10);
    CHECK_FALSE(f.intr.level);
}

TEST_CASE("initialisation clears masks and requests; ICW1 can make all lines level-triggered", "[devices]") {
    Fixture f;
    f.mask(0xff);
    f.pulse(4);
    f.initialize();
    CHECK(f.pic.master().read(1, 1) == 0);
    CHECK_FALSE(f.intr.level);
    f.command(0x1b);  // level, single, ICW4
    f.mask(0x40);
    f.mask(0x01);
    f.pic.line(1).set(true);
    CHECK(f.pic.acknowledge() == 0x41);
    f.command(0x20);
    CHECK(f.intr.level);
}

TEST_CASE("wide accesses reach both registers", "[devices]") {
    Fixture f;
    f.pic.master().write(0, 2, 0x5a0b);
    CHECK(f.pic.master().read(0, 2) == 0x5a00);
}
