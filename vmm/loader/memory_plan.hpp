// SPDX-License-Identifier: MIT
// Which parts of a guest's memory are in use while its images are loaded, and what the guest is told about
// its memory.
#pragma once

#include "vmm/base/address.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/mm/guest_memory.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace hv::loader {

/// An entry of the memory map in E820's terms [acpi 15.1 INT 15H, E820H - Query System Address Map].
struct MemoryMapEntry {
    enum class Type : std::uint32_t { usable = 1, reserved = 2 };
    std::uint64_t start;
    std::uint64_t size;
    Type type;
};

class MemoryMap {
public:
    /// RAM, the firmware's part of it, and the ECAM window; ascending.
    explicit MemoryMap(const GuestMemory& memory);
    [[nodiscard]] std::span<const MemoryMapEntry> entries() const { return {entries_.data(), count_}; }

private:
    void add(std::uint64_t start, std::uint64_t end, MemoryMapEntry::Type type);

    std::array<MemoryMapEntry, 6> entries_{};
    std::size_t count_{0};
};

/// Usable low RAM, all of it free at first but for the first page. No two places overlap.
class MemoryPlan {
public:
    static Expected<MemoryPlan> create(GuestMemory& memory);

    /// Takes a given place. Error::out_of_range: it is not all usable RAM, or part of it is taken. `size` may
    /// be 0.
    Expected<void> claim(std::uint64_t start, std::uint64_t size);
    /// Takes the lowest free place from `from` on. Error::out_of_range: there is none. `alignment` is a power
    /// of two.
    Expected<Gpa> place_low(std::uint64_t size, std::uint64_t alignment, std::uint64_t from);
    /// Takes the highest free place that ends at or below `end`.
    Expected<Gpa> place_high(std::uint64_t size, std::uint64_t alignment, std::uint64_t end);
    /// Places small data in conventional memory, below 1 MiB where that has room, and writes it.
    Expected<Gpa> put(std::span<const std::byte> bytes, std::uint64_t alignment = 16);
    /// The same with a NUL behind it.
    Expected<Gpa> put_string(std::string_view text);
    /// Places an image above all that has been placed so far, or wherever else it fits above 1 MiB, at a
    /// page.
    Expected<Gpa> put_above(std::span<const std::byte> bytes);
    /// Places an image as high as it goes, at a page, and writes it.
    Expected<Gpa> put_high(std::span<const std::byte> bytes, std::uint64_t end);

private:
    struct Range {
        std::uint64_t start, end;
    };
    explicit MemoryPlan(GuestMemory& memory) : memory_{&memory} {}
    [[nodiscard]] const Range* overlap(std::uint64_t start, std::uint64_t size) const;

    GuestMemory* memory_;
    Vec<Range> taken_;
};

}  // namespace hv::loader
