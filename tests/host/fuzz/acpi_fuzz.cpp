// SPDX-License-Identifier: MIT
#include "drivers/acpi/acpi_info.hpp"
#include "drivers/acpi/sleep_type.hpp"
#include "vmm/base/bytes.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace {

/// The input is all of physical memory.
class InputMemory final : public hv::acpi::TableMemory {
public:
    explicit InputMemory(std::span<const std::byte> bytes) : bytes_{bytes} {}
    std::span<const std::byte> bytes(hv::Hpa address, std::uint64_t length) override {
        if (address.raw > bytes_.size() || length > bytes_.size() - address.raw)
            return {};
        return bytes_.subspan(address.raw, length);
    }

private:
    std::span<const std::byte> bytes_;
};

/// Makes a checksum at `at` right, so that the fuzzer gets past it.
void fix_checksum(std::span<std::byte> bytes, std::size_t at) {
    unsigned sum = 0;
    for (const std::byte b : bytes)
        sum += std::to_integer<unsigned>(b);
    bytes[at] = static_cast<std::byte>(std::to_integer<unsigned>(bytes[at]) - sum);
}

/// A table header of `signature` over the rest of `bytes`.
void make_table(std::span<std::byte> bytes, const char* signature) {
    std::memcpy(bytes.data(), signature, 4);
    hv::store(bytes.data() + 4, static_cast<std::uint32_t>(bytes.size()));
    fix_checksum(bytes, 9);
}

}  // namespace

// An RSDP, an RSDT with one entry, and a table of the kind that the first byte picks, filled with the rest.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    constexpr std::size_t kRsdt = 20, kTable = kRsdt + 40, kHeader = 36;
    constexpr const char* kSignatures[] = {"APIC", "MCFG", "HPET", "FACP", "SSDT"};
    std::array<std::byte, 4096> memory{};
    if (size == 0)
        return 0;
    const std::size_t body = std::min(size - 1, memory.size() - kTable - kHeader);
    const auto bytes = std::span{memory}.first(kTable + kHeader + body);
    std::memcpy(bytes.data(), "RSD PTR ", 8);
    hv::store(bytes.data() + 16, static_cast<std::uint32_t>(kRsdt));
    fix_checksum(bytes.first(kRsdt), 8);
    hv::store(bytes.data() + kRsdt + kHeader, static_cast<std::uint32_t>(kTable));
    make_table(bytes.subspan(kRsdt, 40), "RSDT");
    std::memcpy(bytes.data() + kTable + kHeader, data + 1, body);
    make_table(bytes.subspan(kTable), kSignatures[data[0] % 5]);
    InputMemory reader{bytes};
    static_cast<void>(hv::acpi::read_tables(bytes.first(kRsdt), reader));

    const auto raw = std::as_bytes(std::span{data, size});
    InputMemory raw_memory{raw};
    static_cast<void>(hv::acpi::read_tables(raw, raw_memory));
    static_cast<void>(hv::acpi::find_s5(raw));
    return 0;
}
