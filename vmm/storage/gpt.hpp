// SPDX-License-Identifier: MIT
// Reads a disk's GUID partition table: primary or, if that is damaged, backup. Everything on the disk is
// checked before it is believed. Nothing is written: a damaged copy stays as it is. [uefi 5.3 GUID Partition
// Table (GPT) Disk Layout]
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/base/text.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/storage/guid.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace hv {

/// Where a table is read from.
class SectorReader {
public:
    /// Reads out.size() bytes, whole logical blocks, from `block` on; they exist.
    virtual Expected<void> read(std::uint64_t block, std::span<std::byte> out) = 0;

protected:
    ~SectorReader() = default;
};

struct PartitionEntry {
    /// A name's 36 UTF-16 code units are at most 3 bytes each in UTF-8.
    static constexpr std::size_t kNameSize = 36 * 3;

    std::uint32_t number{};  ///< from 1 on, as operating systems count them
    Guid type{};
    Guid unique{};
    std::uint64_t first{};  ///< logical block
    std::uint64_t count{};  ///< of logical blocks, not 0
    std::uint64_t attributes{};
    /// UTF-8; what is no character, or a control character, became U+FFFD.
    TextBuffer<kNameSize> name{};
};

struct PartitionTable {
    enum class Health : std::uint8_t {
        healthy,
        primary_bad,  ///< this is the backup's table
        backup_bad,
    };
    Health health{};
    Guid disk{};
    Vec<PartitionEntry> entries{};  ///< by number; none overlaps another or what belongs to the table
};

/// What was found wrong with a table, in lines for the log.
class PartitionReport {
public:
    /// So many lines are kept; they are lost too if there is no memory.
    static constexpr std::size_t kMaxLines = 16;
    using Line = TextBuffer<176>;

    void add(const char* format, ...) __attribute__((format(printf, 2, 3)));
    /// Says all of it in the log.
    void say(std::string_view disk) const;
    [[nodiscard]] std::span<const Line> lines() const { return lines_.span(); }
    /// Lines that were not kept.
    [[nodiscard]] std::size_t lost() const { return lost_; }

private:
    Vec<Line> lines_;
    std::size_t lost_{0};
};

/// `block_size` is 512 or 4096 (Error::invalid_argument). Error::not_found: there is no partition table, or
/// no protective MBR before it; Error::unsupported: it is an MBR's; Error::corrupted: neither copy is valid;
/// Error::io_error: block 0 cannot be read; Error::no_memory. `report` says what was wrong, whatever the
/// result.
Expected<PartitionTable> read_partition_table(SectorReader& disk, std::uint32_t block_size,
                                              std::uint64_t block_count, PartitionReport& report);

}  // namespace hv
