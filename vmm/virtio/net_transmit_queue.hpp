// SPDX-License-Identifier: MIT
// One transmit queue of a network device: checks the driver's frames and hands them to the switch, from the
// driver's buffers; what the switch has no room for stays in the ring. [virtio1.2 5.1.6.2 Packet
// Transmission]
#pragma once

#include "vmm/base/timer.hpp"
#include "vmm/base/turn.hpp"
#include "vmm/mm/guest_memory.hpp"
#include "vmm/net/station.hpp"
#include "vmm/virtio/virtqueue.hpp"

#include <array>
#include <atomic>
#include <cstdint>

namespace hv::virtio {

class VirtioNet;

class NetTransmitQueue final : private Timer {
public:
    /// The queue of `device`'s queue pair `pair`.
    NetTransmitQueue(VirtioNet& device, unsigned pair, const GuestMemory& memory, Clock& clock)
        : device_{device}, pair_{pair}, clock_{clock}, ring_{memory} {}

    Expected<void> start(const QueueLayout& layout, std::uint64_t features);
    void stop();
    /// Returns once no CPU uses a port that the device has left. Not from inside a port's call.
    void wait() const { turn_.wait(); }
    /// Sends what the queue holds, unless another CPU is at it, who then looks again.
    void process();

private:
    /// Work after which a doorbell's vCPU goes on and a timer continues.
    static constexpr unsigned kFrameBudget = Virtqueue::kMaxSize;
    static constexpr std::uint64_t kByteBudget = kMiB;
    static constexpr unsigned kRounds = 4;
    /// That long a driver may have to wait for an interrupt that says that its frames are sent: meanwhile it
    /// learns so from the used ring, as it sends others, and needs none.
    static constexpr std::uint64_t kKeepNs = 250'000;

    void fire() override;
    enum class Progress : std::uint8_t {
        done,
        waits,  ///< a frame waits, until `retry_at` at the latest
        more,   ///< the budget is used up
    };
    Progress process_ring(std::uint64_t& retry_at);
    void publish();
    /// Leaves what was pushed to the next turn, a timer's at the latest. False: it is to be published now, as
    /// it costs no interrupt, or as it is much of the ring.
    bool keep_completions();
    /// Sends the frame that `chain` holds.
    net::Delivery send(Chain& chain, std::uint64_t& retry_at);

    VirtioNet& device_;
    const unsigned pair_;
    Clock& clock_;
    Turn turn_{Turn::Initially::closed};
    std::atomic<bool> due_soon_{false};  ///< the timer comes for completions that were kept
    // Of whoever has the turn; changed by start() while it is closed:
    Virtqueue ring_;
    std::uint64_t negotiated_{0};
    std::uint32_t progress_{0};                      ///< of the frame that waits: Frame::progress
    decltype(Frame::header) waiting_{};              ///< of one that was taken in part, its header
    std::uint32_t waiting_size_{0};                  ///< and size
    std::array<Piece, net::kMaxSegments> pieces_{};  ///< the chain at hand
};

}  // namespace hv::virtio
