// SPDX-License-Identifier: MIT
// A network device's control queue: takes the driver's commands, carries them out one after the other, and
// answers each. What a command lacks or says wrongly is answered by VIRTIO_NET_ERR and changes nothing; a
// chain without room for the answer breaks the queue. [virtio1.2 5.1.6.5 Control Virtqueue]
#pragma once

#include "vmm/virtio/queue_worker.hpp"

#include <array>
#include <cstdint>

namespace hv::virtio {

class VirtioNet;

class NetControlQueue final : private QueueClient {
public:
    NetControlQueue(VirtioNet& device, const GuestMemory& memory, Clock& clock)
        : device_{device}, worker_{*this, kBudget, memory, clock} {}

    /// As QueueWorker's.
    Expected<void> start(unsigned queue, const QueueLayout& layout, std::uint64_t features,
                         VirtioTransport& transport);
    void stop() { worker_.stop(); }
    void process() { worker_.process(); }

private:
    static constexpr std::uint64_t kBudget = 64;  ///< commands

    Step next(unsigned queue, Virtqueue& ring, Effort& effort) override;
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
    // Of whoever is at work; changed by start() while nobody is:
    std::uint64_t negotiated_{0};
    std::array<Piece, Virtqueue::kMaxPieces> pieces_{};  ///< the chain at hand
    QueueWorker worker_;
};

}  // namespace hv::virtio
