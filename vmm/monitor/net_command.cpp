// SPDX-License-Identifier: MIT
#include "vmm/monitor/net_command.hpp"

#include "vmm/config/config.hpp"
#include "vmm/monitor/printed_units.hpp"
#include "vmm/monitor/words.hpp"

#include <array>
#include <numeric>

namespace hv {
namespace {

using net::PortCounters;
using net::PortOptions;
using Port = NetDirectory::Port;

constexpr std::size_t kMaxLearned = 64;

unsigned long long value(const PortCounters::Counter& counter) {
    return counter.load(std::memory_order_relaxed);
}
unsigned long long refused(const PortCounters& counters, net::Refusal reason) {
    return value(counters.refused[static_cast<std::size_t>(reason)]);
}

bool is_uplink(const Port& port) {
    return port.options->kind == PortOptions::Kind::uplink;
}

TextBuffer<48> name_of(const Port& port) {
    TextBuffer<48> name;
    name.append("%.*s", HV_VIEW(port.station));
    if (port.nic)
        name.append("/%u", *port.nic);
    return name;
}

TextBuffer<24> printed_mac(const MacAddress& mac) {
    TextBuffer<24> out;
    out.append("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
    return out;
}

/// "10 20-29", what is not in a row apart.
void print_vlans(const net::VlanSet& vlans, Output& out) {
    for (std::uint16_t vlan = 0; vlan <= net::kMaxVlan; ++vlan) {
        if (!vlans.contains(vlan))
            continue;
        const unsigned first = vlan;
        while (vlan < net::kMaxVlan && vlans.contains(static_cast<std::uint16_t>(vlan + 1)))
            ++vlan;
        out.print(vlan == first ? " %u" : " %u-%u", first, unsigned{vlan});
    }
}

void print_prefix(const net::IpPrefix& prefix, Output& out) {
    const auto& bytes = prefix.address;
    if (prefix.family == net::IpPrefix::Family::ipv4)
        out.print(" %u.%u.%u.%u", bytes[0], bytes[1], bytes[2], bytes[3]);
    else
        for (std::size_t i = 0; i < bytes.size(); i += 2)
            out.print("%s%x", i == 0 ? " " : ":", bytes[i] << 8 | bytes[i + 1]);
    if (prefix.bits != prefix.size() * 8)
        out.print("/%u", prefix.bits);
}

}  // namespace

std::string_view NetCommand::usage() const {
    return "net                                       the switches, and what passes their ports\n"
           "net show SWITCH                           all about one, with what it refused and learned\n"
           "net capture SWITCH [PORT|VM] [count N]    shows its frames, N at most, as lines for ./cairn "
           "pcap\n"
           "net capture stop                          ends that\n";
}

MonitorCommand::Result NetCommand::run(Arguments arguments, Output& out) {
    if (arguments.empty()) {
        list(out);
        return Result::done;
    }
    if (arguments[0] == "capture")
        return capture(arguments.subspan(1), out);
    if (arguments.size() != 2 || arguments[0] != "show")
        return Result::wrong_arguments;
    if (const auto index = find(arguments[1], out))
        show(*index, out);
    return Result::done;
}

void NetCommand::complete(Arguments arguments, Completion& completion) const {
    if (arguments.empty()) {
        completion.add("show");
        completion.add("capture");
        return;
    }
    const bool capture = arguments[0] == "capture";
    if (arguments.size() == 1 && (capture || arguments[0] == "show"))
        for (std::size_t index = 0; index < net_.size(); ++index)
            completion.add(net_.config(index).name);
    if (arguments.size() == 1 && capture)
        completion.add("stop");
}

template <class Visit>
void NetCommand::for_each_port(std::size_t index, Visit&& visit) const {
    for (std::uint16_t number = 0; number < net::SwitchPort::kMaxPorts; ++number)
        if (const auto port = net_.port(index, number))
            visit(number, *port);
}

std::optional<std::size_t> NetCommand::find(std::string_view name, Output& out) const {
    for (std::size_t index = 0; index < net_.size(); ++index)
        if (net_.config(index).name == name)
            return index;
    out.print("There is no switch \"%.*s\"; there are:", HV_VIEW(name));
    for (std::size_t index = 0; index < net_.size(); ++index)
        out.print(" %.*s", HV_VIEW(net_.config(index).name));
    out.write("\n");
    return std::nullopt;
}

// --- what there is -----------------------------------------------------------------------------------------

void NetCommand::list(Output& out) {
    if (net_.size() == 0)
        out.write("The configuration has no switches.\n");
    for (std::size_t index = 0; index < net_.size(); ++index)
        list_ports(index, out);
}

void NetCommand::list_ports(std::size_t index, Output& out) {
    const config::SwitchConfig& config = net_.config(index);
    out.print("%.*s%s%.*s\n", HV_VIEW(config.name), config.uplink.empty() ? "" : ", uplink ",
              HV_VIEW(config.uplink));
    out.print("%4s  %-24s %-17s %5s %12s %12s %12s\n", "PORT", "STATION", "ADDRESS", "VLAN", "FRAMES IN",
              "FRAMES OUT", "DROPPED");
    for_each_port(index, [&](std::uint16_t number, const Port& port) {
        const PortCounters& counters = *port.counters;
        const auto dropped =
            std::accumulate(counters.refused.begin(), counters.refused.end(),
                            value(counters.storm) + value(counters.lost) + value(counters.over_rate) +
                                (is_uplink(port) ? value(counters.rate_waits) : 0),
                            [](unsigned long long sum, const auto& each) { return sum + value(each); });
        const auto name = name_of(port);
        const auto mac = printed_mac(port.options->mac);
        out.print("%4u  %-24.*s %-17.*s %5u %12llu %12llu %12llu\n", number, HV_VIEW(name.view()),
                  HV_VIEW(is_uplink(port) ? std::string_view{"any"} : mac.view()), port.options->vlan,
                  value(counters.frames_in), value(counters.frames_out), dropped);
    });
}

void NetCommand::show(std::size_t index, Output& out) {
    const config::SwitchConfig& config = net_.config(index);
    list_ports(index, out);
    if (config.storm_limit != 0)
        out.print("each port may send %u frames a second to all or to unknown addresses\n",
                  config.storm_limit);
    for_each_port(index, [&](std::uint16_t number, const Port& port) { show_port(number, port, out); });
    show_learned(index, out);
}

void NetCommand::show_port(std::uint16_t number, const Port& port, Output& out) {
    const PortOptions& options = *port.options;
    const PortCounters& counters = *port.counters;
    out.print("port %u, %.*s\n", number, HV_VIEW(name_of(port).view()));
    if (options.kind == PortOptions::Kind::trusted)
        out.print("  %-10s sends from any address, gets all frames\n", "trusted");
    if (!options.vlans.empty()) {
        out.print("  %-10s", is_uplink(port) ? "VLANs" : "trunk");
        print_vlans(options.vlans, out);
        out.write("\n");
    }
    if (options.addresses.count != 0) {
        out.print("  %-10s", "addresses");
        for (const net::IpPrefix& prefix : options.addresses.span())
            print_prefix(prefix, out);
        out.write("\n");
    }
    show_rates(options, out);
    const auto in = printed_size(value(counters.bytes_in));
    const auto sent = printed_size(value(counters.bytes_out));
    // What comes in by an uplink waits for nothing.
    out.print(is_uplink(port)
                  ? "  %-10s %llu frames, %.*s, waited %llu times for room, lost %llu beyond its rate\n"
                  : "  %-10s %llu frames, %.*s, waited %llu times for room, %llu for its rate\n",
              "sent", value(counters.frames_in), HV_VIEW(in.view()), value(counters.waits),
              value(counters.rate_waits));
    out.print("  %-10s %llu for their VLAN, %llu for their source, %llu in another's name, %llu in storms\n",
              "refused", refused(counters, net::Refusal::vlan), refused(counters, net::Refusal::source),
              refused(counters, net::Refusal::sender), value(counters.storm));
    out.print("  %-10s %llu frames, %.*s, lost %llu without room, %llu beyond its rate\n", "got",
              value(counters.frames_out), HV_VIEW(sent.view()), value(counters.lost),
              value(counters.over_rate));
    show_device(port.device, out);
}

/// From the point of view of the configuration's keys: an uplink sends what its port gets.
void NetCommand::show_rates(const PortOptions& options, Output& out) {
    const auto rate = [&](const char* what, std::uint64_t bits) {
        if (bits != 0)
            out.print("  %-10s at most %llu kbit/s\n", what, static_cast<unsigned long long>(bits / 1000));
    };
    const bool uplink = options.kind == PortOptions::Kind::uplink;
    rate("rate", uplink ? options.receive_bits_per_second : options.bits_per_second);
    rate("rate_in", uplink ? options.bits_per_second : options.receive_bits_per_second);
}

void NetCommand::show_device(const net::StationCounters& device, Output& out) {
    for (std::size_t i = 0; i < device.count; ++i)
        out.print("%s%llu %s", i == 0 ? "  device     " : ", ",
                  static_cast<unsigned long long>(device.counters[i].value), device.counters[i].what);
    if (device.count != 0)
        out.write("\n");
}

void NetCommand::show_learned(std::size_t index, Output& out) {
    std::array<NetDirectory::Learned, kMaxLearned> learned{};
    const std::size_t count = net_.learned(index, learned);
    if (count == 0)
        return;
    out.print("%-17s %5s %5s  %s\n", "LEARNED", "VLAN", "PORT", "SEEN");
    for (std::size_t i = 0; i < std::min(count, learned.size()); ++i)
        out.print("%-17.*s %5u %5u  %llu s ago\n", HV_VIEW(printed_mac(learned[i].mac).view()),
                  learned[i].vlan, learned[i].port, static_cast<unsigned long long>(learned[i].seconds));
    if (count > learned.size())
        out.print("and %zu more\n", count - learned.size());
}

// --- captures ----------------------------------------------------------------------------------------------

bool NetCommand::choose(std::size_t index, std::string_view word, net::Capture::Choice& choice) const {
    for_each_port(index, [&](std::uint16_t number, const Port& port) {
        if (parse_number(word) == number || port.station == word || name_of(port).view() == word)
            choice.add(number);
    });
    return !choice.all;
}

MonitorCommand::Result NetCommand::capture(Arguments arguments, Output& out) {
    if (arguments.size() == 1 && arguments[0] == "stop") {
        if (!net_.stop_capture())
            out.write("There is no capture.\n");
        return Result::done;
    }
    net::Capture::Choice choice;
    Arguments rest = arguments;
    if (rest.size() >= 3 && rest[rest.size() - 2] == "count") {
        const auto count = parse_number(rest.back());
        if (!count || *count == 0)
            return Result::wrong_arguments;
        choice.frames = *count;
        rest = rest.first(rest.size() - 2);
    }
    if (rest.empty() || rest.size() > 2)
        return Result::wrong_arguments;
    const auto index = find(rest[0], out);
    if (!index)
        return Result::done;
    if (rest.size() == 2 && !choose(*index, rest[1], choice)) {
        out.print("%.*s has no port \"%.*s\"; \"net\" lists them.\n", HV_VIEW(rest[0]), HV_VIEW(rest[1]));
        return Result::done;
    }
    if (!net_.start_capture(*index, choice))
        out.write("A capture is under way; \"net capture stop\" ends it.\n");
    return Result::done;
}

}  // namespace hv
