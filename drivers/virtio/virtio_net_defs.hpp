// SPDX-License-Identifier: MIT
// The network device's constants and layouts, which its driver and its device share, spelled as in the
// specification. [virtio1.2 5.1 Network Device]
#pragma once

#include "drivers/virtio/virtio_defs.hpp"

#include <array>
#include <cstdint>

namespace hv::virtio {

// --- features [virtio1.2 5.1.3 Feature bits]
// ---------------------------------------------------------------------------
inline constexpr std::uint64_t VIRTIO_NET_F_CSUM = feature(0);
inline constexpr std::uint64_t VIRTIO_NET_F_GUEST_CSUM = feature(1);
inline constexpr std::uint64_t VIRTIO_NET_F_MTU = feature(3);
inline constexpr std::uint64_t VIRTIO_NET_F_MAC = feature(5);
inline constexpr std::uint64_t VIRTIO_NET_F_GUEST_TSO4 = feature(7);
inline constexpr std::uint64_t VIRTIO_NET_F_GUEST_TSO6 = feature(8);
inline constexpr std::uint64_t VIRTIO_NET_F_GUEST_ECN = feature(9);
inline constexpr std::uint64_t VIRTIO_NET_F_HOST_TSO4 = feature(11);
inline constexpr std::uint64_t VIRTIO_NET_F_HOST_TSO6 = feature(12);
inline constexpr std::uint64_t VIRTIO_NET_F_HOST_ECN = feature(13);
inline constexpr std::uint64_t VIRTIO_NET_F_MRG_RXBUF = feature(15);
inline constexpr std::uint64_t VIRTIO_NET_F_STATUS = feature(16);
inline constexpr std::uint64_t VIRTIO_NET_F_CTRL_VQ = feature(17);
inline constexpr std::uint64_t VIRTIO_NET_F_CTRL_RX = feature(18);
inline constexpr std::uint64_t VIRTIO_NET_F_CTRL_VLAN = feature(19);
inline constexpr std::uint64_t VIRTIO_NET_F_CTRL_RX_EXTRA = feature(20);
inline constexpr std::uint64_t VIRTIO_NET_F_GUEST_ANNOUNCE = feature(21);
inline constexpr std::uint64_t VIRTIO_NET_F_MQ = feature(22);
inline constexpr std::uint64_t VIRTIO_NET_F_CTRL_MAC_ADDR = feature(23);

/// struct virtio_net_config [virtio1.2 5.1.4 Device configuration layout].
struct NetConfig {
    std::array<std::uint8_t, 6> mac;
    std::uint16_t status;
    std::uint16_t max_virtqueue_pairs;
    std::uint16_t mtu;
};
static_assert(sizeof(NetConfig) == 12);
inline constexpr std::uint16_t VIRTIO_NET_S_LINK_UP = 1;
inline constexpr std::uint16_t VIRTIO_NET_S_ANNOUNCE = 2;

/// struct virtio_net_hdr [virtio1.2 5.1.6 Device Operation].
struct NetHeader {
    std::uint8_t flags;
    std::uint8_t gso_type;
    std::uint16_t hdr_len;
    std::uint16_t gso_size;
    std::uint16_t csum_start;
    std::uint16_t csum_offset;
    std::uint16_t num_buffers;
};
static_assert(sizeof(NetHeader) == 12);
inline constexpr std::uint8_t VIRTIO_NET_HDR_F_NEEDS_CSUM = 1;
inline constexpr std::uint8_t VIRTIO_NET_HDR_F_DATA_VALID = 2;

// --- the control queue's commands [virtio1.2 5.1.6.5 Control Virtqueue]: a class, a command, data; and what
// the device writes behind them
// -----------------------------------------------------------------------------------------------------------
struct NetControlHeader {
    std::uint8_t command_class;
    std::uint8_t command;
};
static_assert(sizeof(NetControlHeader) == 2);
inline constexpr std::uint8_t VIRTIO_NET_OK = 0;
inline constexpr std::uint8_t VIRTIO_NET_ERR = 1;

inline constexpr std::uint8_t VIRTIO_NET_CTRL_RX = 0;
inline constexpr std::uint8_t VIRTIO_NET_CTRL_RX_PROMISC = 0;
inline constexpr std::uint8_t VIRTIO_NET_CTRL_RX_ALLMULTI = 1;
inline constexpr std::uint8_t VIRTIO_NET_CTRL_RX_ALLUNI = 2;
inline constexpr std::uint8_t VIRTIO_NET_CTRL_RX_NOMULTI = 3;
inline constexpr std::uint8_t VIRTIO_NET_CTRL_RX_NOUNI = 4;
inline constexpr std::uint8_t VIRTIO_NET_CTRL_RX_NOBCAST = 5;

inline constexpr std::uint8_t VIRTIO_NET_CTRL_MAC = 1;
inline constexpr std::uint8_t VIRTIO_NET_CTRL_MAC_TABLE_SET = 0;
inline constexpr std::uint8_t VIRTIO_NET_CTRL_MAC_ADDR_SET = 1;

inline constexpr std::uint8_t VIRTIO_NET_CTRL_VLAN = 2;
inline constexpr std::uint8_t VIRTIO_NET_CTRL_VLAN_ADD = 0;
inline constexpr std::uint8_t VIRTIO_NET_CTRL_VLAN_DEL = 1;

inline constexpr std::uint8_t VIRTIO_NET_CTRL_ANNOUNCE = 3;
inline constexpr std::uint8_t VIRTIO_NET_CTRL_ANNOUNCE_ACK = 0;

inline constexpr std::uint8_t VIRTIO_NET_CTRL_MQ = 4;
inline constexpr std::uint8_t VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET = 0;

}  // namespace hv::virtio
