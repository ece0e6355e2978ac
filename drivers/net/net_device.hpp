// SPDX-License-Identifier: MIT
// An Ethernet interface: virtual NICs and physical ones are the two kinds of stations on a virtual switch.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace hv {

using MacAddress = std::array<std::uint8_t, 6>;

/// A piece of a frame in host memory.
struct FrameSegment {
    const std::byte* data;
    std::uint32_t size;
};

/// Work on a frame that its sender left to the receiver, in virtio's terms [virtio1.2 5.1.6 Device
/// Operation].
struct FrameOffload {
    bool needs_checksum{};    ///< VIRTIO_NET_HDR_F_NEEDS_CSUM
    bool data_valid{};        ///< VIRTIO_NET_HDR_F_DATA_VALID
    std::uint8_t gso_type{};  ///< VIRTIO_NET_HDR_GSO_*
    std::uint16_t header_length{};
    std::uint16_t gso_size{};
    std::uint16_t checksum_start{};
    std::uint16_t checksum_offset{};
};

/// An Ethernet frame without FCS. The memory may belong to a guest that changes it meanwhile: decisions are
/// made on the copied header, and every receiver copies each byte once.
struct Frame {
    std::array<std::byte, 18>
        header;  ///< the first bytes (addresses, type, VLAN tag), copied out of the segments
    std::span<const FrameSegment> segments;  ///< the whole frame, header included
    std::uint32_t size;                      ///< bytes in all segments, at least 14
    FrameOffload offload;
};

/// What takes frames: a switch takes them from a station, a station from its switch.
class FrameSink {
public:
    /// Copies what it needs before it returns. False: dropped, for lack of room or because it may not pass.
    virtual bool transmit(const Frame& frame) = 0;

protected:
    ~FrameSink() = default;
};

}  // namespace hv
