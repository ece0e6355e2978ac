// SPDX-License-Identifier: MIT
// Which queue pair a flow belongs to: the one on which the driver last sent a frame of it. Flows are told
// apart by a hash, so what is remembered is bounded and some share a pair by chance. Any CPU, without a lock.
// [virtio1.2 5.1.6.5.6 Automatic receive steering in multiqueue mode]
#pragma once

#include "drivers/net/net_device.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace hv::virtio {

class NetSteering {
public:
    NetSteering() { reset(); }
    /// One pair, and no flow known.
    void reset();
    /// How many pairs are in use: the first ones.
    [[nodiscard]] unsigned pairs() const { return pairs_.load(std::memory_order_acquire); }
    void set_pairs(unsigned pairs) { pairs_.store(pairs); }

    /// The driver sends `frame` on `pair`.
    void note_sent(const Frame& frame, unsigned pair) {
        if (pairs() != 1)
            remember(frame, pair);
    }
    /// Where a frame from the switch belongs, < pairs() at some moment.
    [[nodiscard]] unsigned pair_for(const Frame& frame) const {
        const unsigned count = pairs();
        return count == 1 ? 0 : find(frame, count);
    }

private:
    static constexpr std::size_t kFlows = 256;
    static constexpr std::uint8_t kUnknown = 0xff;

    /// The same for both directions of a flow.
    static std::size_t flow_of(const Frame& frame);
    void remember(const Frame& frame, unsigned pair);
    [[nodiscard]] unsigned find(const Frame& frame, unsigned count) const;

    std::atomic<unsigned> pairs_{1};
    std::array<std::atomic<std::uint8_t>, kFlows> flows_{};
};

}  // namespace hv::virtio
