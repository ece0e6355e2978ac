// SPDX-License-Identifier: MIT
// A network interface of a VM: the virtio device that the guest sees, on its port of a switch.
#pragma once

#include "vmm/config/config.hpp"
#include "vmm/core/board.hpp"
#include "vmm/mm/guest_memory.hpp"
#include "vmm/net/switch.hpp"
#include "vmm/virtio/virtio_net.hpp"
#include "vmm/virtio/virtio_pci.hpp"

#include <memory>

namespace hv {

struct VmServices;

class VmNic {
public:
    /// Plugs the device into the board and into its switch. Errors as net::Switch::add_port().
    static Expected<std::unique_ptr<VmNic>> create(const config::NicConfig& config,
                                                   const VmServices& services, const GuestMemory& memory,
                                                   InterruptBus& interrupts, Board& board);
    /// Pulls the cable first.
    ~VmNic();
    VmNic(const VmNic&) = delete;
    VmNic& operator=(const VmNic&) = delete;

    /// The platform's reset.
    void reset() { transport_->reset(); }
    /// Plugs the cable in or pulls it, as far as the guest can tell.
    void set_link(virtio::VirtioNet::Link link) { device_->set_link(link); }
    [[nodiscard]] const config::NicConfig& config() const { return config_; }
    [[nodiscard]] const net::SwitchPort& port() const { return *port_; }

private:
    VmNic(const config::NicConfig& config, net::Switch& the_switch) : config_{config}, switch_{the_switch} {}

    const config::NicConfig& config_;
    net::Switch& switch_;
    std::unique_ptr<virtio::VirtioNet> device_;
    std::unique_ptr<virtio::VirtioPciTransport> transport_;
    net::SwitchPort* port_{nullptr};
};

}  // namespace hv
