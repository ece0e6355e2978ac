// SPDX-License-Identifier: MIT
// `net`: the virtual switches, what passes them, and captures of it.
#pragma once

#include "vmm/monitor/monitor_command.hpp"
#include "vmm/monitor/net_directory.hpp"

#include <cstddef>
#include <optional>
#include <string_view>

namespace hv {

class NetCommand final : public MonitorCommand {
public:
    explicit NetCommand(NetDirectory& net) : net_{net} {}

    [[nodiscard]] std::string_view name() const override { return "net"; }
    [[nodiscard]] std::string_view help() const override {
        return "the switches and their ports: show, capture";
    }
    [[nodiscard]] std::string_view usage() const override;
    Result run(Arguments arguments, Output& out) override;
    void complete(Arguments arguments, Completion& completion) const override;

private:
    void list(Output& out);
    void list_ports(std::size_t index, Output& out);
    void show(std::size_t index, Output& out);
    void show_port(std::uint16_t number, const NetDirectory::Port& port, Output& out);
    static void show_rates(const net::PortOptions& options, Output& out);
    static void show_device(const net::StationCounters& device, Output& out);
    void show_learned(std::size_t index, Output& out);
    /// `arguments` behind "capture".
    Result capture(Arguments arguments, Output& out);
    /// Adds the ports that are meant by `word`: a number, a VM, a VM's NIC "vm/0", a physical NIC.
    [[nodiscard]] bool choose(std::size_t index, std::string_view word, net::Capture::Choice& choice) const;
    [[nodiscard]] std::optional<std::size_t> find(std::string_view name, Output& out) const;
    /// Calls `visit(number, const NetDirectory::Port&)` for the switch's ports.
    template <class Visit>
    void for_each_port(std::size_t index, Visit&& visit) const;

    NetDirectory& net_;
};

}  // namespace hv
