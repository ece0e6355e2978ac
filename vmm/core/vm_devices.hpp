// SPDX-License-Identifier: MIT
// The small virtio devices of a VM, those that its configuration asks for: entropy, console, sockets,
// memory balloon.
#pragma once

#include "vmm/base/vec.hpp"
#include "vmm/config/config.hpp"
#include "vmm/core/board.hpp"
#include "vmm/devices/char_sink.hpp"
#include "vmm/mm/guest_memory.hpp"
#include "vmm/virtio/virtio_balloon.hpp"
#include "vmm/virtio/virtio_console.hpp"
#include "vmm/virtio/virtio_pci.hpp"
#include "vmm/virtio/virtio_vsock.hpp"
#include "vmm/virtio/vsock_echo.hpp"

#include <memory>

namespace hv {

struct VmServices;

class VmDevices {
public:
    VmDevices() = default;
    VmDevices(const VmDevices&) = delete;
    VmDevices& operator=(const VmDevices&) = delete;

    /// Makes the devices and plugs them into the board, which they stay in even if one fails. Once.
    /// `spare` is for a balloon, if there is to be one; `output` gets what the guest prints on its virtio
    /// console. Error::no_memory; Error::out_of_range: the bus is full.
    Expected<void> add(const config::VmConfig& config, const VmServices& services, const GuestMemory& memory,
                       virtio::BalloonMemory* spare, InterruptBus& interrupts, Board& board,
                       CharSink& output);
    /// The platform's reset.
    void reset();
    // nullptr: the VM has none.
    [[nodiscard]] virtio::VirtioConsole* console() const { return console_; }
    [[nodiscard]] virtio::VirtioVsock* vsock() const { return vsock_; }
    [[nodiscard]] virtio::VirtioBalloon* balloon() const { return balloon_; }
    [[nodiscard]] std::size_t count() const { return plugged_.size(); }

private:
    struct Plugged {
        std::unique_ptr<virtio::VirtioDevice> device;
        std::unique_ptr<virtio::VirtioPciTransport> transport;
    };
    Expected<void> plug(std::unique_ptr<virtio::VirtioDevice> device, InterruptBus& interrupts, Board& board);

    virtio::VsockEcho echo_;
    virtio::VirtioConsole* console_{nullptr};
    virtio::VirtioVsock* vsock_{nullptr};
    virtio::VirtioBalloon* balloon_{nullptr};
    Vec<Plugged> plugged_;
};

}  // namespace hv
