// SPDX-License-Identifier: MIT
#include "vmm/virtio/blk_throttle.hpp"

#include <algorithm>
#include <bit>

namespace hv::virtio {
namespace {

/// A queue that is held back asks again no sooner.
constexpr std::uint64_t kMinPauseNs = 20'000;

/// A tenth of a second's worth can be saved up. A request needs no more than some credit, so that this need
/// not hold a large one.
TokenBucket bucket(std::uint64_t rate) {
    return TokenBucket{rate, std::max<std::uint64_t>(rate / 10, 1)};
}

}  // namespace

BlkThrottle::BlkThrottle(std::uint64_t bytes_per_second, std::uint64_t requests_per_second)
    : limits_{bytes_per_second != 0 || requests_per_second != 0},
      state_{bucket(bytes_per_second), bucket(requests_per_second)} {}

std::optional<std::uint64_t> BlkThrottle::hold_back(unsigned queue, const Clock& clock) {
    const std::uint64_t now = clock.now();
    const std::uint32_t self = std::uint32_t{1} << queue;
    return state_.with([&](State& state) -> std::optional<std::uint64_t> {
        std::uint64_t retry_at = now + clock.from_nanoseconds(kMinPauseNs);
        bool ready = true;
        for (TokenBucket* each : {&state.bytes, &state.requests})
            if (each->limits() && !each->ready(clock, now)) {
                ready = false;
                retry_at = std::max(retry_at, each->ready_at(clock));
            }
        // Whose turn it is: the first one, after the one that was served last, of those that want it.
        const auto wanted = std::rotr(state.waiting | self, static_cast<int>(state.served + 1));
        const unsigned next =
            (state.served + 1 + static_cast<unsigned>(std::countr_zero(wanted))) % kMaxQueues;
        if (!ready || next != queue) {
            state.waiting |= self;
            return retry_at;
        }
        state.waiting &= ~self;
        state.served = queue;
        return std::nullopt;
    });
}

void BlkThrottle::spend(std::uint64_t bytes) {
    state_.with([&](State& state) {
        if (state.bytes.limits())
            state.bytes.spend(bytes);
        if (state.requests.limits())
            state.requests.spend(1);
    });
}

void BlkThrottle::forget(unsigned queue) {
    state_.with([&](State& state) { state.waiting &= ~(std::uint32_t{1} << queue); });
}

}  // namespace hv::virtio
