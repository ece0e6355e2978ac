// SPDX-License-Identifier: MIT
// The socket device's constants and layouts, spelled as in the specification. [virtio1.2 5.10 Socket Device]
#pragma once

#include "drivers/virtio/virtio_defs.hpp"

#include <cstdint>

namespace hv::virtio {

inline constexpr std::uint64_t VIRTIO_VSOCK_F_STREAM = feature(0);  // [virtio1.2 5.10.3 Feature bits]

/// [virtio1.2 5.10.4 Device configuration layout]: the CIDs that a guest cannot have are 0, 1, 2 and those
/// beyond 32 bits and the highest of these.
inline constexpr std::uint64_t kVsockHostCid = 2;
inline constexpr std::uint64_t kVsockFirstGuestCid = 3;
inline constexpr std::uint64_t kVsockLastGuestCid = 0xffff'fffe;

/// struct virtio_vsock_hdr [virtio1.2 5.10.6 Device Operation].
struct [[gnu::packed]] VsockHeader {
    std::uint64_t src_cid, dst_cid;
    std::uint32_t src_port, dst_port, len;
    std::uint16_t type, op;
    std::uint32_t flags, buf_alloc, fwd_cnt;
};
static_assert(sizeof(VsockHeader) == 44);

inline constexpr std::uint16_t VIRTIO_VSOCK_TYPE_STREAM = 1;
inline constexpr std::uint16_t VIRTIO_VSOCK_OP_REQUEST = 1;
inline constexpr std::uint16_t VIRTIO_VSOCK_OP_RESPONSE = 2;
inline constexpr std::uint16_t VIRTIO_VSOCK_OP_RST = 3;
inline constexpr std::uint16_t VIRTIO_VSOCK_OP_SHUTDOWN = 4;
inline constexpr std::uint16_t VIRTIO_VSOCK_OP_RW = 5;
inline constexpr std::uint16_t VIRTIO_VSOCK_OP_CREDIT_UPDATE = 6;
inline constexpr std::uint16_t VIRTIO_VSOCK_OP_CREDIT_REQUEST = 7;
inline constexpr std::uint32_t VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE = 1;
inline constexpr std::uint32_t VIRTIO_VSOCK_SHUTDOWN_F_SEND = 2;

}  // namespace hv::virtio
