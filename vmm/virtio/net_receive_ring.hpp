// SPDX-License-Identifier: MIT
// A network device's receive queue: puts frames into the driver's buffers, over several of them where the
// driver negotiated that. Needs its user's lock. [virtio1.2 5.1.6.4 Processing of Incoming Packets]
#pragma once

#include "drivers/virtio/virtio_net_defs.hpp"
#include "vmm/mm/guest_memory.hpp"
#include "vmm/net/offload.hpp"
#include "vmm/net/station.hpp"
#include "vmm/virtio/virtqueue.hpp"

#include <array>
#include <cstdint>

namespace hv::virtio {

class NetReceiveRing final : private net::FrameReceiver {
public:
    explicit NetReceiveRing(const GuestMemory& memory) : ring_{memory} {}

    /// Takes frames of `max_frame` bytes, and larger ones that the driver can take unsegmented.
    Expected<void> start(const QueueLayout& layout, std::uint64_t features, std::uint32_t max_frame);
    void stop() {
        live_ = false;
        ring_.stop();
    }
    [[nodiscard]] bool live() const { return live_; }
    /// The driver says that it made buffers available.
    void note_buffers() { awaits_buffers_ = false; }
    struct Result {
        net::Delivery delivery;
        bool interrupt;
        bool broken;
    };
    /// Puts a frame, of a valid offload, into the ring.
    Result put(const Frame& frame);

private:
    /// A frame in a form that the driver takes.
    net::Delivery receive(const Frame& frame) override;
    /// Where bytes go: the writable pieces of one chain after another.
    class Writer;

    Virtqueue ring_;
    bool live_{false};
    bool mergeable_{false};
    /// Somebody waits with a frame: another's is no reason to ask for no notification.
    bool awaits_buffers_{false};
    std::uint32_t max_frame_{0};
    OffloadSupport support_{};
    std::array<Piece, net::kMaxSegments> pieces_{};  ///< the chain at hand
};

}  // namespace hv::virtio
