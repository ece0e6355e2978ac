// SPDX-License-Identifier: MIT
// An executable ELF file for x86, 32-bit or 64-bit [elf gABI].
#pragma once

#include "vmm/loader/loader.hpp"
#include "vmm/loader/memory_plan.hpp"

#include <optional>

namespace hv::loader {

class ElfImage {
public:
    static bool is_elf(std::span<const std::byte> bytes);
    /// Checks request.kernel's header and program headers. Error::corrupted, Error::unsupported.
    static Expected<ElfImage> parse(const LoadRequest& request);

    /// Puts each segment at its physical address. Error::out_of_range.
    Expected<void> load(const LoadRequest& request, MemoryPlan& plan, GuestMemory& memory) const;
    struct SectionTable {
        Gpa at;
        std::uint32_t count, entry_size, string_section;
    };
    /// Writes the section headers, and the sections that no segment loads (symbols, names), each header with
    /// its section's address. Error::not_found: the file has none; Error::corrupted, Error::out_of_range.
    Expected<SectionTable> put_sections(MemoryPlan& plan, GuestMemory& memory) const;
    /// The entry point's physical address: e_entry is virtual where a segment's virtual and physical
    /// addresses differ.
    [[nodiscard]] std::uint64_t physical_entry() const;
    /// Where the note XEN_ELFNOTE_PHYS32_ENTRY says that PVH starts.
    [[nodiscard]] std::optional<std::uint32_t> pvh_entry() const;

private:
    struct Segment {
        std::uint32_t type;
        std::uint64_t offset, file_size;  ///< inside the file
        std::uint64_t virtual_address, physical_address, memory_size, alignment;
    };
    explicit ElfImage(std::span<const std::byte> bytes) : bytes_{bytes} {}
    [[nodiscard]] Segment segment(std::size_t index) const;
    template <class Header>
    Expected<void> put_section(const std::byte* bytes, Gpa in_table, MemoryPlan& plan,
                               GuestMemory& memory) const;
    [[nodiscard]] std::optional<std::uint32_t> pvh_entry_in(const Segment& notes) const;

    std::span<const std::byte> bytes_;
    bool is_64_{false};
    std::uint64_t entry_{0};
    std::uint64_t headers_{0};      ///< file offset of the program headers
    std::uint16_t header_size_{0};  ///< distance from one to the next
    std::uint16_t header_count_{0};
    std::uint64_t sections_{0};  ///< file offset of the section headers
    std::uint16_t section_size_{0};
    std::uint16_t section_count_{0};
    std::uint16_t string_section_{0};  ///< the section that holds the sections' names
};

}  // namespace hv::loader
