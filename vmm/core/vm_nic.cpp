// SPDX-License-Identifier: MIT
#include "vmm/core/vm_nic.hpp"

#include "vmm/base/vec.hpp"
#include "vmm/core/network_options.hpp"
#include "vmm/core/vm.hpp"

#include <new>

namespace hv {

static_assert(config::kMaxNicQueues <= virtio::VirtioNet::kMaxPairs);

Expected<std::unique_ptr<VmNic>> VmNic::create(const config::NicConfig& config, const VmServices& services,
                                               const GuestMemory& memory, InterruptBus& interrupts,
                                               Board& board) {
    net::Switch& its_switch = *services.switches[config.switch_index];
    std::unique_ptr<VmNic> nic{new (std::nothrow) VmNic{config, its_switch}};
    if (nic == nullptr)
        return Unexpected{Error::no_memory};
    nic->device_ = HV_TRY(virtio::VirtioNet::create(memory, services.clock,
                                                    {config.mac, config.mtu, config.queues, config.trusted}));
    const unsigned slot = board.pci().free_device();
    if (slot == PciHostBridge::kDevices)
        return Unexpected{Error::out_of_range};
    nic->transport_ =
        HV_TRY(make<virtio::VirtioPciTransport>(*nic->device_, interrupts, &board.pci_line(slot)));
    nic->port_ = HV_TRY(its_switch.add_port(*nic->device_, nic_options(config)));
    nic->device_->connect(nic->port_);
    HV_TRY(board.pci().attach(slot, *nic->transport_));
    return nic;
}

VmNic::~VmNic() {
    if (port_ == nullptr)
        return;
    device_->connect(nullptr);
    switch_.remove_port(*port_);
}

}  // namespace hv
