// SPDX-License-Identifier: MIT
// Sees what passes the ports of a switch.
#pragma once

#include "drivers/net/net_device.hpp"

#include <cstdint>

namespace hv::net {

class FrameTap {
public:
    enum class Direction : std::uint8_t { from_station, to_station };
    /// As the station of the port sends or gets it. Any CPU, with no lock of rank leaf held; does not wait.
    virtual void see(std::uint16_t port, Direction direction, const Frame& frame) = 0;

protected:
    ~FrameTap() = default;
};

}  // namespace hv::net
