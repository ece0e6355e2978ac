// SPDX-License-Identifier: MIT
// The network device: pairs of receive and transmit queues between a guest and a port of a virtual switch.
// Frames pass between guests with one copy, from the sender's buffers into the receiver's, as large and as
// unsummed as the sender's driver made them if the receiver's takes that. The driver's control queue filters
// what it receives and says how many pairs are in use; a flow is received on the pair that it is sent on.
// [virtio1.2 5.1 Network Device] Left out: RSS, UDP segmentation, offloads that change at run time.
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/base/timer.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/mm/guest_memory.hpp"
#include "vmm/net/switch_port.hpp"
#include "vmm/virtio/net_control_queue.hpp"
#include "vmm/virtio/net_queue_pair.hpp"
#include "vmm/virtio/net_receive_filter.hpp"
#include "vmm/virtio/net_steering.hpp"
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

    static constexpr unsigned kMaxPairs = (kMaxQueues - 1) / 2;

    struct Options {
        MacAddress mac;
        std::uint16_t mtu = 1500;  ///< 68 to 65535
        unsigned pairs = 1;        ///< of queues, 1 to kMaxPairs
        bool trusted = false;  ///< the switch takes frames from any address: the driver may change its own
    };

    /// `memory` and `clock` outlive the device. Error::invalid_argument, Error::no_memory.
    static Expected<std::unique_ptr<VirtioNet>> create(const GuestMemory& memory, Clock& clock,
                                                       const Options& options);
    /// The device is off its switch by now.
    ~VirtioNet() override;

    /// The switch's port for this station; nullptr pulls the cable. After Switch::add_port(), and with
    /// nullptr before Switch::remove_port(): returns once no CPU uses the old port.
    void connect(net::SwitchPort* port);
    enum class Link : std::uint8_t { down, up };
    /// Down: the cable is as good as pulled, frames are lost both ways. Up again: the driver is asked to
    /// announce itself. On the CPU that makes and destroys the device, whose timers fire there; no lock held.
    void set_link(Link link);
    /// Asks the driver to tell the network where its addresses are now. Any CPU, no lock held.
    void announce();

    [[nodiscard]] std::uint16_t device_id() const override { return VIRTIO_ID_NET; }
    [[nodiscard]] std::uint64_t features() const override;
    [[nodiscard]] bool accepts(std::uint64_t features) const override;
    [[nodiscard]] unsigned queue_count() const override {
        return 2 * static_cast<unsigned>(pairs_.size()) + 1;
    }
    [[nodiscard]] std::uint64_t read_config(std::uint64_t offset, unsigned size) const override;
    [[nodiscard]] bool start(std::uint64_t features, std::span<const QueueLayout> layouts) override;
    void stop() override;
    void queue_notified(unsigned queue) override;

    // net::Station
    net::Delivery receive(const Frame& frame) override;
    void resume() override;
    void network_changed() override;
    void tell(net::StationCounters& out) const override {
        out.add("malformed", counters_.malformed.load(std::memory_order_relaxed));
        out.add("filtered", counters_.filtered.load(std::memory_order_relaxed));
    }

    struct Counters {
        std::atomic<std::uint64_t> malformed{0};  ///< frames of the driver that no network has
        std::atomic<std::uint64_t> filtered{0};   ///< frames for the driver that it does not want
    };
    [[nodiscard]] const Counters& counters() const { return counters_; }

private:
    friend class NetTransmitQueue;
    friend class NetControlQueue;
    VirtioNet(const GuestMemory& memory, Clock& clock, const Options& options)
        : mtu_{options.mtu},
          trusted_{options.trusted},
          clock_{clock},
          filter_{options.mac},
          control_{*this, memory, clock} {}
    [[nodiscard]] unsigned control_queue() const { return control_index_.load(std::memory_order_relaxed); }
    /// The first `count` pairs are in use from now on. False: there are not so many.
    bool use_pairs(unsigned count);
    void interrupt(unsigned queue) { transport().queue_interrupt(queue); }
    void report_broken() { transport().needs_reset(); }
    /// Of a frame that is not to be segmented.
    [[nodiscard]] std::uint32_t max_frame_size() const { return mtu_ + kMtuOverhead; }

    /// A driver that learns of the link and of the announcement at once may announce itself before it takes
    /// its link for usable: so it learns of the one first.
    static constexpr std::uint64_t kAnnounceDelayNs = 100'000'000;
    /// Ethernet header and a VLAN tag.
    static constexpr std::uint32_t kMtuOverhead = 18;

    const std::uint16_t mtu_;
    const bool trusted_;
    Clock& clock_;
    // Of connect() and set_link():
    net::SwitchPort* cable_{nullptr};
    Link link_{Link::up};
    std::atomic<net::SwitchPort*> port_{nullptr};  ///< where frames go; nullptr while there is no link
    std::atomic<std::uint64_t> negotiated_{0};
    std::atomic<bool> announce_{false};  ///< asked for, and not acknowledged
    MemberTimer<VirtioNet, &VirtioNet::network_changed> announcement_{*this};
    NetReceiveFilter filter_;
    NetSteering steering_;
    NetControlQueue control_;
    std::atomic<unsigned> control_index_{2};
    Vec<std::unique_ptr<NetQueuePair>> pairs_;
    Counters counters_;
};

}  // namespace hv::virtio
