// SPDX-License-Identifier: MIT
// The receive queue of a virtio NIC. Its buffers hold a header and a whole frame each, and are read in place;
// what the device says of them is read once and checked.
#pragma once

#include "drivers/net/net_device.hpp"
#include "drivers/virtio/driver_queue.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/mm/dma.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

namespace hv::netdrv {

/// For one CPU at a time.
class VirtioNetReceiver {
public:
    static constexpr std::uint16_t kMaxQueueSize = 256;

    /// Error::no_memory.
    static Expected<VirtioNetReceiver> create(DmaPool& pool, std::uint16_t queue_size,
                                              std::uint64_t features);

    /// Takes all buffers back, before the device gets to know of the queue, which has them after publish().
    void start();
    struct Arrival {
        std::uint16_t buffer;             ///< for release()
        bool damaged;                     ///< or of a size that no frame has: the rest is not to be looked at
        std::span<const std::byte> data;  ///< the frame
        FrameOffload offload;
    };
    std::optional<Arrival> next();
    /// Gives a buffer back to the device, which has it after publish().
    void release(std::uint16_t buffer);
    /// True: the device wants to be notified.
    [[nodiscard]] bool publish() { return queue_.publish(); }
    void suppress_interrupts() { queue_.suppress_interrupts(); }
    /// True: some frames came meanwhile.
    [[nodiscard]] bool request_interrupts() { return queue_.request_interrupts(); }
    [[nodiscard]] const virtio::DriverQueue& queue() const { return queue_; }

private:
    static constexpr std::size_t kBufferSize = 2048;

    VirtioNetReceiver(virtio::DriverQueue queue, DmaBuffer buffers, std::uint64_t features)
        : queue_{std::move(queue)}, buffers_{std::move(buffers)}, features_{features} {
        start();
    }

    virtio::DriverQueue queue_;
    DmaBuffer buffers_;
    std::uint64_t features_;
};

}  // namespace hv::netdrv
