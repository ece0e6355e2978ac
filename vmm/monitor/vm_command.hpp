// SPDX-License-Identifier: MIT
// `vm`: what the VMs are, and their life cycle.
#pragma once

#include "vmm/monitor/monitor_command.hpp"
#include "vmm/monitor/vm_directory.hpp"

#include <cstddef>
#include <string_view>

namespace hv {

class VmCommand final : public MonitorCommand {
public:
    explicit VmCommand(VmDirectory& vms) : vms_{vms} {}

    [[nodiscard]] std::string_view name() const override { return "vm"; }
    [[nodiscard]] std::string_view help() const override {
        return "the VMs: list, show, start, stop, reset, console, connect, button, link, balloon";
    }
    [[nodiscard]] std::string_view usage() const override;
    Result run(Arguments arguments, Output& out) override;
    void complete(Arguments arguments, Completion& completion) const override;

private:
    struct Action {
        std::string_view word;
        void (VmCommand::*run)(std::size_t index, Output& out);
    };
    static const Action kActions[6];

    void list(Output& out);
    void show(std::size_t index, Output& out);
    void start(std::size_t index, Output& out);
    void stop(std::size_t index, Output& out);
    void reset(std::size_t index, Output& out);
    void console(std::size_t index, Output& out);
    void button(std::size_t index, Output& out);
    /// `arguments` behind "link".
    Result link(Arguments arguments, Output& out);
    /// `arguments` behind "balloon".
    Result balloon(Arguments arguments, Output& out);
    /// `arguments` behind "connect".
    Result connect(Arguments arguments, Output& out);
    void set_balloon(std::size_t index, std::uint64_t bytes, Output& out);
    void show_balloon(std::size_t index, Output& out);
    void answer(std::size_t index, const Expected<void>& result, const char* done, Output& out);

    VmDirectory& vms_;
};

/// Says that there is no VM of that name, and which ones there are.
void print_no_such_vm(const VmDirectory& vms, std::string_view name, Output& out);
/// Adds the names of all VMs.
void complete_vm(const VmDirectory& vms, Completion& completion);

}  // namespace hv
