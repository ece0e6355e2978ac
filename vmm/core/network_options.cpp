// SPDX-License-Identifier: MIT
#include "vmm/core/network_options.hpp"

namespace hv {

net::SwitchOptions switch_options(const config::SwitchConfig& config) {
    return {.storm_limit = config.storm_limit};
}

net::PortOptions uplink_options(const config::SwitchConfig& config) {
    net::PortOptions options;
    options.kind = net::PortOptions::Kind::uplink;
    // The port's station is the network outside: it sends what comes in.
    options.bits_per_second = config.uplink_rate_in;
    options.receive_bits_per_second = config.uplink_rate;
    options.vlans = config.uplink_vlans;
    return options;
}

net::PortOptions nic_options(const config::NicConfig& config) {
    net::PortOptions options;
    options.kind = config.trusted ? net::PortOptions::Kind::trusted : net::PortOptions::Kind::access;
    options.mac = config.mac;
    options.vlan = config.vlan;
    options.bits_per_second = config.rate;
    options.receive_bits_per_second = config.rate_in;
    options.vlans = config.trunk;
    options.addresses = config.addresses;
    return options;
}

}  // namespace hv
