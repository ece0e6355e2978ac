// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/board.hpp"
#include "vmm/devices/io_apic.hpp"

using namespace hv;

namespace {

struct Fixture {
    void select(std::uint8_t index) { apic.write(0x00, 4, index); }
    std::uint32_t get(std::uint8_t index) {
        select(index);
        return static_cast<std::uint32_t>(apic.read(0x10, 4));
    }
    void put(std::uint8_t index, std::uint32_t value) {
        select(index);
        apic.write(0x10, 4, value);
    }
    void route(unsigned pin, std::uint32_t low, std::uint32_t high = 0) {
        put(static_cast<std::uint8_t>(0x11 + 2 * pin), high);
        put(static_cast<std::uint8_t>(0x10 + 2 * pin), low);
    }
    std::size_t sent() const { return bus.messages.size(); }

    fake::RecordingInterrupts bus;
    IoApic apic{bus};
};

constexpr std::uint32_t kLevel = 1u << 15;
constexpr std::uint32_t kMasked = 1u << 16;
constexpr std::uint32_t kLow = 1u << 13;
constexpr std::uint32_t kRemoteIrr = 1u << 14;

}  // namespace

TEST_CASE("I/O APIC registers: identification, arbitration, version", "[devices]") {
    Fixture f;
    CHECK(f.get(1) == 0x0017'0020);
    f.put(1, 0xffff'ffff);
    CHECK(f.get(1) == 0x0017'0020);
    f.put(0, 0xffff'ffff);
    CHECK(f.get(0) == 0x0f00'0000);
    CHECK(f.get(2) == 0x0f00'0000);
    f.put(2, 0);
    CHECK(f.get(2) == 0x0f00'0000);
    CHECK(f.get(0x40) == 0);
    CHECK(f.get(0xff) == 0);
    f.put(0x40, 0xffff'ffff);
}

TEST_CASE("redirection entries are masked at reset and keep what can be written", "[devices]") {
    Fixture f;
    for (std::uint8_t pin = 0; pin < 24; ++pin) {
        const auto low = static_cast<std::uint8_t>(0x10 + 2 * pin);
        CHECK(f.get(low) == kMasked);
        f.put(low, 0xffff'ffff);
        CHECK(f.get(low) == 0x1'afff);
        f.put(static_cast<std::uint8_t>(low + 1), 0xffff'ffff);
        CHECK(f.get(static_cast<std::uint8_t>(low + 1)) == 0xff00'0000);
    }
    f.apic.reset();
    CHECK(f.get(0x3e) == kMasked);
}

TEST_CASE("register accesses of odd sizes get bytes or nothing", "[devices]") {
    Fixture f;
    f.apic.write(0x00, 1, 1);
    CHECK(f.apic.read(0x00, 1) == 1);
    CHECK(f.apic.read(0x10, 1) == 0x20);
    CHECK(f.apic.read(0x12, 2) == 0x17);
    CHECK(f.apic.read(0x10, 8) == 0x0017'0020);
    CHECK(f.apic.read(0x14, 4) == 0);
    CHECK(f.apic.read(0x800, 4) == 0);
    f.put(0x10, 0x1'0030);
    f.apic.write(0x10, 1, 0x55);
    CHECK(f.get(0x10) == 0x1'0030);
}

TEST_CASE("an edge sends one message, with the entry's destination", "[devices]") {
    Fixture f;
    f.route(4, 0x0000'0931, 0x0300'0000);
    f.apic.line(4).set(true);
    f.apic.line(4).set(true);
    REQUIRE(f.sent() == 1);
    const InterruptMessage message = f.bus.messages[0];
    CHECK(message.destination == 3);
    CHECK(message.destination_mode == DestinationMode::logical);
    CHECK(message.delivery_mode == DeliveryMode::lowest_priority);
    CHECK(message.trigger_mode == TriggerMode::edge);
    CHECK(message.vector == 0x31);
    f.apic.line(4).set(false);
    f.apic.line(4).set(true);
    CHECK(f.sent() == 2);
    CHECK((f.get(0x18) & kRemoteIrr) == 0);
    f.route(4, 0x31, 0xff00'0000);
    f.apic.line(4).set(false);
    f.apic.line(4).set(true);
    CHECK(f.bus.messages.back().destination == InterruptMessage::kBroadcast);
}

TEST_CASE("edges on a masked pin are lost", "[devices]") {
    Fixture f;
    f.route(4, kMasked | 0x31);
    f.apic.line(4).set(true);
    f.route(4, 0x31);
    CHECK(f.sent() == 0);
    f.apic.line(4).set(false);
    f.apic.line(4).set(true);
    CHECK(f.sent() == 1);
}

TEST_CASE("a level waits for its EOI and comes again while asserted", "[devices]") {
    Fixture f;
    f.route(9, kLevel | 0x51);
    f.apic.line(9).set(true);
    CHECK(f.sent() == 1);
    CHECK(f.bus.messages[0].trigger_mode == TriggerMode::level);
    CHECK((f.get(0x22) & kRemoteIrr) != 0);
    f.apic.line(9).set(false);
    f.apic.line(9).set(true);
    CHECK(f.sent() == 1);
    f.apic.eoi(0x52);
    CHECK(f.sent() == 1);
    f.apic.eoi(0x51);
    CHECK(f.sent() == 2);
    f.apic.line(9).set(false);
    f.apic.write(0x40, 4, 0x51);  // EOI register
    CHECK(f.sent() == 2);
    CHECK((f.get(0x22) & kRemoteIrr) == 0);
}

TEST_CASE("unmasking an asserted level sends it, masking holds it", "[devices]") {
    Fixture f;
    f.route(9, kMasked | kLevel | 0x51);
    f.apic.line(9).set(true);
    CHECK(f.sent() == 0);
    f.route(9, kLevel | 0x51);
    CHECK(f.sent() == 1);
    f.route(9, kMasked | kLevel | 0x51);
    f.apic.eoi(0x51);
    CHECK(f.sent() == 1);
    f.route(9, kLevel | 0x51);
    CHECK(f.sent() == 2);
}

TEST_CASE("an entry that becomes an edge forgets remote IRR", "[devices]") {
    Fixture f;
    f.route(9, kLevel | 0x51);
    f.apic.line(9).set(true);
    f.route(9, kMasked | 0x51);
    f.route(9, kMasked | kLevel | 0x51);
    CHECK((f.get(0x22) & kRemoteIrr) == 0);
}

TEST_CASE("PCI wires are active low", "[devices]") {
    Fixture f;
    f.route(20, kLevel | kLow | 0x61);
    CHECK(f.sent() == 0);
    f.apic.line(20).set(true);
    CHECK(f.sent() == 1);
    f.apic.line(20).set(false);
    f.apic.eoi(0x61);
    CHECK(f.sent() == 1);
    f.route(21, kLevel | 0x62);  // active high: the idle wire looks asserted
    CHECK(f.sent() == 2);
    f.route(9, kLow | 0x63);  // an ISA edge taken at its end
    f.apic.line(9).set(true);
    CHECK(f.sent() == 2);
    f.apic.line(9).set(false);
    CHECK(f.sent() == 3);
}

TEST_CASE("NMI entries are edges even if they say level", "[devices]") {
    Fixture f;
    f.route(5, kLevel | 0x400);
    f.apic.line(5).set(true);
    CHECK(f.sent() == 1);
    CHECK(f.bus.messages[0].delivery_mode == DeliveryMode::nmi);
    CHECK(f.bus.messages[0].trigger_mode == TriggerMode::edge);
    CHECK((f.get(0x1a) & kRemoteIrr) == 0);
}

TEST_CASE("pin 0 carries the 8259's output as ExtINT", "[devices]") {
    Fixture f;
    f.apic.ext_int_line().set(true);
    CHECK(f.sent() == 0);
    f.route(0, 0x700);
    REQUIRE(f.sent() == 1);
    CHECK(f.bus.messages[0].delivery_mode == DeliveryMode::ext_int);
    f.apic.ext_int_line().set(false);
    f.apic.ext_int_line().set(true);
    CHECK(f.sent() == 2);
    f.route(0, kMasked | 0x700);
    f.apic.ext_int_line().set(false);
    f.apic.ext_int_line().set(true);
    CHECK(f.sent() == 2);
}
