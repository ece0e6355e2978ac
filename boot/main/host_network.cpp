// SPDX-License-Identifier: MIT
#include "boot/main/host_network.hpp"

#include "vmm/base/log.hpp"
#include "vmm/base/text.hpp"
#include "vmm/core/network_options.hpp"

namespace hv::boot {

using log::Topic;

Expected<void> HostNetwork::make_switches(Clock& clock) {
    for (const config::SwitchConfig& each : config_.switches)
        HV_TRY(switches_.push(HV_TRY(net::Switch::create(clock, switch_options(each)))));
    return {};
}

void HostNetwork::connect_uplinks(std::span<const HostDevices::Nic> nics) {
    for (std::size_t i = 0; i < config_.switches.size(); ++i)
        if (!config_.switches[i].uplink.empty())
            connect(i, nics);
}

void HostNetwork::connect(std::size_t index, std::span<const HostDevices::Nic> nics) {
    const config::SwitchConfig& config = config_.switches[index];
    TextBuffer<120> known;
    for (const HostDevices::Nic& nic : nics) {
        if (nic.name.view() != config.uplink) {
            known.append(" %.*s", width(nic.name.view()), nic.name.view().data());
            continue;
        }
        if (const auto joined = join(index, *nic.device); !joined)
            return log::error(Topic::net, "switch %.*s: its uplink %.*s is not connected: %s",
                              width(config.name), config.name.data(), width(config.uplink),
                              config.uplink.data(), to_string(joined.error()));
        if (!nic.device->link_up())
            log::warning(Topic::net, "switch %.*s: its uplink %.*s has no link", width(config.name),
                         config.name.data(), width(config.uplink), config.uplink.data());
        return;
    }
    log::error(Topic::net, "switch %.*s: there is no %.*s; there is%.*s", width(config.name),
               config.name.data(), width(config.uplink), config.uplink.data(),
               known.view().empty() ? 5 : width(known.view()),
               known.view().empty() ? " none" : known.view().data());
}

Expected<void> HostNetwork::join(std::size_t index, NetDevice& nic) {
    HV_TRY(uplinks_.push(HV_TRY(make<net::Uplink>(nic))));
    net::Uplink& uplink = *uplinks_.back();
    uplink.connect(HV_TRY(switches_[index]->add_port(uplink, uplink_options(config_.switches[index]))));
    nic.start(uplink);
    return {};
}

}  // namespace hv::boot
