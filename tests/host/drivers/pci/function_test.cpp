// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "drivers/pci/function.hpp"

#include <array>
#include <cstring>
#include <map>
#include <tuple>
#include <vector>

using namespace hv;
using namespace hv::pci;

namespace {

/// Configuration spaces whose BARs have sizes.
class FakeConfig final : public PciConfig {
public:
    struct Space {
        std::array<std::uint8_t, 256> bytes{};
        std::array<std::uint32_t, 6> writable{};  ///< address bits of the BARs
        std::vector<std::uint16_t> commands;      ///< as they were while a BAR was written
    };
    Space& add(Bdf address, std::uint16_t vendor, std::uint32_t class_code = 0, std::uint8_t header = 0) {
        Space& space = spaces_[key(address)];
        std::memcpy(&space.bytes[0], &vendor, 2);
        const std::uint32_t revision = class_code << 8;
        std::memcpy(&space.bytes[8], &revision, 4);
        space.bytes[0x0e] = header;
        return space;
    }
    std::uint8_t read8(Bdf f, std::uint16_t offset) override { return read<std::uint8_t>(f, offset); }
    std::uint16_t read16(Bdf f, std::uint16_t offset) override { return read<std::uint16_t>(f, offset); }
    std::uint32_t read32(Bdf f, std::uint16_t offset) override { return read<std::uint32_t>(f, offset); }
    void write8(Bdf f, std::uint16_t offset, std::uint8_t value) override { write(f, offset, value); }
    void write16(Bdf f, std::uint16_t offset, std::uint16_t value) override { write(f, offset, value); }
    void write32(Bdf f, std::uint16_t offset, std::uint32_t value) override { write(f, offset, value); }
    int reads{0};

private:
    static std::tuple<int, int, int> key(Bdf f) { return {f.bus, f.device, f.function}; }
    template <class T>
    T read(Bdf f, std::uint16_t offset) {
        ++reads;
        const auto space = spaces_.find(key(f));
        T value = static_cast<T>(~T{0});
        if (space != spaces_.end())
            std::memcpy(&value, &space->second.bytes.at(offset), sizeof value);
        return value;
    }
    template <class T>
    void write(Bdf f, std::uint16_t offset, T value) {
        Space& space = spaces_.at(key(f));
        if (offset >= 0x10 && offset < 0x28) {
            const std::uint32_t mask = space.writable[(offset - 0x10U) / 4];
            std::uint32_t old;
            std::memcpy(&old, &space.bytes[offset], 4);
            value = static_cast<T>((old & ~mask) | (value & mask));
            std::uint16_t command;
            std::memcpy(&command, &space.bytes[4], 2);
            space.commands.push_back(command);
        }
        std::memcpy(&space.bytes.at(offset), &value, sizeof value);
    }

    std::map<std::tuple<int, int, int>, Space> spaces_;
};

void put32(FakeConfig::Space& space, std::size_t offset, std::uint32_t value) {
    std::memcpy(&space.bytes[offset], &value, 4);
}

/// A function at 0:1.0 with capabilities at 0x40 (MSI), 0x60 (vendor), 0x80 (MSI-X), 0x90 (vendor).
struct Device {
    FakeConfig config;
    FakeConfig::Space& space{config.add({0, 1, 0}, 0x1af4, 0x01'0000)};
    Function function{*probe(config, {0, 1, 0})};
    Device() {
        space.bytes[0x06] = 0x10;
        space.bytes[0x34] = 0x42;  // the low bits are reserved
        put32(space, 0x40, 0x0086'6005);
        put32(space, 0x60, 0x0010'8009);
        put32(space, 0x80, 0x0003'9011);
        put32(space, 0x84, 0x0000'2004);
        put32(space, 0x90, 0x0010'0009);
    }
};

struct FakePorts {
    std::vector<std::pair<std::uint16_t, std::uint32_t>>* log;
    std::uint8_t in8(std::uint16_t port) { return log->emplace_back(port, 0), std::uint8_t{0x11}; }
    std::uint16_t in16(std::uint16_t port) { return log->emplace_back(port, 0), std::uint16_t{0x2222}; }
    std::uint32_t in32(std::uint16_t port) { return log->emplace_back(port, 0), 0x33333333U; }
    void out8(std::uint16_t port, std::uint8_t value) { log->emplace_back(port, value); }
    void out16(std::uint16_t port, std::uint16_t value) { log->emplace_back(port, value); }
    void out32(std::uint16_t port, std::uint32_t value) { log->emplace_back(port, value); }
};

}  // namespace

TEST_CASE("ports reach a register by address and byte lane", "[pci]") {
    std::vector<std::pair<std::uint16_t, std::uint32_t>> log;
    PortConfig config{FakePorts{&log}};
    CHECK(config.read16({2, 31, 7}, 0x06) == 0x2222);
    config.write8({0, 0, 0}, 0x3d, 5);
    CHECK(log == decltype(log){{0xcf8, 0x8002'ff04}, {0xcfe, 0}, {0xcf8, 0x8000'003c}, {0xcfd, 5}});
    log.clear();
    CHECK(config.read32({0, 0, 0}, 0x100) == 0xffff'ffff);
    CHECK(log.empty());
}

TEST_CASE("all functions are found, and no more are asked for than may exist", "[pci]") {
    FakeConfig config;
    config.add({0, 0, 0}, 0x8086, 0x06'0000);
    config.add({0, 3, 0}, 0x1af4, 0x02'0000, 0x80);
    config.add({0, 3, 5}, 0x1af4, 0x01'0802, 0);
    config.add({0, 4, 3}, 0x1af4);  // without a function 0
    config.add({1, 31, 0}, 0x8086, 0x02'0000);
    std::vector<std::tuple<int, int, int>> found;
    bool nvme = false;
    enumerate(config, 0, 255, [&](const Function& f) {
        found.emplace_back(f.address.bus, f.address.device, f.address.function);
        nvme = nvme || (f.is_class(0x01, 0x08) && f.address == Bdf{0, 3, 5});
    });
    CHECK(found == decltype(found){{0, 0, 0}, {0, 3, 0}, {0, 3, 5}, {1, 31, 0}});
    CHECK(nvme);
    CHECK(config.reads < 256 * 32 + 30);
}

TEST_CASE("BARs are decoded and measured while the function is silent", "[pci]") {
    Device d;
    put32(d.space, 0x04, 0x0010'0007);
    put32(d.space, 0x10, 0xfebc'0000);
    d.space.writable[0] = 0xffff'f000;
    put32(d.space, 0x14, 0x0000'c001);
    d.space.writable[1] = 0x0000'ffe0;
    put32(d.space, 0x18, 0x0000'000c);
    put32(d.space, 0x1c, 0x0000'0038);
    d.space.writable[2] = 0x8000'0000;
    d.space.writable[3] = 0xffff'ffff;
    const Bar memory = read_bar(d.config, d.function, 0).value();
    CHECK(memory.space == Bar::Space::memory);
    CHECK(memory.address == 0xfebc'0000);
    CHECK(memory.size == 0x1000);
    CHECK_FALSE(memory.is_64bit);
    const Bar port = read_bar(d.config, d.function, 1).value();
    CHECK(port.space == Bar::Space::port);
    CHECK(port.address == 0xc000);
    CHECK(port.size == 32);
    const Bar wide = read_bar(d.config, d.function, 2).value();
    CHECK(wide.is_64bit);
    CHECK(wide.prefetchable);
    CHECK(wide.address == 0x38'0000'0000);
    CHECK(wide.size == 2 * kGiB);
    CHECK(read_bar(d.config, d.function, 4).error() == Error::not_found);
    CHECK(read_bar(d.config, d.function, 6).error() == Error::invalid_argument);
    CHECK(d.config.read32({0, 1, 0}, 0x1c) == 0x38);
    CHECK(d.config.read16({0, 1, 0}, 0x04) == 7);
    for (const std::uint16_t command : d.space.commands)
        CHECK((command & 3) == 0);
}

TEST_CASE("BARs that make no sense are refused", "[pci]") {
    Device d;
    d.space.writable[0] = 0xff0f'f000;  // not a power of two
    CHECK(read_bar(d.config, d.function, 0).error() == Error::corrupted);
    put32(d.space, 0x24, 0x0000'0004);  // 64 bits wide, but the last one
    d.space.writable[5] = 0xffff'f000;
    CHECK(read_bar(d.config, d.function, 5).error() == Error::corrupted);
    put32(d.space, 0x14, 0x0000'1000);
    d.space.writable[1] = 0xffff'0000;  // address bits below the size
    CHECK(read_bar(d.config, d.function, 1).error() == Error::corrupted);
}

TEST_CASE("capabilities are found, in a list that may be a ring", "[pci]") {
    Device d;
    CHECK(find_capability(d.config, d.function, Capability::msi) == 0x40);
    CHECK(find_capability(d.config, d.function, Capability::vendor) == 0x60);
    CHECK(find_capability(d.config, d.function, Capability::vendor, 0x60) == 0x90);
    CHECK_FALSE(find_capability(d.config, d.function, Capability::vendor, 0x90));
    CHECK_FALSE(find_capability(d.config, d.function, Capability::express));
    d.space.bytes[0x91] = 0x40;
    CHECK_FALSE(find_capability(d.config, d.function, Capability::express));
    d.space.bytes[0x91] = 0x10;  // into the header
    CHECK_FALSE(find_capability(d.config, d.function, Capability::express));
    d.space.bytes[0x06] = 0;
    CHECK_FALSE(find_capability(d.config, d.function, Capability::msi));
}

TEST_CASE("MSI is set before it is turned on, with one vector", "[pci]") {
    Device d;
    d.space.bytes[0x42] |= 0x30;  // somebody had eight vectors
    REQUIRE(enable_msi(d.config, d.function, {0x1'fee0'1000, 0x4051}));
    CHECK(d.config.read16({0, 1, 0}, 0x42) == 0x0087);
    CHECK(d.config.read32({0, 1, 0}, 0x44) == 0xfee0'1000);
    CHECK(d.config.read32({0, 1, 0}, 0x48) == 1);
    CHECK(d.config.read16({0, 1, 0}, 0x4c) == 0x4051);
    put32(d.space, 0x40, 0x0000'6005);  // 32 bits only
    CHECK(enable_msi(d.config, d.function, {0x1'fee0'1000, 1}).error() == Error::unsupported);
    REQUIRE(enable_msi(d.config, d.function, {0xfee0'2000, 0x33}));
    CHECK(d.config.read16({0, 1, 0}, 0x48) == 0x33);
    CHECK(d.config.read16({0, 1, 0}, 0x42) == 1);
    FakeConfig none;
    none.add({0, 2, 0}, 0x8086);
    CHECK(enable_msi(none, *probe(none, {0, 2, 0}), {0, 0}).error() == Error::unsupported);
    CHECK(find_msix(none, *probe(none, {0, 2, 0})).error() == Error::unsupported);
}

TEST_CASE("MSI-X entries are written masked, and turned on last", "[pci]") {
    Device d;
    const MsixTable table = find_msix(d.config, d.function).value();
    CHECK(table.entries == 4);
    CHECK(table.bar == 4);
    CHECK(table.offset == 0x2000);
    CHECK(table.bytes() == 64);
    std::array<std::uint32_t, 16> entries{};
    entries.fill(1);
    set_msix_entry(entries.data(), 2, {0xfee0'3000, 0x42});
    CHECK(entries[8] == 0xfee0'3000);
    CHECK(entries[9] == 0);
    CHECK(entries[10] == 0x42);
    CHECK(entries[11] == 0);
    CHECK(entries[7] == 1);
    CHECK(entries[12] == 1);
    mask_msix_entry(entries.data(), 2);
    CHECK(entries[11] == 1);
    d.space.bytes[0x83] |= 0x40;
    enable_msix(d.config, d.function, table);
    CHECK(d.config.read16({0, 1, 0}, 0x82) == 0x8003);
}

TEST_CASE("a function is turned on without INTx, and off without DMA", "[pci]") {
    Device d;
    enable(d.config, d.function);
    CHECK(d.config.read16({0, 1, 0}, 4) == 0x407);
    disable(d.config, d.function);
    CHECK(d.config.read16({0, 1, 0}, 4) == 0x400);
}

TEST_CASE("a function without a driver is kept from its wire and from nothing else, a bridge from nothing",
          "[pci]") {
    FakeConfig config;
    const auto command_after = [&](std::uint8_t header, std::uint32_t before) {
        put32(config.add({0, 5, 0}, 0x8086, 0x0c'0320, header), 4, before);
        silence(config, *probe(config, {0, 5, 0}));
        return config.read32({0, 5, 0}, 4);
    };
    CHECK(command_after(0x00, 0x0000'0007) == 0x0407);
    CHECK(command_after(0x80, 0x0000'0006) == 0x0406);
    CHECK(command_after(0x00, 0x0000'0000) == 0x0400);
    CHECK(command_after(0x01, 0x0000'0007) == 0x0007);
    CHECK(command_after(0x81, 0x0000'0007) == 0x0007);
}

TEST_CASE("a function's interrupts can be held back, whichever kind they are", "[pci]") {
    Device d;
    REQUIRE(enable_msi(d.config, d.function, {0xfee0'1000, 0x51}));
    mask_msi(d.config, d.function, true);
    CHECK((d.config.read16({0, 1, 0}, 0x42) & 1) == 0);
    mask_msi(d.config, d.function, false);
    CHECK((d.config.read16({0, 1, 0}, 0x42) & 1) == 1);
    const MsixTable table = find_msix(d.config, d.function).value();
    enable_msix(d.config, d.function, table);
    mask_msix(d.config, d.function, table, true);
    CHECK(d.config.read16({0, 1, 0}, 0x82) == 0xc003);
    mask_msix(d.config, d.function, table, false);
    CHECK(d.config.read16({0, 1, 0}, 0x82) == 0x8003);
    enable(d.config, d.function);
    allow_intx(d.config, d.function, true);
    CHECK(d.config.read16({0, 1, 0}, 4) == 0x007);
    allow_intx(d.config, d.function, false);
    CHECK(d.config.read16({0, 1, 0}, 4) == 0x407);
    d.space.bytes[0x3c] = 11;
    d.space.bytes[0x3d] = 1;
    CHECK(intx_routing(d.config, d.function).pin == 1);
    CHECK(intx_routing(d.config, d.function).line == 11);
}
