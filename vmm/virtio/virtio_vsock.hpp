// SPDX-License-Identifier: MIT
// The socket device: stream sockets between a guest and services of the host. [virtio1.2 5.10 Socket Device]
// Left out: sequential packets. No event ever comes: a VM keeps its CID.
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/base/guarded.hpp"
#include "vmm/virtio/queue_worker.hpp"
#include "vmm/virtio/virtio_device.hpp"
#include "vmm/virtio/virtio_vsock_defs.hpp"
#include "vmm/virtio/vsock_endpoint.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <span>

namespace hv::virtio {

class VirtioVsock final : public VirtioDevice, private QueueClient, private Timer {
public:
    static constexpr unsigned kReceiveQueue = 0;
    static constexpr unsigned kTransmitQueue = 1;
    static constexpr std::uint64_t kTurnBytes = 256 * 1024;  ///< of the guest, after which a timer goes on

    struct Options {
        std::uint64_t guest_cid;
        std::span<const VsockPort> services;  ///< which outlive the device
    };

    /// `memory` and `clock` outlive the device. Error::invalid_argument: no CID for a guest;
    /// Error::no_memory.
    static Expected<std::unique_ptr<VirtioVsock>> create(const GuestMemory& memory, Clock& clock,
                                                         const Options& options);
    ~VirtioVsock() override;

    [[nodiscard]] std::uint16_t device_id() const override { return VIRTIO_ID_VSOCK; }
    [[nodiscard]] std::uint64_t features() const override { return VIRTIO_VSOCK_F_STREAM; }
    [[nodiscard]] unsigned queue_count() const override { return 3; }
    [[nodiscard]] std::uint64_t read_config(std::uint64_t offset, unsigned size) const override {
        return read_bytes(std::as_bytes(std::span{&guest_cid_, 1}), offset, size);
    }
    [[nodiscard]] bool start(std::uint64_t features, std::span<const QueueLayout> layouts) override;
    void stop() override;
    void queue_notified(unsigned queue) override;

    /// How long a guest may take to answer a connection that the host begins.
    static constexpr std::uint64_t kAnswerNs = 2'000'000'000;

    // Any CPU, with locks of ranks below device_tx.
    /// Asks the guest for a connection to its port: `service` hears accept(), before this returns, and how it
    /// goes on. It outlives the connection. Error::not_found: no driver listens to the device; Error::busy:
    /// all connections are in use, or the guest does not take the packets that wait for it.
    Expected<void> connect(std::uint32_t port, VsockService& service);
    /// Has the service's ready() called for each of its connections, and sends what it wrote.
    void serve(VsockService& service);
    [[nodiscard]] unsigned connections();

private:
    /// Packets to the guest, of one turn.
    static constexpr unsigned kPackets = Virtqueue::kMaxSize;

    struct HostSide {
        HostSide(const GuestMemory& memory, VsockEndpoint made) : ring{memory}, endpoint{std::move(made)} {}
        Virtqueue ring;  ///< towards the guest
        bool live{false};
        /// More than a header has bytes, so that a buffer which is cut short still holds one.
        std::array<Piece, 64> pieces{};
        VsockEndpoint endpoint;
    };
    struct Outcome {
        bool interrupt{false};
        bool broken{false};
    };

    VirtioVsock(const GuestMemory& memory, Clock& clock, std::uint64_t guest_cid, VsockEndpoint endpoint);
    Step next(unsigned queue, Virtqueue& ring, Effort& effort) override;
    void fire() override { pump(); }
    /// Ends what the guest has not answered.
    void expire();
    void expire(HostSide& host);
    /// Sends what there is, and takes what had to wait for that.
    void pump();
    /// Puts packets into the guest's buffers. Under the lock.
    Outcome deliver(HostSide& host);
    void conclude(Outcome outcome);

    const std::uint64_t guest_cid_;
    Clock& clock_;
    Guarded<HostSide, Rank::device_tx> host_;
    std::array<Piece, Virtqueue::kMaxPieces> pieces_{};  ///< whoever has the turn of transmit_
    QueueWorker transmit_;
    MemberTimer<VirtioVsock, &VirtioVsock::expire> answers_{*this};
};

}  // namespace hv::virtio
