// SPDX-License-Identifier: MIT
// The host's end of a VM's sockets: a bounded number of connections between the guest and services, begun by
// either, and the resets that are still to be sent. Knows packets, not queues. Needs its user's lock.
// [virtio1.2 5.10.6 Device Operation]
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/virtio/vsock_connection.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <span>

namespace hv::virtio {

class VsockEndpoint {
public:
    static constexpr unsigned kConnections = 16;
    /// Packets that wait for buffers of the guest beside the connections' own.
    static constexpr unsigned kResets = 64;
    /// The ports that the host connects from; the highest one means any to sockets of Linux.
    static constexpr std::uint32_t kFirstEphemeral = 0xc000'0000;
    static constexpr std::uint32_t kLastEphemeral = 0xffff'fffe;
    static constexpr std::uint64_t kNever = ~std::uint64_t{0};

    /// `services` outlive this. Error::no_memory.
    static Expected<VsockEndpoint> create(std::uint64_t guest_cid, std::span<const VsockPort> services);

    /// Whether receive() may be called: what a packet can bring forth finds room.
    [[nodiscard]] bool has_room() const { return resets_ + kResetsOfOne <= kResets; }
    /// A packet of the guest, of whatever contents.
    void receive(const VsockHeader& header, std::span<const Piece> payload);
    [[nodiscard]] bool has_output() const;
    /// Writes a packet to where there is room for a header and more; returns its size. After has_output().
    std::uint32_t send(std::span<Piece> room);
    /// Asks the guest for a connection of `service` to its port; without an answer it is over by expire()
    /// from `answer_by` on. Error::busy: all connections are in use, or the guest does not take the packets
    /// that wait for it.
    Expected<void> connect(std::uint32_t guest_port, VsockService& service, std::uint64_t answer_by);
    /// Ends what is unanswered at this time; returns when to call it next, or kNever.
    std::uint64_t expire(std::uint64_t now);
    /// Lets the service look after its connections: what it has to write, what it has room to read.
    void serve(VsockService& service);
    /// Ends all connections without a word to the guest.
    void clear();
    [[nodiscard]] unsigned connections() const;

private:
    /// One of its own, and one of a connection that made way.
    static constexpr unsigned kResetsOfOne = 2;

    explicit VsockEndpoint(std::uint64_t guest_cid) : guest_cid_{guest_cid} {}
    [[nodiscard]] VsockConnection* find(const VsockHeader& header);
    [[nodiscard]] VsockService* service_at(std::uint32_t port) const;
    /// False: it is refused.
    bool accept(const VsockHeader& request);
    /// One that can be opened; nullptr: all are in use.
    VsockConnection* make_room();
    void close(VsockConnection& connection, VsockEnd end);
    [[nodiscard]] std::uint32_t free_port();
    /// Answers a packet by a reset.
    void reset(const VsockHeader& header);

    std::uint64_t guest_cid_;
    Vec<VsockPort> services_;
    Vec<std::unique_ptr<VsockConnection>> all_;
    unsigned turn_{0};  ///< whose output comes next
    std::uint32_t next_port_{kFirstEphemeral};
    std::array<VsockHeader, kResets> waiting_resets_{};
    unsigned first_reset_{0};
    unsigned resets_{0};
};

}  // namespace hv::virtio
