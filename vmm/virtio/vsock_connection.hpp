// SPDX-License-Identifier: MIT
// A stream between a guest's socket and a service of the host, begun by either, with a buffer of fixed size
// each way. The guest sends no more than there is room for, and gets no more than it has said it has room
// for. [virtio1.2 5.10.6.3 Buffer Space Management] Needs the device's lock.
#pragma once

#include "vmm/base/byte_ring.hpp"
#include "vmm/virtio/virtio_vsock_defs.hpp"
#include "vmm/virtio/virtqueue.hpp"
#include "vmm/virtio/vsock_service.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace hv::virtio {

class VsockConnection {
public:
    /// Two of them and the rest of this take 16 KiB.
    static constexpr std::uint32_t kBufferSize = 8000;

    // --- for the service
    [[nodiscard]] std::uint32_t guest_port() const { return guest_port_; }
    [[nodiscard]] std::uint32_t host_port() const { return host_port_; }
    /// Takes what the guest sent; returns how many bytes that were.
    std::size_t read(std::span<std::byte> out);
    /// How many bytes write() takes; what it takes before the guest has accepted is sent then.
    [[nodiscard]] std::size_t room() const { return can_write() ? outgoing_.room() : 0; }
    std::size_t write(std::span<const std::byte> in) { return can_write() ? outgoing_.put(in) : 0; }
    /// The guest sends nothing any more and all it sent has been read.
    [[nodiscard]] bool ended() const {
        return (peer_shutdown_ & VIRTIO_VSOCK_SHUTDOWN_F_SEND) != 0 && received_.empty();
    }
    /// Ends the connection once what was written has been sent, or the guest has not answered in time.
    void close() { closing_ = true; }

    // --- for the device
    [[nodiscard]] bool is_free() const { return service_ == nullptr; }
    [[nodiscard]] bool is_closing() const { return closing_; }
    /// The guest has yet to accept it.
    [[nodiscard]] bool is_asking() const { return !is_free() && !open_; }
    /// is_asking(): until when it may, in host TSC.
    [[nodiscard]] std::uint64_t answer_by() const { return answer_by_; }
    [[nodiscard]] bool is_between(std::uint32_t guest_port, std::uint32_t host_port) const {
        return !is_free() && guest_port_ == guest_port && host_port_ == host_port;
    }
    [[nodiscard]] VsockService& service() const { return *service_; }
    /// Begun by the guest.
    void open(VsockService& service, const VsockHeader& request);
    /// Begun by the host.
    void ask(VsockService& service, std::uint32_t guest_port, std::uint32_t host_port,
             std::uint64_t answer_by);
    void free() { service_ = nullptr; }
    /// A packet of this connection, other than a request or a reset. False: it must not come, or the
    /// connection is over with it, and is to be reset.
    bool receive(const VsockHeader& header, std::span<const Piece> payload);
    [[nodiscard]] bool has_output() const;
    /// What has_output() means: ports, operation, length and credit of a packet with `room` bytes of payload
    /// at most, which take_payload() gives.
    VsockHeader next_packet(std::size_t room);
    std::size_t take_payload(std::span<std::byte> out) { return outgoing_.take(out); }

private:
    [[nodiscard]] bool can_write() const {
        return !closing_ && (peer_shutdown_ & VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE) == 0;
    }
    /// Bytes that the guest has room for.
    [[nodiscard]] std::uint32_t credit() const;
    void begin(VsockService& service, std::uint32_t guest_port, std::uint32_t host_port);
    bool receive_payload(const VsockHeader& header, std::span<const Piece> payload);
    bool receive_response();

    VsockService* service_{nullptr};  ///< nullptr: there is no connection
    std::uint32_t guest_port_{0};
    std::uint32_t host_port_{0};
    std::uint64_t answer_by_{0};
    bool open_{false};          ///< the guest knows that it is open, or has only to be told
    bool greeting_due_{false};  ///< the response, or, until it is open, the request
    bool credit_due_{false};
    bool closing_{false};
    bool shutdown_sent_{false};
    std::uint32_t peer_shutdown_{0};  ///< VIRTIO_VSOCK_SHUTDOWN_F_...
    // Counts of bytes since the beginning, modulo 2^32:
    std::uint32_t read_{0};       ///< fwd_cnt
    std::uint32_t told_{0};       ///< as the guest knows it
    std::uint32_t sent_{0};       ///< to the guest
    std::uint32_t peer_read_{0};  ///< the guest's fwd_cnt
    std::uint32_t peer_buffer_{0};
    ByteRing<kBufferSize> received_;
    ByteRing<kBufferSize> outgoing_;
};
static_assert(sizeof(VsockConnection) <= 16 * 1024);

}  // namespace hv::virtio
