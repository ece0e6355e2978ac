// SPDX-License-Identifier: MIT
// The virtual switches as the monitor's commands see them.
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/base/text.hpp"
#include "vmm/net/capture.hpp"
#include "vmm/net/switch_port.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace hv {

namespace config {
struct SwitchConfig;
}

/// Called on the boot CPU, without a lock. Switches have the order of the configuration; `index` < size().
class NetDirectory {
public:
    struct Port {
        std::string_view station;     ///< the VM, or the physical NIC
        std::optional<unsigned> nic;  ///< which of the VM's
        const net::PortOptions* options;
        const net::PortCounters* counters;
        net::StationCounters device;  ///< what the NIC counts itself
    };
    /// An address behind an uplink.
    struct Learned {
        MacAddress mac;
        std::uint16_t vlan;
        std::uint16_t port;
        std::uint64_t seconds;  ///< since it was seen last
    };

    [[nodiscard]] virtual std::size_t size() const = 0;
    [[nodiscard]] virtual const config::SwitchConfig& config(std::size_t index) const = 0;
    /// Nothing: the port is not in use. `number` < SwitchPort::kMaxPorts.
    [[nodiscard]] virtual std::optional<Port> port(std::size_t index, std::uint16_t number) const = 0;
    /// Fills `out` as far as it goes; returns how many there are.
    [[nodiscard]] virtual std::size_t learned(std::size_t index, std::span<Learned> out) const = 0;

    /// Error::busy: a capture is under way.
    virtual Expected<void> start_capture(std::size_t index, const net::Capture::Choice& choice) = 0;
    /// Error::not_found: none is.
    virtual Expected<void> stop_capture() = 0;

protected:
    ~NetDirectory() = default;
};

}  // namespace hv
