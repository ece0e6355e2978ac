// SPDX-License-Identifier: MIT
#include "vmm/core/guest_map.hpp"
#include "vmm/loader/acpi_tables.hpp"
#include "vmm/loader/loader_fixture.hpp"

#include <map>
#include <set>

using namespace hv;
using namespace hv::loader;

namespace {

unsigned sum(const std::vector<std::byte>& bytes) {
    unsigned total = 0;
    for (const std::byte each : bytes)
        total += std::to_integer<unsigned>(each);
    return total & 0xff;
}

/// Tables by signature, found as an operating system finds them; every checksum is checked.
class Tables {
public:
    explicit Tables(const AcpiBoard& board) : guest{2 * kMiB} {
        const auto built = build_acpi_tables(board, guest.memory);
        REQUIRE(built.has_value());
        rsdp = built->raw;
        REQUIRE(rsdp % 16 == 0);
        REQUIRE(guest.text(rsdp).starts_with("RSD PTR "));
        REQUIRE(sum(guest.bytes(rsdp, 20)) == 0);
        REQUIRE(sum(guest.bytes(rsdp, 36)) == 0);
        REQUIRE(guest.get<std::uint8_t>(rsdp + 15) == 2);
        const auto rsdt = read(guest.get<std::uint32_t>(rsdp + 16));
        const auto xsdt = read(guest.get<std::uint64_t>(rsdp + 24));
        REQUIRE((rsdt.size() - 36) / 4 == (xsdt.size() - 36) / 8);
        for (std::size_t i = 0; i < (xsdt.size() - 36) / 8; ++i) {
            const auto at = load<std::uint64_t>(xsdt.data() + 36 + 8 * i);
            CHECK(at == load<std::uint32_t>(rsdt.data() + 36 + 4 * i));
            read(at);
        }
        const auto& fadt = by_name.at("FACP");
        read(load<std::uint32_t>(fadt.data() + 40));
    }
    std::vector<std::byte> read(std::uint64_t at) {
        CHECK(at >= guest_map::kFirmwareStart);
        const auto size = guest.get<std::uint32_t>(at + 4);
        REQUIRE(at + size <= guest_map::kMpTable);
        auto table = guest.bytes(at, size);
        REQUIRE(sum(table) == 0);
        by_name[std::string{reinterpret_cast<const char*>(table.data()), 4}] = table;
        return table;
    }
    template <class T>
    T get(const std::string& name, std::size_t offset) {
        return *load_at<T>(by_name.at(name), offset);
    }

    Guest guest;
    std::uint64_t rsdp{};
    std::map<std::string, std::vector<std::byte>> by_name;
};

}  // namespace

TEST_CASE("all tables are found from the RSDP, with right checksums", "[loader]") {
    Tables tables{{.vcpus = 2, .hpet = true}};
    for (const char* name : {"FACP", "APIC", "MCFG", "HPET", "DSDT"})
        CHECK(tables.by_name.contains(name));
    CHECK(tables.rsdp == guest_map::kFirmwareStart);
    CHECK_FALSE(Tables{{.vcpus = 1, .hpet = false}}.by_name.contains("HPET"));
}

TEST_CASE("the FADT describes the fixed registers", "[loader]") {
    Tables tables{{}};
    CHECK(tables.by_name.at("FACP").size() == 276);
    CHECK(tables.get<std::uint16_t>("FACP", 46) == 9);
    CHECK(tables.get<std::uint32_t>("FACP", 56) == 0x600);
    CHECK(tables.get<std::uint32_t>("FACP", 64) == 0x604);
    CHECK(tables.get<std::uint32_t>("FACP", 76) == 0x608);
    CHECK((tables.get<std::uint32_t>("FACP", 112) & (1U << 10)) != 0);  // RESET_REG_SUP
    CHECK((tables.get<std::uint32_t>("FACP", 112) & (1U << 4)) == 0);   // a fixed power button
    CHECK(tables.get<std::uint8_t>("FACP", 116) == 1);
    CHECK(tables.get<std::uint64_t>("FACP", 120) == 0xcf9);
    CHECK(tables.get<std::uint8_t>("FACP", 128) == 6);
    const auto facs = tables.get<std::uint32_t>("FACP", 36);
    CHECK(facs % 64 == 0);
    CHECK(tables.guest.get<std::uint32_t>(facs) == 0x5343'4146);
    CHECK(tables.guest.get<std::uint32_t>(facs + 4) == 64);
}

TEST_CASE("the MADT lists every processor once, by xAPIC or x2APIC entry", "[loader]") {
    for (const unsigned vcpus : {1U, 255U, 300U}) {
        Tables tables{{.vcpus = vcpus}};
        std::set<std::uint32_t> ids;
        std::map<unsigned, unsigned> counts;
        const auto& madt = tables.by_name.at("APIC");
        for (std::size_t at = 44; at < madt.size();) {
            const auto type = load<std::uint8_t>(madt.data() + at);
            const auto length = load<std::uint8_t>(madt.data() + at + 1);
            REQUIRE(length >= 6);
            REQUIRE(at + length <= madt.size());
            ++counts[type];
            if (type == 0) {
                CHECK(ids.insert(load<std::uint8_t>(madt.data() + at + 3)).second);
                CHECK(load<std::uint32_t>(madt.data() + at + 4) == 1);
            } else if (type == 9) {
                CHECK(ids.insert(load<std::uint32_t>(madt.data() + at + 4)).second);
                CHECK(load<std::uint32_t>(madt.data() + at + 8) == 1);
            } else if (type == 1) {
                CHECK(load<std::uint32_t>(madt.data() + at + 4) == 0xfec0'0000);
            } else if (type == 2 && load<std::uint8_t>(madt.data() + at + 3) == 0) {
                CHECK(load<std::uint32_t>(madt.data() + at + 4) == 2);
            } else if (type == 2) {
                CHECK(load<std::uint32_t>(madt.data() + at + 4) == 9);
                CHECK(load<std::uint16_t>(madt.data() + at + 8) == 0xd);
            }
            at += length;
        }
        CHECK(ids.size() == vcpus);
        CHECK(*ids.rbegin() == vcpus - 1);
        CHECK(counts[0] == std::min(vcpus, 255U));
        CHECK(counts[1] == 1);
        CHECK(counts[2] == 2);
        CHECK(counts[4] == 1);
        CHECK(counts[10] == (vcpus > 255 ? 1 : 0));
    }
}

TEST_CASE("MCFG names bus 0 alone", "[loader]") {
    Tables tables{{}};
    CHECK(tables.by_name.at("MCFG").size() == 60);
    CHECK(tables.get<std::uint64_t>("MCFG", 44) == 0xe000'0000);
    CHECK(tables.get<std::uint8_t>("MCFG", 54) == 0);
    CHECK(tables.get<std::uint8_t>("MCFG", 55) == 0);
}

TEST_CASE("the DSDT's outer blocks reach exactly its end", "[loader]") {
    Tables tables{{.vcpus = 1, .hpet = true}};
    const auto& dsdt = tables.by_name.at("DSDT");
    const auto byte = [&](std::size_t at) { return std::to_integer<std::size_t>(dsdt.at(at)); };
    std::size_t at = 36;
    REQUIRE(std::string{reinterpret_cast<const char*>(&dsdt[at]), 6} == "\x08\\_S5_");
    at += 6;
    REQUIRE(byte(at) == 0x12);
    CHECK(byte(at + 3) == 0x0a);
    CHECK(byte(at + 4) == guest_map::kSleepTypeS5);
    at += 1 + byte(at + 1);
    REQUIRE(std::string{reinterpret_cast<const char*>(&dsdt[at]), 5} == "\x08PICM");
    at += 6;
    REQUIRE(byte(at) == 0x14);  // \\_PIC
    at += 1 + byte(at + 1);
    REQUIRE(byte(at) == 0x10);
    const std::size_t extra = byte(at + 1) >> 6;
    std::size_t length = byte(at + 1) & 0xf;
    for (std::size_t i = 0; i < extra; ++i)
        length |= byte(at + 2 + i) << (4 + 8 * i);
    CHECK(at + 1 + length == dsdt.size());
}

TEST_CASE("PCI interrupts are routed to the I/O APIC or to the 8259s", "[loader]") {
    Tables tables{{}};
    const auto& dsdt = tables.by_name.at("DSDT");
    const std::string text{reinterpret_cast<const char*>(dsdt.data()), dsdt.size()};
    const auto interrupt_of = [&](const char* name, unsigned device) {
        // Name, package of 31 with a length in two bytes; each element: package of four, address (five
        // bytes), pin, no source, interrupt as a byte constant.
        const std::size_t first = text.find(std::string{"\x08"} + name) + 5 + 4;
        std::size_t at = first;
        for (unsigned i = 1; i < device; ++i)
            at += 1 + std::to_integer<std::size_t>(dsdt.at(at + 1));
        CHECK(load<std::uint32_t>(dsdt.data() + at + 4) == (device << 16 | 0xffff));
        return std::to_integer<unsigned>(dsdt.at(at + 11));
    };
    for (unsigned device = 1; device <= 31; ++device) {
        CHECK(interrupt_of("PRTA", device) == 16 + device % 8);
        CHECK(interrupt_of("PRTP", device) == 10 + device % 2);
    }
}

TEST_CASE("tables that do not fit the firmware's memory are refused", "[loader]") {
    Guest guest{2 * kMiB};
    CHECK(build_acpi_tables({.vcpus = 3000}, guest.memory).has_value());
    CHECK(build_acpi_tables({.vcpus = 10000}, guest.memory).error() == Error::out_of_range);
}
