// SPDX-License-Identifier: MIT
#include "vmm/storage/ram_disk.hpp"

#include "drivers/block/transfer.hpp"

namespace hv {

Expected<std::unique_ptr<RamDisk>> RamDisk::create(FrameSource& frames, std::uint64_t bytes) {
    if (bytes == 0 || bytes % kSectorSize != 0)
        return Unexpected{Error::invalid_argument};
    auto store = HV_TRY(SectorStore::create(frames, bytes / kSectorSize));
    std::unique_ptr<RamDisk> disk{new (std::nothrow) RamDisk{std::move(store), bytes / kSectorSize}};
    if (disk == nullptr)
        return Unexpected{Error::no_memory};
    return disk;
}

void RamDisk::submit(BlockRequest& request) {
    request.complete(request, execute(request));
}

BlockStatus RamDisk::execute(const BlockRequest& request) {
    if (!is_valid(request, geometry()))
        return BlockStatus::io_error;
    SegmentCursor data{request.segments};
    Expected<void> done{};
    switch (request.operation) {
    case BlockRequest::Operation::read:
        for (std::uint64_t at = 0; at < request.sector_count;) {
            const auto run = store_.find(request.sector + at, request.sector_count - at);
            if (run.kind == SectorStore::Run::Kind::data)
                data.fill_from(run.data, run.sectors * kSectorSize);
            else
                data.fill_zero(run.sectors * kSectorSize);
            at += run.sectors;
        }
        break;
    case BlockRequest::Operation::write:
        done = store_.write(request.sector, request.sector_count,
                            [&](std::span<std::byte> to) { data.copy_to(to); });
        break;
    case BlockRequest::Operation::flush: break;
    case BlockRequest::Operation::discard:
    case BlockRequest::Operation::write_zeroes:
        done = store_.zero(request.sector, request.sector_count);
        break;
    }
    return done ? BlockStatus::ok : BlockStatus::io_error;
}

}  // namespace hv
