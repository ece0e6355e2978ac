// SPDX-License-Identifier: MIT
// The VmDirectory of the real VMs.
#pragma once

#include "vmm/monitor/vm_directory.hpp"

namespace hv {

class ConsoleMux;
class VmConsoleSet;
class VmManager;
class VsockTerminal;

class VmManagerView final : public VmDirectory {
public:
    /// All outlive the view.
    VmManagerView(VmManager& manager, VmConsoleSet& consoles, ConsoleMux& mux, VsockTerminal& terminal)
        : manager_{manager}, consoles_{consoles}, mux_{mux}, terminal_{terminal} {}

    [[nodiscard]] std::size_t size() const override;
    [[nodiscard]] const config::VmConfig& config(std::size_t index) const override;
    [[nodiscard]] Status status(std::size_t index) const override;
    [[nodiscard]] std::optional<VcpuStatistics> vcpu(std::size_t index, std::uint32_t vcpu) const override;
    [[nodiscard]] std::optional<DiskStatistics> disk(std::size_t index, std::size_t disk) const override;
    Expected<void> start(std::size_t index) override;
    Expected<void> stop(std::size_t index) override;
    Expected<void> reset(std::size_t index) override;
    Expected<void> press_power_button(std::size_t index) override;
    Expected<void> set_link(std::size_t index, std::size_t nic, Link link) override;
    Expected<void> set_balloon(std::size_t index, std::uint64_t bytes) override;
    Expected<Balloon> look_at_balloon(std::size_t index) override;
    void show_console(std::size_t index) override;
    Expected<void> connect(std::size_t index, std::uint32_t port) override;

private:
    VmManager& manager_;
    VmConsoleSet& consoles_;
    ConsoleMux& mux_;
    VsockTerminal& terminal_;
};

}  // namespace hv
