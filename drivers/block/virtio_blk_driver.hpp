// SPDX-License-Identifier: MIT
// The driver of virtio disks of the machine that the host runs on, below a command engine: each of its queues
// is a channel, each command a chain of header, data and status. [virtio1.2 5.2 Block Device] Left out:
// secure erase, zoned disks, lifetime information.
#pragma once

#include "drivers/block/command_engine.hpp"
#include "drivers/virtio/driver_queue.hpp"
#include "drivers/virtio/pci_transport.hpp"
#include "drivers/virtio/virtio_blk_defs.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/timer.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/mm/dma.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

namespace hv::block {

class VirtioBlkDriver final : public CommandHardware {
public:
    struct Options {
        std::string_view name;  ///< in the log; outlives the driver
        unsigned max_queues;    ///< 1 to CommandEngine::kMaxChannels
        /// Entries of the MSI-X table that are set: queue q gets entry q if there are enough, all of them get
        /// entry 0 else.
        unsigned vectors;
    };
    /// Resets the device and takes it into use, at boot: waits for it, a second at most for each step. All
    /// outlive the driver. Error::no_memory, Error::timed_out, Error::io_error; Error::unsupported: a device
    /// that this driver cannot work with; Error::corrupted: a configuration that makes no sense.
    static Expected<std::unique_ptr<VirtioBlkDriver>>
    create(const virtio::PciTransport& transport, DmaPool& pool, const Clock& clock, const Options& options);
    /// The device has no way to memory from now on.
    ~VirtioBlkDriver() { transport_.shut_down(); }
    VirtioBlkDriver(const VirtioBlkDriver&) = delete;
    VirtioBlkDriver& operator=(const VirtioBlkDriver&) = delete;

    // What the engine above has to know.
    [[nodiscard]] const DiskDescription& disk() const { return disk_; }
    [[nodiscard]] unsigned channels() const { return static_cast<unsigned>(channels_.size()); }
    [[nodiscard]] unsigned slots() const { return slots_; }
    [[nodiscard]] bool shared_interrupt() const { return options_.vectors < channels(); }

    // CommandHardware
    void issue(unsigned channel, unsigned slot, const BlockCommand& command) override;
    void commit(unsigned channel) override;
    std::size_t reap(unsigned channel, std::span<Completion> out) override;
    [[nodiscard]] bool needs_reset(Look look) override;
    void begin_reset() override;
    ResetProgress poll_reset() override;
    bool look_at_sizes(std::span<const std::unique_ptr<HardwareDisk>> disks) override;

private:
    static constexpr std::uint16_t kQueueSize = 128;
    static constexpr std::uint32_t kMaxRuns = 62;  ///< a chain of 64
    /// Where each buffer of a chain needs a place in the ring, shorter ones leave room for more chains.
    static constexpr std::uint32_t kMaxRunsDirect = 14;
    static constexpr unsigned kOwnBuffers = 2;  ///< of a chain, beside the data: header and status
    static constexpr std::uint32_t kMaxTransfer = 1024 * 1024;

    /// What a command needs beside its data.
    struct SlotMemory {
        virtio::BlkHeader header;
        virtio::BlkRange range;
        std::array<char, virtio::kBlkIdSize> id;
        std::uint8_t status;
        std::array<std::uint8_t, 11> unused;
    };
    static_assert(sizeof(SlotMemory) == 64);

    struct Channel {
        virtio::DriverQueue queue;
        DmaBuffer memory;  ///< a SlotMemory for each slot
        virtio::Doorbell doorbell{};
        std::array<virtio::QueueBuffer, kMaxRuns + kOwnBuffers> buffers{};

        [[nodiscard]] SlotMemory& slot(unsigned index) const {
            return *memory.at<SlotMemory>(sizeof(SlotMemory) * index);
        }
        [[nodiscard]] virtio::QueueBuffer buffer(unsigned slot, std::size_t offset, std::size_t size) const {
            return {memory.address() + sizeof(SlotMemory) * slot + offset, static_cast<std::uint32_t>(size)};
        }
    };

    VirtioBlkDriver(const virtio::PciTransport& transport, const Clock& clock, const Options& options)
        : transport_{transport}, clock_{clock}, options_{options} {}
    [[nodiscard]] bool has(std::uint64_t feature) const { return (features_ & feature) != 0; }
    Expected<void> read_config(virtio::BlkConfig& config);
    Expected<void> describe(const virtio::BlkConfig& config, std::uint16_t queue_size);
    void describe_ranges(const virtio::BlkConfig& config);
    Expected<void> make_channels(DmaPool& pool, unsigned count, std::uint16_t queue_size);
    /// The size of `count` queues; 0: one is not there.
    [[nodiscard]] std::uint16_t common_queue_size(unsigned count);
    /// From FEATURES_OK to DRIVER_OK.
    Expected<void> enable_queues();
    Expected<void> read_serial();
    /// What became of the command in a slot that the device is done with.
    BlockStatus status_of(const Channel& channel, unsigned slot) const;

    virtio::PciTransport transport_;
    const Clock& clock_;
    const Options options_;
    DiskDescription disk_{};
    std::uint64_t features_{0};
    Vec<std::unique_ptr<Channel>> channels_;
    unsigned slots_{0};
    std::atomic<bool> broken_{false};
    std::atomic<std::uint64_t> looked_at_{0};  ///< when the device was last asked whether it needs a reset
};

}  // namespace hv::block
