// SPDX-License-Identifier: MIT
// What a sender left to the hardware, done in software for receivers that cannot take it: TCP segmentation
// and checksums. Between stations that can, frames pass unsegmented and unsummed.
#pragma once

#include "vmm/net/station.hpp"

namespace hv::net {

/// Whether `offload` is consistent in itself and with a frame of `size` bytes. Senders drop what is not.
[[nodiscard]] bool is_valid(const FrameOffload& offload, std::uint32_t size);

/// Whether the checksum that `frame` lacks, whose offload is valid, lies behind all that a switch decides on:
/// behind the IP header, and not in a message of Neighbor Discovery. Senders drop what would have its headers
/// changed later.
[[nodiscard]] bool leaves_headers(const Frame& frame);

/// How many frames at most `frame`, whose offload is valid, becomes on a wire.
[[nodiscard]] inline std::uint32_t segment_count(const Frame& frame) {
    return frame.offload.gso_type == kGsoNone ? 1 : frame.size / frame.offload.gso_size + 1;
}

/// Hands `frame`, of a valid offload, to `to` in a form that `support` allows: as it is, with its checksum
/// filled in, or as several frames: then from Frame::progress on, if the sender goes on later, and else those
/// without room are lost.
Delivery deliver(const Frame& frame, const OffloadSupport& support, FrameReceiver& to);

}  // namespace hv::net
