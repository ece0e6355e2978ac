// SPDX-License-Identifier: MIT
// The consoles of all VMs of the configuration. Each has its channel from the beginning on, so that Ctrl-A 1
// to 9 mean the same VMs all the time.
#pragma once

#include "vmm/base/vec.hpp"
#include "vmm/core/vm_manager.hpp"
#include "vmm/monitor/vm_console.hpp"

#include <memory>
#include <string_view>

namespace hv {

class VmConsoleSet final : public VmConsoles {
public:
    /// Boot CPU, as all of it. Both outlive the set. Error::no_memory.
    static Expected<std::unique_ptr<VmConsoleSet>> create(ConsoleMux& mux, const config::Config& config);

    /// The channel of the VM with this index in the configuration.
    [[nodiscard]] ConsoleChannel& channel(std::size_t index) { return consoles_[index]->channel(); }

    Expected<Vm::Consoles> open(std::size_t index, std::string_view name) override;
    void connect(std::size_t index, Uart16550& uart, virtio::VirtioConsole* console) override {
        consoles_[index]->connect(uart, console);
    }
    [[nodiscard]] std::uint64_t bytes() const override { return sizeof(VmConsole) + VmConsole::kBufferSize; }
    void close(std::size_t index) override { consoles_[index]->disconnect(); }

private:
    VmConsoleSet() = default;

    Vec<std::unique_ptr<VmConsole>> consoles_;
};

}  // namespace hv
