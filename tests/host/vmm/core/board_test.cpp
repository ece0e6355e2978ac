// SPDX-License-Identifier: MIT
#include "vmm/core/board.hpp"
#include "vmm/core/vcpu_fixture.hpp"

using namespace hv;
using namespace hv::test;
namespace map = hv::guest_map;

namespace {

struct Fixture : VcpuFixture {
    explicit Fixture(bool debug_exit = true)
        : board{Board::create({ports,
                               mmio,
                               fabric,
                               clock,
                               control,
                               serial,
                               debug,
                               {0, clock.now()},
                               debug_exit,
                               {3, 5 * kGiB}})
                    .value()} {
        fabric.connect(apics, &board->io_apic());
        board->connect(vcpu().apic());
        start();
        enable_apic();
    }
    void io_apic_entry(unsigned pin, std::uint32_t low) {
        mmio.write(map::kIoApic, 4, 0x10 + 2 * pin + 1);
        mmio.write(map::kIoApic + 0x10, 4, 0);
        mmio.write(map::kIoApic, 4, 0x10 + 2 * pin);
        mmio.write(map::kIoApic + 0x10, 4, low);
    }
    Text serial, debug;
    std::unique_ptr<Board> board;
};

}  // namespace

TEST_CASE("every device answers at its address", "[core]") {
    Fixture f;
    IoBus& ports = f.ports;
    ports.write(map::kPicMaster + 1, 1, 0xa5);
    CHECK(ports.read(map::kPicMaster + 1, 1) == 0xa5);
    ports.write(map::kPicSlave + 1, 1, 0x5a);
    CHECK(ports.read(map::kPicSlave + 1, 1) == 0x5a);
    CHECK(ports.read(map::kElcr, 2) == IrqRouter::kLevelIrqs);
    CHECK(ports.read(map::kPort61, 1) != 0xff);
    CHECK(ports.read(map::kCom1 + 5, 1) == 0x60);  // transmitter empty
    CHECK(ports.read(map::kDebugConsole, 1) == 0xe9);
    ports.write(map::kRtc, 1, 0x0d);
    CHECK(ports.read(map::kRtc + 1, 1) == 0x80);  // battery good
    CHECK(ports.read(Port92::kPort, 1) == 2);     // A20
    CHECK(ports.read(KeyboardController::kCommandPort, 1) != 0xff);
    const std::uint64_t before = ports.read(map::kPmTimer, 4);
    f.clock.advance(1'000'000);
    const std::uint64_t passed = ports.read(map::kPmTimer, 4) - before;
    CHECK((passed == 3579 || passed == 3580));
    ports.write(map::kPciAddress, 4, 0x8000'0000);
    CHECK(ports.read(map::kPciData, 4) == 0x0008'1b36);
    CHECK(f.mmio.read(map::kEcam, 4) == 0x0008'1b36);
    CHECK((f.mmio.read(map::kHpet, 4) & 0xffff'ff00) == (Hpet::kHardwareId & 0xffff'ff00));
    f.mmio.write(map::kIoApic, 4, 1);
    CHECK(f.mmio.read(map::kIoApic + 0x10, 4) >> 16 == map::kGsiCount - 1);
    CHECK(ports.read(0x300, 4) == 0xffff'ffff);
    CHECK(f.mmio.read(0xfed0'1000, 4) == 0xffff'ffff);
}

TEST_CASE("what a guest writes to its debug port and its serial line comes out", "[core]") {
    Fixture f;
    for (const char c : std::string_view{"hello\n"}) {
        f.ports.write(map::kDebugConsole, 1, static_cast<std::uint8_t>(c));
        f.ports.write(map::kCom1, 1, static_cast<std::uint8_t>(c));
        f.clock.advance(1'000'000);
    }
    f.board->flush_debug_console();
    CHECK(f.debug.all == "hello\n");
    CHECK(f.serial.all == "hello\n");
}

TEST_CASE("the guest's ways to end itself reach the VM", "[core]") {
    Fixture f;
    VmStop expected = VmStop::reset;
    std::uint32_t code = 0;
    SECTION("ACPI S5") {
        f.ports.write(map::kPm1aControl, 2, map::kSleepTypeS5 << 10 | 1 << 13);
        expected = VmStop::power_off;
    }
    SECTION("debug exit") {
        f.ports.write(map::kDebugExit, 4, 0x42);
        expected = VmStop::exit_code;
        code = 0x42;
    }
    SECTION("port 0xcf9") {
        f.ports.write(map::kReset, 1, map::kResetValue);
    }
    SECTION("keyboard controller") {
        f.ports.write(KeyboardController::kCommandPort, 1, 0xfe);
    }
    SECTION("port 0x92") {
        f.ports.write(Port92::kPort, 1, 1);
    }
    CHECK(f.control.reasons == std::vector{expected});
    CHECK(f.control.codes == std::vector{code});
}

TEST_CASE("the debug exit is there only if the configuration says so", "[core]") {
    Fixture f{false};
    f.ports.write(map::kDebugExit, 4, 0);
    CHECK(f.control.reasons.empty());
    CHECK(f.ports.read(map::kDebugExit, 4) == 0xffff'ffff);
    f.ports.write(map::kTestRegister, 4, 0);
    CHECK(f.ports.read(map::kTestRegister, 4) == 0xffff'ffff);
    CHECK(f.mmio.read(map::kTestMemory, 4) == 0xffff'ffff);
}

TEST_CASE("the test device drives the board's wires", "[core]") {
    Fixture f;
    f.io_apic_entry(14, 0x8077);
    f.ports.write(map::kTestLines + 14, 1, 1);
    CHECK(f.vcpu().apic().pending_vector() == 0x77);
    f.vcpu().apic().accept(0x77);
    f.ports.write(map::kTestLines + 14, 1, 0);
    f.vcpu().apic().eoi();
    CHECK(f.vcpu().apic().pending_vector() == -1);
    f.mmio.write(map::kTestMemory + 0xffc, 8, 0x0123'4567'89ab'cdef);
    CHECK(f.mmio.read(map::kTestMemory + 0x1000, 4) == 0x0123'4567);
}

TEST_CASE("the board starts as firmware leaves it", "[core]") {
    Fixture f;
    const auto cmos = [&](unsigned index) {
        f.ports.write(map::kRtc, 1, index);
        return f.ports.read(map::kRtc + 1, 1);
    };
    CHECK((cmos(0x15) | cmos(0x16) << 8) == 640);
    CHECK((cmos(0x30) | cmos(0x31) << 8) == 0xffff);
    CHECK((cmos(0x34) | cmos(0x35) << 8) == (3 * kGiB - 16 * kMiB) / 65536);
    CHECK((cmos(0x5b) | cmos(0x5c) << 8 | cmos(0x5d) << 16) == 2 * kGiB / 65536);
    CHECK(f.ports.read(map::kPicMaster + 1, 1) == 0xb8);
    CHECK(f.ports.read(map::kPicSlave + 1, 1) == 0x8f);
    CHECK(f.board->ext_int().acknowledge() == 0x0f);  // spurious: vectors 8 to 15
    f.ports.write(map::kFwCfg, 2, 5);
    CHECK(f.ports.read(map::kFwCfg + 1, 1) == 3);
}

TEST_CASE("PCI devices' INTx goes to GSI 16 + device % 8, level-triggered and shared", "[core]") {
    Fixture f;
    for (const unsigned device : {1U, 5U, 9U, 13U}) {
        const unsigned pin = map::kGsiPciFirst + device % 8;
        f.io_apic_entry(pin, 0x0000'a000 | (0x50 + device));  // level, active low
        f.board->pci_line(device).set(true);
        CHECK(f.vcpu().apic().pending_vector() == static_cast<int>(0x50 + device));
        f.vcpu().apic().accept(static_cast<std::uint8_t>(0x50 + device));
        SECTION("an EOI while a neighbour asserts the line delivers again") {
            f.board->pci_line(device + 8).set(true);
            f.board->pci_line(device).set(false);
            f.vcpu().apic().eoi();
            CHECK(f.vcpu().apic().pending_vector() == static_cast<int>(0x50 + device));
            f.vcpu().apic().accept(static_cast<std::uint8_t>(0x50 + device));
            f.board->pci_line(device + 8).set(false);
        }
        f.board->pci_line(device).set(false);
        f.vcpu().apic().eoi();
        CHECK(f.vcpu().apic().pending_vector() == -1);
    }
}

TEST_CASE("the PIT reaches GSI 2 and, through the 8259, LINT0", "[core]") {
    Fixture f;
    f.io_apic_entry(2, 0x30);
    f.ports.write(map::kPicMaster, 1, 0x11);
    for (const std::uint64_t value : {0x20, 0x04, 0x01, 0xfe})
        f.ports.write(map::kPicMaster + 1, 1, value);
    f.ports.write(map::kPit + 3, 1, 0x34);
    f.ports.write(map::kPit, 1, 0x00);
    f.ports.write(map::kPit, 1, 0x10);
    f.clock.advance(10'000'000);
    CHECK(f.vcpu().apic().pending_vector() == 0x30);
    CHECK(f.vcpu().apic().ext_int_pending());
    CHECK(f.board->ext_int().acknowledge() == 0x20);
    f.board->reset();
    CHECK_FALSE(f.vcpu().apic().ext_int_pending());
    CHECK(f.clock.armed() == 0);
}
