// SPDX-License-Identifier: MIT
// What the configuration says about a switch and its ports, in the switch's terms.
#pragma once

#include "vmm/config/config.hpp"
#include "vmm/net/switch.hpp"

namespace hv {

[[nodiscard]] net::SwitchOptions switch_options(const config::SwitchConfig& config);
/// Of the port that the switch's uplink gets.
[[nodiscard]] net::PortOptions uplink_options(const config::SwitchConfig& config);
[[nodiscard]] net::PortOptions nic_options(const config::NicConfig& config);

}  // namespace hv
