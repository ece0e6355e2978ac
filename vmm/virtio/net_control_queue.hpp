// SPDX-License-Identifier: MIT
// A network device's control queue: takes the driver's commands, carries them out one after the other, and
// answers each. What a command lacks or says wrongly is answered by VIRTIO_NET_ERR and changes nothing; a
// chain without room for the answer breaks the queue. [virtio1.2 5.1.6.5 Control Virtqueue]
#pragma once

#include "vmm/base/timer.hpp"
#include "vmm/base/turn.hpp"
#include "vmm/mm/guest_memory.hpp"
#include "vmm/virtio/virtqueue.hpp"

#include <array>
#include <cstdint>

namespace hv::virtio {

class VirtioNet;

class NetControlQueue final : private Timer {
public:
    NetControlQueue(VirtioNet& device, const GuestMemory& memory, Clock& clock)
        : device_{device}, clock_{clock}, ring_{memory} {}

    Expected<void> start(const QueueLayout& layout, std::uint64_t features);
    void stop();
    /// Carries out what the queue holds, unless another CPU is at it, who then looks again.
    void process();

private:
    /// Commands after which a doorbell's vCPU goes on and a timer continues.
    static constexpr unsigned kBudget = 64;
    static constexpr unsigned kRounds = 4;

    void fire() override { process(); }
    /// False: the budget is used up.
    bool process_ring();
    class Data;
    // Whether the command was carried out:
    bool execute(const Chain& chain);
    bool set_receive_mode(std::uint8_t command, Data& data);
    bool set_addresses(std::uint8_t command, Data& data);
    bool set_vlan(std::uint8_t command, Data& data);
    bool acknowledge_announcement(std::uint8_t command);
    bool set_pairs(std::uint8_t command, Data& data);
    [[nodiscard]] bool has(std::uint64_t feature) const { return (negotiated_ & feature) != 0; }

    VirtioNet& device_;
    Clock& clock_;
    Turn turn_{Turn::Initially::closed};
    // Of whoever has the turn; changed by start() while it is closed:
    Virtqueue ring_;
    std::uint64_t negotiated_{0};
    std::array<Piece, Virtqueue::kMaxPieces> pieces_{};  ///< the chain at hand
};

}  // namespace hv::virtio
