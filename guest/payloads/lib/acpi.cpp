// SPDX-License-Identifier: MIT
#include "lib/acpi.hpp"

#include "lib/cpu.hpp"
#include "lib/runtime.hpp"

#include <cstddef>
#include <cstring>

namespace payload::acpi {
namespace {

constexpr std::uint64_t kHeader = 36;

bool checksum_right(std::uint64_t start, std::uint64_t length) {
    std::uint8_t sum = 0;
    for (std::uint64_t i = 0; i < length; ++i)
        sum = static_cast<std::uint8_t>(sum + read<std::uint8_t>(start + i));
    return sum == 0;
}

bool has_signature(std::uint64_t at, std::string_view signature) {
    return std::memcmp(reinterpret_cast<const void*>(at), signature.data(), signature.size()) == 0;
}

std::uint64_t find_rsdp() {
    constexpr std::uint64_t kLegacySize = 20;
    if (start_info().rsdp != 0)
        return start_info().rsdp;
    for (std::uint64_t at = 0xe'0000; at < 0x10'0000; at += 16)
        if (has_signature(at, "RSD PTR ") && checksum_right(at, kLegacySize))
            return at;
    return 0;
}

}  // namespace

std::uint32_t table_length(std::uint64_t table) {
    return read<std::uint32_t>(table + 4);
}

std::uint64_t find_table(std::string_view signature) {
    const std::uint64_t rsdp = find_rsdp();
    if (rsdp == 0)
        return 0;
    const std::uint64_t xsdt = read<std::uint8_t>(rsdp + 15) >= 2 ? read<std::uint64_t>(rsdp + 24) : 0;
    const std::uint64_t root = xsdt != 0 ? xsdt : read<std::uint32_t>(rsdp + 16);
    const std::uint64_t entry_size = xsdt != 0 ? 8 : 4;
    for (std::uint64_t at = root + kHeader; at < root + table_length(root); at += entry_size) {
        const std::uint64_t table = xsdt != 0 ? read<std::uint64_t>(at) : read<std::uint32_t>(at);
        if (has_signature(table, signature) && checksum_right(table, table_length(table)))
            return table;
    }
    return 0;
}

void power_off() {
    constexpr std::uint64_t kFadtDsdt = 40;
    constexpr std::uint64_t kFadtPm1aControl = 64;
    constexpr std::uint16_t kSleepEnable = 1 << 13;
    const std::uint64_t fadt = find_table("FACP");
    CHECK(fadt != 0);
    const auto port = static_cast<std::uint16_t>(read<std::uint32_t>(fadt + kFadtPm1aControl));
    const std::uint64_t dsdt = read<std::uint32_t>(fadt + kFadtDsdt);
    for (std::uint64_t at = dsdt + kHeader; at + 8 < dsdt + table_length(dsdt); ++at) {
        if (!has_signature(at, "_S5_"))
            continue;
        // Package, its length in one byte, number of elements, then SLP_TYPa as a byte constant or as Zero or
        // One.
        const std::uint64_t value = at + 7;
        const std::uint8_t type =
            read<std::uint8_t>(value) == 0x0a ? read<std::uint8_t>(value + 1) : read<std::uint8_t>(value);
        out16(port, static_cast<std::uint16_t>(kSleepEnable | type << 10));
        return;
    }
    fail("the DSDT has no _S5_");
}

}  // namespace payload::acpi
