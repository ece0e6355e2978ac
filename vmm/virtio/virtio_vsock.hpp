// SPDX-License-Identifier: MIT
// The socket device: stream sockets from a guest to services of the host. [virtio1.2 5.10 Socket Device] Left
// out: connections that the host begins, sequential packets. No event ever comes: a VM keeps its CID.
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
};

}  // namespace hv::virtio
