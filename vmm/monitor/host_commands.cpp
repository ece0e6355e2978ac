// SPDX-License-Identifier: MIT
#include "vmm/monitor/host_commands.hpp"

#include "vmm/base/log.hpp"
#include "vmm/config/config.hpp"
#include "vmm/monitor/printed_units.hpp"

#include <utility>

namespace hv {
namespace {

constexpr std::pair<std::string_view, log::Level> kLevels[] = {
    {"error", log::Level::error},
    {"warning", log::Level::warning},
    {"info", log::Level::info},
    {"debug", log::Level::debug},
};

void print_size(Output& out, const char* what, std::uint64_t bytes) {
    const auto size = printed_size(bytes);
    out.print("%-24s %12.*s\n", what, HV_VIEW(size.view()));
}

}  // namespace

MonitorCommand::Result MemCommand::run(Arguments arguments, Output& out) {
    if (!arguments.empty())
        return Result::wrong_arguments;
    const FrameStatistics frames = host_.frames();
    print_size(out, "host, for use", frames.total_bytes);
    print_size(out, "free", frames.free_bytes);
    if (frames.largest_free_order)
        print_size(out, "largest free block", kPageSize << *frames.largest_free_order);
    const HeapStatistics heap = host_.heap();
    print_size(out, "heap", heap.frame_bytes);
    const auto used = printed_size(heap.object_bytes);
    out.print("%-24s %12.*s in %llu objects\n", "used of it", HV_VIEW(used.view()),
              static_cast<unsigned long long>(heap.objects));
    for (std::size_t index = 0; index < vms_.size(); ++index) {
        const auto status = vms_.status(index);
        if (!status.running)
            continue;
        TextBuffer<48> name;
        name.append("VM %.*s", HV_VIEW(vms_.name(index)));
        const auto memory = printed_size(config::memory_needed(vms_.config(index)));
        const auto overhead = printed_size(status.overhead);
        out.print("%-24.*s %12.*s, and %.*s beside\n", HV_VIEW(name.view()), HV_VIEW(memory.view()),
                  HV_VIEW(overhead.view()));
    }
    return Result::done;
}

MonitorCommand::Result CpuCommand::run(Arguments arguments, Output& out) {
    if (!arguments.empty())
        return Result::wrong_arguments;
    const auto uptime = printed_time(host_.uptime_ns());
    const auto virtualization = host_.virtualization();
    out.print("%u CPUs with %.*s, up for %.*s\n", host_.cpu_count(), HV_VIEW(virtualization),
              HV_VIEW(uptime.view()));
    out.print("%4s %8s  %s\n", "CPU", "APIC ID", "RUNS");
    for (std::uint32_t index = 0; index < host_.cpu_count(); ++index) {
        const HostInfo::Cpu cpu = host_.cpu(index);
        const std::string_view running = cpu.running.empty() ? "-" : cpu.running;
        out.print("%4u %8u  %.*s\n", index, cpu.apic_id, HV_VIEW(running));
    }
    return Result::done;
}

MonitorCommand::Result LogCommand::run(Arguments arguments, Output& out) {
    if (arguments.empty()) {
        log::for_each_kept_line(
            [](void* context, std::string_view text) {
                auto& output = *static_cast<Output*>(context);
                output.write(text);
                output.write("\n");
            },
            &out);
        return Result::done;
    }
    if (arguments.size() > 1)
        return Result::wrong_arguments;
    for (const auto& [word, level] : kLevels) {
        if (word != arguments[0])
            continue;
        log::set_level(level);
        out.print("The log says %.*s and what is graver.\n", HV_VIEW(word));
        return Result::done;
    }
    return Result::wrong_arguments;
}

void LogCommand::complete(Arguments arguments, Completion& completion) const {
    if (!arguments.empty())
        return;
    for (const auto& [word, level] : kLevels)
        completion.add(word);
}

MonitorCommand::Result PowerCommand::run(Arguments arguments, Output& out) {
    if (!arguments.empty())
        return Result::wrong_arguments;
    if (kind_ == Kind::power_off) {
        out.write("The host powers off.\n");
        host_.power_off();
    } else {
        out.write("The host restarts.\n");
        host_.reboot();
    }
    return Result::done;
}

}  // namespace hv
