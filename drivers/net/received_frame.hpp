// SPDX-License-Identifier: MIT
// From a buffer that a NIC filled to the sink of its frames.
#pragma once

#include "drivers/net/net_device.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace hv::netdrv {

/// Frames handed on before the CPU looks at something else.
inline constexpr unsigned kReceiveBudget = 256;
/// Buffers that the device gets back at a time: each time is an access to it.
inline constexpr unsigned kReceiveBatch = 32;

/// `data`, a whole frame, stays as it is meanwhile.
inline void hand_on(std::span<const std::byte> data, const FrameOffload& offload, FrameSink& sink) {
    const FrameSegment whole{data.data(), static_cast<std::uint32_t>(data.size())};
    Frame frame{{}, {&whole, 1}, whole.size, offload};
    std::memcpy(frame.header.data(), data.data(), std::min(data.size(), frame.header.size()));
    static_cast<void>(sink.transmit(frame));  // the switch counts what it drops
}

}  // namespace hv::netdrv
