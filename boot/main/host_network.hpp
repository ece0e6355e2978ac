// SPDX-License-Identifier: MIT
// The switches of the configuration, and the machine's network cards that join them.
#pragma once

#include "boot/main/host_devices.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/timer.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/config/config.hpp"
#include "vmm/net/switch.hpp"
#include "vmm/net/uplink.hpp"

#include <memory>
#include <span>

namespace hv::boot {

class HostNetwork {
public:
    /// Outlives this.
    explicit HostNetwork(const config::Config& config) : config_{config} {}

    /// `clock` outlives this. Error::no_memory.
    Expected<void> make_switches(Clock& clock);
    /// Once the cards are found, which outlive this; VMs may run. What is wrong is said in the log.
    void connect_uplinks(std::span<const HostDevices::Nic> nics);
    /// By their places in the configuration.
    [[nodiscard]] std::span<const std::unique_ptr<net::Switch>> switches() const { return switches_.span(); }

private:
    void connect(std::size_t index, std::span<const HostDevices::Nic> nics);
    Expected<void> join(std::size_t index, NetDevice& nic);

    const config::Config& config_;
    Vec<std::unique_ptr<net::Switch>> switches_;
    Vec<std::unique_ptr<net::Uplink>> uplinks_;
};

}  // namespace hv::boot
