// SPDX-License-Identifier: MIT
// Cutting and copying of what a chain names: drivers may split headers, data and trailers over descriptors as
// they like [virtio1.2 2.7.4 Message Framing].
#pragma once

#include "vmm/virtio/virtqueue.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>

namespace hv::virtio {

/// Takes the first `out.size()` bytes off the list into `out`; returns how many there were.
inline std::size_t take_front(std::span<Piece>& pieces, std::span<std::byte> out) {
    std::size_t done = 0;
    while (done < out.size() && !pieces.empty()) {
        Piece& first = pieces.front();
        const std::size_t size = std::min<std::size_t>(first.size, out.size() - done);
        std::memcpy(out.data() + done, first.data, size);
        done += size;
        first.data += size;
        first.size -= static_cast<std::uint32_t>(size);
        if (first.size == 0)
            pieces = pieces.subspan(1);
    }
    std::atomic_signal_fence(
        std::memory_order_seq_cst);  // `out` is a copy: nobody looks at the guest's memory again
    return done;
}

/// Takes `size` bytes off the front of the list, or all there are.
inline void skip_front(std::span<Piece>& pieces, std::uint64_t size) {
    while (size != 0 && !pieces.empty()) {
        Piece& first = pieces.front();
        const auto part = static_cast<std::uint32_t>(std::min<std::uint64_t>(first.size, size));
        first.data += part;
        first.size -= part;
        size -= part;
        if (first.size == 0)
            pieces = pieces.subspan(1);
    }
}

/// Takes the last byte off the list, which is not empty; returns where it is.
inline std::byte* take_last_byte(std::span<Piece>& pieces) {
    Piece& last = pieces.back();
    std::byte* at = last.data + --last.size;
    if (last.size == 0)
        pieces = pieces.first(pieces.size() - 1);
    return at;
}

/// Copies `in` to the start of the list, as far as it goes; returns how many bytes that were.
inline std::size_t copy_to(std::span<const Piece> pieces, std::span<const std::byte> in) {
    std::size_t done = 0;
    for (const Piece& piece : pieces) {
        const std::size_t size = std::min<std::size_t>(piece.size, in.size() - done);
        std::memcpy(piece.data, in.data() + done, size);
        done += size;
    }
    return done;
}

}  // namespace hv::virtio
