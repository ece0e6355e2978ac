// SPDX-License-Identifier: MIT
// The block device: takes requests from any number of queues and hands them to a BlockDevice without copying
// a byte; completions come on any CPU, in any order, at any time. [virtio1.2 5.2 Block Device]
#pragma once

#include "drivers/block/block_device.hpp"
#include "drivers/virtio/virtio_blk_defs.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/timer.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/mm/guest_memory.hpp"
#include "vmm/virtio/virtio_device.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

namespace hv::virtio {

class BlkQueue;

class VirtioBlk final : public VirtioDevice {
public:
    static constexpr std::uint32_t kMaxRangeSectors = 1u << 22;  ///< of one discard or write-zeroes request

    struct Options {
        unsigned queues = 1;      ///< 1 to kMaxQueues
        std::string_view serial;  ///< what GET_ID answers, cut off at kBlkIdSize bytes
    };

    /// `disk`, `memory` and `clock` outlive the device. Error::invalid_argument, Error::no_memory.
    static Expected<std::unique_ptr<VirtioBlk>> create(BlockDevice& disk, const GuestMemory& memory,
                                                       Clock& clock, const Options& options);
    /// Waits for the disk to end what it works on.
    ~VirtioBlk() override;

    [[nodiscard]] std::uint16_t device_id() const override { return VIRTIO_ID_BLOCK; }
    [[nodiscard]] std::uint64_t features() const override;
    [[nodiscard]] unsigned queue_count() const override { return static_cast<unsigned>(queues_.size()); }
    [[nodiscard]] std::uint64_t read_config(std::uint64_t offset, unsigned size) const override;
    [[nodiscard]] bool start(std::uint64_t features, std::span<const QueueLayout> layouts) override;
    void stop() override;
    [[nodiscard]] bool drained() const override;
    void queue_notified(unsigned queue) override;

    struct Counters {
        std::atomic<std::uint64_t> reads{0}, writes{0}, flushes{0}, errors{0};
        std::atomic<std::uint64_t> sectors_read{0}, sectors_written{0};
    };
    [[nodiscard]] const Counters& counters() const { return counters_; }

private:
    friend class BlkQueue;
    VirtioBlk(BlockDevice& disk, const BlockGeometry& geometry, const Options& options);
    void interrupt(unsigned queue) { transport().queue_interrupt(queue); }
    void report_broken() { transport().needs_reset(); }

    BlockDevice& disk_;
    const BlockGeometry geometry_;
    std::array<std::byte, kBlkIdSize> serial_{};
    Vec<std::unique_ptr<BlkQueue>> queues_;
    Counters counters_;
};

}  // namespace hv::virtio
