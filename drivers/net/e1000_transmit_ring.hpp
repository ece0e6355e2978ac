// SPDX-License-Identifier: MIT
// The transmit descriptor ring. Frames are copied into buffers of its own, for their memory may belong to a
// guest that changes it meanwhile. Checksums and the segmentation of TCP are left to the device, by context
// descriptors.
#pragma once

#include "drivers/net/e1000_chip.hpp"
#include "drivers/net/e1000_defs.hpp"
#include "drivers/net/net_device.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/mm/dma.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

namespace hv::netdrv {

/// Needs its user's lock.
class E1000TransmitRing {
public:
    static constexpr unsigned kDescriptors = 256;
    static constexpr std::uint32_t kBufferSize = 4096;  ///< each descriptor has one
    static constexpr std::uint16_t kMaxOffset = 255;    ///< offsets in context descriptors have eight bits

    /// Error::no_memory.
    static Expected<E1000TransmitRing> create(DmaPool& pool);

    /// Empties it and tells the device where it is, which is stopped.
    void attach(E1000Chip& chip);
    enum class Put : std::uint8_t {
        queued,
        no_room,
        refused,  ///< too long for the wire, or its offload makes no sense
    };
    /// Copies `frame` behind what is queued already.
    Put put(const Frame& frame);
    /// Tells the device of what was queued.
    void notify(E1000Chip& chip) { chip.write(e1000::TDT, tail_); }
    /// Takes back what has been sent.
    void reclaim();
    [[nodiscard]] bool empty() const { return head_ == tail_; }
    /// How many frames reclaim() has taken back so far.
    [[nodiscard]] std::uint64_t completed() const { return completed_; }

private:
    E1000TransmitRing(DmaBuffer ring, DmaBuffer buffers)
        : ring_{std::move(ring)}, buffers_{std::move(buffers)} {}

    /// What the device is to do to the frame's data.
    struct Work {
        e1000::TransmitDescriptor context;
        std::uint64_t flags;  ///< in all of its data descriptors
    };
    /// How to have `frame` finished, which lies in `start` and further buffers; edits its headers as the
    /// device wants them. Nothing: not possible.
    static std::optional<Work> plan(const Frame& frame, std::span<std::byte> start);
    static std::optional<Work> plan_checksum(const Frame& frame);
    static std::optional<Work> sum_up(const Frame& frame, std::span<std::byte> start);
    static std::optional<Work> plan_segmentation(const Frame& frame, std::span<std::byte> start);

    [[nodiscard]] unsigned room() const { return (head_ - tail_ - 1) % kDescriptors; }
    [[nodiscard]] std::span<std::byte> buffer(unsigned index) const {
        return buffers_.bytes().subspan(std::size_t{index} * kBufferSize, kBufferSize);
    }
    [[nodiscard]] e1000::TransmitDescriptor& descriptor(unsigned index) const {
        return *ring_.at<e1000::TransmitDescriptor>(index * sizeof(e1000::TransmitDescriptor));
    }
    void copy(const Frame& frame, unsigned index);

    DmaBuffer ring_;
    DmaBuffer buffers_;
    unsigned head_{0};  ///< the first descriptor that may not have been sent
    unsigned tail_{0};  ///< the first free one
    std::uint64_t completed_{0};
    /// For a frame's first descriptor, its last: the one that the device reports.
    std::array<std::uint8_t, kDescriptors> last_{};
};

}  // namespace hv::netdrv
