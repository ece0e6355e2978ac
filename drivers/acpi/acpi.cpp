// SPDX-License-Identifier: MIT
#include "drivers/acpi/acpi.hpp"

#include "vmm/base/log.hpp"

namespace hv::acpi {
namespace {

constexpr std::string_view kRsdpSignature = "RSD PTR ";
constexpr std::size_t kRsdpSize1 = 20;  ///< of ACPI 1.0
constexpr std::size_t kRsdpSize2 = 36;

/// Where the RSDT or XSDT is [acpi6.5 5.2.5.3 Root System Description Pointer (RSDP) Structure].
struct Roots {
    Hpa rsdt;
    Hpa xsdt;  ///< 0: none
};

Expected<Roots> parse_rsdp(std::span<const std::byte> bytes) {
    if (bytes.size() < kRsdpSize1 ||
        std::string_view{reinterpret_cast<const char*>(bytes.data()), kRsdpSignature.size()} !=
            kRsdpSignature ||
        !checksum_ok(bytes.first(kRsdpSize1)))
        return Unexpected{Error::corrupted};
    Roots roots{Hpa{load<std::uint32_t>(bytes.data() + 16)}, Hpa{0}};
    const auto revision = load<std::uint8_t>(bytes.data() + 15);
    if (revision >= 2 && bytes.size() >= kRsdpSize2 && checksum_ok(bytes.first(kRsdpSize2)))
        roots.xsdt = Hpa{load<std::uint64_t>(bytes.data() + 24)};
    return roots;
}

Expected<Table> read_root(MemoryReader& memory, Hpa address, std::string_view signature) {
    if (address == Hpa{})
        return Unexpected{Error::not_found};
    const Table table = HV_TRY(read_table(memory, address));
    if (table.signature() != signature) {
        log::warning(log::Topic::acpi, "no %.*s where the RSDP says", static_cast<int>(signature.size()),
                     signature.data());
        return Unexpected{Error::corrupted};
    }
    return table;
}

Expected<void> parse_mcfg(const Table& mcfg, Vec<EcamRegion>& regions) {
    constexpr std::size_t kFirst = 44;
    constexpr std::size_t kSize = 16;
    for (std::size_t offset = kFirst; offset + kSize <= mcfg.bytes.size(); offset += kSize) {
        const EcamRegion region{Hpa{mcfg.field<std::uint64_t>(offset)}, mcfg.field<std::uint16_t>(offset + 8),
                                mcfg.field<std::uint8_t>(offset + 10), mcfg.field<std::uint8_t>(offset + 11)};
        if (region.base == Hpa{} || !region.base.aligned(kMiB) || region.first_bus > region.last_bus)
            log::warning(log::Topic::acpi, "MCFG: entry at offset %zu makes no sense, skipped", offset);
        else
            HV_TRY(regions.push(region));
    }
    return {};
}

void find_s5_in(MemoryReader& memory, Hpa address, AcpiInfo& info) {
    if (const auto table = read_table(memory, address); table && !info.s5)
        info.s5 = find_s5(table->body());
}

Expected<void> add_table(MemoryReader& memory, const Table& table, AcpiInfo& info) {
    if (table.signature() == "APIC" && !info.interrupts) {
        info.interrupts = HV_TRY(parse_madt(table));
    } else if (table.signature() == "MCFG" && info.ecam.empty()) {
        HV_TRY(parse_mcfg(table, info.ecam));
    } else if (table.signature() == "FACP" && !info.hardware) {
        info.hardware = parse_fadt(table);
        if (info.hardware->dsdt != Hpa{})
            find_s5_in(memory, info.hardware->dsdt, info);
    } else if (table.signature() == "SSDT" && !info.s5) {
        info.s5 = find_s5(table.body());
    } else if (table.signature() == "HPET" && !info.hpet) {
        const GenericAddress block =
            generic_address(table.bytes, 40);  // [hpet 3.2.4 The ACPI 2.0 HPET Description Table]
        if (block && block.space == GenericAddress::Space::memory)
            info.hpet = Hpa{block.address};
    }
    return {};
}

template <class Pointer>
Expected<AcpiInfo> follow(MemoryReader& memory, const Table& root) {
    constexpr std::size_t kMostTables = 1024;
    AcpiInfo info;
    const std::size_t count = root.body().size() / sizeof(Pointer);
    for (std::size_t i = 0; i < count && i < kMostTables; ++i) {
        const Hpa address{root.field<Pointer>(kHeaderSize + i * sizeof(Pointer))};
        if (address == Hpa{})
            continue;
        if (const auto table = read_table(memory, address))
            HV_TRY(add_table(memory, *table, info));
    }
    return info;
}

Expected<AcpiInfo> follow_roots(MemoryReader& memory, const Roots& roots) {
    if (const auto xsdt = read_root(memory, roots.xsdt, "XSDT"))
        return follow<std::uint64_t>(memory, *xsdt);
    if (const auto rsdt = read_root(memory, roots.rsdt, "RSDT"))
        return follow<std::uint32_t>(memory, *rsdt);
    return Unexpected{Error::corrupted};
}

}  // namespace

Expected<Hpa> find_rsdp(MemoryReader& memory) {
    struct Area {
        Hpa start;
        std::size_t length;
    };
    Area areas[] = {{Hpa{0}, kKiB}, {Hpa{0xe'0000}, 0x2'0000}};
    // The BIOS data area names the EBDA's segment.
    if (const auto segment = memory.read(Hpa{0x40e}, 2); segment.size() == 2)
        areas[0].start = Hpa{std::uint64_t{load<std::uint16_t>(segment.data())} << 4};
    for (const Area& area : areas) {
        if (area.start == Hpa{})
            continue;
        const auto bytes = memory.read(area.start, area.length);
        for (std::size_t offset = 0; offset + kRsdpSize1 <= bytes.size(); offset += 16) {
            if (parse_rsdp(bytes.subspan(offset)))
                return area.start + offset;
        }
    }
    return Unexpected{Error::not_found};
}

Expected<AcpiInfo> read_tables(MemoryReader& memory, Hpa rsdp) {
    auto bytes = memory.read(rsdp, kRsdpSize2);
    if (bytes.empty())
        bytes = memory.read(rsdp, kRsdpSize1);
    return read_tables(memory, bytes);
}

Expected<AcpiInfo> read_tables(MemoryReader& memory, std::span<const std::byte> rsdp) {
    const auto roots = parse_rsdp(rsdp);
    if (!roots) {
        log::warning(log::Topic::acpi, "no valid RSDP");
        return Unexpected{Error::corrupted};
    }
    return follow_roots(memory, *roots);
}

}  // namespace hv::acpi
