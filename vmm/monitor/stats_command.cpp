// SPDX-License-Identifier: MIT
#include "vmm/monitor/stats_command.hpp"

#include "vmm/config/config.hpp"
#include "vmm/monitor/printed_units.hpp"
#include "vmm/monitor/vm_command.hpp"

#include <algorithm>

namespace hv {
namespace {

using Name = TextBuffer<48>;
/// Shares are in millionths of a CPU.
constexpr std::uint64_t kCpu = 1'000'000;

Name vcpu_name(std::string_view vm, std::uint32_t vcpu) {
    Name name;
    name.append("%.*s/%u", HV_VIEW(vm), vcpu);
    return name;
}

PrintedUnit printed_share(std::uint64_t millionths) {
    PrintedUnit out;
    const std::uint64_t tenths = millionths / (kCpu / 1000);
    out.append("%llu.%llu %%", static_cast<unsigned long long>(tenths / 10),
               static_cast<unsigned long long>(tenths % 10));
    return out;
}

void print_share_line(std::string_view name, std::uint64_t got, std::uint64_t due, std::string_view cap,
                      std::uint64_t run_ns, std::uint64_t wait_ns, Output& out) {
    const auto printed_got = printed_share(got);
    const auto printed_due = printed_share(due);
    const auto ran = printed_time(run_ns);
    const auto waited = printed_time(wait_ns);
    out.print("%-24.*s %9.*s %9.*s %7.*s %14.*s %14.*s\n", HV_VIEW(name), HV_VIEW(printed_got.view()),
              HV_VIEW(printed_due.view()), HV_VIEW(cap), HV_VIEW(ran.view()), HV_VIEW(waited.view()));
}

std::uint64_t all_exits(const VmDirectory::VcpuStatistics& statistics) {
    std::uint64_t sum = 0;
    for (const std::uint64_t count : statistics.exits)
        sum += count;
    return sum;
}

}  // namespace

MonitorCommand::Result StatsCommand::run(Arguments arguments, Output& out) {
    if (arguments.size() > 1)
        return Result::wrong_arguments;
    if (arguments.empty()) {
        print_shares({0, vms_.size()}, out);
        print_work({0, vms_.size()}, out);
        return Result::done;
    }
    const auto index = vms_.find(arguments[0]);
    if (!index) {
        print_no_such_vm(vms_, arguments[0], out);
    } else if (!vms_.status(*index).running) {
        out.print("%.*s does not run\n", HV_VIEW(arguments[0]));
    } else {
        print_shares({*index, *index + 1}, out);
        print_work({*index, *index + 1}, out);
        print_reasons(*index, out);
    }
    return Result::done;
}

void StatsCommand::complete(Arguments arguments, Completion& completion) const {
    if (arguments.empty())
        complete_vm(vms_, completion);
}

/// What the VM claims when it wants all that it may have: by its vCPUs, its cap and its pins.
Claim StatsCommand::claim_of(std::size_t index) const {
    if (!vms_.status(index).running)
        return {0, 0};
    const config::VmConfig& vm = vms_.config(index);
    std::uint64_t most = std::min(vm.cpus, host_.cpu_count()) * kCpu;
    if (!vm.pin.empty())
        most = std::min<std::uint64_t>(most, vm.pin.size() * kCpu);
    if (vm.cap != 0)
        most = std::min(most, vm.cap * kCpu / 100);
    return {vm.weight, most};
}

/// Since it was shown last, or its VM was built if that is later; `slot`: its place in shown_.
std::uint64_t StatsCommand::got(const VmDirectory::VcpuStatistics& statistics, std::size_t slot) {
    const std::uint64_t now = host_.uptime_ns();
    Shown before{now - std::min(now, statistics.age_ns), 0};
    if (slot < shown_.size()) {
        if (shown_[slot].at_ns > before.at_ns)
            before = shown_[slot];
        shown_[slot] = {now, statistics.run_ns};
    }
    const std::uint64_t passed = std::max(now - before.at_ns, std::uint64_t{1});
    return static_cast<std::uint64_t>(
        static_cast<unsigned __int128>(statistics.run_ns - std::min(statistics.run_ns, before.run_ns)) *
        kCpu / passed);
}

void StatsCommand::print_shares(Range range, Output& out) {
    out.print("%-24s %9s %9s %7s %14s %14s\n", "PER CENT OF A CPU", "GOT", "DUE", "CAP", "RAN", "WAITED");
    for (std::size_t index = range.first; index < range.last; ++index)
        print_share(index, out);
}

void StatsCommand::print_share(std::size_t index, Output& out) {
    const Claim claim = claim_of(index);
    if (claim.weight == 0)
        return;
    std::size_t slot = 0;
    std::size_t slots = 0;
    for (std::size_t other = 0; other < vms_.size(); ++other) {
        if (other < index)
            slot += vms_.config(other).cpus;
        slots += vms_.config(other).cpus;
    }
    // Without memory for it, shares are those since the VM was built.
    static_cast<void>(shown_.resize(slots));
    const config::VmConfig& vm = vms_.config(index);
    const std::uint64_t due = entitlement(
        claim, vms_.size(), [this](std::size_t other) { return claim_of(other); }, host_.cpu_count() * kCpu);
    struct Line {
        std::uint64_t got, run_ns, wait_ns;
    };
    Line sum{};
    Vec<Line> lines;
    for (std::uint32_t vcpu = 0; vcpu < vm.cpus; ++vcpu) {
        const auto statistics = vms_.vcpu(index, vcpu);
        if (!statistics)
            return;
        const Line line{got(*statistics, slot + vcpu), statistics->run_ns, statistics->wait_ns};
        sum = {sum.got + line.got, sum.run_ns + line.run_ns, sum.wait_ns + line.wait_ns};
        static_cast<void>(lines.push(line));  // without memory, the VM's own line has to do
    }
    PrintedUnit cap;
    if (vm.cap != 0)
        cap.append("%u %%", vm.cap);
    print_share_line(vms_.name(index), sum.got, due, vm.cap != 0 ? cap.view() : "-", sum.run_ns, sum.wait_ns,
                     out);
    for (std::uint32_t vcpu = 0; vcpu < lines.size(); ++vcpu)
        print_share_line(vcpu_name(vms_.name(index), vcpu).view(), lines[vcpu].got, due / vm.cpus, "",
                         lines[vcpu].run_ns, lines[vcpu].wait_ns, out);
}

void StatsCommand::print_work(Range range, Output& out) const {
    out.print("%-24s %9s %11s %11s %14s %14s\n", "VCPU", "WAKE-UPS", "MEAN LATE", "MOST LATE", "EXITS",
              "TICKS/EXIT");
    for (std::size_t index = range.first; index < range.last; ++index)
        print_work(index, out);
}

void StatsCommand::print_work(std::size_t index, Output& out) const {
    for (std::uint32_t vcpu = 0; vcpu < vms_.config(index).cpus; ++vcpu) {
        const auto statistics = vms_.vcpu(index, vcpu);
        if (!statistics)
            return;
        const std::uint64_t exits = all_exits(*statistics);
        const auto mean = printed_delay(statistics->wake_ns / std::max(statistics->wakes, std::uint64_t{1}));
        const auto most = printed_delay(statistics->most_wake_ns);
        out.print("%-24.*s %9llu %11.*s %11.*s %14llu %14llu\n",
                  HV_VIEW(vcpu_name(vms_.name(index), vcpu).view()),
                  static_cast<unsigned long long>(statistics->wakes), HV_VIEW(mean.view()),
                  HV_VIEW(most.view()), static_cast<unsigned long long>(exits),
                  static_cast<unsigned long long>(statistics->run_ticks / std::max(exits, std::uint64_t{1})));
    }
}

/// All vCPUs together, reasons that occurred.
void StatsCommand::print_reasons(std::size_t index, Output& out) const {
    std::uint64_t exits[VmExit::kReasons]{};
    std::uint64_t all = 0;
    for (std::uint32_t vcpu = 0; vcpu < vms_.config(index).cpus; ++vcpu) {
        const auto statistics = vms_.vcpu(index, vcpu);
        if (!statistics)
            continue;
        for (unsigned reason = 0; reason < VmExit::kReasons; ++reason)
            exits[reason] += statistics->exits[reason];
        all += all_exits(*statistics);
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
