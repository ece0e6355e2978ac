// SPDX-License-Identifier: MIT
// What a NIC's driver counts, on all CPUs at once.
#pragma once

#include "drivers/net/net_device.hpp"

#include <atomic>
#include <cstdint>

namespace hv::netdrv {

class NicCounters {
public:
    void sent(std::uint32_t size) {
        add(frames_sent_);
        add(bytes_sent_, size);
    }
    void received(std::uint32_t size) {
        add(frames_received_);
        add(bytes_received_, size);
    }
    void no_room() { add(no_room_); }
    void missed(std::uint32_t frames) { add(missed_, frames); }
    void error() { add(errors_); }
    void device_reset() { add(resets_); }

    [[nodiscard]] NetDevice::Counters values() const {
        return {.frames_sent = frames_sent_,
                .bytes_sent = bytes_sent_,
                .frames_received = frames_received_,
                .bytes_received = bytes_received_,
                .no_room = no_room_,
                .missed = missed_,
                .errors = errors_,
                .resets = resets_};
    }

private:
    using Counter = std::atomic<std::uint64_t>;
    /// Inline whatever is optimized for: the call is longer than the instruction.
    [[gnu::always_inline]] static void add(Counter& counter, std::uint64_t amount = 1) {
        counter.fetch_add(amount, std::memory_order_relaxed);
    }

    Counter frames_sent_{0}, bytes_sent_{0}, frames_received_{0}, bytes_received_{0}, no_room_{0}, missed_{0},
        errors_{0}, resets_{0};
};

}  // namespace hv::netdrv
