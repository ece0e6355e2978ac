// SPDX-License-Identifier: MIT
// Reading, and building anew, the list of segments that a frame consists of.
#pragma once

#include "vmm/net/station.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace hv::net {

/// Calls `visit(std::span<const std::byte>)` for the pieces of `length` bytes at `offset`, as far as they
/// exist.
template <class Visit>
void for_each_piece(std::span<const FrameSegment> segments, std::size_t offset, std::size_t length,
                    Visit&& visit) {
    for (const FrameSegment& segment : segments) {
        if (length == 0)
            return;
        if (offset >= segment.size) {
            offset -= segment.size;
            continue;
        }
        const std::size_t size = std::min<std::size_t>(segment.size - offset, length);
        visit(std::span{segment.data + offset, size});
        length -= size;
        offset = 0;
    }
}

/// Copies bytes at `offset` to `out`; returns how many there were.
inline std::size_t copy_from(std::span<const FrameSegment> segments, std::size_t offset,
                             std::span<std::byte> out) {
    std::size_t done = 0;
    for_each_piece(segments, offset, out.size(), [&](std::span<const std::byte> piece) {
        std::memcpy(out.data() + done, piece.data(), piece.size());
        done += piece.size();
    });
    std::atomic_signal_fence(
        std::memory_order_seq_cst);  // `out` is a copy: nobody looks at the sender's memory again
    return done;
}

/// A frame put together from a new beginning and parts of another.
class FrameBuilder {
public:
    FrameBuilder() = default;
    FrameBuilder(const FrameBuilder&) = delete;
    FrameBuilder& operator=(const FrameBuilder&) = delete;

    void clear() {
        count_ = 0;
        size_ = 0;
        complete_ = true;
    }
    /// `bytes` stay as they are while the frame is used.
    void append(std::span<const std::byte> bytes) {
        if (bytes.empty())
            return;
        if (count_ == segments_.size()) {
            complete_ = false;
            return;
        }
        segments_[count_++] = {bytes.data(), static_cast<std::uint32_t>(bytes.size())};
        size_ += static_cast<std::uint32_t>(bytes.size());
    }
    void append(std::span<const FrameSegment> segments, std::size_t offset,
                std::size_t length = ~std::size_t{0}) {
        for_each_piece(segments, offset, length, [&](std::span<const std::byte> piece) { append(piece); });
    }
    /// Whether all that was appended found a place and makes a frame.
    [[nodiscard]] bool complete() const { return complete_ && size_ >= kMinFrameSize; }
    [[nodiscard]] Frame frame(const FrameOffload& offload) const {
        Frame frame;
        finish(frame, copy_from(std::span{segments_}.first(count_), 0, frame.header), offload);
        return frame;
    }
    /// Makes a frame of one whose header has its first `copied` bytes already.
    void finish(Frame& frame, std::size_t copied, const FrameOffload& offload) const {
        std::fill(frame.header.begin() + copied, frame.header.end(), std::byte{0});
        frame.segments = std::span{segments_}.first(count_);
        frame.size = size_;
        frame.offload = offload;
    }

private:
    std::array<FrameSegment, kMaxSegments + 2>
        segments_;  ///< the first count_: the rest is not worth clearing
    std::size_t count_{0};
    std::uint32_t size_{0};
    bool complete_{true};
};

}  // namespace hv::net
