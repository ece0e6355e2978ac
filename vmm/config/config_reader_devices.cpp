// SPDX-License-Identifier: MIT
// A VM's disks, NICs and small devices.
#include "vmm/config/config_reader.hpp"
#include "vmm/config/values.hpp"
#include "vmm/net/switch_port.hpp"

#include <algorithm>

namespace hv::config {
namespace {

constexpr std::uint64_t kMaxIops = 1'000'000'000;
constexpr std::uint32_t kDefaultDiskQueues = 4;
/// Of what a physical NIC sends: a frame with a VLAN tag is kMaxWireFrameSize then.
constexpr unsigned kMaxUplinkMtu = 1500;

}  // namespace

// --- [[vm.disk]]
// -------------------------------------------------------------------------------------------------------

Expected<void> ConfigReader::disks(const Node& value, VmConfig& out) {
    return each_table(value, "[[vm.disk]]", [&](const Node& each) { return disk(each, out); });
}

Expected<void> ConfigReader::disk(const Node& node, VmConfig& out) {
    static constexpr Key<ConfigReader, DiskConfig> kKeys[] = {
        {"source", &ConfigReader::disk_source, true}, {"mode", &ConfigReader::disk_mode},
        {"rate", &ConfigReader::disk_rate},           {"iops", &ConfigReader::disk_iops},
        {"queues", &ConfigReader::disk_queues},       {"serial", &ConfigReader::disk_serial},
        {"limit", &ConfigReader::disk_limit}};
    if (out.disks.size() == kMaxDisks) {
        errors_.add(node.line, "more than %zu disks; allowed: at most %zu", kMaxDisks, kMaxDisks);
        return {};
    }
    const std::size_t errors_before = errors_.count();
    DiskConfig made;
    made.queues = 0;  // choose_disk_queues()
    HV_TRY(table(node, "[[vm.disk]]", kKeys, made));
    const bool has_mode = document_.find(node, "mode") != nullptr;
    if (!has_mode && made.source == DiskSource::ram)
        made.mode = DiskMode::read_write;
    if (errors_.count() == errors_before) {
        check_disk_mode(node, made, has_mode);
        check_disk_sharing(node, made, out);
    }
    return out.disks.push(made);
}

Expected<void> ConfigReader::disk_source(const Node& value, DiskConfig& out) {
    constexpr const char* kAllowed = "\"module:FILE\", \"ram:SIZE\", \"disk:NAME\", \"gpt:PARTLABEL\"";
    static constexpr Choice<DiskSource> kKinds[] = {{"module:", DiskSource::module},
                                                    {"ram:", DiskSource::ram},
                                                    {"disk:", DiskSource::disk},
                                                    {"gpt:", DiskSource::partition}};
    const auto text = string(value, kAllowed);
    if (!text)
        return {};
    const auto* const kind = std::find_if(std::begin(kKinds), std::end(kKinds),
                                          [&](const auto& each) { return text->starts_with(each.name); });
    if (kind == std::end(kKinds) || text->size() == kind->name.size() || has_control(*text)) {
        errors_.add(value.line, "source: \"%.*s\" is no disk; allowed: %s", HV_TEXT(*text), kAllowed);
        return {};
    }
    out.source = kind->value;
    const std::string_view rest = text->substr(kind->name.size());
    if (out.source == DiskSource::ram) {
        Node named = value;
        named.text = rest;
        out.size = size(named, kPageSize, "ram: and a multiple of \"4K\", such as \"ram:64M\"").value_or(0);
        return {};
    }
    out.name = out.source == DiskSource::module ? file(value, rest).value_or(std::string_view{}) : rest;
    return {};
}

Expected<void> ConfigReader::disk_mode(const Node& value, DiskConfig& out) {
    static constexpr Choice<DiskMode> kChoices[] = {
        {"ro", DiskMode::read_only}, {"rw", DiskMode::read_write}, {"cow", DiskMode::copy_on_write}};
    out.mode = choice(value, kChoices).value_or(out.mode);
    return {};
}

Expected<void> ConfigReader::disk_rate(const Node& value, DiskConfig& out) {
    out.rate = size(value, 1024, "a multiple of \"1K\" a second, such as \"100M\"").value_or(0);
    return {};
}

Expected<void> ConfigReader::disk_iops(const Node& value, DiskConfig& out) {
    out.iops = integer(value, 1, kMaxIops).value_or(0);
    return {};
}

Expected<void> ConfigReader::disk_limit(const Node& value, DiskConfig& out) {
    out.limit = size(value, kPageSize, "a multiple of \"4K\", such as \"512M\"").value_or(0);
    return {};
}

Expected<void> ConfigReader::disk_queues(const Node& value, DiskConfig& out) {
    out.queues = static_cast<std::uint32_t>(integer(value, 1, kMaxDiskQueues).value_or(0));
    return {};
}

Expected<void> ConfigReader::disk_serial(const Node& value, DiskConfig& out) {
    constexpr const char* kAllowed = "1 to 20 printable ASCII characters";
    static_assert(kMaxSerial == 20);
    const auto text = string(value, kAllowed);
    if (!text)
        return {};
    if (text->empty() || text->size() > kMaxSerial ||
        !std::all_of(text->begin(), text->end(), [](char c) { return c >= 0x20 && c < 0x7f; }))
        errors_.add(value.line, "serial: \"%.*s\" is not possible; allowed: %s", HV_TEXT(*text), kAllowed);
    else
        out.serial = *text;
    return {};
}

/// A queue for each vCPU lets none wait for another's; more than a few gain nothing.
void ConfigReader::choose_disk_queues(VmConfig& vm) {
    for (DiskConfig& disk : vm.disks)
        if (disk.queues == 0)
            disk.queues = std::min(vm.cpus, kDefaultDiskQueues);
}

void ConfigReader::check_disk_mode(const Node& node, const DiskConfig& disk, bool has_mode) {
    const std::uint32_t line = has_mode ? document_.find(node, "mode")->line : node.line;
    if (disk.source == DiskSource::module && disk.mode == DiskMode::read_write)
        errors_.add(line,
                    "mode: a module cannot be \"rw\"; allowed: \"ro\", \"cow\" (writes are lost at the end)");
    if (disk.source == DiskSource::ram && disk.mode != DiskMode::read_write)
        errors_.add(line, "mode: a RAM disk starts empty; allowed: \"rw\"");
    if (disk.limit != 0 && disk.mode != DiskMode::copy_on_write)
        errors_.add(document_.find(node, "limit")->line, "limit: is for mode \"cow\" alone");
}

/// A disk that one VM writes belongs to it alone: two file systems on it would destroy each other.
void ConfigReader::check_disk_sharing(const Node& node, const DiskConfig& disk, const VmConfig& vm) {
    if (disk.source != DiskSource::disk && disk.source != DiskSource::partition)
        return;
    const auto check = [&](const VmConfig& user) {
        for (const DiskConfig& other : user.disks)
            if (other.source == disk.source && other.name == disk.name &&
                (other.mode == DiskMode::read_write || disk.mode == DiskMode::read_write)) {
                errors_.add(
                    node.line,
                    "source: \"%.*s\" is a disk of VM \"%.*s\" already; if one writes it, nobody else may "
                    "use it",
                    HV_TEXT(disk.name), HV_TEXT(user.name));
                return;
            }
    };
    for (const VmConfig& other : out_.vms)
        check(other);
    check(vm);
}

// --- [[vm.nic]]
// --------------------------------------------------------------------------------------------------------

Expected<void> ConfigReader::nics(const Node& value, VmConfig& out) {
    static constexpr Key<ConfigReader, NicConfig> kKeys[] = {
        {"switch", &ConfigReader::nic_switch, true}, {"mac", &ConfigReader::nic_mac},
        {"vlan", &ConfigReader::nic_vlan},           {"trunk", &ConfigReader::nic_trunk},
        {"addresses", &ConfigReader::nic_addresses}, {"rate", &ConfigReader::nic_rate},
        {"rate_in", &ConfigReader::nic_rate_in},     {"mtu", &ConfigReader::nic_mtu},
        {"queues", &ConfigReader::nic_queues},       {"trusted", &ConfigReader::nic_trusted}};
    return each_table(value, "[[vm.nic]]", [&](const Node& node) -> Expected<void> {
        if (out.nics.size() == kMaxNics) {
            errors_.add(node.line, "more than %zu NICs; allowed: at most %zu", kMaxNics, kMaxNics);
            return {};
        }
        NicConfig made;
        made.queues = 0;  // until it is said here, or chosen once the VM's CPUs are known
        const std::size_t errors_before = errors_.count();
        HV_TRY(table(node, "[[vm.nic]]", kKeys, made));
        check_trunk(node, made);
        if (errors_.count() == errors_before && !node.broken && !out_.switches.empty()) {
            check_addresses(node, made);
            check_mtu(node, made);
            check_ports(node, made);
        }
        if (made.addresses.count == 0 && !made.trusted && !out_.switches.empty())
            made.addresses = out_.switches[made.switch_index].subnets;
        return out.nics.push(made);
    });
}

Expected<void> ConfigReader::nic_switch(const Node& value, NicConfig& out) {
    const auto name = string(value, "the name of a [switch.NAME]");
    if (!name)
        return {};
    for (std::size_t i = 0; i < out_.switches.size(); ++i)
        if (out_.switches[i].name == *name) {
            out.switch_index = i;
            if (!out_.switches[i].valid)
                errors_.add(value.line, "switch: \"%.*s\" has errors of its own", HV_TEXT(*name));
            return {};
        }
    TextBuffer<120> known;
    for (const SwitchConfig& each : out_.switches)
        known.append(" \"%.*s\"", HV_TEXT(each.name));
    errors_.add(value.line, "switch: \"%.*s\" is not defined; there is%.*s", HV_TEXT(*name),
                HV_TEXT(known.view().empty() ? std::string_view{" no [switch.NAME] at all"} : known.view()));
    return {};
}

Expected<void> ConfigReader::nic_mac(const Node& value, NicConfig& out) {
    constexpr const char* kAllowed = "six bytes as in \"52:54:00:00:00:01\", the first one even";
    const auto text = string(value, kAllowed);
    if (!text)
        return {};
    const auto mac = parse_mac(*text);
    if (!mac || !is_station_address(*mac))
        errors_.add(value.line, "mac: \"%.*s\" is not possible; allowed: %s", HV_TEXT(*text), kAllowed);
    else if (mac_taken(*mac, current_))
        errors_.add(value.line, "mac: \"%.*s\" is the address of another NIC already", HV_TEXT(*text));
    else
        out.mac = *mac;
    return {};
}

Expected<void> ConfigReader::nic_vlan(const Node& value, NicConfig& out) {
    out.vlan = static_cast<std::uint16_t>(integer(value, 1, 4094).value_or(0));
    return {};
}

Expected<void> ConfigReader::nic_trunk(const Node& value, NicConfig& out) {
    vlans(value, 1, out.trunk);
    return {};
}

void ConfigReader::vlans(const Node& value, std::uint16_t least, net::VlanSet& out) {
    constexpr const char* kAllowed = "VLANs as in [10, 20]";
    if (!is_kind(value, toml::Kind::array, kAllowed))
        return;
    for (const Node* each = document_.first(value); each != nullptr; each = document_.next(*each)) {
        Node named = *each;
        named.key = value.key;
        if (const auto vlan = integer(named, least, net::kMaxVlan))
            out.add(static_cast<std::uint16_t>(*vlan));
    }
    if (document_.first(value) == nullptr)
        errors_.add(value.line, "%.*s: there is no VLAN in it; allowed: %s", HV_TEXT(value.key), kAllowed);
}

void ConfigReader::check_trunk(const Node& node, const NicConfig& nic) {
    if (nic.vlan != 0 && nic.trunk.contains(nic.vlan))
        errors_.add(document_.find(node, "trunk")->line,
                    "trunk: %u is the NIC's vlan, whose frames have no tag; allowed: other VLANs", nic.vlan);
}

/// In the switch's subnets, if it has any; link-local ones are in no subnet.
void ConfigReader::check_addresses(const Node& node, const NicConfig& nic) {
    constexpr net::IpPrefix kLinkLocal{net::IpPrefix::Family::ipv6, 10, {0xfe, 0x80}};
    const SwitchConfig& its_switch = out_.switches[nic.switch_index];
    if (nic.trusted && nic.addresses.count != 0)
        errors_.add(document_.find(node, "addresses")->line,
                    "addresses: nobody looks at what a trusted NIC speaks for; allowed: one of both keys");
    if (its_switch.subnets.count == 0 || nic.addresses.count == 0)
        return;
    const Node* text = document_.first(*document_.find(node, "addresses"));
    for (const net::IpPrefix& address : nic.addresses.span()) {
        const auto subnets = its_switch.subnets.span();
        if (!kLinkLocal.covers(address) &&
            std::none_of(subnets.begin(), subnets.end(),
                         [&](const net::IpPrefix& subnet) { return subnet.covers(address); }))
            errors_.add(text->line, "addresses: \"%.*s\" is not in the subnet of switch \"%.*s\"",
                        HV_TEXT(text->text), HV_TEXT(its_switch.name));
        text = document_.next(*text);
    }
}

void ConfigReader::check_mtu(const Node& node, const NicConfig& nic) {
    const SwitchConfig& its_switch = out_.switches[nic.switch_index];
    if (nic.mtu > kMaxUplinkMtu && !its_switch.uplink.empty())
        errors_.add(document_.find(node, "mtu")->line,
                    "mtu: %u is more than the uplink of switch \"%.*s\" sends; allowed: 68 to %u", nic.mtu,
                    HV_TEXT(its_switch.name), kMaxUplinkMtu);
}

void ConfigReader::check_ports(const Node& node, const NicConfig& nic) {
    const SwitchConfig& its_switch = out_.switches[nic.switch_index];
    const unsigned most = net::SwitchPort::kMaxPorts - (its_switch.uplink.empty() ? 0 : 1);
    unsigned others = 0;
    const auto count = [&](const VmConfig& vm) {
        for (const NicConfig& other : vm.nics)
            others += other.switch_index == nic.switch_index ? 1 : 0;
    };
    count(*current_);
    for (const VmConfig& vm : out_.vms)
        count(vm);
    if (others >= most)
        errors_.add(node.line, "switch: \"%.*s\" has no port left; allowed: at most %u NICs on it",
                    HV_TEXT(its_switch.name), most);
}

Expected<void> ConfigReader::nic_addresses(const Node& value, NicConfig& out) {
    constexpr const char* kAllowed = "IP addresses as in [\"10.0.0.2\", \"2001:db8::/64\"]";
    if (!is_kind(value, toml::Kind::array, kAllowed))
        return {};
    net::IpPrefixList& list = out.addresses;
    for (const Node* each = document_.first(value); each != nullptr; each = document_.next(*each)) {
        Node named = *each;
        named.key = value.key;
        const auto text = string(named, kAllowed);
        const auto prefix = text ? parse_prefix(*text) : std::nullopt;
        if (text && !prefix)
            errors_.add(each->line, "addresses: \"%.*s\" is no IP address; allowed: %s", HV_TEXT(*text),
                        kAllowed);
        if (!prefix)
            continue;
        if (list.count == net::IpPrefixList::kMax) {
            errors_.add(each->line, "addresses: there are more than %zu; allowed: at most so many",
                        net::IpPrefixList::kMax);
            break;
        }
        list.prefixes[list.count++] = *prefix;
    }
    if (document_.first(value) == nullptr)
        errors_.add(value.line, "addresses: there is none; allowed: %s, or no such key for any", kAllowed);
    return {};
}

Expected<void> ConfigReader::nic_trusted(const Node& value, NicConfig& out) {
    out.trusted = boolean(value).value_or(out.trusted);
    return {};
}

std::optional<std::uint64_t> ConfigReader::rate(const Node& value) {
    constexpr const char* kAllowed = "a number and kbit, Mbit or Gbit, such as \"100Mbit\"";
    const auto text = string(value, kAllowed);
    const auto rate = text ? parse_rate(*text) : std::nullopt;
    if (rate && *rate != 0)
        return rate;
    if (text)
        errors_.add(value.line, "%.*s: \"%.*s\" is not possible; allowed: %s", HV_TEXT(value.key),
                    HV_TEXT(*text), kAllowed);
    return std::nullopt;
}

Expected<void> ConfigReader::nic_rate(const Node& value, NicConfig& out) {
    out.rate = rate(value).value_or(0);
    return {};
}

Expected<void> ConfigReader::nic_rate_in(const Node& value, NicConfig& out) {
    out.rate_in = rate(value).value_or(0);
    return {};
}

Expected<void> ConfigReader::nic_mtu(const Node& value, NicConfig& out) {
    // From the least that IP works with [rfc791 3.2 Discussion] to what an IP packet can be.
    out.mtu = static_cast<std::uint16_t>(integer(value, 68, 65535).value_or(out.mtu));
    return {};
}

Expected<void> ConfigReader::nic_queues(const Node& value, NicConfig& out) {
    out.queues = static_cast<std::uint32_t>(integer(value, 1, kMaxNicQueues).value_or(0));
    return {};
}

/// A pair for each CPU, as far as the traffic of a VM mostly has use for it.
void ConfigReader::choose_queues(VmConfig& vm) {
    constexpr std::uint32_t kEnough = 4;
    for (NicConfig& nic : vm.nics)
        if (nic.queues == 0)
            nic.queues = std::min(vm.cpus, kEnough);
}

bool ConfigReader::mac_taken(const MacAddress& mac, const VmConfig* also) const {
    const auto has = [&](const VmConfig& vm) {
        return std::any_of(vm.nics.begin(), vm.nics.end(),
                           [&](const NicConfig& nic) { return nic.mac == mac; });
    };
    return (also != nullptr && has(*also)) || std::any_of(out_.vms.begin(), out_.vms.end(), has);
}

/// Once all addresses that were written down are known.
void ConfigReader::derive_macs() {
    for (VmConfig& vm : out_.vms)
        for (std::size_t i = 0; i < vm.nics.size(); ++i)
            for (unsigned attempt = 0; vm.nics[i].mac == MacAddress{}; ++attempt)
                if (const MacAddress mac = derive_mac(out_.host.name, vm.name, i, attempt);
                    !mac_taken(mac, nullptr))
                    vm.nics[i].mac = mac;
}

// --- small devices
// ---------------------------------------------------------------------------------------------------------

Expected<void> ConfigReader::rng(const Node& value, VmConfig& out) {
    out.rng = boolean(value).value_or(out.rng);
    return {};
}

Expected<void> ConfigReader::console(const Node& value, VmConfig& out) {
    out.console = boolean(value).value_or(out.console);
    return {};
}

Expected<void> ConfigReader::balloon(const Node& value, VmConfig& out) {
    out.balloon = boolean(value).value_or(out.balloon);
    return {};
}

Expected<void> ConfigReader::vsock(const Node& value, VmConfig& out) {
    const auto cid = integer(value, kFirstCid, kLastCid);
    if (!cid)
        return {};
    out.vsock = static_cast<std::uint32_t>(*cid);
    for (const VmConfig& other : out_.vms)
        if (other.vsock == out.vsock)
            errors_.add(value.line, "vsock: %u is the CID of VM \"%.*s\" already", out.vsock,
                        HV_TEXT(other.name));
    return {};
}

}  // namespace hv::config
