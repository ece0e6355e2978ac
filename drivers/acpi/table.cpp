// SPDX-License-Identifier: MIT
#include "drivers/acpi/table.hpp"

#include "vmm/base/log.hpp"

namespace hv::acpi {

bool checksum_ok(std::span<const std::byte> bytes) {
    unsigned sum = 0;
    for (const std::byte b : bytes)
        sum += static_cast<unsigned>(b);
    return (sum & 0xff) == 0;
}

Expected<Table> read_table(MemoryReader& memory, Hpa address) {
    const std::span<const std::byte> header = memory.read(address, kHeaderSize);
    if (header.size() < kHeaderSize) {
        log::warning(log::Topic::acpi, "no table can be read at 0x%llx",
                     static_cast<unsigned long long>(address.raw));
        return Unexpected{Error::not_found};
    }
    const auto length = load<std::uint32_t>(header.data() + 4);
    if (length < kHeaderSize || length > kLargestTable) {
        log::warning(log::Topic::acpi, "table at 0x%llx skipped: length %u",
                     static_cast<unsigned long long>(address.raw), length);
        return Unexpected{Error::corrupted};
    }
    const std::span<const std::byte> bytes = memory.read(address, length);
    if (bytes.size() < length || !checksum_ok(bytes.first(length))) {
        log::warning(log::Topic::acpi, "table at 0x%llx skipped: wrong checksum",
                     static_cast<unsigned long long>(address.raw));
        return Unexpected{Error::corrupted};
    }
    return Table{bytes.first(length)};
}

GenericAddress generic_address(std::span<const std::byte> bytes, std::size_t offset) {
    constexpr std::size_t kSize = 12;
    if (offset > bytes.size() || bytes.size() - offset < kSize)
        return {};
    const auto at = [&](std::size_t i) { return static_cast<std::uint8_t>(bytes[offset + i]); };
    return {static_cast<GenericAddress::Space>(at(0)), at(1), at(2), at(3),
            load<std::uint64_t>(bytes.data() + offset + 4)};
}

}  // namespace hv::acpi
