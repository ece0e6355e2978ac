// SPDX-License-Identifier: MIT
// The transmit queue of a virtio NIC. Frames are copied into buffers of its own, behind their header: their
// memory may belong to a guest that changes it meanwhile, and the sender goes on at once. Nobody is told when
// a frame has left: buffers come back when room is needed.
#pragma once

#include "drivers/net/net_device.hpp"
#include "drivers/virtio/driver_queue.hpp"
#include "drivers/virtio/virtio_net_defs.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/mm/dma.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace hv::netdrv {

/// Needs its user's lock.
class VirtioNetTransmitter {
public:
    static constexpr std::uint16_t kMaxQueueSize = 256;

    /// `queue_size` is at most kMaxQueueSize. Error::no_memory.
    static Expected<VirtioNetTransmitter> create(DmaPool& pool, std::uint16_t queue_size,
                                                 std::uint64_t features);

    /// Forgets all frames, before the device gets to know of the queue.
    void start();
    enum class Put : std::uint8_t {
        queued,
        no_room,
        refused,  ///< too long for the wire, or it asks for what the device does not do
    };
    /// Copies `frame` behind what is queued already. The device sees it after publish().
    Put put(const Frame& frame);
    /// True: the device wants to be notified.
    [[nodiscard]] bool publish() { return queue_.publish(); }
    /// Takes back what has been sent.
    void reclaim();
    /// Whether, since the last call, a frame found no room and none was sent.
    [[nodiscard]] bool stalled();
    [[nodiscard]] const virtio::DriverQueue& queue() const { return queue_; }

private:
    static constexpr std::size_t kSmall = 2048;  ///< an ordinary frame, with its header
    /// 64 KiB of TCP with its headers; as many as go into 1 MiB.
    static constexpr std::size_t kLarge = std::size_t{68} * 1024;
    static constexpr std::uint16_t kLargeCount = 15;
    /// Tokens from here on are large buffers.
    static constexpr std::uint16_t kFirstLarge = kMaxQueueSize;

    /// Buffers that are free, by their tokens.
    template <std::size_t N>
    struct Stack {
        std::array<std::uint16_t, N> tokens{};
        std::size_t count{0};
        void push(std::uint16_t token) { tokens[count++] = token; }
    };

    VirtioNetTransmitter(virtio::DriverQueue queue, DmaBuffer small, DmaBuffer large, std::uint64_t features)
        : queue_{std::move(queue)},
          small_buffers_{std::move(small)},
          large_buffers_{std::move(large)},
          features_{features} {
        start();
    }
    [[nodiscard]] bool has(std::uint64_t feature) const { return (features_ & feature) != 0; }
    [[nodiscard]] bool may_send(const Frame& frame) const;
    void give_back(std::uint16_t token);

    virtio::DriverQueue queue_;
    DmaBuffer small_buffers_;
    DmaBuffer large_buffers_;  ///< none if the device does not segment
    std::uint64_t features_;
    Stack<kMaxQueueSize> small_;
    Stack<kLargeCount> large_;
    bool lacked_room_{false};
    bool progressed_{false};
};

}  // namespace hv::netdrv
