// SPDX-License-Identifier: MIT
// The physical disks of the host with their partitions, and who uses which range of them: a range that
// somebody writes is his alone. Who writes a whole disk may give it other partitions: once he has let go of
// it, nobody gets one of them before its table has been read again. Boot CPU only.
#pragma once

#include "drivers/block/block_device.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/list.hpp"
#include "vmm/base/text.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/config/config.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

namespace hv {

class PartitionSource;

class DiskDirectory {
public:
    DiskDirectory() = default;  ///< the partitions of a disk whose table may have changed are lost
    /// Outlives this.
    explicit DiskDirectory(PartitionSource& source) : source_{&source} {}

    /// "nvme0"; has room for a namespace's identifier, whatever that is.
    using Name = TextBuffer<24>;
    struct Partition {
        unsigned number;  ///< as the disk's table counts, from 1
        TextBuffer<144> label;
        std::uint64_t first;  ///< in units of 512 bytes
        std::uint64_t sectors;
    };
    struct Disk {
        Name name;
        TextBuffer<48> model;
        TextBuffer<32> serial;
        DiskIdentifier identifier{};
        BlockDevice* device{};  ///< outlives the directory
        Vec<Partition> partitions;
        enum class Table : std::uint8_t {
            known,
            outdated,    ///< it may be another one by now
            unreadable,  ///< so there are no partitions
        };
        Table table{};
    };
    /// A range of a disk in somebody's hands.
    struct Claim {
        const Disk* disk;
        std::uint64_t first;
        std::uint64_t sectors;
        bool writes;
        std::string_view user;  ///< the VM's name
        std::uint8_t number;    ///< the same for all claims of a VM, see BlockRequest::user
        ListLink link{};
    };
    using Claims = List<Claim, &Claim::link>;

    /// Before anything is opened. Error::already_exists: it is one of those that are there, reached another
    /// way, or two could write it (the log says which); Error::no_memory.
    Expected<void> add(Disk disk);
    [[nodiscard]] std::span<const Disk> disks() const { return disks_.span(); }
    [[nodiscard]] Claims& claims() { return claims_; }
    /// Reads the tables that may have changed, or could not be read. Waits for their disks, but not for who
    /// writes one right now: that one stays as it was, and busy. No lock held.
    void refresh();

    /// `name` of DiskSource::disk: a disk by its name, or a partition by its disk's name and its number,
    /// "nvme0p2", or a disk by its serial number, which may be anything; of DiskSource::partition: a label.
    /// The disk is `user`'s until it is destroyed; it takes writes only with DiskMode::read_write. A whole
    /// disk has the size that the physical one has at the time, a partition the one that the table said.
    /// `user` outlives it. Waits as refresh() does, for the disks that may have what is named; a label is not
    /// looked for again on those that could not be read. The log says what is wrong: Error::not_found;
    /// Error::already_exists: several have that label or serial; Error::busy: somebody else writes it, or
    /// uses what is to be written; Error::unsupported: the disk itself is read-only; Error::no_memory.
    Expected<std::unique_ptr<BlockDevice>> open(const config::DiskConfig& config, std::string_view user);

private:
    class ClaimedDisk;
    struct Range {
        Disk* disk;
        std::uint64_t first;
        std::uint64_t sectors;
        bool whole;
    };
    void refresh(Disk& disk);
    Expected<Range> find(const config::DiskConfig& config, std::string_view user);
    Expected<Range> find_label(std::string_view label, std::string_view user);
    Expected<Range> find_disk(std::string_view name, std::string_view user);
    /// The claim that stands against using this range so.
    [[nodiscard]] const Claim* rival(const Range& range, bool writes);
    /// The VM's number; a new one shares it with others only if there are more than kBlockUsers.
    [[nodiscard]] std::uint8_t number_of(std::string_view user);

    PartitionSource* source_{nullptr};
    Vec<Disk> disks_;
    Claims claims_;
};

/// Where a directory learns of a disk's partitions.
class PartitionSource {
public:
    /// Those that the disk has now, none if it has no table that can be used. Waits for the disk. An error:
    /// it could not be told, which the log says.
    virtual Expected<Vec<DiskDirectory::Partition>> read(const DiskDirectory::Disk& disk) = 0;

protected:
    ~PartitionSource() = default;
};

}  // namespace hv
