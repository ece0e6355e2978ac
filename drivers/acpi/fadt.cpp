// SPDX-License-Identifier: MIT
#include "drivers/acpi/fadt.hpp"

#include <algorithm>

namespace hv::acpi {
namespace {

constexpr std::uint32_t kTimer32Bit = 1U << 8;
constexpr std::uint32_t kResetSupported = 1U << 10;
constexpr std::uint32_t kHardwareReduced = 1U << 20;

/// The register block whose port is at `legacy` and whose extended address, if the table has one, is at
/// `extended`.
GenericAddress register_block(const Table& fadt, std::size_t legacy, std::size_t length,
                              std::size_t extended) {
    if (const GenericAddress address = generic_address(fadt.bytes, extended))
        return address;
    const auto bits = static_cast<std::uint8_t>(std::min(fadt.field<std::uint8_t>(length) * 8, 255));
    return {GenericAddress::Space::io, bits, 0, 0, fadt.field<std::uint32_t>(legacy)};
}

/// Reads the integers of a package one after the other.
class AmlReader {
public:
    explicit AmlReader(std::span<const std::byte> aml) : rest_{aml} {}

    std::optional<std::uint8_t> byte() {
        if (rest_.empty())
            return std::nullopt;
        const auto value = static_cast<std::uint8_t>(rest_.front());
        rest_ = rest_.subspan(1);
        return value;
    }
    /// [acpi6.5 20.2.4 Package Length Encoding]; the value is of no use to a reader that stops after two
    /// elements.
    bool skip_package_length() {
        const auto lead = byte();
        if (!lead)
            return false;
        const std::size_t more = *lead >> 6;
        if (rest_.size() < more)
            return false;
        rest_ = rest_.subspan(more);
        return true;
    }
    /// [acpi6.5 20.2.3 Data Objects Encoding]
    std::optional<std::uint64_t> integer() {
        const auto opcode = byte();
        if (!opcode)
            return std::nullopt;
        switch (*opcode) {
        case 0x00: return 0;  // ZeroOp
        case 0x01: return 1;  // OneOp
        case 0x0a: return bytes(1);
        case 0x0b: return bytes(2);
        case 0x0c: return bytes(4);
        case 0x0e: return bytes(8);
        default: return std::nullopt;
        }
    }

private:
    std::optional<std::uint64_t> bytes(std::size_t count) {
        if (rest_.size() < count)
            return std::nullopt;
        std::uint64_t value = 0;
        for (std::size_t i = count; i-- > 0;)
            value = value << 8 | static_cast<std::uint64_t>(rest_[i]);
        rest_ = rest_.subspan(count);
        return value;
    }

    std::span<const std::byte> rest_;
};

std::optional<SleepType> parse_sleep_package(std::span<const std::byte> aml) {
    constexpr std::uint8_t kPackageOp = 0x12;
    AmlReader reader{aml};
    if (reader.byte() != kPackageOp || !reader.skip_package_length())
        return std::nullopt;
    const auto elements = reader.byte();
    const auto a = reader.integer();
    if (!elements || *elements == 0 || !a || *a > 7)
        return std::nullopt;
    if (*elements == 1)
        return SleepType{static_cast<std::uint8_t>(*a), 0};
    const auto b = reader.integer();
    if (!b || *b > 7)
        return std::nullopt;
    return SleepType{static_cast<std::uint8_t>(*a), static_cast<std::uint8_t>(*b)};
}

}  // namespace

FixedHardware parse_fadt(const Table& fadt) {
    FixedHardware result;
    const auto flags = fadt.field<std::uint32_t>(112);
    result.pm1a_event = register_block(fadt, 56, 88, 148);
    result.pm1b_event = register_block(fadt, 60, 88, 160);
    result.pm1a_control = register_block(fadt, 64, 89, 172);
    result.pm1b_control = register_block(fadt, 68, 89, 184);
    result.pm_timer = register_block(fadt, 76, 91, 208);
    result.pm_timer_32bit = (flags & kTimer32Bit) != 0;
    if ((flags & kResetSupported) != 0) {
        result.reset = generic_address(fadt.bytes, 116);
        result.reset_value = fadt.field<std::uint8_t>(128);
    }
    result.sleep_control = generic_address(fadt.bytes, 244);
    result.hardware_reduced = (flags & kHardwareReduced) != 0;
    result.sci_interrupt = fadt.field<std::uint16_t>(46);
    result.smi_command = fadt.field<std::uint32_t>(48);
    result.acpi_enable = fadt.field<std::uint8_t>(52);
    result.has_8042 = (fadt.field<std::uint16_t>(109) & 2) != 0;
    result.dsdt = Hpa{fadt.field<std::uint64_t>(140)};
    if (result.dsdt == Hpa{})
        result.dsdt = Hpa{fadt.field<std::uint32_t>(40)};
    return result;
}

std::optional<SleepType> find_s5(std::span<const std::byte> aml) {
    constexpr std::uint8_t kNameOp = 0x08;
    constexpr std::uint8_t kRootChar = '\\';
    constexpr std::string_view kName = "_S5_";
    const auto at = [&](std::size_t i) { return static_cast<std::uint8_t>(aml[i]); };
    for (std::size_t i = 1; i + kName.size() < aml.size(); ++i) {
        if (!std::equal(kName.begin(), kName.end(), aml.begin() + static_cast<std::ptrdiff_t>(i),
                        [](char c, std::byte b) { return static_cast<std::byte>(c) == b; }))
            continue;
        if (at(i - 1) != kNameOp && (i < 2 || at(i - 1) != kRootChar || at(i - 2) != kNameOp))
            continue;
        if (const auto type = parse_sleep_package(aml.subspan(i + kName.size())))
            return type;
    }
    return std::nullopt;
}

}  // namespace hv::acpi
