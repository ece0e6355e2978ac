// SPDX-License-Identifier: MIT
// `stats`: what the vCPUs did, and why they left the guest.
#pragma once

#include "vmm/monitor/monitor_command.hpp"
#include "vmm/monitor/vm_directory.hpp"

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace hv {

class StatsCommand final : public MonitorCommand {
public:
    explicit StatsCommand(const VmDirectory& vms) : vms_{vms} {}

    [[nodiscard]] std::string_view name() const override { return "stats"; }
    [[nodiscard]] std::string_view help() const override { return "run time and VM exits"; }
    [[nodiscard]] std::string_view usage() const override {
        return "stats       run time and exits of each vCPU\n"
               "stats NAME  a VM's exits by reason\n";
    }
    Result run(Arguments arguments, Output& out) override;
    void complete(Arguments arguments, Completion& completion) const override;

private:
    void print_vcpus(std::size_t index, Output& out) const;
    void print_reasons(std::size_t index, Output& out) const;

    const VmDirectory& vms_;
};

}  // namespace hv
