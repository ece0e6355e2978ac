// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "corpus/acpi_q35.hpp"
#include "drivers/acpi/acpi_info.hpp"
#include "drivers/acpi/sleep_type.hpp"

#include <map>
#include <numeric>
#include <string>
#include <vector>

using namespace hv;
using namespace hv::acpi;

namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr std::size_t kHeaderSize = 36;

/// Pieces of physical memory.
class FakeMemory final : public TableMemory {
public:
    std::span<const std::byte> bytes(Hpa address, std::uint64_t length) override {
        auto piece = pieces_.upper_bound(address.raw);
        if (piece == pieces_.begin())
            return {};
        --piece;
        const std::uint64_t offset = address.raw - piece->first;
        if (offset > piece->second.size() || length > piece->second.size() - offset)
            return {};
        return std::as_bytes(std::span{piece->second}).subspan(offset, length);
    }
    void put(std::uint64_t address, Bytes bytes) { pieces_[address] = std::move(bytes); }
    template <std::size_t N>
    void put(std::uint64_t address, const std::uint8_t (&bytes)[N]) {
        put(address, Bytes(bytes, bytes + N));
    }
    Bytes& at(std::uint64_t address) { return pieces_.at(address); }

private:
    std::map<std::uint64_t, Bytes> pieces_;
};

void fix_checksum(Bytes& bytes, std::size_t at, std::size_t length) {
    bytes[at] = 0;
    bytes[at] = static_cast<std::uint8_t>(
        -std::accumulate(bytes.begin(), bytes.begin() + static_cast<long>(length), 0));
}

template <class T>
void append(Bytes& bytes, T value) {
    for (std::size_t i = 0; i < sizeof value; ++i)
        bytes.push_back(static_cast<std::uint8_t>(static_cast<std::uint64_t>(value) >> (8 * i)));
}

Bytes make_table(const std::string& signature, const Bytes& body) {
    Bytes table(signature.begin(), signature.end());
    append<std::uint32_t>(table, static_cast<std::uint32_t>(kHeaderSize + body.size()));
    table.resize(kHeaderSize);
    table.insert(table.end(), body.begin(), body.end());
    fix_checksum(table, 9, table.size());
    return table;
}

/// Reads the tables of the RSDP at an address.
Expected<AcpiInfo> read_from(FakeMemory& memory, std::uint64_t rsdp) {
    const auto bytes = memory.bytes(Hpa{rsdp}, 36);
    return read_tables(bytes.empty() ? memory.bytes(Hpa{rsdp}, 20) : bytes, memory);
}

Bytes make_rsdp(std::uint8_t revision, std::uint32_t rsdt, std::uint64_t xsdt) {
    Bytes rsdp{'R', 'S', 'D', ' ', 'P', 'T', 'R', ' ', 0, 'c', 'a', 'i', 'r', 'n', ' ', revision};
    append(rsdp, rsdt);
    append<std::uint32_t>(rsdp, 36);
    append(rsdp, xsdt);
    append<std::uint32_t>(rsdp, 0);
    fix_checksum(rsdp, 8, 20);
    fix_checksum(rsdp, 32, 36);
    return rsdp;
}

FakeMemory q35() {
    using namespace corpus::q35;
    FakeMemory memory;
    memory.put(kRsdpAddress, kRsdp);
    memory.put(kRsdtAddress, kRsdt);
    memory.put(kFadtAddress, kFadt);
    memory.put(kMadtAddress, kMadt);
    memory.put(kHpetAddress, kHpet);
    memory.put(kMcfgAddress, kMcfg);
    memory.put(kWaetAddress, kWaet);
    memory.put(kDsdtAddress, make_table("DSDT", Bytes(std::begin(kDsdtPart), std::end(kDsdtPart))));
    return memory;
}

Bytes structure(std::initializer_list<int> bytes) {
    Bytes result;
    for (const int b : bytes)
        result.push_back(static_cast<std::uint8_t>(b));
    return result;
}

/// What a machine with one table tells.
AcpiInfo info_of(Bytes table) {
    FakeMemory memory;
    Bytes rsdt;
    append<std::uint32_t>(rsdt, 0x4000);
    memory.put(0x1000, make_rsdp(0, 0x2000, 0));
    memory.put(0x2000, make_table("RSDT", rsdt));
    memory.put(0x4000, std::move(table));
    return read_from(memory, 0x1000).value();
}

AcpiInfo madt_of(const std::vector<Bytes>& structures) {
    Bytes body;
    append<std::uint32_t>(body, 0xfee0'1000);
    append<std::uint32_t>(body, 1);
    for (const Bytes& s : structures)
        body.insert(body.end(), s.begin(), s.end());
    return info_of(make_table("APIC", body));
}

std::optional<SleepType> s5_of(const Bytes& aml) {
    return find_s5(std::as_bytes(std::span{aml}));
}

}  // namespace

TEST_CASE("the tables of QEMU's q35 machine are understood", "[acpi]") {
    FakeMemory memory = q35();
    const AcpiInfo info = read_from(memory, corpus::q35::kRsdpAddress).value();
    CHECK(info.local_apic == Hpa{0xfee0'0000});
    CHECK(std::vector(info.cpus.begin(), info.cpus.end()) == std::vector<std::uint32_t>{0, 1});
    REQUIRE(info.io_apics.size() == 1);
    CHECK(info.io_apics[0].address == Hpa{0xfec0'0000});
    CHECK(info.io_apics[0].first_gsi == 0);
    REQUIRE(info.overrides.size() == 5);
    CHECK(info.overrides[0].irq == 0);
    CHECK(info.overrides[0].gsi == 2);
    CHECK_FALSE(info.overrides[0].level);
    CHECK(info.overrides[2].irq == 9);
    CHECK(info.overrides[2].level);
    CHECK_FALSE(info.overrides[2].active_low);
    REQUIRE(info.ecam);
    CHECK(info.ecam->address == Hpa{0xb000'0000});
    CHECK(info.ecam->last_bus == 255);
    CHECK(info.hpet == Hpa{0xfed0'0000});
    CHECK(info.pm1a_control == 0x604);
    CHECK(info.pm1b_control == 0);
    CHECK(info.pm_timer == 0x608);
    CHECK(info.smi_command == 0xb2);
    CHECK(info.acpi_enable == 2);
    REQUIRE(info.reset_register);
    CHECK(info.reset_register->space == Register::Space::port);
    CHECK(info.reset_register->address == 0xcf9);
    CHECK(info.reset_value == 0x0f);
    REQUIRE(info.s5);
    CHECK(info.s5->a == 0);
    CHECK(info.s5->b == 0);
}

TEST_CASE("the RSDP is found in the BIOS area, on 16-byte boundaries with a right checksum", "[acpi]") {
    FakeMemory memory;
    Bytes bios(0x2'0000);
    const Bytes rsdp = make_rsdp(0, 0x1000, 0);
    std::copy(rsdp.begin(), rsdp.end(), bios.begin() + 0x108);  // not aligned
    Bytes broken = rsdp;
    broken[10] ^= 1;
    std::copy(broken.begin(), broken.end(), bios.begin() + 0x200);
    memory.put(0xe'0000, bios);
    CHECK(find_rsdp(memory).empty());
    std::copy(rsdp.begin(), rsdp.end(), memory.at(0xe'0000).begin() + 0x5000);
    CHECK(find_rsdp(memory).data() == memory.bytes(Hpa{0xe'5000}, 1).data());
    memory.put(0x400, Bytes(0x100));
    memory.at(0x400)[0x0e] = 0xc0;
    memory.at(0x400)[0x0f] = 0x9f;
    Bytes ebda(kKiB);
    std::copy(rsdp.begin(), rsdp.end(), ebda.begin() + 0x20);
    memory.put(0x9'fc00, ebda);
    CHECK(find_rsdp(memory).data() == memory.bytes(Hpa{0x9'fc20}, 1).data());
    memory.at(0x400)[0x0e] = 0xff;  // no EBDA below 640 KiB
    memory.at(0x400)[0x0f] = 0xff;
    CHECK(find_rsdp(memory).data() == memory.bytes(Hpa{0xe'5000}, 1).data());
}

TEST_CASE("the XSDT comes first, and the RSDT where the XSDT is broken", "[acpi]") {
    FakeMemory memory;
    const std::uint64_t high = 0x1'2345'0000;
    Bytes xsdt_body, rsdt_body, hpet_body(4);
    append(xsdt_body, high);
    append<std::uint64_t>(xsdt_body, 0);  // a hole
    append<std::uint32_t>(rsdt_body, 0x3000);
    Bytes hpet = hpet_body;
    append<std::uint32_t>(hpet, 0x0000'4000);
    append<std::uint64_t>(hpet, 0xfed0'0000);
    memory.put(high, make_table("HPET", hpet));
    memory.put(0x1000, make_rsdp(2, 0x2000, 0x2800));
    memory.put(0x2000, make_table("RSDT", rsdt_body));
    memory.put(0x2800, make_table("XSDT", xsdt_body));
    CHECK(read_from(memory, 0x1000).value().hpet == Hpa{0xfed0'0000});
    memory.at(0x2800)[40] ^= 1;
    CHECK_FALSE(read_from(memory, 0x1000).value().hpet);
    memory.at(0x2000)[0] = 'X';
    CHECK(read_from(memory, 0x1000).error() == Error::corrupted);
    // ACPI 1.0 has no XSDT.
    memory.put(0x2000, make_table("RSDT", rsdt_body));
    memory.put(0x1000, make_rsdp(0, 0x2000, 0x2800));
    CHECK(read_from(memory, 0x1000));
}

TEST_CASE("a bad table is left out, the others count", "[acpi]") {
    using namespace corpus::q35;
    SECTION("checksum") {
        FakeMemory memory = q35();
        memory.at(kMadtAddress)[50] ^= 1;
        const AcpiInfo info = read_from(memory, kRsdpAddress).value();
        CHECK(info.cpus.empty());
        CHECK(info.hpet);
    }
    SECTION("length") {
        const std::uint8_t length = GENERATE(0, 35);
        FakeMemory memory = q35();
        memory.at(kHpetAddress)[4] = length;
        const AcpiInfo info = read_from(memory, kRsdpAddress).value();
        CHECK_FALSE(info.hpet);
        CHECK_FALSE(info.cpus.empty());
    }
    SECTION("larger than memory") {
        FakeMemory memory = q35();
        memory.at(kMcfgAddress)[7] = 0xff;
        const AcpiInfo info = read_from(memory, kRsdpAddress).value();
        CHECK_FALSE(info.ecam);
    }
    SECTION("no memory there") {
        FakeMemory memory = q35();
        memory.at(kRsdtAddress)[36] ^= 0x10;
        fix_checksum(memory.at(kRsdtAddress), 9, memory.at(kRsdtAddress).size());
        CHECK(read_from(memory, kRsdpAddress));
    }
    SECTION("RSDP") {
        FakeMemory memory = q35();
        memory.at(kRsdpAddress)[12] ^= 1;
        CHECK(read_from(memory, kRsdpAddress).error() == Error::corrupted);
        CHECK(read_from(memory, 0x1234).error() == Error::corrupted);
    }
}

TEST_CASE("MADT structures are read, each processor once and only if enabled", "[acpi]") {
    const auto info = madt_of({
        structure({0, 8, 1, 4, 1, 0, 0, 0}), structure({0, 8, 2, 6, 0, 0, 0, 0}),  // disabled
        structure({0, 8, 3, 8, 2, 0, 0, 0}),                                       // not there yet
        structure({0, 8, 9, 0xff, 1, 0, 0, 0}),                                    // the broadcast ID
        structure({9, 16, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0}),              // the first one again
        structure({9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0}),
        structure({1, 12, 5, 0, 0, 0, 0xc1, 0xfe, 24, 0, 0, 0}),
        structure({2, 10, 0, 7, 20, 0, 0, 0, 0x0f, 0}),
        structure({5, 12, 0, 0, 0, 0, 0xe0, 0xfe, 1, 0, 0, 0}), structure({200, 3, 0}),  // unknown
    });
    CHECK(std::vector(info.cpus.begin(), info.cpus.end()) == std::vector<std::uint32_t>{4, 256});
    REQUIRE(info.io_apics.size() == 1);
    CHECK(info.io_apics[0].address == Hpa{0xfec1'0000});
    CHECK(info.io_apics[0].first_gsi == 24);
    REQUIRE(info.overrides.size() == 1);
    CHECK(info.overrides[0].active_low);
    CHECK(info.overrides[0].level);
    CHECK(info.local_apic == Hpa{0x1'fee0'0000});
}

TEST_CASE("MADT structures without a valid length end the list", "[acpi]") {
    for (const Bytes& broken : {structure({0, 0}), structure({0, 1}), structure({0}), structure({1, 12, 0}),
                                structure({0, 200, 1, 4, 1, 0, 0, 0})}) {
        const auto result = madt_of({structure({0, 8, 1, 4, 1, 0, 0, 0}), broken});
        CHECK(result.cpus.size() == 1);
        CHECK(result.io_apics.empty());
    }
    const auto result = madt_of({structure({1, 6, 0, 0, 0, 0}), structure({0, 8, 1, 4, 1, 0, 0, 0})});
    CHECK(result.io_apics.empty());
    CHECK(result.cpus.size() == 1);
}

TEST_CASE("the S5 values are found in every way that compilers write them", "[acpi]") {
    const auto s5 = [](std::initializer_list<int> bytes) { return s5_of(structure(bytes)); };
    const auto plain = s5({0x10, 0x08, '_', 'S', '5', '_', 0x12, 0x07, 0x04, 0x0a, 0x05, 0x0a, 0x07, 0, 0});
    REQUIRE(plain);
    CHECK(plain->a == 5);
    CHECK(plain->b == 7);
    const auto rooted = s5({0x08, '\\', '_', 'S', '5', '_', 0x12, 0x46, 0x00, 0x04, 0x01, 0x00, 0, 0});
    REQUIRE(rooted);
    CHECK(rooted->a == 1);
    CHECK(rooted->b == 0);
    const auto word = s5({0x08, '_', 'S', '5', '_', 0x12, 0x08, 0x02, 0x0b, 0x06, 0x00, 0x0c, 0x03, 0, 0, 0});
    REQUIRE(word);
    CHECK(word->a == 6);
    CHECK(word->b == 3);
    CHECK_FALSE(s5({'_', 'S', '5', '_', 0x12, 0x06, 0x04, 0, 0, 0, 0}));        // no Name before it
    CHECK_FALSE(s5({0x08, '_', 'S', '5', '_', 0x11, 0x06, 0x04, 0, 0, 0, 0}));  // no package
    CHECK_FALSE(s5({0x08, '_', 'S', '5', '_', 0x12, 0x06, 0x00}));              // empty
    CHECK_FALSE(s5({0x08, '_', 'S', '5', '_'}));
    CHECK_FALSE(s5({0x08, '_', 'S', '5', '_', 0x12}));
    CHECK_FALSE(s5({0x08, '_', 'S', '5', '_', 0x12, 0xc0, 0}));
    CHECK_FALSE(s5({0x08, '_', 'S', '5', '_', 0x12, 0x06, 0x04, 0x0b, 0}));
}

TEST_CASE("extended FADT addresses win, and old FADTs end early", "[acpi]") {
    Bytes fadt(corpus::q35::kFadt, corpus::q35::kFadt + sizeof corpus::q35::kFadt);
    const auto parse = [&] {
        fadt[4] = static_cast<std::uint8_t>(fadt.size());
        fix_checksum(fadt, 9, fadt.size());
        return info_of(fadt);
    };
    fadt[172] = 1;  // X_PM1a_CNT_BLK
    fadt[173] = 16;
    fadt[176] = 0x34;
    fadt[177] = 0x12;
    CHECK(parse().pm1a_control == 0x1234);
    fadt[178] = 1;  // no port
    CHECK(parse().pm1a_control == 0x604);
    fadt.resize(116);  // ACPI 1.0
    CHECK(parse().pm1a_control == 0x604);
    CHECK_FALSE(parse().reset_register);
    fadt.resize(kHeaderSize);
    CHECK(parse().pm1a_control == 0);
}

TEST_CASE("an S5 package in an SSDT counts, whatever comes first", "[acpi]") {
    FakeMemory memory = q35();
    const Bytes s5 = structure({0x08, '_', 'S', '5', '_', 0x12, 0x07, 0x04, 0x0a, 0x05, 0x0a, 0x05, 0, 0});
    Bytes rsdt;
    append<std::uint32_t>(rsdt, 0x5000);
    append<std::uint32_t>(rsdt, static_cast<std::uint32_t>(corpus::q35::kFadtAddress));
    memory.put(corpus::q35::kRsdtAddress, make_table("RSDT", rsdt));
    memory.put(corpus::q35::kDsdtAddress, make_table("DSDT", {}));
    memory.put(0x5000, make_table("SSDT", s5));
    const AcpiInfo info = read_from(memory, corpus::q35::kRsdpAddress).value();
    REQUIRE(info.s5);
    CHECK(info.s5->a == 5);
}
