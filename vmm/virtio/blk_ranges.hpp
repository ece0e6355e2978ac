// SPDX-License-Identifier: MIT
// A discard or write-zeroes request: its ranges, which the disk gets one after the other. [virtio1.2 5.2.6
// Device Operation]
#pragma once

#include "drivers/block/block_device.hpp"
#include "drivers/virtio/virtio_blk_defs.hpp"
#include "vmm/virtio/virtqueue.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace hv::virtio {

class BlkRanges {
public:
    // What a request may have, as the configuration space says.
    static constexpr std::uint32_t kMaxRanges = 16;
    static constexpr std::uint32_t kMaxRangeSectors =
        1u << 15;  ///< in one range: disks in memory zero it at once

    /// Reads the ranges of a request of type VIRTIO_BLK_T_DISCARD or VIRTIO_BLK_T_WRITE_ZEROES, of
    /// `size` bytes, for a disk with this geometry. Nothing: there are some to be worked on; else the status
    /// to answer at once.
    std::optional<std::uint8_t> read(std::uint32_t type, std::span<Piece> data, std::uint64_t size,
                                     const BlockGeometry& geometry);
    /// Of all ranges together.
    [[nodiscard]] std::uint64_t sectors() const;
    [[nodiscard]] bool writes_zeroes() const {
        return request_.operation == BlockRequest::Operation::write_zeroes;
    }

    enum class Then : std::uint8_t { nothing, flush };
    using Done = void (*)(BlkRanges& ranges, BlockStatus status);
    /// Submits what read() found. `done` is called once, on any CPU, from inside start() or later.
    void start(BlockDevice& disk, Then then, Done done, void* context);
    [[nodiscard]] void* context() const { return context_; }

private:
    /// Submits step after step until one has to be waited for.
    void run();
    /// Prepares the next step. False: there is none.
    bool advance();
    static void on_step_complete(BlockRequest& request, BlockStatus status);

    std::array<BlkRange, kMaxRanges> ranges_{};
    std::size_t count_{0};
    std::size_t next_{0};
    Then then_{Then::nothing};
    BlockDevice* disk_{nullptr};
    Done done_{nullptr};
    void* context_{nullptr};
    BlockRequest request_{};
    BlockStatus status_{};  ///< of the last step
    /// The one that comes second, of submit()'s return and the completion, goes on.
    enum Meeting : std::uint8_t { nobody, returned, completed };
    std::atomic<std::uint8_t> meeting_{nobody};
};

}  // namespace hv::virtio
