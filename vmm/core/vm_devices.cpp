// SPDX-License-Identifier: MIT
#include "vmm/core/vm_devices.hpp"

#include "vmm/core/vm.hpp"
#include "vmm/virtio/virtio_rng.hpp"

#include <array>

namespace hv {

Expected<void> VmDevices::add(const config::VmConfig& config, const VmServices& services,
                              const GuestMemory& memory, virtio::BalloonMemory* spare,
                              InterruptBus& interrupts, Board& board, CharSink& output) {
    if (config.rng && services.entropy != nullptr)
        HV_TRY(plug(HV_TRY(virtio::VirtioRng::create(*services.entropy, memory, services.clock)), interrupts,
                    board));
    if (config.console) {
        auto console = HV_TRY(virtio::VirtioConsole::create(output, memory, services.clock));
        auto* const made = console.get();
        HV_TRY(plug(std::move(console), interrupts, board));
        console_ = made;
    }
    if (config.vsock != 0) {
        const std::array<virtio::VsockPort, 1> ports{{{virtio::VsockEcho::kPort, &echo_}}};
        auto vsock = HV_TRY(virtio::VirtioVsock::create(memory, services.clock, {config.vsock, ports}));
        auto* const made = vsock.get();
        HV_TRY(plug(std::move(vsock), interrupts, board));
        vsock_ = made;
    }
    if (spare != nullptr) {
        auto balloon = HV_TRY(virtio::VirtioBalloon::create(*spare, memory, services.clock));
        auto* const made = balloon.get();
        HV_TRY(plug(std::move(balloon), interrupts, board));
        balloon_ = made;
    }
    return {};
}

Expected<void> VmDevices::plug(std::unique_ptr<virtio::VirtioDevice> device, InterruptBus& interrupts,
                               Board& board) {
    const unsigned slot = board.pci().free_device();
    if (slot == PciHostBridge::kDevices)
        return Unexpected{Error::out_of_range};
    HV_TRY(plugged_.reserve(plugged_.size() + 1));  // what is on the PCI bus stays
    auto transport = HV_TRY(make<virtio::VirtioPciTransport>(*device, interrupts, &board.pci_line(slot)));
    HV_TRY(board.pci().attach(slot, *transport));
    return plugged_.push({std::move(device), std::move(transport)});
}

void VmDevices::reset() {
    for (const Plugged& each : plugged_)
        each.transport->reset();
}

}  // namespace hv
