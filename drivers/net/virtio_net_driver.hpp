// SPDX-License-Identifier: MIT
// The driver of virtio NICs of the machine that the host runs on: one queue in each direction, and the
// control queue to make it promiscuous. [virtio1.2 5.1 Network Device] Left out: several queue pairs, merged
// and unsegmented received frames, an MTU other than 1500, filters.
//
// Nothing waits for what is being sent, so that no interrupt tells of it: room is made when it is needed. A
// timer looks each second after the link, and whether the device makes progress; if not, it is reset, in
// steps of the same timer.
#pragma once

#include "drivers/net/net_device.hpp"
#include "drivers/net/nic_counters.hpp"
#include "drivers/net/virtio_net_receiver.hpp"
#include "drivers/net/virtio_net_transmitter.hpp"
#include "drivers/virtio/driver_queue.hpp"
#include "drivers/virtio/pci_transport.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/guarded.hpp"
#include "vmm/base/timer.hpp"
#include "vmm/base/turn.hpp"
#include "vmm/mm/dma.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

namespace hv::netdrv {

class VirtioNetDriver final : public NetDevice {
public:
    struct Options {
        std::string_view name;  ///< in the log; outlives the driver
        unsigned vectors;       ///< entries of the MSI-X table that are set; entry 0 is for received frames
    };
    /// Resets the device and takes it into use, at boot: waits for it, a second at most. All outlive the
    /// driver. Error::no_memory, Error::timed_out, Error::io_error; Error::unsupported: a device that this
    /// driver cannot work with.
    static Expected<std::unique_ptr<VirtioNetDriver>>
    create(const virtio::PciTransport& transport, DmaPool& pool, Clock& clock, const Options& options);
    /// The device has no way to memory from now on.
    ~VirtioNetDriver() override;

    [[nodiscard]] std::string_view model() const override { return "virtio-net"; }
    [[nodiscard]] MacAddress mac() const override { return mac_; }
    [[nodiscard]] OffloadSupport offloads() const override;
    [[nodiscard]] bool link_up() const override { return link_up_.load(std::memory_order_relaxed); }
    [[nodiscard]] Counters counters() const override { return counters_.values(); }
    void start(NetUser& user) override;
    void service() override;
    bool transmit(const Frame& frame) override;

private:
    enum class State : std::uint8_t { working, resetting, gone };
    /// What CPUs that send share.
    struct Sender {
        VirtioNetTransmitter ring;
        virtio::Doorbell doorbell;
        bool open;  ///< the device takes frames
    };
    /// The command that is with the device: it is promiscuous from now on.
    struct Control {
        virtio::DriverQueue queue;
        DmaBuffer memory;
    };
    /// What create() gathers before there is a driver.
    struct Parts {
        std::uint64_t features;
        MacAddress mac;
        VirtioNetTransmitter transmitter;
        VirtioNetReceiver receiver;
        std::optional<Control> control;
    };

    VirtioNetDriver(const virtio::PciTransport& transport, Clock& clock, const Options& options,
                    Parts&& parts);
    static Expected<Parts> prepare(virtio::PciTransport& transport, DmaPool& pool, const Clock& clock);
    [[nodiscard]] bool has(std::uint64_t feature) const { return (features_ & feature) != 0; }
    /// Each second, and at the steps of a reset.
    void watch();

    // All under the turn, or before the driver is in use:
    /// From FEATURES_OK to DRIVER_OK.
    Expected<void> open();
    void send_promiscuous(const virtio::Doorbell& doorbell);
    /// Hands on at most `budget` frames; returns how many it looked at.
    unsigned receive(unsigned budget, FrameSink& sink);
    void deliver(const VirtioNetReceiver::Arrival& arrival, FrameSink& sink);
    void give_back_buffers();
    void look_after();
    /// Why the device needs a reset; nullptr: it does not.
    const char* check();
    void check_control();
    void update_link();
    void begin_reset(const char* why);
    void continue_reset();

    virtio::PciTransport transport_;
    Clock& clock_;
    const Options options_;
    const std::uint64_t features_;
    const MacAddress mac_;
    std::atomic<bool> link_up_{false};
    std::atomic<NetUser*> user_{nullptr};

    /// The last lock a frame from the switch takes, as a virtual NIC's is.
    Guarded<Sender, Rank::device_rx> sender_;

    Turn turn_{Turn::Initially::open};
    VirtioNetReceiver receiver_;
    virtio::Doorbell receive_doorbell_;
    std::optional<Control> control_;
    State state_{State::working};
    unsigned stalled_looks_{0};  ///< in a row that saw no room and no progress

    MemberTimer<VirtioNetDriver, &VirtioNetDriver::watch> watch_{*this};
    MemberTimer<VirtioNetDriver, &VirtioNetDriver::service> again_{*this};  ///< goes on with receiving
    std::atomic<bool> watch_due_{false};

    NicCounters counters_;  ///< but for missed frames, of which the device does not tell
};

}  // namespace hv::netdrv
