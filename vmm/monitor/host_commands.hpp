// SPDX-License-Identifier: MIT
// `mem`, `cpu`, `log`, `poweroff` and `reboot`: what concerns the host as a whole.
#pragma once

#include "vmm/monitor/host_info.hpp"
#include "vmm/monitor/monitor_command.hpp"
#include "vmm/monitor/vm_directory.hpp"

#include <string_view>

namespace hv {

class MemCommand final : public MonitorCommand {
public:
    MemCommand(const HostInfo& host, const VmDirectory& vms) : host_{host}, vms_{vms} {}
    [[nodiscard]] std::string_view name() const override { return "mem"; }
    [[nodiscard]] std::string_view help() const override { return "memory: free, in the heap, of the VMs"; }
    [[nodiscard]] std::string_view usage() const override { return "mem\n"; }
    Result run(Arguments arguments, Output& out) override;

private:
    const HostInfo& host_;
    const VmDirectory& vms_;
};

class CpuCommand final : public MonitorCommand {
public:
    explicit CpuCommand(const HostInfo& host) : host_{host} {}
    [[nodiscard]] std::string_view name() const override { return "cpu"; }
    [[nodiscard]] std::string_view help() const override { return "the host's CPUs, and what they run"; }
    [[nodiscard]] std::string_view usage() const override { return "cpu\n"; }
    Result run(Arguments arguments, Output& out) override;

private:
    const HostInfo& host_;
};

class LogCommand final : public MonitorCommand {
public:
    [[nodiscard]] std::string_view name() const override { return "log"; }
    [[nodiscard]] std::string_view help() const override {
        return "the log's latest lines, and how much it says";
    }
    [[nodiscard]] std::string_view usage() const override {
        return "log        the lines that are kept\n"
               "log LEVEL  from now on says error, warning, info or debug and what is graver\n";
    }
    Result run(Arguments arguments, Output& out) override;
    void complete(Arguments arguments, Completion& completion) const override;
};

class PowerCommand final : public MonitorCommand {
public:
    enum class Kind : std::uint8_t { power_off, reboot };
    PowerCommand(HostInfo& host, Kind kind) : host_{host}, kind_{kind} {}
    [[nodiscard]] std::string_view name() const override {
        return kind_ == Kind::power_off ? "poweroff" : "reboot";
    }
    [[nodiscard]] std::string_view help() const override {
        return kind_ == Kind::power_off ? "ends all VMs and switches the host off"
                                        : "ends all VMs and restarts the host";
    }
    [[nodiscard]] std::string_view usage() const override {
        return kind_ == Kind::power_off ? "poweroff\n" : "reboot\n";
    }
    Result run(Arguments arguments, Output& out) override;

private:
    HostInfo& host_;
    Kind kind_;
};

}  // namespace hv
