// SPDX-License-Identifier: MIT
// The entropy device: fills the driver's buffers with random bytes, so many a second at most.
// [virtio1.2 5.4 Entropy Device]
#pragma once

#include "vmm/base/entropy.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/token_bucket.hpp"
#include "vmm/virtio/queue_worker.hpp"
#include "vmm/virtio/virtio_device.hpp"

#include <array>
#include <cstdint>
#include <memory>

namespace hv::virtio {

class VirtioRng final : public VirtioDevice, private QueueClient {
public:
    static constexpr std::uint64_t kMaxAnswer = 4096;            ///< bytes for one buffer
    static constexpr std::uint64_t kTurnBytes = 2 * kMaxAnswer;  ///< after which a timer goes on
    static constexpr std::uint64_t kRate = 1024 * 1024;          ///< bytes per second
    static constexpr std::uint64_t kBurst = 64 * 1024;

    /// All outlive the device. Error::no_memory.
    static Expected<std::unique_ptr<VirtioRng>> create(EntropySource& source, const GuestMemory& memory,
                                                       Clock& clock);

    [[nodiscard]] std::uint16_t device_id() const override { return VIRTIO_ID_ENTROPY; }
    [[nodiscard]] std::uint64_t features() const override { return 0; }
    [[nodiscard]] unsigned queue_count() const override { return 1; }
    [[nodiscard]] std::uint64_t read_config(std::uint64_t, unsigned) const override { return 0; }
    [[nodiscard]] bool start(std::uint64_t features, std::span<const QueueLayout> layouts) override {
        return requests_.start(0, layouts[0], features, transport()).has_value();
    }
    void stop() override { requests_.stop(); }
    void queue_notified(unsigned) override { requests_.process(); }

private:
    VirtioRng(EntropySource& source, const GuestMemory& memory, Clock& clock)
        : source_{source}, clock_{clock}, requests_{*this, kTurnBytes, memory, clock} {}
    Step next(unsigned queue, Virtqueue& ring, Effort& effort) override;

    EntropySource& source_;
    Clock& clock_;
    // Whoever has the turn:
    TokenBucket bucket_{kRate, kBurst};
    std::array<Piece, Virtqueue::kMaxPieces> pieces_{};
    QueueWorker requests_;
};

}  // namespace hv::virtio
