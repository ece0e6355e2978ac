// SPDX-License-Identifier: MIT
#include "vmm/monitor/vm_command.hpp"

#include "vmm/config/config.hpp"
#include "vmm/config/values.hpp"
#include "vmm/monitor/printed_units.hpp"
#include "vmm/monitor/words.hpp"

namespace hv {
namespace {

using config::VmConfig;

std::string_view to_string(config::Restart restart) {
    switch (restart) {
    case config::Restart::no: return "no";
    case config::Restart::on_failure: return "on-failure";
    case config::Restart::always: return "always";
    }
    return "?";
}

std::string_view to_string(config::DiskSource source) {
    switch (source) {
    case config::DiskSource::module: return "module";
    case config::DiskSource::ram: return "ram";
    case config::DiskSource::disk: return "disk";
    case config::DiskSource::partition: return "gpt";
    }
    return "?";
}

std::string_view to_string(config::DiskMode mode) {
    switch (mode) {
    case config::DiskMode::read_only: return "ro";
    case config::DiskMode::read_write: return "rw";
    case config::DiskMode::copy_on_write: return "cow";
    }
    return "?";
}

void print_text(Output& out, const char* what, std::string_view text) {
    if (text.empty())
        return;
    out.print("  %-10s ", what);
    out.write(text);
    out.write("\n");
}

void print_processors(Output& out, const VmConfig& vm) {
    out.print("  %-10s %u vCPUs, weight %u", "processor", vm.cpus, vm.weight);
    if (vm.cap != 0)
        out.print(", at most %u %% of a CPU", vm.cap);
    if (!vm.pin.empty()) {
        out.write(", on CPUs");
        for (const std::uint32_t cpu : vm.pin)
            out.print(" %u", cpu);
    }
    out.write("\n");
}

void print_disk(Output& out, const config::DiskConfig& disk) {
    const auto source = to_string(disk.source);
    const auto mode = to_string(disk.mode);
    out.print("  %-10s %.*s:", "disk", HV_VIEW(source));
    out.write(disk.source == config::DiskSource::ram ? printed_size(disk.size).view() : disk.name);
    out.print(", %.*s\n", HV_VIEW(mode));
}

void print_work(Output& out, const VmDirectory::DiskStatistics& done, bool overlay) {
    const auto number = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
    const auto read = printed_size(done.bytes_read);
    const auto written = printed_size(done.bytes_written);
    out.print("  %-10s %llu reads of %.*s, %llu writes of %.*s, %llu flushes, %llu errors", "",
              number(done.reads), HV_VIEW(read.view()), number(done.writes), HV_VIEW(written.view()),
              number(done.flushes), number(done.errors));
    const auto taken = printed_size(done.overlay);
    if (overlay)
        out.print(", %.*s of memory", HV_VIEW(taken.view()));
    out.write("\n");
}

void print_nic(Output& out, const config::NicConfig& nic) {
    const MacAddress& mac = nic.mac;
    out.print("  %-10s %02x:%02x:%02x:%02x:%02x:%02x", "nic", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
    if (nic.vlan != 0)
        out.print(", VLAN %u", nic.vlan);
    if (nic.rate != 0)
        out.print(", at most %llu kbit/s", static_cast<unsigned long long>(nic.rate / 1000));
    out.write("\n");
}

}  // namespace

constinit const VmCommand::Action VmCommand::kActions[6] = {
    {"show", &VmCommand::show},   {"start", &VmCommand::start},     {"stop", &VmCommand::stop},
    {"reset", &VmCommand::reset}, {"console", &VmCommand::console}, {"button", &VmCommand::button},
};

std::string_view VmCommand::usage() const {
    return "vm list          the VMs and their state\n"
           "vm show NAME     all about one\n"
           "vm start NAME    builds and starts it\n"
           "vm stop NAME     ends it at once, as if its plug were pulled\n"
           "vm reset NAME    presses its reset button\n"
           "vm console NAME  gives its console the line (Ctrl-A m leads back)\n"
           "vm connect NAME PORT  gives the line to a stream to a port of its guest's sockets, which ends "
           "when "
           "one leaves it\n"
           "vm button NAME   presses its power button: the guest shuts down by itself\n"
           "vm link NAME N up|down  plugs the cable of its N-th NIC, from 0 on, in, or pulls it\n"
           "vm balloon NAME SIZE  asks its guest to do without SIZE of its memory, as in 64M; 0: without "
           "none\n"
           "vm balloon NAME  how much that is, and what the guest said last of its memory\n";
}

MonitorCommand::Result VmCommand::run(Arguments arguments, Output& out) {
    if (arguments.size() == 1 && arguments[0] == "list") {
        list(out);
        return Result::done;
    }
    if (!arguments.empty() && arguments[0] == "link")
        return link(arguments.subspan(1), out);
    if (!arguments.empty() && arguments[0] == "balloon")
        return balloon(arguments.subspan(1), out);
    if (!arguments.empty() && arguments[0] == "connect")
        return connect(arguments.subspan(1), out);
    if (arguments.size() != 2)
        return Result::wrong_arguments;
    for (const Action& action : kActions) {
        if (action.word != arguments[0])
            continue;
        if (const auto index = vms_.find(arguments[1]))
            (this->*action.run)(*index, out);
        else
            print_no_such_vm(vms_, arguments[1], out);
        return Result::done;
    }
    return Result::wrong_arguments;
}

void VmCommand::complete(Arguments arguments, Completion& completion) const {
    if (arguments.empty()) {
        completion.add("list");
        for (const Action& action : kActions)
            completion.add(action.word);
        completion.add("link");
        completion.add("balloon");
        completion.add("connect");
    } else if (arguments.size() == 3 && arguments[0] == "link") {
        completion.add("up");
        completion.add("down");
    } else if (arguments.size() == 1 && arguments[0] != "list") {
        complete_vm(vms_, completion);
    }
}

void VmCommand::list(Output& out) {
    if (vms_.size() == 0) {
        out.write("The configuration has no VMs.\n");
        return;
    }
    out.print("%-20s %-9s %5s %10s %7s  %s\n", "NAME", "STATE", "VCPUS", "MEMORY", "RESETS", "LAST END");
    for (std::size_t index = 0; index < vms_.size(); ++index) {
        const VmConfig& vm = vms_.config(index);
        const auto status = vms_.status(index);
        const auto memory = printed_size(vm.memory);
        out.print("%-20.*s %-9.*s %5u %10.*s %7u  %.*s\n", HV_VIEW(vm.name), HV_VIEW(status.state), vm.cpus,
                  HV_VIEW(memory.view()), status.resets, HV_VIEW(status.ending.view()));
    }
}

void VmCommand::show(std::size_t index, Output& out) {
    const VmConfig& vm = vms_.config(index);
    const auto status = vms_.status(index);
    const auto ending = status.ending.view();
    out.print("%.*s: %.*s%s%.*s, %u resets\n", HV_VIEW(vm.name), HV_VIEW(status.state),
              ending.empty() ? "" : ", ", HV_VIEW(ending), status.resets);
    if (!vm.valid)
        out.print("  its configuration, from line %u on, is wrong: the log says why\n", vm.line);
    print_processors(out, vm);
    print_text(out, "memory", printed_size(vm.memory).view());
    if (status.running)
        print_text(out, "beside it", printed_size(status.overhead).view());
    print_text(out, "boot", to_string(vm.boot));
    print_text(out, "kernel", vm.kernel);
    print_text(out, "initrd", vm.initrd);
    print_text(out, "cmdline", vm.command_line);
    print_text(out, "autostart", vm.autostart ? "yes" : "no");
    print_text(out, "restart", to_string(vm.restart));
    for (std::size_t number = 0; number < vm.disks.size(); ++number) {
        const config::DiskConfig& disk = vm.disks[number];
        print_disk(out, disk);
        if (const auto done = vms_.disk(index, number))
            print_work(out, *done, disk.mode == config::DiskMode::copy_on_write);
    }
    for (const config::NicConfig& nic : vm.nics)
        print_nic(out, nic);
}

void VmCommand::start(std::size_t index, Output& out) {
    answer(index, vms_.start(index), "started", out);
}
void VmCommand::stop(std::size_t index, Output& out) {
    answer(index, vms_.stop(index), "is being stopped", out);
}
void VmCommand::reset(std::size_t index, Output& out) {
    answer(index, vms_.reset(index), "is being reset", out);
}
void VmCommand::console(std::size_t index, Output&) {
    vms_.show_console(index);
}
void VmCommand::button(std::size_t index, Output& out) {
    answer(index, vms_.press_power_button(index), "had its power button pressed", out);
}

MonitorCommand::Result VmCommand::link(Arguments arguments, Output& out) {
    if (arguments.size() != 3 || (arguments[2] != "up" && arguments[2] != "down"))
        return Result::wrong_arguments;
    const auto number = parse_number(arguments[1]);
    if (!number)
        return Result::wrong_arguments;
    const auto index = vms_.find(arguments[0]);
    if (!index) {
        print_no_such_vm(vms_, arguments[0], out);
        return Result::done;
    }
    const bool up = arguments[2] == "up";
    const auto done = vms_.set_link(*index, *number, up ? VmDirectory::Link::up : VmDirectory::Link::down);
    if (!done && done.error() == Error::out_of_range)
        out.print("%.*s has %zu NICs, counted from 0 on\n", HV_VIEW(vms_.name(*index)),
                  vms_.config(*index).nics.size());
    else
        answer(*index, done, up ? "has a link" : "has no link any more", out);
    return Result::done;
}

MonitorCommand::Result VmCommand::balloon(Arguments arguments, Output& out) {
    if (arguments.empty() || arguments.size() > 2)
        return Result::wrong_arguments;
    const auto bytes =
        arguments.size() == 2 ? config::parse_size(arguments[1]) : std::optional<std::uint64_t>{0};
    if (!bytes)
        return Result::wrong_arguments;
    const auto index = vms_.find(arguments[0]);
    if (!index)
        print_no_such_vm(vms_, arguments[0], out);
    else if (arguments.size() == 2)
        set_balloon(*index, *bytes, out);
    else
        show_balloon(*index, out);
    return Result::done;
}

void VmCommand::set_balloon(std::size_t index, std::uint64_t bytes, Output& out) {
    const auto done = vms_.set_balloon(index, bytes);
    const auto name = vms_.name(index);
    const auto memory = printed_size(vms_.config(index).memory);
    if (!done && done.error() == Error::out_of_range)
        out.print("%.*s has %.*s of memory\n", HV_VIEW(name), HV_VIEW(memory.view()));
    else
        answer(index, done, "has been asked", out);
}

void VmCommand::show_balloon(std::size_t index, Output& out) {
    const auto balloon = vms_.look_at_balloon(index);
    if (!balloon) {
        answer(index, Unexpected{balloon.error()}, "", out);
        return;
    }
    const auto name = vms_.name(index);
    const auto actual = printed_size(balloon->actual);
    const auto target = printed_size(balloon->target);
    const auto given_back = printed_size(balloon->given_back);
    out.print("%.*s: %.*s in its balloon, %.*s asked for; %.*s given back to the host\n", HV_VIEW(name),
              HV_VIEW(actual.view()), HV_VIEW(target.view()), HV_VIEW(given_back.view()));
    const auto print = [&](const char* what, const std::optional<std::uint64_t>& value) {
        if (value)
            print_text(out, what, printed_size(*value).view());
    };
    print("total", balloon->total);
    print("free", balloon->free);
    print("available", balloon->available);
}

MonitorCommand::Result VmCommand::connect(Arguments arguments, Output& out) {
    if (arguments.size() != 2)
        return Result::wrong_arguments;
    const auto port = parse_number(arguments[1]);
    if (!port || *port > 0xffff'ffff)
        return Result::wrong_arguments;
    const auto index = vms_.find(arguments[0]);
    if (!index) {
        print_no_such_vm(vms_, arguments[0], out);
        return Result::done;
    }
    const auto begun = vms_.connect(*index, static_cast<std::uint32_t>(*port));
    if (begun)
        return Result::done;  // the line has changed hands
    const auto name = vms_.name(*index);
    if (begun.error() == Error::unsupported)
        out.print("%.*s has no vsock\n", HV_VIEW(name));
    else if (begun.error() == Error::busy)
        out.print("%.*s has as many connections as there can be\n", HV_VIEW(name));
    else if (begun.error() == Error::not_found && vms_.status(*index).running)
        out.print("%.*s has no driver that uses its vsock\n", HV_VIEW(name));
    else
        answer(*index, begun, "", out);
    return Result::done;
}

void VmCommand::answer(std::size_t index, const Expected<void>& result, const char* done, Output& out) {
    const auto name = vms_.name(index);
    if (result) {
        out.print("%.*s %s\n", HV_VIEW(name), done);
        return;
    }
    switch (result.error()) {
    case Error::not_found: out.print("%.*s does not run\n", HV_VIEW(name)); break;
    case Error::busy: out.print("%.*s runs already, or the host is about to end\n", HV_VIEW(name)); break;
    case Error::unsupported: out.print("%.*s has no balloon\n", HV_VIEW(name)); break;
    default: out.print("%.*s: %s; the log may tell more\n", HV_VIEW(name), to_string(result.error())); break;
    }
}

void print_no_such_vm(const VmDirectory& vms, std::string_view name, Output& out) {
    out.print("There is no VM \"%.*s\"; there are:", HV_VIEW(name));
    for (std::size_t index = 0; index < vms.size(); ++index)
        out.print(" %.*s", HV_VIEW(vms.name(index)));
    out.write("\n");
}

void complete_vm(const VmDirectory& vms, Completion& completion) {
    for (std::size_t index = 0; index < vms.size(); ++index)
        completion.add(vms.name(index));
}

}  // namespace hv
