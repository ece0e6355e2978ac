// SPDX-License-Identifier: MIT
#include "vmm/monitor/switch_view.hpp"

namespace hv {

std::optional<NetDirectory::Port> SwitchView::port(std::size_t index, std::uint16_t number) const {
    const net::SwitchPort* port = switches_[index]->port(number);
    if (port == nullptr)
        return std::nullopt;
    Port found{{}, {}, &port->options(), &port->counters(), switches_[index]->station_counters(number)};
    if (port->options().kind == net::PortOptions::Kind::uplink) {
        found.station = config_.switches[index].uplink;
        return found;
    }
    for (const config::VmConfig& vm : config_.vms)
        for (std::size_t nic = 0; nic < vm.nics.size(); ++nic)
            if (vm.nics[nic].mac == port->options().mac) {
                found.station = vm.name;
                found.nic = static_cast<unsigned>(nic);
            }
    return found;
}

std::size_t SwitchView::learned(std::size_t index, std::span<Learned> out) const {
    std::size_t count = 0;
    switches_[index]->for_each_learned(
        [&](const MacAddress& mac, std::uint16_t vlan, std::uint16_t port, std::uint64_t seconds) {
            if (count < out.size())
                out[count] = {mac, vlan, port, seconds};
            ++count;
        });
    return count;
}

}  // namespace hv
