// SPDX-License-Identifier: MIT
// `stats`: what the vCPUs got of the host's CPUs and what they are owed, how soon they ran when woken, and
// why they left the guest.
#pragma once

#include "vmm/base/vec.hpp"
#include "vmm/monitor/host_info.hpp"
#include "vmm/monitor/monitor_command.hpp"
#include "vmm/monitor/vm_directory.hpp"
#include "vmm/sched/entitlement.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace hv {

class StatsCommand final : public MonitorCommand {
public:
    StatsCommand(const HostInfo& host, const VmDirectory& vms) : host_{host}, vms_{vms} {}

    [[nodiscard]] std::string_view name() const override { return "stats"; }
    [[nodiscard]] std::string_view help() const override { return "shares of the CPUs, wake-ups, VM exits"; }
    [[nodiscard]] std::string_view usage() const override {
        return "stats       each VM's and vCPU's share of the CPUs, wake-ups and exits\n"
               "stats NAME  those of a VM, and its exits by reason\n";
    }
    Result run(Arguments arguments, Output& out) override;
    void complete(Arguments arguments, Completion& completion) const override;

private:
    /// What was shown of a vCPU last.
    struct Shown {
        std::uint64_t at_ns{0};
        std::uint64_t run_ns{0};
    };
    /// Of VMs in [first, last), if they run.
    struct Range {
        std::size_t first;
        std::size_t last;
    };

    void print_shares(Range range, Output& out);
    void print_share(std::size_t index, Output& out);
    void print_work(Range range, Output& out) const;
    void print_work(std::size_t index, Output& out) const;
    void print_reasons(std::size_t index, Output& out) const;
    [[nodiscard]] Claim claim_of(std::size_t index) const;
    std::uint64_t got(const VmDirectory::VcpuStatistics& statistics, std::size_t slot);

    const HostInfo& host_;
    const VmDirectory& vms_;
    Vec<Shown> shown_;  ///< of all vCPUs, in the order of their VMs
};

}  // namespace hv
