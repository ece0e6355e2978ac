// SPDX-License-Identifier: MIT
// A read-only disk over bytes in memory, such as a boot module. A last sector that is not whole is filled up
// with zeroes.
#pragma once

#include "drivers/block/block_device.hpp"
#include "drivers/block/transfer.hpp"

#include <cstddef>
#include <span>

namespace hv {

class ModuleDisk final : public BlockDevice {
public:
    /// `image` outlives the disk and stays as it is.
    explicit ModuleDisk(std::span<const std::byte> image) : image_{image} {}

    [[nodiscard]] BlockGeometry geometry() const override {
        return {(image_.size() + kSectorSize - 1) / kSectorSize, kSectorSize, true, false};
    }
    void submit(BlockRequest& request) override { request.complete(request, execute(request)); }

private:
    BlockStatus execute(const BlockRequest& request) {
        if (!is_valid(request, geometry()))
            return BlockStatus::io_error;
        if (request.operation == BlockRequest::Operation::flush || request.sector_count == 0)
            return BlockStatus::ok;
        const std::uint64_t first = request.sector * kSectorSize;
        const std::uint64_t wanted = request.sector_count * kSectorSize;
        const std::uint64_t present = std::min<std::uint64_t>(wanted, image_.size() - first);
        SegmentCursor data{request.segments};
        data.fill_from(image_.data() + first, present);
        data.fill_zero(wanted - present);
        return BlockStatus::ok;
    }

    std::span<const std::byte> image_;
};

}  // namespace hv
