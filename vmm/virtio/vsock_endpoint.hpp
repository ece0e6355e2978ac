// SPDX-License-Identifier: MIT
// The host's end of a VM's sockets: a bounded number of connections from the guest to services, and the
// resets that are still to be sent. Knows packets, not queues. Needs its user's lock.
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

    /// `services` outlive this. Error::no_memory.
    static Expected<VsockEndpoint> create(std::uint64_t guest_cid, std::span<const VsockPort> services);

    /// Whether receive() may be called: what a packet can bring forth finds room.
    [[nodiscard]] bool has_room() const { return resets_ + kResetsOfOne <= kResets; }
    /// A packet of the guest, of whatever contents.
    void receive(const VsockHeader& header, std::span<const Piece> payload);
    [[nodiscard]] bool has_output() const;
    /// Writes a packet to where there is room for a header and more; returns its size. After has_output().
    std::uint32_t send(std::span<Piece> room);
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
    bool connect(const VsockHeader& request);
    /// One that can be opened; nullptr: all are in use.
    VsockConnection* make_room();
    void close(VsockConnection& connection);
    /// Answers a packet by a reset.
    void reset(const VsockHeader& header);

    std::uint64_t guest_cid_;
    Vec<VsockPort> services_;
    Vec<std::unique_ptr<VsockConnection>> all_;
    unsigned turn_{0};  ///< whose output comes next
    std::array<VsockHeader, kResets> waiting_resets_{};
    unsigned first_reset_{0};
    unsigned resets_{0};
};

}  // namespace hv::virtio
