// SPDX-License-Identifier: MIT
// The network device: pairs of receive and transmit queues between a guest and a port of a virtual switch.
// Frames pass between guests with one copy, from the sender's buffers into the receiver's, as large and as
// unsummed as the sender's driver made them if the receiver's takes that. [virtio1.2 5.1 Network Device] Left
// out: control queue, multiqueue, RSS.
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/base/timer.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/mm/guest_memory.hpp"
#include "vmm/net/switch_port.hpp"
#include "vmm/virtio/net_queue_pair.hpp"
#include "vmm/virtio/virtio_device.hpp"

#include <atomic>
#include <cstdint>
#include <memory>

namespace hv::virtio {

class VirtioNet final : public VirtioDevice, public net::Station {
public:
    /// The queues of pair `pair` [virtio1.2 5.1.2 Virtqueues].
    static constexpr unsigned receive_queue(unsigned pair) { return 2 * pair; }
    static constexpr unsigned transmit_queue(unsigned pair) { return 2 * pair + 1; }

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
    [[nodiscard]] unsigned queue_count() const override { return 2 * static_cast<unsigned>(pairs_.size()); }
    [[nodiscard]] std::uint64_t read_config(std::uint64_t offset, unsigned size) const override;
    [[nodiscard]] bool start(std::uint64_t features, std::span<const QueueLayout> layouts) override;
    void stop() override;
    void queue_notified(unsigned queue) override;

    // net::Station
    net::Delivery receive(const Frame& frame) override;
    void resume() override;

    struct Counters {
        std::atomic<std::uint64_t> malformed{0};  ///< frames of the driver that no network has
    };
    [[nodiscard]] const Counters& counters() const { return counters_; }

private:
    friend class NetTransmitQueue;
    explicit VirtioNet(const Options& options) : mac_{options.mac}, mtu_{options.mtu} {}
    void interrupt(unsigned queue) { transport().queue_interrupt(queue); }
    void report_broken() { transport().needs_reset(); }
    /// Of a frame that is not to be segmented.
    [[nodiscard]] std::uint32_t max_frame_size() const { return mtu_ + kMtuOverhead; }

    /// Ethernet header and a VLAN tag.
    static constexpr std::uint32_t kMtuOverhead = 18;

    const MacAddress mac_;
    const std::uint16_t mtu_;
    std::atomic<net::SwitchPort*> port_{nullptr};
    Vec<std::unique_ptr<NetQueuePair>> pairs_;
    Counters counters_;
};

}  // namespace hv::virtio
