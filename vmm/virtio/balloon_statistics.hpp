// SPDX-License-Identifier: MIT
// What a guest tells of its memory. Its driver fills a buffer at once, which the device keeps until it wants
// news. Needs its user's lock. [virtio1.2 5.5.6.3 Memory Statistics]
#pragma once

#include "vmm/virtio/virtio_balloon_defs.hpp"
#include "vmm/virtio/virtqueue.hpp"

#include <array>
#include <cstdint>
#include <optional>

namespace hv::virtio {

class BalloonStatistics {
public:
    /// By tag; nothing: the driver did not tell.
    using Values = std::array<std::optional<std::uint64_t>, kBalloonStats>;
    struct Outcome {
        bool interrupt{false};
        bool broken{false};
    };

    explicit BalloonStatistics(const GuestMemory& memory) : ring_{memory} {}

    Expected<void> start(const QueueLayout& layout, std::uint64_t features);
    void stop() {
        live_ = false;
        ring_.stop();
    }
    /// The driver filled a buffer.
    Outcome take();
    /// Gives the buffer back, so that the driver fills it again.
    Outcome request();
    [[nodiscard]] const Values& values() const { return values_; }

private:
    /// Entries of one buffer that are looked at.
    static constexpr unsigned kMaxEntries = 64;
    void read(Chain& chain);

    Virtqueue ring_;
    bool live_{false};
    std::optional<std::uint16_t> held_;  ///< head of the buffer that is kept
    Values values_{};
    std::array<Piece, 16> pieces_{};
};

}  // namespace hv::virtio
