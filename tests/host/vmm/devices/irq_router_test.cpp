// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/board.hpp"
#include "vmm/devices/io_apic.hpp"
#include "vmm/devices/irq_router.hpp"
#include "vmm/devices/pic8259.hpp"

#include <thread>
#include <utility>

using namespace hv;

namespace {

struct Fixture {
    Fixture() { pic.reset(IrqRouter::kLevelIrqs); }
    void route(unsigned pin, unsigned low) {
        apic.write(0x00, 4, 0x10 + 2 * pin);
        apic.write(0x10, 4, low);
    }
    unsigned requested() {
        pic.master().write(0, 1, 0x0a);
        pic.slave().write(0, 1, 0x0a);
        return static_cast<unsigned>(pic.master().read(0, 1) | pic.slave().read(0, 1) << 8);
    }
    fake::RecordingLine intr;
    fake::RecordingInterrupts bus;
    Pic8259 pic{intr};
    IoApic apic{bus};
    IrqRouter router{pic, apic};
};

}  // namespace

TEST_CASE("an ISA interrupt reaches both controllers, IRQ 0 as GSI 2", "[devices]") {
    Fixture f;
    f.route(4, 0x44);
    f.route(2, 0x42);
    f.router.isa(4).set(true);
    CHECK(f.bus.count(0x44) == 1);
    CHECK((f.requested() & 0x10) != 0);
    f.router.pit().input(0).set(true);
    CHECK(f.bus.count(0x42) == 1);
    CHECK((f.requested() & 0x01) != 0);
    f.route(8, 0x48);
    f.router.rtc().input(0).set(true);
    CHECK(f.bus.count(0x48) == 1);
    CHECK((f.requested() & 0x100) != 0);
}

TEST_CASE("sources of a PCI line are wired-or", "[devices]") {
    Fixture f;
    f.route(17, 1u << 15 | 1u << 13 | 0x71);
    IrqLine& first = f.router.pci(1).source(3);
    IrqLine& second = f.router.pci(1).source(9);
    first.set(true);
    first.set(true);
    second.set(true);
    CHECK(f.bus.count(0x71) == 1);
    first.set(false);
    f.apic.eoi(0x71);
    CHECK(f.bus.count(0x71) == 2);
    second.set(false);
    f.apic.eoi(0x71);
    CHECK(f.bus.count(0x71) == 2);
    CHECK(f.requested() == 0);
    f.router.pci(3).source(0).set(true);  // shares IRQ 11 with line 1
    f.router.pci(1).source(0).set(true);
    f.router.pci(3).source(0).set(false);
    CHECK((f.requested() & 1u << IrqRouter::pic_irq_of_pci(1)) != 0);
    f.router.pci(1).source(0).set(false);
    CHECK(f.requested() == 0);
}

TEST_CASE("ISA interrupts 10 and 11 share the 8259's inputs with PCI lines, not the I/O APIC's",
          "[devices]") {
    Fixture f;
    f.route(10, 0x6a);
    f.route(16, 1u << 15 | 1u << 13 | 0x70);
    f.router.pci(0).source(8).set(true);
    CHECK(f.bus.count(0x6a) == 0);
    f.router.isa(10).set(true);
    CHECK(f.bus.count(0x6a) == 1);
    CHECK(f.bus.count(0x70) == 1);
    f.router.pci(0).source(8).set(false);
    CHECK((f.requested() & 1u << 10) != 0);
    f.router.isa(10).set(false);
    CHECK(f.requested() == 0);
}

TEST_CASE("every interrupt has a wire but the cascade", "[devices]") {
    Fixture f;
    CHECK(f.router.wire(2) == nullptr);
    for (unsigned gsi = 0; gsi < 24; ++gsi) {
        if (gsi == 2)
            continue;
        const unsigned pin = gsi == 0 ? 2 : gsi;
        f.route(pin, 0x30 + gsi);
        f.router.wire(gsi)->set(true);
        f.router.wire(gsi)->set(false);
        CHECK(f.bus.count(static_cast<std::uint8_t>(0x30 + gsi)) == 1);
    }
}

TEST_CASE("a shared line ends at the level of its sources, whoever is last", "[devices]") {
    struct Output final : IrqLine {
        void set(bool asserted) override {
            std::this_thread::yield();  // lets the other one in between
            level = asserted;
        }
        std::atomic<bool> level{false};
    } output;
    SharedIrqLine line;
    line.connect(output);
    for (unsigned round = 0; round < 200; ++round) {
        const auto drive = [&line, round](unsigned source) {
            for (unsigned i = 0; i < 50; ++i) {
                line.source(source).set(true);
                line.source(source).set(false);
            }
            line.source(source).set((round >> source & 1) != 0);
        };
        std::thread other{drive, 0u};
        drive(1);
        other.join();
        REQUIRE(output.level == ((round & 3) != 0));
        line.source(0).set(false);
        line.source(1).set(false);
        REQUIRE_FALSE(output.level);
    }
}

TEST_CASE("a change that overtakes another on its way to the line is made good", "[devices]") {
    struct Output final : IrqLine {
        void set(bool asserted) override {
            // Another CPU's source asserts while this CPU is about to take the line low.
            if (!asserted && std::exchange(overtake, false))
                line->source(1).set(true);
            level = asserted;
        }
        SharedIrqLine* line{nullptr};
        bool overtake{false};
        bool level{false};
    } output;
    SharedIrqLine line;
    line.connect(output);
    output.line = &line;
    line.source(0).set(true);
    output.overtake = true;
    line.source(0).set(false);
    CHECK(output.level);
}

TEST_CASE("a selector passes on the selected input alone", "[devices]") {
    fake::RecordingLine output;
    IrqSelector selector;
    selector.connect(output);
    selector.input(1).set(true);
    CHECK_FALSE(output.level);
    selector.select(1);
    CHECK(output.level);
    selector.input(0).set(true);
    selector.input(1).set(false);
    CHECK_FALSE(output.level);
    selector.select(0);
    CHECK(output.level);
}
