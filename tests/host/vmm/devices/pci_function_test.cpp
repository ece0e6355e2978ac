// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/board.hpp"
#include "vmm/devices/pci_function.hpp"
#include "vmm/devices/pci_host_bridge.hpp"
#include "vmm/devices/pci_msix.hpp"

#include <array>
#include <random>

namespace {

using namespace hv;

struct Memory final : IoDevice {
    std::uint64_t read(std::uint64_t offset, unsigned size) override {
        return (0x1000 + offset) & all_ones(size);
    }
    void write(std::uint64_t offset, unsigned /*size*/, std::uint64_t /*value*/) override {
        last_write = offset;
    }
    std::uint64_t last_write{~0ull};
};

constexpr PciIdentity kIdentity{0x1234, 0x5678, 3, 0x01'0802, 0xabcd, 0xef01};

class Function final : public PciFunction {
public:
    explicit Function(IrqLine* pin, MsixTable* table = nullptr) : PciFunction{kIdentity, pin} {
        add_bar(0, 0x4000, registers);
        if (table != nullptr)
            add_msix(1, *table);
    }
    void ask(bool wanted) {
        asks = wanted;
        update_intx();
    }
    [[nodiscard]] bool intx_pending() const override { return asks; }

    Memory registers;
    bool asks{false};
};

struct Machine {
    IoBus memory{IoBus::kMemoryHintShift};
    IoBus ports{IoBus::kPortHintShift};
    Memory reset;
    PciHostBridge bridge{memory, &reset};
    fake::RecordingLine line;
    fake::RecordingInterrupts interrupts;
    MsixTable table{3, interrupts};
    Function function{&line, &table};

    Machine() {
        REQUIRE(ports.add(0xcf8, 8, bridge.ports()));
        REQUIRE(memory.add(guest_map::kEcam, guest_map::kEcamSize, bridge.ecam()));
        REQUIRE(bridge.attach(2, function));
    }
    std::uint64_t read(unsigned offset, unsigned size) {
        return memory.read(guest_map::kEcam + (2u << 15) + offset, size);
    }
    void write(unsigned offset, unsigned size, std::uint64_t value) {
        memory.write(guest_map::kEcam + (2u << 15) + offset, size, value);
    }
    std::uint64_t legacy_read(unsigned device, unsigned offset, unsigned size) {
        ports.write(0xcf8, 4, 0x8000'0000u | device << 11 | (offset & 0xfc));
        return ports.read(0xcfc + (offset & 3), size);
    }
    /// Message control of MSI-X, the last capability.
    unsigned msix() { return static_cast<unsigned>(read(0x34, 1)); }
};

}  // namespace

TEST_CASE("configuration space says who the function is", "[devices]") {
    Machine machine;
    CHECK(machine.read(0x00, 4) == 0x5678'1234);
    CHECK(machine.read(0x08, 4) == 0x0108'0203);
    CHECK(machine.read(0x0e, 1) == 0);
    CHECK(machine.read(0x2c, 4) == 0xef01'abcd);
    CHECK(machine.read(0x3d, 1) == 1);
    CHECK(machine.read(0x01, 1) == 0x12);
    CHECK(machine.read(0x02, 2) == 0x5678);
    CHECK(machine.read(0x100, 4) == 0);
}

TEST_CASE("both configuration mechanisms reach the same bytes", "[devices]") {
    Machine machine;
    CHECK(machine.legacy_read(2, 0, 4) == 0x5678'1234);
    CHECK(machine.legacy_read(2, 3, 1) == 0x56);
    CHECK(machine.legacy_read(2, 2, 2) == 0x5678);
    machine.ports.write(0xcf8, 4, 0x8000'0000u | 2 << 11 | 0x3c);
    machine.ports.write(0xcfc, 1, 0x2a);
    CHECK(machine.read(0x3c, 1) == 0x2a);
    CHECK(machine.legacy_read(0, 0x0b, 1) == 0x06);
}

TEST_CASE("what is not there reads as ones", "[devices]") {
    Machine machine;
    CHECK(machine.legacy_read(3, 0, 4) == 0xffff'ffff);
    machine.ports.write(0xcf8, 4, 0x8000'0000u | 1 << 16 | 2 << 11);  // bus 1
    CHECK(machine.ports.read(0xcfc, 4) == 0xffff'ffff);
    machine.ports.write(0xcf8, 4, 2u << 11);  // not enabled
    CHECK(machine.ports.read(0xcfc, 4) == 0xffff'ffff);
    CHECK(machine.memory.read(guest_map::kEcam + (2u << 15) + 0x1000, 4) == 0xffff'ffff);  // function 1
}

TEST_CASE("the address register takes dwords, and port 0xcf9 bytes are the reset register's", "[devices]") {
    Machine machine;
    machine.ports.write(0xcf8, 4, 0xffff'ffff);
    CHECK(machine.ports.read(0xcf8, 4) == 0x80ff'fffc);
    machine.ports.write(0xcfb, 1, 0x01);
    machine.ports.write(0xcf8, 2, 0);
    CHECK(machine.ports.read(0xcf8, 4) == 0x80ff'fffc);
    CHECK(machine.ports.read(0xcf9, 1) == 0x00);
    machine.ports.write(0xcf9, 1, 6);
    CHECK(machine.reset.last_write == 0);
}

TEST_CASE("a BAR is sized by writing ones", "[devices]") {
    Machine machine;
    const auto initial = machine.read(0x10, 4);
    CHECK(initial >= guest_map::kPciWindow);
    CHECK(initial % 0x4000 == 0);
    machine.write(0x10, 4, 0xffff'ffff);
    CHECK(machine.read(0x10, 4) == 0xffff'c000);
    machine.write(0x14, 4, 0xffff'ffff);
    CHECK(machine.read(0x14, 4) == 0xffff'f000);
    machine.write(0x18, 4, 0xffff'ffff);
    CHECK(machine.read(0x18, 4) == 0);
}

TEST_CASE("a BAR decodes where it is put while memory decoding is on", "[devices]") {
    Machine machine;
    const auto initial = machine.read(0x10, 4);
    CHECK(machine.memory.find(initial).device == nullptr);
    machine.write(0x04, 2, pci::kCommandMemory);
    CHECK(machine.memory.find(initial + 4).device == &machine.function.registers);
    machine.write(0x10, 4, 0xd000'0000);
    CHECK(machine.memory.find(initial).device == nullptr);
    CHECK(machine.memory.read(0xd000'0008, 2) == 0x1008);
    machine.write(0x13, 1, 0xd1);  // byte by byte moves it as well
    CHECK(machine.memory.read(0xd100'0008, 2) == 0x1008);
    machine.write(0x04, 2, 0);
    CHECK(machine.memory.find(0xd100'0000).device == nullptr);
}

TEST_CASE("a BAR on top of something else waits until that has moved away", "[devices]") {
    Machine machine;
    Function other{nullptr};
    REQUIRE(machine.bridge.attach(5, other));
    machine.write(0x04, 2, pci::kCommandMemory);
    machine.write(0x10, 4, 0xd000'0000);
    const auto write_other = [&](unsigned offset, unsigned size, std::uint64_t value) {
        machine.memory.write(guest_map::kEcam + (5u << 15) + offset, size, value);
    };
    write_other(0x10, 4, 0xd000'0000);
    write_other(0x04, 2, pci::kCommandMemory);
    CHECK(machine.memory.find(0xd000'0000).device == &machine.function.registers);
    machine.write(0x10, 4, 0xd100'0000);
    CHECK(machine.memory.find(0xd000'0000).device == &other.registers);
    CHECK(machine.memory.find(0xd100'0000).device == &machine.function.registers);
    write_other(0x10, 4, guest_map::kEcam);
    CHECK(machine.memory.find(guest_map::kEcam).device == &machine.bridge.ecam());
}

TEST_CASE("slots are given once", "[devices]") {
    Machine machine;
    Function other{nullptr};
    CHECK(machine.bridge.attach(2, other).error() == Error::already_exists);
    CHECK(machine.bridge.attach(0, other).error() == Error::already_exists);
    CHECK(machine.bridge.attach(32, other).error() == Error::out_of_range);
    CHECK(machine.bridge.free_device() == 1);
}

TEST_CASE("INTx follows the function, the disable bit and MSI-X", "[devices]") {
    Machine machine;
    CHECK((machine.read(0x06, 2) & pci::kStatusInterrupt) == 0);
    machine.function.ask(true);
    CHECK(machine.line.level);
    CHECK((machine.read(0x06, 2) & pci::kStatusInterrupt) != 0);
    machine.write(0x04, 2, pci::kCommandIntxDisable);
    CHECK_FALSE(machine.line.level);
    CHECK((machine.read(0x06, 2) & pci::kStatusInterrupt) != 0);
    machine.write(0x04, 2, 0);
    CHECK(machine.line.level);
    machine.write(machine.msix() + 2, 2, 0x8000);
    CHECK_FALSE(machine.line.level);
    machine.write(machine.msix() + 2, 2, 0);
    CHECK(machine.line.level);
    machine.function.ask(false);
    CHECK_FALSE(machine.line.level);
}

TEST_CASE("MSI-X sends a vector's message, and remembers it while masked", "[devices]") {
    Machine machine;
    machine.write(0x04, 2, pci::kCommandMemory);
    const auto table = machine.read(0x14, 4);
    const auto set = [&](unsigned vector, unsigned word, std::uint32_t value) {
        machine.memory.write(table + vector * 16 + word * 4, 4, value);
    };
    CHECK(machine.read(machine.msix() + 2, 2) == 2);  // table size - 1
    CHECK(machine.memory.read(table + 12, 4) == 1);   // masked at first
    for (unsigned vector = 0; vector < 3; ++vector) {
        set(vector, 0, 0xfee0'1004);
        set(vector, 2, 0x41 + vector);
        set(vector, 3, 0xffff'fffe);
    }
    CHECK(machine.memory.read(table + 12, 4) == 0);
    machine.table.raise(1);
    CHECK(machine.interrupts.messages.empty());  // not enabled: not even pending
    machine.write(machine.msix() + 2, 2, 0xc000);
    machine.table.raise(1);
    machine.table.raise(1);
    CHECK(machine.interrupts.messages.empty());
    CHECK(machine.memory.read(table + MsixTable::kPendingOffset, 8) == 2);
    machine.write(machine.msix() + 2, 2, 0x8000);
    REQUIRE(machine.interrupts.messages.size() == 1);
    CHECK(machine.interrupts.messages[0].vector == 0x42);
    CHECK(machine.interrupts.messages[0].destination == 1);
    CHECK(machine.interrupts.messages[0].destination_mode == DestinationMode::logical);
    CHECK(machine.memory.read(table + MsixTable::kPendingOffset, 8) == 0);
    set(2, 3, 1);
    machine.table.raise(2);
    machine.table.raise(0);
    CHECK(machine.interrupts.count(0x43) == 0);
    CHECK(machine.interrupts.count(0x41) == 1);
    set(2, 3, 0);
    CHECK(machine.interrupts.count(0x43) == 1);
    machine.table.raise(3);
    machine.table.raise(~0u);
    set(0, 0, 0x1000);  // a write to memory, which is no interrupt
    machine.table.raise(0);
    CHECK(machine.interrupts.messages.size() == 3);
}

TEST_CASE("reset restores the configuration", "[devices]") {
    Machine machine;
    const auto initial = machine.read(0x10, 4);
    machine.write(0x04, 2, 0xffff);
    machine.write(0x10, 4, 0xd000'0000);
    machine.write(machine.msix() + 2, 2, 0xc000);
    machine.bridge.reset();
    CHECK(machine.read(0x04, 2) == 0);
    CHECK(machine.read(0x10, 4) == initial);
    CHECK(machine.read(machine.msix() + 2, 2) == 2);
    CHECK(machine.memory.find(0xd000'0000).device == nullptr);
}

TEST_CASE("any write of any size leaves what is read-only alone", "[devices]") {
    Machine machine;
    std::mt19937_64 random{7};
    const auto identity = [&] {
        return std::array{machine.read(0, 4), machine.read(8, 4), machine.read(0x2c, 4),
                          machine.read(0x34, 4)};
    };
    const auto before = identity();
    for (unsigned offset = 0; offset < 0x1000; ++offset)
        for (unsigned size : {1u, 2u, 4u, 8u}) {
            if (offset + size <= 0x1000)
                machine.write(offset, size, random());
            machine.legacy_read(2, offset & 0xff, 4);
        }
    CHECK(identity() == before);
    CHECK(machine.read(0x3d, 1) == 1);
}
