// SPDX-License-Identifier: MIT
// A VM's disks, NICs and small devices.
#include "vmm/config/config_reader.hpp"
#include "vmm/config/values.hpp"

#include <algorithm>

namespace hv::config {

// --- [[vm.disk]]
// -------------------------------------------------------------------------------------------------------

Expected<void> ConfigReader::disks(const Node& value, VmConfig& out) {
    return each_table(value, "[[vm.disk]]", [&](const Node& each) { return disk(each, out); });
}

Expected<void> ConfigReader::disk(const Node& node, VmConfig& out) {
    static constexpr Key<ConfigReader, DiskConfig> kKeys[] = {{"source", &ConfigReader::disk_source, true},
                                                              {"mode", &ConfigReader::disk_mode}};
    if (out.disks.size() == kMaxDisks) {
        errors_.add(node.line, "more than %zu disks; allowed: at most %zu", kMaxDisks, kMaxDisks);
        return {};
    }
    const std::size_t errors_before = errors_.count();
    DiskConfig made;
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

void ConfigReader::check_disk_mode(const Node& node, const DiskConfig& disk, bool has_mode) {
    const std::uint32_t line = has_mode ? document_.find(node, "mode")->line : node.line;
    if (disk.source == DiskSource::module && disk.mode == DiskMode::read_write)
        errors_.add(line,
                    "mode: a module cannot be \"rw\"; allowed: \"ro\", \"cow\" (writes are lost at the end)");
    if (disk.source == DiskSource::ram && disk.mode != DiskMode::read_write)
        errors_.add(line, "mode: a RAM disk starts empty; allowed: \"rw\"");
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
    static constexpr Key<ConfigReader, NicConfig> kKeys[] = {{"switch", &ConfigReader::nic_switch, true},
                                                             {"mac", &ConfigReader::nic_mac},
                                                             {"vlan", &ConfigReader::nic_vlan},
                                                             {"rate", &ConfigReader::nic_rate}};
    return each_table(value, "[[vm.nic]]", [&](const Node& node) -> Expected<void> {
        if (out.nics.size() == kMaxNics) {
            errors_.add(node.line, "more than %zu NICs; allowed: at most %zu", kMaxNics, kMaxNics);
            return {};
        }
        NicConfig made;
        HV_TRY(table(node, "[[vm.nic]]", kKeys, made));
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

Expected<void> ConfigReader::nic_rate(const Node& value, NicConfig& out) {
    constexpr const char* kAllowed = "a number and kbit, Mbit or Gbit, such as \"100Mbit\"";
    const auto text = string(value, kAllowed);
    if (!text)
        return {};
    const auto rate = parse_rate(*text);
    if (!rate || *rate == 0)
        errors_.add(value.line, "rate: \"%.*s\" is not possible; allowed: %s", HV_TEXT(*text), kAllowed);
    else
        out.rate = *rate;
    return {};
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
                if (const MacAddress mac = derive_mac(vm.name, i, attempt); !mac_taken(mac, nullptr))
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
