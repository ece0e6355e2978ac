// SPDX-License-Identifier: MIT
// The memory balloon's constants and layouts, spelled as in the specification.
// [virtio1.2 5.5 Traditional Memory Balloon Device]
#pragma once

#include "drivers/virtio/virtio_defs.hpp"

#include <cstddef>
#include <cstdint>

namespace hv::virtio {

// --- features [virtio1.2 5.5.3 Feature bits]
// ---------------------------------------------------------------------------
inline constexpr std::uint64_t VIRTIO_BALLOON_F_MUST_TELL_HOST = feature(0);
inline constexpr std::uint64_t VIRTIO_BALLOON_F_STATS_VQ = feature(1);
inline constexpr std::uint64_t VIRTIO_BALLOON_F_DEFLATE_ON_OOM = feature(2);
inline constexpr std::uint64_t VIRTIO_BALLOON_F_PAGE_REPORTING = feature(5);

/// struct virtio_balloon_config [virtio1.2 5.5.4 Device configuration layout].
struct BalloonConfig {
    std::uint32_t num_pages, actual;
    std::uint32_t free_page_hint_cmd_id, poison_val;
};
static_assert(sizeof(BalloonConfig) == 16);

/// struct virtio_balloon_stat [virtio1.2 5.5.6.3 Memory Statistics].
struct [[gnu::packed]] BalloonStat {
    std::uint16_t tag;
    std::uint64_t val;
};
static_assert(sizeof(BalloonStat) == 10);
inline constexpr std::uint16_t VIRTIO_BALLOON_S_SWAP_IN = 0;
inline constexpr std::uint16_t VIRTIO_BALLOON_S_MEMFREE = 4;
inline constexpr std::uint16_t VIRTIO_BALLOON_S_MEMTOT = 5;
inline constexpr std::uint16_t VIRTIO_BALLOON_S_AVAIL = 6;
inline constexpr std::size_t kBalloonStats = 10;  ///< tags that are defined

}  // namespace hv::virtio
