// SPDX-License-Identifier: MIT
// Driver of Intel's 8254x (82540EM, PCI identifier 8086:100e) and 82574L (8086:10d3) network controllers,
// tags 8254x and 82574. One queue in each direction, one interrupt: the pin or plain MSI. MSI-X, which names
// causes differently, is left out, and so are flow control, jumbo frames and the filters of addresses and
// VLANs.
//
// Nothing waits for what is being sent, so that no interrupt tells of it: room is made when it is needed. How
// often received frames interrupt depends on them: few small ones are waited for, many or large ones are not.
// While frames are on their way, a timer looks whether they make progress; if not, the device is reset, in
// steps of the same timer.
#pragma once

#include "drivers/net/e1000_chip.hpp"
#include "drivers/net/e1000_receive_ring.hpp"
#include "drivers/net/e1000_transmit_ring.hpp"
#include "drivers/net/net_device.hpp"
#include "drivers/net/nic_counters.hpp"
#include "vmm/base/guarded.hpp"
#include "vmm/base/timer.hpp"
#include "vmm/base/turn.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>

namespace hv::netdrv {

class E1000 final : public NetDevice {
public:
    using Kind = E1000Kind;
    /// What a controller can do, if it is let.
    static constexpr OffloadSupport kAllOffloads{.checksum = true, .tcp4 = true, .tcp6 = true, .ecn = false};

    /// Resets the device, at boot: waits for it, for a fifth of a second at most. All arguments outlive the
    /// driver, `name` is for the log. Of `allowed`, what the kind has is used; without checksum, those of
    /// received frames are not looked at either. Error::no_memory; Error::invalid_argument: registers too
    /// short; Error::timed_out, Error::io_error, Error::corrupted: it is not usable.
    static Expected<std::unique_ptr<E1000>> create(DeviceRegisters& registers, DmaPool& pool, Clock& clock,
                                                   std::string_view name, Kind kind,
                                                   const OffloadSupport& allowed = kAllOffloads);
    ~E1000() override;

    [[nodiscard]] std::string_view model() const override;
    [[nodiscard]] MacAddress mac() const override { return mac_; }
    [[nodiscard]] OffloadSupport offloads() const override { return offloads_; }
    [[nodiscard]] bool link_up() const override { return link_up_.load(std::memory_order_relaxed); }
    [[nodiscard]] Counters counters() const override { return counters_.values(); }
    void start(NetUser& user) override;
    void service() override;
    bool transmit(const Frame& frame) override;

private:
    enum class State : std::uint8_t { working, stopping, resetting, gone };
    struct Transmitter {
        E1000TransmitRing ring;
        bool watched;  ///< the watch is armed, or a reset is under way
    };

    E1000(const E1000Chip& chip, Clock& clock, std::string_view name, const OffloadSupport& offloads,
          const MacAddress& mac, E1000TransmitRing transmit_ring, E1000ReceiveRing receive_ring);

    [[nodiscard]] State state() const { return state_.load(); }
    /// False: it was in another state, such as gone.
    bool advance(State from, State to) { return state_.compare_exchange_strong(from, to); }
    void update_link();
    void set_gone();
    /// Ends a reset, with the right to receive.
    void open();

    void receive();
    /// Hands on at most `budget` frames; returns how many it looked at.
    unsigned receive(unsigned budget, FrameSink& sink);
    /// Sets how often the device interrupts, by what a look found.
    void moderate(unsigned frames, std::uint64_t bytes);
    void deliver(const E1000ReceiveRing::Next& next, FrameSink& sink);

    /// Looks after frames on their way, and takes the steps of a reset.
    void watch();
    void check_progress();
    void begin_reset();
    void continue_reset();

    E1000Chip chip_;
    Clock& clock_;
    const std::string_view name_;
    const OffloadSupport offloads_;
    const MacAddress mac_;
    std::atomic<State> state_{State::resetting};
    std::atomic<bool> link_up_{false};
    std::atomic<NetUser*> user_{nullptr};

    /// The last lock a frame from the switch takes, as a virtual NIC's is.
    Guarded<Transmitter, Rank::device_rx> transmitter_;
    Turn receive_turn_{Turn::Initially::open};
    // Of the one whose turn it is, also during a reset.
    E1000ReceiveRing receive_ring_;
    std::uint32_t interrupt_rate_{0};  ///< that the device knows

    MemberTimer<E1000, &E1000::watch> watch_{*this};
    MemberTimer<E1000, &E1000::receive> again_{*this};  ///< goes on with receiving
    // Of the watch alone.
    std::uint64_t completed_{0};  ///< as of its last look
    unsigned idle_looks_{0};      ///< in a row that saw no progress
    unsigned reset_steps_{0};

    NicCounters counters_;
};

}  // namespace hv::netdrv
