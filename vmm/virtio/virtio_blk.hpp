// SPDX-License-Identifier: MIT
// The block device: takes requests from any number of queues and hands them to a BlockDevice without copying
// a byte; completions come on any CPU, in any order, at any time. The disk may change its size.
// [virtio1.2 5.2 Block Device] Left out: secure erase, lifetime, zoned disks.
#pragma once

#include "drivers/block/block_device.hpp"
#include "drivers/virtio/virtio_blk_defs.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/timer.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/mm/guest_memory.hpp"
#include "vmm/virtio/blk_throttle.hpp"
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
    // Of a read or write, as the configuration space says: disks in memory move all of it at once.
    static constexpr std::uint32_t kSegMax = Virtqueue::kMaxSize - 2;  ///< header and status
    static constexpr std::uint32_t kSizeMax = 256 * 1024;
    static constexpr std::uint64_t kMaxTransfer = std::uint64_t{kSegMax} * kSizeMax;

    struct Options {
        unsigned queues = 1;      ///< 1 to kMaxQueues
        std::string_view serial;  ///< what GET_ID answers, cut off at kBlkIdSize bytes
        // Of all queues together; 0: no limit.
        std::uint64_t bytes_per_second = 0;
        std::uint64_t requests_per_second = 0;
    };

    /// `disk`, `memory` and `clock` outlive the device. Error::invalid_argument, Error::no_memory.
    static Expected<std::unique_ptr<VirtioBlk>> create(BlockDevice& disk, const GuestMemory& memory,
                                                       Clock& clock, const Options& options);
    /// Waits for the disk to end what it works on.
    ~VirtioBlk() override;

    [[nodiscard]] std::uint16_t device_id() const override { return VIRTIO_ID_BLOCK; }
    [[nodiscard]] std::uint64_t features() const override;
    [[nodiscard]] bool accepts(std::uint64_t features) const override;
    void negotiated(std::uint64_t features) override;
    [[nodiscard]] unsigned queue_count() const override { return static_cast<unsigned>(queues_.size()); }
    [[nodiscard]] std::uint64_t read_config(std::uint64_t offset, unsigned size) const override;
    void write_config(std::uint64_t offset, unsigned size, std::uint64_t value) override;
    [[nodiscard]] bool start(std::uint64_t features, std::span<const QueueLayout> layouts) override;
    void stop() override;
    [[nodiscard]] bool drained() const override;
    void queue_notified(unsigned queue) override;

    /// The disk has another size now; the driver is told. Any CPU, no lock of rank board or above held.
    void capacity_changed(std::uint64_t sectors);

    struct Counters {
        std::atomic<std::uint64_t> reads{0}, writes{0}, flushes{0}, errors{0};
        std::atomic<std::uint64_t> sectors_read{0}, sectors_written{0};
    };
    [[nodiscard]] const Counters& counters() const { return counters_; }

private:
    friend class BlkQueue;
    VirtioBlk(BlockDevice& disk, const BlockGeometry& geometry, const Options& options);
    void interrupt(unsigned queue) { transport().queue_interrupt(queue); }
    [[nodiscard]] BlockGeometry geometry() const {
        BlockGeometry geometry = geometry_;
        geometry.sectors = sectors_.load(std::memory_order_relaxed);
        return geometry;
    }
    void report_broken() { transport().needs_reset(); }

    BlockDevice& disk_;
    const BlockGeometry geometry_;  ///< but for the size:
    std::atomic<std::uint64_t> sectors_;
    std::atomic<bool> writeback_{true};  ///< false: what was written is stable when the driver hears of it
    std::atomic<bool> writeback_writable_{false};
    BlkThrottle throttle_;
    std::array<std::byte, kBlkIdSize> serial_{};
    Vec<std::unique_ptr<BlkQueue>> queues_;
    Counters counters_;
};

}  // namespace hv::virtio
