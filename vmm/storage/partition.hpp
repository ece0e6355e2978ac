// SPDX-License-Identifier: MIT
// A part of a disk as a disk of its own.
#pragma once

#include "drivers/block/block_device.hpp"
#include "drivers/block/transfer.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/vec.hpp"

#include <cstdint>
#include <memory>

namespace hv {

class Partition final : public BlockDevice {
public:
    /// Sectors [first, first + sectors) of `disk`, which outlives the partition; both are multiples of its
    /// logical block. Error::out_of_range: they are not, or lie outside; Error::no_memory.
    static Expected<std::unique_ptr<Partition>> create(BlockDevice& disk, std::uint64_t first,
                                                       std::uint64_t sectors) {
        BlockGeometry geometry = disk.geometry();
        const std::uint64_t block = geometry.logical_block_size / kSectorSize;
        if (first > geometry.sectors || sectors > geometry.sectors - first || first % block != 0 ||
            sectors % block != 0)
            return Unexpected{Error::out_of_range};
        geometry.sectors = sectors;
        // Physical blocks that begin before it are no help to who counts from its start.
        while (first * kSectorSize % geometry.physical_block_size != 0)
            geometry.physical_block_size /= 2;
        std::unique_ptr<Partition> partition{new (std::nothrow) Partition{disk, first, geometry}};
        if (partition == nullptr)
            return Unexpected{Error::no_memory};
        return partition;
    }

    [[nodiscard]] BlockGeometry geometry() const override { return geometry_; }
    /// The request goes on to the disk itself: its `sector` is the disk's from then on.
    void submit(BlockRequest& request) override {
        if (!is_valid(request, geometry_))
            return request.complete(request, BlockStatus::io_error);
        request.sector += first_;
        disk_.submit(request);
    }

private:
    Partition(BlockDevice& disk, std::uint64_t first, const BlockGeometry& geometry)
        : disk_{disk}, first_{first}, geometry_{geometry} {}

    BlockDevice& disk_;
    const std::uint64_t first_;
    const BlockGeometry geometry_;
};

}  // namespace hv
