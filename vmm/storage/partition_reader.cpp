// SPDX-License-Identifier: MIT
#include "vmm/storage/partition_reader.hpp"

#include "vmm/base/log.hpp"
#include "vmm/storage/gpt.hpp"
#include "vmm/storage/sync_reader.hpp"

#include <algorithm>
#include <cstring>

namespace hv {
namespace {

using log::Topic;

/// What a table is read by at a time.
constexpr std::size_t kBufferSize = 16 * kKiB;

/// A disk as the reader of partition tables wants it.
class TableReader final : public SectorReader {
public:
    TableReader(BlockDevice& disk, DmaBuffer buffer) : disk_{disk}, buffer_{std::move(buffer)} {}
    Expected<void> read(std::uint64_t block, std::span<std::byte> out) override {
        std::uint64_t sector = block * (disk_.geometry().logical_block_size / kSectorSize);
        for (std::size_t done = 0; done < out.size();) {
            const auto part = buffer_.bytes().first(std::min(out.size() - done, buffer_.bytes().size()));
            HV_TRY(read_sync(disk_, sector, part));
            std::memcpy(out.data() + done, part.data(), part.size());
            done += part.size();
            sector += part.size() / kSectorSize;
        }
        return {};
    }

private:
    BlockDevice& disk_;
    DmaBuffer buffer_;
};

/// Whether another look at the disk may end otherwise.
bool is_passing(Error error) {
    return error == Error::io_error || error == Error::no_memory;
}

/// Why there is no table that can be used.
void say_why(std::string_view disk, Error error) {
    if (error == Error::unsupported)
        log::info(Topic::block,
                  "%.*s: its table is an MBR's: only the whole disk can be named, or a GPT's "
                  "partitions",
                  width(disk), disk.data());
    else if (error != Error::not_found)
        log::error(Topic::block, "%.*s: its partitions cannot be used: %s%s", width(disk), disk.data(),
                   to_string(error), is_passing(error) ? "; the command disk looks again" : "");
}

}  // namespace

Expected<Vec<DiskDirectory::Partition>> PartitionReader::read(const DiskDirectory::Disk& disk) {
    const std::string_view name = disk.name.view();
    const auto attempt = [&]() -> Expected<Vec<DiskDirectory::Partition>> {
        const BlockGeometry geometry = disk.device->geometry();
        const std::uint64_t ratio = geometry.logical_block_size / kSectorSize;
        TableReader reader{*disk.device, HV_TRY(pool_.allocate(kBufferSize))};
        PartitionReport report;
        const auto table =
            read_partition_table(reader, geometry.logical_block_size, geometry.sectors / ratio, report);
        report.say(name);
        if (!table)
            return Unexpected{table.error()};
        if (table->health == PartitionTable::Health::primary_bad)
            log::warning(Topic::block, "%.*s: its primary partition table is damaged, the backup is used",
                         width(name), name.data());
        Vec<DiskDirectory::Partition> partitions;
        for (const PartitionEntry& entry : table->entries) {
            DiskDirectory::Partition partition{entry.number, {}, entry.first * ratio, entry.count * ratio};
            partition.label.append("%.*s", width(entry.name.view()), entry.name.view().data());
            HV_TRY(partitions.push(partition));
        }
        return partitions;
    };
    auto partitions = attempt();
    if (partitions)
        return partitions;
    say_why(name, partitions.error());
    if (is_passing(partitions.error()))
        return partitions;
    return Vec<DiskDirectory::Partition>{};
}

}  // namespace hv
