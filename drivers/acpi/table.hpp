// SPDX-License-Identifier: MIT
// ACPI tables as bytes that firmware left in memory: found, measured and summed up before anything in them is
// believed.
#pragma once

#include "vmm/base/address.hpp"
#include "vmm/base/bytes.hpp"
#include "vmm/base/expected.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace hv::acpi {

/// Physical memory as the tables lie in it.
class MemoryReader {
public:
    /// `length` bytes at `address`, valid as long as the reader; empty: that memory cannot be read.
    virtual std::span<const std::byte> read(Hpa address, std::size_t length) = 0;

protected:
    ~MemoryReader() = default;
};

/// [acpi6.5 5.2.6 System Description Table Header]
inline constexpr std::size_t kHeaderSize = 36;
/// Nothing in the field is larger; what claims to be is broken.
inline constexpr std::size_t kLargestTable = 16 * kMiB;

/// A table with a valid length and checksum.
struct Table {
    std::span<const std::byte> bytes;  ///< with its header

    [[nodiscard]] std::string_view signature() const {
        return {reinterpret_cast<const char*>(bytes.data()), 4};
    }
    [[nodiscard]] std::span<const std::byte> body() const { return bytes.subspan(kHeaderSize); }
    /// The T at `offset`, or `otherwise` where the table (an older revision) ends before.
    template <class T>
    [[nodiscard]] T field(std::size_t offset, T otherwise = {}) const {
        return load_at<T>(bytes, offset).value_or(otherwise);
    }
};

/// Whether all bytes add up to 0.
bool checksum_ok(std::span<const std::byte> bytes);

/// Reads the table at `address`. Error::not_found: no memory there; Error::corrupted: its length or checksum
/// is wrong. Both are logged.
Expected<Table> read_table(MemoryReader& memory, Hpa address);

/// [acpi6.5 5.2.3.2 Generic Address Structure]
struct GenericAddress {
    enum class Space : std::uint8_t { memory = 0, io = 1, pci_config = 2 };
    Space space{};
    std::uint8_t bit_width{};
    std::uint8_t bit_offset{};
    std::uint8_t access_size{};  ///< 1: byte, 2: word, 3: dword, 4: qword, 0: undefined
    std::uint64_t address{};

    explicit operator bool() const { return address != 0; }
};
/// All zeroes where `bytes` ends before.
GenericAddress generic_address(std::span<const std::byte> bytes, std::size_t offset);

}  // namespace hv::acpi
