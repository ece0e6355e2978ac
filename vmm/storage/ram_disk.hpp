// SPDX-License-Identifier: MIT
// A disk in memory that takes memory only for what was written. Requests complete inside submit(); one that
// finds no memory completes with io_error.
#pragma once

#include "drivers/block/block_device.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/storage/sector_store.hpp"

#include <memory>

namespace hv {

class RamDisk final : public BlockDevice {
public:
    /// `bytes` is a multiple of 512 (Error::invalid_argument). `frames` outlives the disk. Error::no_memory.
    static Expected<std::unique_ptr<RamDisk>> create(FrameSource& frames, std::uint64_t bytes);

    [[nodiscard]] BlockGeometry geometry() const override { return {sectors_, kSectorSize, false, true}; }
    void submit(BlockRequest& request) override;
    [[nodiscard]] const SectorStore& store() const { return store_; }

private:
    RamDisk(SectorStore store, std::uint64_t sectors) : store_{std::move(store)}, sectors_{sectors} {}
    BlockStatus execute(const BlockRequest& request);

    SectorStore store_;
    std::uint64_t sectors_;
};

}  // namespace hv
