// SPDX-License-Identifier: MIT
// Limits what a disk's queues do together, in bytes and in requests per second. A request is not taken from
// its ring before there is credit; then it may overdraw, whatever its size. Queues that wait are served in
// turn.
#pragma once

#include "vmm/base/guarded.hpp"
#include "vmm/base/timer.hpp"
#include "vmm/base/token_bucket.hpp"
#include "vmm/virtio/virtio_device.hpp"

#include <cstdint>
#include <optional>

namespace hv::virtio {

class BlkThrottle {
public:
    static constexpr unsigned kMaxQueues = 32;

    /// 0: no limit.
    BlkThrottle(std::uint64_t bytes_per_second, std::uint64_t requests_per_second);

    /// False: nothing else here need be called.
    [[nodiscard]] bool limits() const { return limits_; }
    /// Asked before `queue` takes a request. Nothing: it may; else when to ask again, in host TSC ticks.
    [[nodiscard]] std::optional<std::uint64_t> hold_back(unsigned queue, const Clock& clock);
    /// What a request turned out to be.
    void spend(std::uint64_t bytes);
    /// `queue` does not wait any more.
    void forget(unsigned queue);

private:
    struct State {
        TokenBucket bytes;
        TokenBucket requests;
        std::uint32_t waiting{0};  ///< a bit for each queue that was held back
        unsigned served{0};        ///< the queue that was admitted last
    };

    static_assert(VirtioDevice::kMaxQueues <= kMaxQueues);

    const bool limits_;
    Guarded<State, Rank::leaf> state_;
};

}  // namespace hv::virtio
