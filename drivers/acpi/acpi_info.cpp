// SPDX-License-Identifier: MIT
#include "drivers/acpi/acpi_info.hpp"

#include "drivers/acpi/sleep_type.hpp"
#include "vmm/base/bytes.hpp"
#include "vmm/base/log.hpp"

#include <algorithm>
#include <string_view>

namespace hv::acpi {
namespace {

using Bytes = std::span<const std::byte>;
using log::Topic;

constexpr std::size_t kHeaderSize = 36;
constexpr std::uint32_t kLargestTable = 4 * kMiB;
constexpr std::size_t kRsdp0Size = 20;
constexpr std::size_t kRsdp2Size = 36;

/// All bytes add up to zero.
bool checksum_is_right(Bytes bytes) {
    unsigned sum = 0;
    for (const std::byte b : bytes)
        sum += std::to_integer<unsigned>(b);
    return (sum & 0xff) == 0;
}

std::string_view signature_of(Bytes table) {
    return {reinterpret_cast<const char*>(table.data()), 4};
}

bool is_rsdp(Bytes bytes) {
    return bytes.size() >= kRsdp0Size &&
           std::string_view{reinterpret_cast<const char*>(bytes.data()), 8} == "RSD PTR " &&
           checksum_is_right(bytes.first(kRsdp0Size));
}

/// The whole table at `address`, or an empty span and a log line.
Bytes table_at(Hpa address, TableMemory& memory) {
    const auto u = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
    const Bytes header = memory.bytes(address, kHeaderSize);
    if (header.size() < kHeaderSize) {
        log::warning(Topic::acpi, "a table at 0x%llx cannot be read", u(address.raw));
        return {};
    }
    const auto length = load<std::uint32_t>(header.data() + 4);
    const Bytes table =
        length < kHeaderSize || length > kLargestTable ? Bytes{} : memory.bytes(address, length);
    if (table.size() != length || table.empty()) {
        log::warning(Topic::acpi, "the table at 0x%llx has an impossible length of %u", u(address.raw),
                     length);
        return {};
    }
    if (!checksum_is_right(table)) {
        log::warning(Topic::acpi, "%.4s at 0x%llx has a wrong checksum and is skipped",
                     signature_of(table).data(), u(address.raw));
        return {};
    }
    return table;
}

/// A processor may be listed as local APIC and as local x2APIC; the broadcast ID stands for an entry left
/// out.
Expected<void> add_cpu(AcpiInfo& info, std::uint32_t apic_id, std::uint32_t broadcast, std::uint32_t flags) {
    constexpr std::uint32_t kEnabled = 1;
    if ((flags & kEnabled) == 0 || apic_id == broadcast ||
        std::find(info.cpus.begin(), info.cpus.end(), apic_id) != info.cpus.end())
        return {};
    return info.cpus.push(apic_id);
}

Expected<void> read_madt_entry(Bytes entry, AcpiInfo& info) {
    enum Type : std::uint8_t {
        kLocalApic = 0,
        kIoApic = 1,
        kOverride = 2,
        kLocalApicAddress = 5,
        kX2apic = 9
    };
    const auto byte = [&](std::size_t at) { return std::to_integer<std::uint8_t>(entry[at]); };
    switch (byte(0)) {
    case kLocalApic:
        if (entry.size() >= 8)
            return add_cpu(info, byte(3), 0xff, load<std::uint32_t>(entry.data() + 4));
        break;
    case kX2apic:
        if (entry.size() >= 16)
            return add_cpu(info, load<std::uint32_t>(entry.data() + 4), 0xffff'ffff,
                           load<std::uint32_t>(entry.data() + 8));
        break;
    case kIoApic:
        if (entry.size() >= 12)
            return info.io_apics.push(
                {byte(2), Hpa{load<std::uint32_t>(entry.data() + 4)}, load<std::uint32_t>(entry.data() + 8)});
        break;
    case kOverride:
        if (entry.size() >= 10) {
            // [acpi 5.2.12.5 Interrupt Source Override Structure] polarity 1:0, trigger mode 3:2; 3 is low,
            // level
            const auto flags = load<std::uint16_t>(entry.data() + 8);
            return info.overrides.push(
                {byte(3), load<std::uint32_t>(entry.data() + 4), (flags & 3) == 3, (flags >> 2 & 3) == 3});
        }
        break;
    case kLocalApicAddress:
        if (entry.size() >= 12)
            info.local_apic = Hpa{load<std::uint64_t>(entry.data() + 4)};
        break;
    default: break;
    }
    return {};
}

Expected<void> read_madt(Bytes table, AcpiInfo& info) {
    constexpr std::size_t kEntries = 44;
    if (table.size() < kEntries)
        return {};
    info.local_apic = Hpa{load<std::uint32_t>(table.data() + 36)};
    for (Bytes rest = table.subspan(kEntries); rest.size() >= 2;) {
        const auto length = std::to_integer<std::size_t>(rest[1]);
        if (length < 2 || length > rest.size()) {
            log::warning(Topic::acpi, "the MADT ends inside an entry");
            break;
        }
        HV_TRY(read_madt_entry(rest.first(length), info));
        rest = rest.subspan(length);
    }
    return {};
}

void read_mcfg(Bytes table, AcpiInfo& info) {
    constexpr std::size_t kEntries = 44, kEntrySize = 16;
    for (std::size_t at = kEntries; at + kEntrySize <= table.size(); at += kEntrySize) {
        const auto segment = load<std::uint16_t>(table.data() + at + 8);
        const auto first = std::to_integer<std::uint8_t>(table[at + 10]),
                   last = std::to_integer<std::uint8_t>(table[at + 11]);
        if (segment == 0 && first <= last && !info.ecam)
            info.ecam = Ecam{Hpa{load<std::uint64_t>(table.data() + at)}, first, last};
    }
}

void read_hpet(Bytes table, AcpiInfo& info) {
    constexpr std::size_t kAddress = 40;
    if (const auto space = load_at<std::uint8_t>(table, kAddress); space && *space == 0) {
        if (const auto address = load_at<std::uint64_t>(table, kAddress + 4))
            info.hpet = Hpa{*address};
    }
}

/// A port from a generic address structure, or from the older 32-bit field where that is empty.
std::uint16_t port_of(Bytes table, std::size_t extended, std::size_t old) {
    constexpr std::uint8_t kPortSpace = 1;
    const auto space = load_at<std::uint8_t>(table, extended);
    const auto address = load_at<std::uint64_t>(table, extended + 4);
    if (space && address && *space == kPortSpace && *address != 0 && *address <= 0xffff)
        return static_cast<std::uint16_t>(*address);
    const auto port = load_at<std::uint32_t>(table, old);
    return port && *port <= 0xffff ? static_cast<std::uint16_t>(*port) : std::uint16_t{0};
}

/// [acpi 5.2.9 Fixed ACPI Description Table (FADT)]; DSDT is followed for \_S5.
void read_fadt(Bytes table, TableMemory& memory, AcpiInfo& info) {
    constexpr std::uint32_t kResetSupported = 1U << 10;
    info.pm1a_control = port_of(table, 172, 64);
    info.pm1b_control = port_of(table, 184, 68);
    info.pm_timer = port_of(table, 208, 76);
    if (const auto port = load_at<std::uint32_t>(table, 48); port && *port <= 0xffff) {
        info.smi_command = static_cast<std::uint16_t>(*port);
        info.acpi_enable = load_at<std::uint8_t>(table, 52).value_or(0);
    }
    const auto flags = load_at<std::uint32_t>(table, 112);
    const auto space = load_at<std::uint8_t>(table, 116);
    const auto address = load_at<std::uint64_t>(table, 120);
    const auto value = load_at<std::uint8_t>(table, 128);
    if (flags && value && (*flags & kResetSupported) != 0 &&
        *space <= static_cast<std::uint8_t>(Register::Space::pci) && *address != 0) {
        info.reset_register = Register{static_cast<Register::Space>(*space), *address};
        info.reset_value = *value;
    }
    const auto dsdt64 = load_at<std::uint64_t>(table, 140);
    const auto dsdt32 = load_at<std::uint32_t>(table, 40);
    const Hpa dsdt{dsdt64 && *dsdt64 != 0 ? *dsdt64 : dsdt32.value_or(0)};
    if (dsdt.raw == 0)
        return;
    const Bytes aml = table_at(dsdt, memory);
    if (!aml.empty() && !info.s5)
        info.s5 = find_s5(aml.subspan(kHeaderSize));
}

Expected<void> read_table(Hpa address, TableMemory& memory, AcpiInfo& info) {
    const Bytes table = table_at(address, memory);
    if (table.empty())
        return {};
    const std::string_view signature = signature_of(table);
    if (signature == "APIC")
        return read_madt(table, info);
    if (signature == "MCFG")
        read_mcfg(table, info);
    else if (signature == "HPET")
        read_hpet(table, info);
    else if (signature == "FACP")
        read_fadt(table, memory, info);
    else if (signature == "SSDT" && !info.s5)
        info.s5 = find_s5(table.subspan(kHeaderSize));
    return {};
}

}  // namespace

Expected<AcpiInfo> read_tables(Bytes rsdp, TableMemory& memory) {
    if (!is_rsdp(rsdp)) {
        log::warning(Topic::acpi, "the RSDP has a wrong signature or checksum");
        return Unexpected{Error::corrupted};
    }
    const auto root_at = [&](Hpa address, std::string_view signature) {
        const Bytes table = address.raw == 0 ? Bytes{} : table_at(address, memory);
        return !table.empty() && signature_of(table) == signature ? table : Bytes{};
    };
    // The XSDT, and the RSDT where the firmware is older or the XSDT is broken.
    Bytes root;
    if (std::to_integer<unsigned>(rsdp[15]) >= 2 && rsdp.size() >= kRsdp2Size &&
        checksum_is_right(rsdp.first(kRsdp2Size)))
        root = root_at(Hpa{load<std::uint64_t>(rsdp.data() + 24)}, "XSDT");
    const bool extended = !root.empty();
    if (!extended)
        root = root_at(Hpa{load<std::uint32_t>(rsdp.data() + 16)}, "RSDT");
    if (root.empty())
        return Unexpected{Error::corrupted};
    AcpiInfo info;
    const std::size_t entry_size = extended ? 8 : 4;
    for (std::size_t at = kHeaderSize; at + entry_size <= root.size(); at += entry_size) {
        const std::uint64_t address =
            extended ? load<std::uint64_t>(root.data() + at) : load<std::uint32_t>(root.data() + at);
        if (address != 0)
            HV_TRY(read_table(Hpa{address}, memory, info));
    }
    return info;
}

Bytes find_rsdp(TableMemory& memory) {
    constexpr Hpa kEbdaPointer{0x40e};
    constexpr std::size_t kStep = 16;
    const auto search = [](Bytes area) -> Bytes {
        for (std::size_t at = 0; at + kRsdp0Size <= area.size(); at += kStep) {
            if (is_rsdp(area.subspan(at)))
                return area.subspan(at, std::min(kRsdp2Size, area.size() - at));
        }
        return {};
    };
    const Bytes pointer = memory.bytes(kEbdaPointer, 2);
    if (pointer.size() == 2) {
        const std::uint64_t ebda = std::uint64_t{load<std::uint16_t>(pointer.data())} << 4;
        if (ebda >= 0x400 && ebda < 0xa'0000) {
            if (const Bytes found = search(memory.bytes(Hpa{ebda}, kKiB)); !found.empty())
                return found;
        }
    }
    return search(memory.bytes(Hpa{0xe'0000}, 0x2'0000));
}

}  // namespace hv::acpi
