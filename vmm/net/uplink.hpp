// SPDX-License-Identifier: MIT
// A physical NIC as a station on a switch: what the NIC receives enters the switch, what the switch sends to
// the uplink leaves through the NIC, summed and segmented in software as far as the NIC cannot.
#pragma once

#include "vmm/net/offload.hpp"
#include "vmm/net/switch_port.hpp"

#include <algorithm>
#include <atomic>

namespace hv::net {

class Uplink final : public Station, public NetUser {
public:
    /// `nic` outlives the uplink.
    explicit Uplink(NetDevice& nic) : nic_{nic}, support_{nic.offloads()} {}

    /// The switch's port for this uplink; nullptr: none.
    void connect(SwitchPort* port) { port_.store(port, std::memory_order_release); }

    /// A frame from the NIC.
    bool transmit(const Frame& frame) override {
        SwitchPort* port = port_.load(std::memory_order_acquire);
        std::uint64_t unused = 0;
        return port != nullptr && port->send(frame, unused) == Delivery::taken;
    }
    /// The stations tell the network where they are.
    [[gnu::cold]] void link_restored() override {
        if (SwitchPort* port = port_.load(std::memory_order_acquire))
            port->network_changed();
    }
    /// A frame from the switch. Frames do not wait for a NIC: its queue is deep, and what overflows it is
    /// lost.
    Delivery receive(const Frame& frame) override {
        return deliver(frame, reaches(frame.offload) ? support_ : OffloadSupport{}, wire_);
    }
    void resume() override {}
    void network_changed() override {}
    [[gnu::cold]] void tell(StationCounters& out) const override {
        const NetDevice::Counters counters = nic_.counters();
        out.add("without room", counters.no_room);
        out.add("missed", counters.missed);
        out.add("damaged", counters.errors);
        out.add("resets", counters.resets);
    }

private:
    class Wire final : public FrameReceiver {
    public:
        explicit Wire(FrameSink& nic) : nic_{nic} {}
        Delivery receive(const Frame& frame) override {
            return nic_.transmit(frame) ? Delivery::taken : Delivery::dropped;
        }

    private:
        FrameSink& nic_;
    };

    /// Whether the NIC can work on headers that lie as far behind as this frame's. TCP's has up to 60 bytes
    /// [rfc9293 3.1 Header Format].
    [[nodiscard]] bool reaches(const FrameOffload& offload) const {
        constexpr unsigned kTcpHeader = 60;
        return !offload.needs_checksum ||
               offload.checksum_start + std::max<unsigned>(offload.checksum_offset, kTcpHeader) <=
                   support_.max_offset;
    }

    NetDevice& nic_;
    const OffloadSupport support_;
    Wire wire_{nic_};
    std::atomic<SwitchPort*> port_{nullptr};
};

}  // namespace hv::net
