// SPDX-License-Identifier: MIT
// The network device: one receive and one transmit queue between a guest and a port of a virtual switch.
// Frames pass between guests with one copy, from the sender's buffers into the receiver's, as large and as
// unsummed as the sender's driver made them if the receiver's takes that. [virtio1.2 5.1 Network Device] Left
// out: control queue, multiqueue, RSS.
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/base/guarded.hpp"
#include "vmm/base/timer.hpp"
#include "vmm/base/turn.hpp"
#include "vmm/mm/guest_memory.hpp"
#include "vmm/net/offload.hpp"
#include "vmm/net/switch_port.hpp"
#include "vmm/virtio/net_receive_ring.hpp"
#include "vmm/virtio/virtio_device.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

namespace hv::virtio {

class VirtioNet final : public VirtioDevice, public net::Station, private Timer {
public:
    static constexpr unsigned kReceiveQueue = 0;
    static constexpr unsigned kTransmitQueue = 1;

    struct Options {
        MacAddress mac;
        std::uint16_t mtu = 1500;  ///< 68 to 65535
    };

    /// `memory` and `clock` outlive the device. Error::invalid_argument, Error::no_memory.
    static Expected<std::unique_ptr<VirtioNet>> create(const GuestMemory& memory, Clock& clock,
                                                       const Options& options);
    /// The device is off its switch by now.
    ~VirtioNet() override;

    /// The switch's port for this station; nullptr pulls the cable. After Switch::add_port(), and with
    /// nullptr before Switch::remove_port(): returns once no CPU uses the old port.
    void connect(net::SwitchPort* port);

    [[nodiscard]] std::uint16_t device_id() const override { return VIRTIO_ID_NET; }
    [[nodiscard]] std::uint64_t features() const override;
    [[nodiscard]] bool accepts(std::uint64_t features) const override;
    [[nodiscard]] unsigned queue_count() const override { return 2; }
    [[nodiscard]] std::uint64_t read_config(std::uint64_t offset, unsigned size) const override;
    [[nodiscard]] bool start(std::uint64_t features, std::span<const QueueLayout> layouts) override;
    void stop() override;
    void queue_notified(unsigned queue) override;

    // net::Station
    net::Delivery receive(const Frame& frame) override;
    void resume() override { transmit(); }

    struct Counters {
        std::atomic<std::uint64_t> malformed{0};  ///< frames of the driver that no network has
    };
    [[nodiscard]] const Counters& counters() const { return counters_; }

private:
    /// Work after which a doorbell's vCPU goes on and a timer continues.
    static constexpr unsigned kFrameBudget = Virtqueue::kMaxSize;
    static constexpr std::uint64_t kByteBudget = kMiB;
    static constexpr unsigned kRounds = 4;

    VirtioNet(const GuestMemory& memory, Clock& clock, const Options& options);
    void fire() override { transmit(); }

    /// Sends what the transmit queue holds, unless another CPU is at it, who then looks again.
    void transmit();
    enum class Progress : std::uint8_t {
        done,
        waits,  ///< a frame waits, until `retry_at` at the latest
        more,   ///< the budget is used up
    };
    Progress transmit_ring(std::uint64_t& retry_at);
    /// Sends the frame that `chain` holds.
    net::Delivery send(Chain& chain, std::uint64_t& retry_at);

    Clock& clock_;
    const MacAddress mac_;
    const std::uint16_t mtu_;

    std::atomic<net::SwitchPort*> port_{nullptr};

    Turn transmit_turn_{Turn::Initially::closed};
    // Of whoever has the turn; changed by start() while it is closed:
    Virtqueue transmit_ring_;
    std::uint64_t negotiated_{0};
    std::array<Piece, net::kMaxSegments> pieces_{};  ///< the chain at hand

    Guarded<NetReceiveRing, Rank::device_rx> receive_ring_;
    Counters counters_;
};

}  // namespace hv::virtio
