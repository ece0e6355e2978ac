// SPDX-License-Identifier: MIT
// A disk as its users see it: asynchronous requests over host memory. Served by RAM disks, overlays,
// partitions and physical controllers.
#pragma once

#include "vmm/base/error.hpp"
#include "vmm/base/list.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace hv {

inline constexpr std::uint32_t kSectorSize = 512;
/// Numbers of those who share a physical disk, see BlockRequest::user.
inline constexpr unsigned kBlockUsers = 32;

struct BlockSegment {
    std::byte* data;  ///< in the direct map
    std::uint32_t size;
};

enum class BlockStatus : std::uint8_t { ok, io_error, unsupported };

/// One transfer, owned by the submitter and left alone by it until complete() is called.
struct BlockRequest {
    enum class Operation : std::uint8_t { read, write, flush, discard, write_zeroes };

    Operation operation{};
    bool may_unmap{};  ///< write_zeroes: the disk may give the space up
    /// Who asks, less than kBlockUsers: a physical disk serves those whose requests wait in turn. Set by who
    /// hands the disk out.
    std::uint8_t user{};
    std::uint64_t sector{};                    ///< first sector, in units of 512 bytes
    std::uint64_t sector_count{};              ///< of all operations but flush
    std::span<const BlockSegment> segments{};  ///< read, write: sector_count * 512 bytes in all
    /// Called once, on any CPU, from inside submit() or later. The device does not touch the request
    /// afterwards.
    void (*complete)(BlockRequest& request, BlockStatus status){};
    void* context{};

    // The device's own, while it has the request:
    ListLink link{};
    std::uint64_t issued{};    ///< sectors that its hardware has got
    std::uint32_t segment{};   ///< where they end: in this segment,
    std::uint32_t offset{};    ///< after so many bytes
    std::uint32_t commands{};  ///< of its hardware that have not ended
    std::uint16_t unit{};
    BlockStatus worst_status{};
};

/// What tells a disk from all others, whichever way it is reached. Zeroes: it does not tell.
struct DiskIdentifier {
    std::array<std::uint8_t, 16> nguid{};
    std::array<std::uint8_t, 8> eui64{};

    /// Whether this and `other` are certainly one disk: by the longer identifier that both have.
    [[nodiscard]] bool is_same(const DiskIdentifier& other) const {
        if (nguid != decltype(nguid){} && other.nguid != decltype(nguid){})
            return nguid == other.nguid;
        return eui64 != decltype(eui64){} && eui64 == other.eui64;
    }
};

struct BlockGeometry {
    std::uint64_t sectors;             ///< capacity in units of 512 bytes
    std::uint32_t logical_block_size;  ///< 512 or 4096: requests are multiples of it
    bool read_only;
    bool can_discard;
    bool can_unmap_zeroes = false;  ///< it takes notice of BlockRequest::may_unmap
    /// Best written whole: a power of two, at least a logical block.
    std::uint32_t physical_block_size = 4096;
};

/// Whether these are sectors of the disk, and whole logical blocks.
[[nodiscard]] inline bool lies_on_disk(const BlockGeometry& geometry, std::uint64_t sector,
                                       std::uint64_t sectors) {
    const std::uint64_t unit = geometry.logical_block_size / kSectorSize;
    return sector <= geometry.sectors && sectors <= geometry.sectors - sector && sector % unit == 0 &&
           sectors % unit == 0;
}

class BlockDevice {
public:
    virtual ~BlockDevice() = default;
    [[nodiscard]] virtual BlockGeometry geometry() const = 0;
    /// It is lost for good: all requests complete with io_error.
    [[nodiscard]] virtual bool gone() const { return false; }
    /// What went wrong with its hardware, which other disks may share.
    struct Troubles {
        std::uint64_t resets;
        std::uint64_t strays;  ///< completions of commands that it did not have
    };
    [[nodiscard]] virtual Troubles troubles() const { return {}; }
    /// Starts `request`. A request that lies outside the disk, or is not allowed, completes with io_error.
    virtual void submit(BlockRequest& request) = 0;
};

}  // namespace hv
