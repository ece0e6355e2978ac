// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "corpus/acpi_q35.hpp"
#include "drivers/acpi/acpi.hpp"

#include <map>
#include <numeric>
#include <string>
#include <vector>

using namespace hv;
using namespace hv::acpi;

namespace {

using Bytes = std::vector<std::uint8_t>;

/// Pieces of physical memory.
class FakeMemory final : public MemoryReader {
public:
    std::span<const std::byte> read(Hpa address, std::size_t length) override {
        ++reads;
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
    int reads{0};

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

InterruptControllers madt_of(const std::vector<Bytes>& structures) {
    Bytes body;
    append<std::uint32_t>(body, 0xfee0'1000);
    append<std::uint32_t>(body, 1);
    for (const Bytes& s : structures)
        body.insert(body.end(), s.begin(), s.end());
    const Bytes table = make_table("APIC", body);
    return parse_madt(Table{std::as_bytes(std::span{table})}).value();
}

std::optional<SleepType> s5_of(const Bytes& aml) {
    return find_s5(std::as_bytes(std::span{aml}));
}

}  // namespace

TEST_CASE("the tables of QEMU's q35 machine are understood", "[acpi]") {
    FakeMemory memory = q35();
    const AcpiInfo info = read_tables(memory, Hpa{corpus::q35::kRsdpAddress}).value();
    REQUIRE(info.interrupts);
    CHECK(info.interrupts->local_apic == Hpa{0xfee0'0000});
    CHECK(info.interrupts->has_8259);
    REQUIRE(info.interrupts->local_apics.size() == 2);
    CHECK(info.interrupts->local_apics[1].apic_id == 1);
    CHECK(info.interrupts->local_apics[1].enabled);
    REQUIRE(info.interrupts->io_apics.size() == 1);
    CHECK(info.interrupts->io_apics[0].address == Hpa{0xfec0'0000});
    CHECK(info.interrupts->io_apics[0].gsi_base == 0);
    REQUIRE(info.interrupts->overrides.size() == 5);
    CHECK(info.interrupts->overrides[0].isa_irq == 0);
    CHECK(info.interrupts->overrides[0].gsi == 2);
    CHECK(info.interrupts->overrides[2].isa_irq == 9);
    CHECK(info.interrupts->overrides[2].trigger == Trigger::level);
    CHECK(info.interrupts->overrides[2].polarity == Polarity::active_high);
    REQUIRE(info.interrupts->local_nmis.size() == 1);
    CHECK(info.interrupts->local_nmis[0].processor_uid == LocalNmi::kAllProcessors);
    CHECK(info.interrupts->local_nmis[0].lint == 1);
    REQUIRE(info.ecam.size() == 1);
    CHECK(info.ecam[0].base == Hpa{0xb000'0000});
    CHECK(info.ecam[0].last_bus == 255);
    CHECK(info.hpet == Hpa{0xfed0'0000});
    REQUIRE(info.hardware);
    CHECK(info.hardware->pm1a_control.address == 0x604);
    CHECK(info.hardware->pm1a_control.space == GenericAddress::Space::io);
    CHECK_FALSE(info.hardware->pm1b_control);
    CHECK(info.hardware->pm_timer.address == 0x608);
    CHECK(info.hardware->reset.address == 0xcf9);
    CHECK(info.hardware->reset_value == 0x0f);
    CHECK(info.hardware->sci_interrupt == 9);
    CHECK(info.hardware->smi_command == 0xb2);
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
    CHECK(find_rsdp(memory).error() == Error::not_found);
    std::copy(rsdp.begin(), rsdp.end(), memory.at(0xe'0000).begin() + 0x5000);
    CHECK(find_rsdp(memory).value() == Hpa{0xe'5000});
    memory.put(0x400, Bytes(0x100));
    memory.at(0x400)[0x0e] = 0xc0;
    memory.at(0x400)[0x0f] = 0x9f;
    Bytes ebda(kKiB);
    std::copy(rsdp.begin(), rsdp.end(), ebda.begin() + 0x20);
    memory.put(0x9'fc00, ebda);
    CHECK(find_rsdp(memory).value() == Hpa{0x9'fc20});
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
    CHECK(read_tables(memory, Hpa{0x1000}).value().hpet == Hpa{0xfed0'0000});
    memory.at(0x2800)[40] ^= 1;
    CHECK_FALSE(read_tables(memory, Hpa{0x1000}).value().hpet);
    memory.at(0x2000)[0] = 'X';
    CHECK(read_tables(memory, Hpa{0x1000}).error() == Error::corrupted);
    // ACPI 1.0 has no XSDT.
    memory.put(0x2000, make_table("RSDT", rsdt_body));
    memory.put(0x1000, make_rsdp(0, 0x2000, 0x2800));
    CHECK(read_tables(memory, Hpa{0x1000}));
}

TEST_CASE("a bad table is left out, the others count", "[acpi]") {
    using namespace corpus::q35;
    SECTION("checksum") {
        FakeMemory memory = q35();
        memory.at(kMadtAddress)[50] ^= 1;
        const AcpiInfo info = read_tables(memory, Hpa{kRsdpAddress}).value();
        CHECK_FALSE(info.interrupts);
        CHECK(info.hpet);
    }
    SECTION("length") {
        const std::uint8_t length = GENERATE(0, 35);
        FakeMemory memory = q35();
        memory.at(kHpetAddress)[4] = length;
        const AcpiInfo info = read_tables(memory, Hpa{kRsdpAddress}).value();
        CHECK_FALSE(info.hpet);
        CHECK(info.interrupts);
    }
    SECTION("larger than memory") {
        FakeMemory memory = q35();
        memory.at(kMcfgAddress)[7] = 0xff;
        const AcpiInfo info = read_tables(memory, Hpa{kRsdpAddress}).value();
        CHECK(info.ecam.empty());
    }
    SECTION("no memory there") {
        FakeMemory memory = q35();
        memory.at(kRsdtAddress)[36] ^= 0x10;
        fix_checksum(memory.at(kRsdtAddress), 9, memory.at(kRsdtAddress).size());
        CHECK(read_tables(memory, Hpa{kRsdpAddress}));
    }
    SECTION("RSDP") {
        FakeMemory memory = q35();
        memory.at(kRsdpAddress)[12] ^= 1;
        CHECK(read_tables(memory, Hpa{kRsdpAddress}).error() == Error::corrupted);
        CHECK(read_tables(memory, Hpa{0x1234}).error() == Error::corrupted);
    }
}

TEST_CASE("MADT structures of all kinds are read", "[acpi]") {
    const auto result = madt_of({
        structure({0, 8, 1, 4, 1, 0, 0, 0}), structure({0, 8, 2, 6, 0, 0, 0, 0}),  // disabled
        structure({0, 8, 3, 8, 2, 0, 0, 0}),                                       // may come online
        structure({0, 8, 9, 0xff, 1, 0, 0, 0}),                                    // the broadcast ID
        structure({9, 16, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0}),              // the first one again
        structure({9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0}),
        structure({1, 12, 5, 0, 0, 0, 0xc1, 0xfe, 24, 0, 0, 0}),
        structure({2, 10, 0, 7, 20, 0, 0, 0, 0x0f, 0}), structure({3, 8, 0x0d, 0, 3, 0, 0, 0}),
        structure({4, 6, 2, 0x05, 0, 0}), structure({10, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0}),
        structure({5, 12, 0, 0, 0, 0, 0xe0, 0xfe, 1, 0, 0, 0}), structure({200, 3, 0}),  // unknown
    });
    REQUIRE(result.local_apics.size() == 3);
    CHECK(result.local_apics[0].apic_id == 4);
    CHECK(result.local_apics[1].apic_id == 8);
    CHECK_FALSE(result.local_apics[1].enabled);
    CHECK(result.local_apics[2].apic_id == 256);
    CHECK(result.local_apics[2].processor_uid == 7);
    REQUIRE(result.io_apics.size() == 1);
    CHECK(result.io_apics[0].address == Hpa{0xfec1'0000});
    CHECK(result.io_apics[0].gsi_base == 24);
    REQUIRE(result.overrides.size() == 1);
    CHECK(result.overrides[0].polarity == Polarity::active_low);
    REQUIRE(result.nmi_sources.size() == 1);
    CHECK(result.nmi_sources[0].gsi == 3);
    REQUIRE(result.local_nmis.size() == 2);
    CHECK(result.local_nmis[0].processor_uid == 2);
    CHECK(result.local_nmis[1].processor_uid == LocalNmi::kAllProcessors);
    CHECK(result.local_apic == Hpa{0x1'fee0'0000});
}

TEST_CASE("MADT structures without a valid length end the list", "[acpi]") {
    for (const Bytes& broken : {structure({0, 0}), structure({0, 1}), structure({0}), structure({1, 12, 0}),
                                structure({0, 200, 1, 4, 1, 0, 0, 0})}) {
        const auto result = madt_of({structure({0, 8, 1, 4, 1, 0, 0, 0}), broken});
        CHECK(result.local_apics.size() == 1);
        CHECK(result.io_apics.empty());
    }
    const auto result = madt_of({structure({1, 6, 0, 0, 0, 0}), structure({0, 8, 1, 4, 1, 0, 0, 0})});
    CHECK(result.io_apics.empty());
    CHECK(result.local_apics.size() == 1);
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
    CHECK_FALSE(s5({0x08, '_', 'S', '5', '_', 0x12, 0x06, 0x04, 0x0a, 9, 0}));  // more than 3 bits
    CHECK_FALSE(s5({0x08, '_', 'S', '5', '_', 0x12, 0x06, 0x00}));              // empty
    CHECK_FALSE(s5({0x08, '_', 'S', '5', '_'}));
    CHECK_FALSE(s5({0x08, '_', 'S', '5', '_', 0x12}));
    CHECK_FALSE(s5({0x08, '_', 'S', '5', '_', 0x12, 0xc0, 0}));
    CHECK_FALSE(s5({0x08, '_', 'S', '5', '_', 0x12, 0x06, 0x04, 0x0b, 0}));
}

TEST_CASE("extended FADT addresses win, and old FADTs end early", "[acpi]") {
    Bytes fadt(corpus::q35::kFadt, corpus::q35::kFadt + sizeof corpus::q35::kFadt);
    const auto parse = [&] { return parse_fadt(Table{std::as_bytes(std::span{fadt})}); };
    fadt[172] = 1;  // X_PM1a_CNT_BLK
    fadt[173] = 16;
    fadt[176] = 0x34;
    fadt[177] = 0x12;
    CHECK(parse().pm1a_control.address == 0x1234);
    fadt[140] = 0x78;
    fadt[144] = 1;
    CHECK(parse().dsdt.raw >> 32 == 1);
    fadt.resize(116);  // ACPI 1.0
    CHECK(parse().pm1a_control.address == 0x604);
    CHECK(parse().dsdt == Hpa{corpus::q35::kDsdtAddress});
    CHECK_FALSE(parse().reset);
    fadt.resize(kHeaderSize);
    CHECK_FALSE(parse().pm1a_control);
}
