// SPDX-License-Identifier: MIT
#include "vmm/monitor/vm_console.hpp"

#include "vmm/base/text.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/devices/uart16550.hpp"
#include "vmm/monitor/console_mux.hpp"
#include "vmm/virtio/virtio_console.hpp"

namespace hv {

Expected<std::unique_ptr<VmConsole>> VmConsole::create(ConsoleMux& mux, std::string_view name) {
    auto buffer = HV_TRY(make<Buffer>());
    auto* console = new (std::nothrow) VmConsole{mux, name, std::move(buffer)};
    if (console == nullptr)
        return Unexpected{Error::no_memory};
    return std::unique_ptr<VmConsole>{console};
}

VmConsole::VmConsole(ConsoleMux& mux, std::string_view name, std::unique_ptr<Buffer> buffer)
    : mux_{mux}, buffer_{std::move(buffer)}, channel_{mux, name, this, *buffer_} {}

void VmConsole::disconnect() {
    uart_ = nullptr;
    virtio_ = nullptr;
    channel_.finish_lines();
    if (mux_.mode() == ConsoleMux::Mode::interactive)
        channel_.write_lines("-- this VM is off; Ctrl-A m leads to the monitor --\n");
}

bool VmConsole::receive(char c) {
    if (virtio_ != nullptr && virtio_->takes_input())
        return virtio_->receive(c);
    return uart_ != nullptr && uart_->receive(c);
}

}  // namespace hv
