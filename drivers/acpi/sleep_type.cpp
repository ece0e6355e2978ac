// SPDX-License-Identifier: MIT
#include "drivers/acpi/sleep_type.hpp"

#include <algorithm>
#include <array>

namespace hv::acpi {
namespace {

// [acpi 20.2 AML Grammar Definition]
constexpr std::uint8_t kZeroOp = 0x00, kOneOp = 0x01, kNameOp = 0x08, kBytePrefix = 0x0a, kWordPrefix = 0x0b,
                       kDwordPrefix = 0x0c, kPackageOp = 0x12, kRootChar = '\\';

/// Reads constants one after the other; stops for good at what is none.
class Reader {
public:
    explicit Reader(std::span<const std::byte> bytes) : bytes_{bytes} {}

    std::optional<std::uint8_t> byte() {
        if (bytes_.empty())
            return std::nullopt;
        const auto value = std::to_integer<std::uint8_t>(bytes_[0]);
        bytes_ = bytes_.subspan(1);
        return value;
    }
    /// Skips a PkgLength: bits 7:6 of the first byte count the others.
    bool skip_package_length() {
        const auto first = byte();
        if (!first)
            return false;
        for (unsigned rest = *first >> 6; rest > 0; --rest) {
            if (!byte())
                return false;
        }
        return true;
    }
    std::optional<std::uint8_t> constant() {
        const auto prefix = byte();
        if (!prefix)
            return std::nullopt;
        switch (*prefix) {
        case kZeroOp: return std::uint8_t{0};
        case kOneOp: return std::uint8_t{1};
        case kBytePrefix: return byte();
        case kWordPrefix: return low_byte_of(2);
        case kDwordPrefix: return low_byte_of(4);
        default: return std::nullopt;
        }
    }

private:
    std::optional<std::uint8_t> low_byte_of(unsigned size) {
        const auto low = byte();
        while (--size > 0) {
            if (!byte())
                return std::nullopt;
        }
        return low;
    }

    std::span<const std::byte> bytes_;
};

}  // namespace

std::optional<SleepType> find_s5(std::span<const std::byte> aml) {
    constexpr std::array kName{std::byte{'_'}, std::byte{'S'}, std::byte{'5'}, std::byte{'_'}};
    for (auto at = aml.begin(); (at = std::search(at, aml.end(), kName.begin(), kName.end())) != aml.end();
         ++at) {
        const auto offset = static_cast<std::size_t>(at - aml.begin());
        const auto before = [&](std::size_t distance) {
            return offset >= distance ? std::to_integer<std::uint8_t>(aml[offset - distance]) : 0;
        };
        if (before(1) != kNameOp && !(before(1) == kRootChar && before(2) == kNameOp))
            continue;
        Reader reader{aml.subspan(offset + kName.size())};
        if (reader.byte() != kPackageOp || !reader.skip_package_length())
            continue;
        const auto elements = reader.byte();
        const auto a = reader.constant();
        const auto b = elements && *elements > 1 ? reader.constant() : a;
        if (a && b)
            return SleepType{static_cast<std::uint8_t>(*a & 7), static_cast<std::uint8_t>(*b & 7)};
    }
    return std::nullopt;
}

}  // namespace hv::acpi
