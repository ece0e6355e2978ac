// SPDX-License-Identifier: MIT
#include "vmm/monitor/stats_command.hpp"

#include "vmm/config/config.hpp"
#include "vmm/monitor/printed_units.hpp"
#include "vmm/monitor/vm_command.hpp"

namespace hv {
namespace {

void print_heading(Output& out) {
    out.print("%-24s %14s %14s %14s\n", "VCPU", "RAN", "WAITED", "EXITS");
}

}  // namespace

MonitorCommand::Result StatsCommand::run(Arguments arguments, Output& out) {
    if (arguments.size() > 1)
        return Result::wrong_arguments;
    if (arguments.empty()) {
        print_heading(out);
        for (std::size_t index = 0; index < vms_.size(); ++index)
            print_vcpus(index, out);
        return Result::done;
    }
    const auto index = vms_.find(arguments[0]);
    if (!index) {
        print_no_such_vm(vms_, arguments[0], out);
    } else if (!vms_.status(*index).running) {
        out.print("%.*s does not run\n", HV_VIEW(arguments[0]));
    } else {
        print_heading(out);
        print_vcpus(*index, out);
        print_reasons(*index, out);
    }
    return Result::done;
}

void StatsCommand::complete(Arguments arguments, Completion& completion) const {
    if (arguments.empty())
        complete_vm(vms_, completion);
}

void StatsCommand::print_vcpus(std::size_t index, Output& out) const {
    for (std::uint32_t vcpu = 0; vcpu < vms_.config(index).cpus; ++vcpu) {
        const auto statistics = vms_.vcpu(index, vcpu);
        if (!statistics)
            return;
        std::uint64_t exits = 0;
        for (const std::uint64_t count : statistics->exits)
            exits += count;
        TextBuffer<48> name;
        name.append("%.*s/%u", HV_VIEW(vms_.name(index)), vcpu);
        const auto ran = printed_time(statistics->run_ns);
        const auto waited = printed_time(statistics->wait_ns);
        out.print("%-24.*s %14.*s %14.*s %14llu\n", HV_VIEW(name.view()), HV_VIEW(ran.view()),
                  HV_VIEW(waited.view()), static_cast<unsigned long long>(exits));
    }
}

/// All vCPUs together, reasons that occurred.
void StatsCommand::print_reasons(std::size_t index, Output& out) const {
    std::uint64_t exits[VmExit::kReasons]{};
    std::uint64_t all = 0;
    for (std::uint32_t vcpu = 0; vcpu < vms_.config(index).cpus; ++vcpu) {
        const auto statistics = vms_.vcpu(index, vcpu);
        for (unsigned reason = 0; statistics && reason < VmExit::kReasons; ++reason) {
            exits[reason] += statistics->exits[reason];
            all += statistics->exits[reason];
        }
    }
    out.print("%-24s %14s %14s\n", "REASON", "EXITS", "PER MILLE");
    for (unsigned reason = 0; reason < VmExit::kReasons; ++reason) {
        if (exits[reason] == 0)
            continue;
        const auto share =
            static_cast<unsigned long long>(static_cast<unsigned __int128>(exits[reason]) * 1000 / all);
        out.print("%-24s %14llu %14llu\n", to_string(static_cast<VmExit::Reason>(reason)),
                  static_cast<unsigned long long>(exits[reason]), share);
    }
}

}  // namespace hv
