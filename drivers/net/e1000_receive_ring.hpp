// SPDX-License-Identifier: MIT
// The receive descriptor ring. Its buffers are read in place; what the device says of them is read once and
// checked.
#pragma once

#include "drivers/net/e1000_chip.hpp"
#include "drivers/net/e1000_defs.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/mm/dma.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace hv::netdrv {

/// Used by one CPU at a time.
class E1000ReceiveRing {
public:
    static constexpr unsigned kDescriptors = 256;
    static constexpr std::uint32_t kBufferSize = 2048;

    /// Error::no_memory.
    static Expected<E1000ReceiveRing> create(DmaPool& pool);

    /// Empties it and tells the device where it is, whose receiver is off.
    void attach(E1000Chip& chip);
    enum class Arrival : std::uint8_t {
        none,
        frame,
        damaged,  ///< or longer than may be
        rest,     ///< a further part of what was damaged
    };
    struct Next {
        Arrival arrival;
        bool checksum_good;  ///< of TCP or UDP, as the device found
        std::span<const std::byte> data;
    };
    /// What is next in the ring. After all but `none` comes a release().
    Next next();
    /// Gives the buffer of what next() told of back to the device, at the latest with flush().
    void release(E1000Chip& chip);
    void flush(E1000Chip& chip);

private:
    E1000ReceiveRing(DmaBuffer ring, DmaBuffer buffers)
        : ring_{std::move(ring)}, buffers_{std::move(buffers)} {}
    [[nodiscard]] e1000::ReceiveDescriptor& descriptor(unsigned index) const {
        return *ring_.at<e1000::ReceiveDescriptor>(index * sizeof(e1000::ReceiveDescriptor));
    }

    DmaBuffer ring_;
    DmaBuffer buffers_;
    unsigned next_{0};
    unsigned unannounced_{0};  ///< released, but the device does not know
    bool in_damaged_{false};   ///< the end of a damaged frame has not come yet
};

}  // namespace hv::netdrv
