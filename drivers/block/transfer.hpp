// SPDX-License-Identifier: MIT
// Walking the segments of a block request, whose sizes need not be multiples of a sector.
#pragma once

#include "drivers/block/block_device.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace hv {

/// Whether a request lies on the disk, is allowed, and has segments of the right size.
[[nodiscard]] inline bool is_valid(const BlockRequest& request, const BlockGeometry& geometry) {
    using Operation = BlockRequest::Operation;
    if (request.operation == Operation::flush)
        return true;
    if (request.operation != Operation::read && geometry.read_only)
        return false;
    if (request.sector > geometry.sectors || request.sector_count > geometry.sectors - request.sector)
        return false;
    if (request.operation != Operation::read && request.operation != Operation::write)
        return true;
    std::uint64_t bytes = 0;
    for (const BlockSegment& segment : request.segments)
        bytes += segment.size;
    return bytes % kSectorSize == 0 && bytes / kSectorSize == request.sector_count;
}

/// A place in a request's data that moves forward.
class SegmentCursor {
public:
    explicit SegmentCursor(std::span<const BlockSegment> segments) : segments_{segments} {}

    /// Calls `visit(std::byte*, std::size_t)` for the next `size` bytes, which exist.
    template <class Visit>
    void advance(std::uint64_t size, Visit&& visit) {
        while (size > 0) {
            const BlockSegment& segment = segments_.front();
            const std::uint64_t piece = std::min<std::uint64_t>(size, segment.size - offset_);
            if (piece != 0)
                visit(segment.data + offset_, static_cast<std::size_t>(piece));
            offset_ += static_cast<std::uint32_t>(piece);
            size -= piece;
            if (offset_ == segment.size) {
                segments_ = segments_.subspan(1);
                offset_ = 0;
            }
        }
    }
    void fill_from(const std::byte* data, std::uint64_t size) {
        advance(size, [&](std::byte* at, std::size_t piece) {
            std::memcpy(at, data, piece);
            data += piece;
        });
    }
    void fill_zero(std::uint64_t size) {
        advance(size, [](std::byte* at, std::size_t piece) { std::memset(at, 0, piece); });
    }
    void copy_to(std::span<std::byte> out) {
        std::byte* to = out.data();
        advance(out.size(), [&](std::byte* at, std::size_t piece) {
            std::memcpy(to, at, piece);
            to += piece;
        });
    }

private:
    std::span<const BlockSegment> segments_;
    std::uint32_t offset_{0};
};

}  // namespace hv
