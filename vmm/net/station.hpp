// SPDX-License-Identifier: MIT
// What hangs on a port of a virtual switch, as the switch sees it.
#pragma once

#include "drivers/net/net_device.hpp"

#include <array>
#include <cstddef>
#include <cstdint>

namespace hv::net {

/// Frames on a switch consist of at most so many segments; a sender drops what has more.
inline constexpr std::size_t kMaxSegments = 64;

enum class Delivery : std::uint8_t {
    taken,
    dropped,  ///< it may not pass, or there will be no room for it, or for a part of it
    no_room,  ///< nothing happened; there may be room later
    partly,   ///< Frame::progress went on; there may be room for the rest later. Receivers alone answer so
};

class FrameReceiver {
public:
    /// Copies what it needs before it returns. Several CPUs may call at once, with no lock of rank device_rx
    /// or above held.
    virtual Delivery receive(const Frame& frame) = 0;

protected:
    ~FrameReceiver() = default;
};

/// What a station counts besides what its port does.
struct StationCounters {
    struct Counter {
        const char* what;
        std::uint64_t value;
    };
    std::array<Counter, 4> counters{};
    std::size_t count{0};

    /// The first `counters.size()` are kept.
    void add(const char* what, std::uint64_t value) {
        if (count < counters.size())
            counters[count++] = {what, value};
    }
};

class Station : public FrameReceiver {
public:
    /// Any CPU, any time.
    virtual void tell(StationCounters& /*out*/) const {}
    /// A frame that SwitchPort::send() answered with no_room may pass now: the station sends it again, from
    /// this call or later. Any CPU, no lock held.
    virtual void resume() = 0;
    /// Those behind an uplink of the switch may know nothing of this station any more. Any CPU, no lock held.
    virtual void network_changed() = 0;

protected:
    ~Station() = default;
};

}  // namespace hv::net
