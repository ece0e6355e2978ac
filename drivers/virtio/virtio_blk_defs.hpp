// SPDX-License-Identifier: MIT
// The block device's constants and layouts, which its driver and its device share, spelled as in the
// specification. [virtio1.2 5.2 Block Device]
#pragma once

#include "drivers/virtio/virtio_defs.hpp"

#include <array>
#include <cstddef>
#include <cstdint>

namespace hv::virtio {

// --- features [virtio1.2 5.2.3 Feature bits]
// ---------------------------------------------------------------------------
inline constexpr std::uint64_t VIRTIO_BLK_F_SIZE_MAX = feature(1);
inline constexpr std::uint64_t VIRTIO_BLK_F_SEG_MAX = feature(2);
inline constexpr std::uint64_t VIRTIO_BLK_F_RO = feature(5);
inline constexpr std::uint64_t VIRTIO_BLK_F_BLK_SIZE = feature(6);
inline constexpr std::uint64_t VIRTIO_BLK_F_FLUSH = feature(9);
inline constexpr std::uint64_t VIRTIO_BLK_F_TOPOLOGY = feature(10);
inline constexpr std::uint64_t VIRTIO_BLK_F_CONFIG_WCE = feature(11);
inline constexpr std::uint64_t VIRTIO_BLK_F_MQ = feature(12);
inline constexpr std::uint64_t VIRTIO_BLK_F_DISCARD = feature(13);
inline constexpr std::uint64_t VIRTIO_BLK_F_WRITE_ZEROES = feature(14);

/// struct virtio_blk_config [virtio1.2 5.2.4 Device configuration layout].
struct BlkConfig {
    std::uint64_t capacity;
    std::uint32_t size_max, seg_max;
    std::uint16_t cylinders;
    std::uint8_t heads, sectors;
    std::uint32_t blk_size;
    std::uint8_t physical_block_exp, alignment_offset;
    std::uint16_t min_io_size;
    std::uint32_t opt_io_size;
    std::uint8_t writeback, unused0;
    std::uint16_t num_queues;
    std::uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
    std::uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
    std::uint8_t write_zeroes_may_unmap;
    std::array<std::uint8_t, 3> unused1;
};
static_assert(offsetof(BlkConfig, blk_size) == 20 && offsetof(BlkConfig, write_zeroes_may_unmap) == 56);

// --- requests [virtio1.2 5.2.6 Device Operation]
// -----------------------------------------------------------------------
inline constexpr std::uint32_t VIRTIO_BLK_T_IN = 0;
inline constexpr std::uint32_t VIRTIO_BLK_T_OUT = 1;
inline constexpr std::uint32_t VIRTIO_BLK_T_FLUSH = 4;
inline constexpr std::uint32_t VIRTIO_BLK_T_GET_ID = 8;
inline constexpr std::uint32_t VIRTIO_BLK_T_DISCARD = 11;
inline constexpr std::uint32_t VIRTIO_BLK_T_WRITE_ZEROES = 13;
inline constexpr std::uint8_t VIRTIO_BLK_S_OK = 0;
inline constexpr std::uint8_t VIRTIO_BLK_S_IOERR = 1;
inline constexpr std::uint8_t VIRTIO_BLK_S_UNSUPP = 2;
inline constexpr std::size_t kBlkIdSize = 20;  ///< what GET_ID answers

/// What a request begins with.
struct BlkHeader {
    std::uint32_t type, reserved;
    std::uint64_t sector;
};

/// struct virtio_blk_discard_write_zeroes
struct BlkRange {
    std::uint64_t sector;
    std::uint32_t num_sectors;
    std::uint32_t flags;
};
inline constexpr std::uint32_t VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP = 1;  ///< BlkRange::flags, bit 0

}  // namespace hv::virtio
