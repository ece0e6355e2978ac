// SPDX-License-Identifier: MIT
// Reads what partitions a disk has off the disk itself, and says in the log what is wrong with its table.
#pragma once

#include "vmm/mm/dma.hpp"
#include "vmm/storage/disk_directory.hpp"

namespace hv {

class PartitionReader final : public PartitionSource {
public:
    /// Outlives this.
    explicit PartitionReader(DmaPool& pool) : pool_{pool} {}
    Expected<Vec<DiskDirectory::Partition>> read(const DiskDirectory::Disk& disk) override;

private:
    DmaPool& pool_;
};

}  // namespace hv
