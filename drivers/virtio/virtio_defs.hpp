// SPDX-License-Identifier: MIT
// Constants and layouts that drivers and devices share, spelled as in the specification.
#pragma once

#include <cstdint>

namespace hv::virtio {

// --- device status [virtio1.2 2.1 Device Status Field]
// ------------------------------------------------------------------
inline constexpr std::uint8_t ACKNOWLEDGE = 1;
inline constexpr std::uint8_t DRIVER = 2;
inline constexpr std::uint8_t DRIVER_OK = 4;
inline constexpr std::uint8_t FEATURES_OK = 8;
inline constexpr std::uint8_t DEVICE_NEEDS_RESET = 64;
inline constexpr std::uint8_t FAILED = 128;

// --- device types [virtio1.2 5 Device Types]
// ----------------------------------------------------------------------------
inline constexpr std::uint16_t VIRTIO_ID_NET = 1;
inline constexpr std::uint16_t VIRTIO_ID_BLOCK = 2;
inline constexpr std::uint16_t VIRTIO_ID_CONSOLE = 3;
inline constexpr std::uint16_t VIRTIO_ID_ENTROPY = 4;
inline constexpr std::uint16_t VIRTIO_ID_BALLOON = 5;
inline constexpr std::uint16_t VIRTIO_ID_VSOCK = 19;

constexpr std::uint64_t feature(unsigned index) {
    return std::uint64_t{1} << index;
}

// --- features of the rings [virtio1.2 6 Reserved Feature Bits]
// ----------------------------------------------------------
inline constexpr std::uint64_t VIRTIO_F_INDIRECT_DESC = feature(28);
inline constexpr std::uint64_t VIRTIO_F_EVENT_IDX = feature(29);
inline constexpr std::uint64_t VIRTIO_F_VERSION_1 = feature(32);
inline constexpr std::uint64_t VIRTIO_F_ACCESS_PLATFORM = feature(33);

// --- split virtqueue [virtio1.2 2.7 Split Virtqueues]
// -------------------------------------------------------------------
struct VirtqDescriptor {
    std::uint64_t addr;
    std::uint32_t len;
    std::uint16_t flags;
    std::uint16_t next;
};
static_assert(sizeof(VirtqDescriptor) == 16);
inline constexpr std::uint16_t VIRTQ_DESC_F_NEXT = 1;
inline constexpr std::uint16_t VIRTQ_DESC_F_WRITE = 2;
inline constexpr std::uint16_t VIRTQ_DESC_F_INDIRECT = 4;
inline constexpr std::uint16_t VIRTQ_AVAIL_F_NO_INTERRUPT = 1;
inline constexpr std::uint16_t VIRTQ_USED_F_NO_NOTIFY = 1;

}  // namespace hv::virtio
