// SPDX-License-Identifier: MIT
#include "vmm/config/config_reader.hpp"

#include "vmm/config/values.hpp"
#include "vmm/mm/guest_memory.hpp"

#include <algorithm>

namespace hv::config {
namespace {

using toml::Kind;

constexpr std::uint64_t kMaxWeight = 10'000;
constexpr std::uint64_t kMaxHostCpu = 1023;
constexpr std::uint64_t kMaxStormLimit = 1'000'000;
constexpr const char* kSubnets = "a prefix as in \"10.0.1.0/24\", or an array of an IPv4 and an IPv6 one";
/// COMMAND_LINE_SIZE of Linux on x86 without the terminator.
constexpr std::size_t kMaxCommandLine = 2047;

}  // namespace

Expected<void> ConfigReader::run() {
    const Node& root = document_.root();
    // Switches before VMs: these name them, wherever they stand in the file.
    if (const Node* node = document_.find(root, "host"))
        HV_TRY(host(*node));
    if (const Node* node = document_.find(root, "switch"))
        HV_TRY(switches(*node));
    if (const Node* node = document_.find(root, "vm"))
        HV_TRY(vms(*node));
    else if (!root.broken)
        errors_.add(0, "there is no [[vm]]");
    for (const Node* child = document_.first(root); child != nullptr; child = document_.next(*child))
        if (child->key != "host" && child->key != "switch" && child->key != "vm")
            errors_.add(child->line, "unknown key \"%.*s\"; allowed: [host], [switch.NAME], [[vm]]",
                        HV_TEXT(child->key));
    derive_macs();
    return {};
}

Expected<void> ConfigReader::host(const Node& node) {
    static constexpr Key<ConfigReader, HostConfig> kKeys[] = {{"name", &ConfigReader::host_name},
                                                              {"when_idle", &ConfigReader::when_idle},
                                                              {"log", &ConfigReader::log_level}};
    return is_kind(node, Kind::table, "[host]") ? table(node, "[host]", kKeys, out_.host) : Expected<void>{};
}

Expected<void> ConfigReader::switches(const Node& node) {
    static constexpr Key<ConfigReader, SwitchConfig> kKeys[] = {
        {"uplink", &ConfigReader::uplink},           {"uplink_vlans", &ConfigReader::uplink_vlans},
        {"uplink_rate", &ConfigReader::uplink_rate}, {"uplink_rate_in", &ConfigReader::uplink_rate_in},
        {"storm_limit", &ConfigReader::storm_limit}, {"subnet", &ConfigReader::subnet}};
    if (!is_kind(node, Kind::table, "[switch.NAME]"))
        return {};
    for (const Node* child = document_.first(node); child != nullptr; child = document_.next(*child)) {
        if (!is_kind(*child, Kind::table, "[switch.NAME]"))
            continue;
        const std::size_t errors_before = errors_.count();
        broken_ = false;
        if (!is_name(child->key))
            errors_.add(child->line,
                        "\"%.*s\" is no name for a switch; allowed: 1 to 32 letters, digits, -, _, .",
                        HV_TEXT(child->key));
        SwitchConfig made;
        made.name = child->key;
        HV_TRY(table(*child, "[switch.NAME]", kKeys, made));
        made.valid = errors_.count() == errors_before && !broken_;
        if (!made.valid)
            made.uplink = {};
        HV_TRY(out_.switches.push(made));
    }
    return {};
}

Expected<void> ConfigReader::vms(const Node& node) {
    return each_table(node, "[[vm]]", [&](const Node& each) { return vm(each); });
}

Expected<void> ConfigReader::vm(const Node& node) {
    static constexpr Key<ConfigReader, VmConfig> kKeys[] = {
        {"name", &ConfigReader::vm_name, true},
        {"cpus", &ConfigReader::cpus},
        {"memory", &ConfigReader::memory, true},
        {"boot", &ConfigReader::boot},
        {"kernel", &ConfigReader::kernel, true},
        {"initrd", &ConfigReader::initrd},
        {"modules", &ConfigReader::modules},
        {"cmdline", &ConfigReader::command_line},
        {"autostart", &ConfigReader::autostart},
        {"restart", &ConfigReader::restart},
        {"weight", &ConfigReader::weight},
        {"cap", &ConfigReader::cap},
        {"pin", &ConfigReader::pin},
        {"debug_exit", &ConfigReader::debug_exit},
        {"rng", &ConfigReader::rng},
        {"console", &ConfigReader::console},
        {"balloon", &ConfigReader::balloon},
        {"vsock", &ConfigReader::vsock},
        {"disk", &ConfigReader::disks},
        {"nic", &ConfigReader::nics},
    };
    const std::size_t errors_before = errors_.count();
    VmConfig made;
    made.line = node.line;
    current_ = &made;
    broken_ = false;
    auto read = table(node, "[[vm]]", kKeys, made);
    current_ = nullptr;
    HV_TRY(read);
    if (made.cap > made.cpus * 100) {
        const Node* value = document_.find(node, "cap");
        errors_.add(value->line, "cap: %u is more than %u cpus can use; allowed: 0 (none) to %u", made.cap,
                    made.cpus, made.cpus * 100);
    }
    choose_queues(made);
    check_room(node, made);
    choose_disk_queues(made);
    made.valid = errors_.count() == errors_before && !broken_;
    return out_.vms.push(std::move(made));
}

// --- [host] and [switch.NAME]
// ------------------------------------------------------------------------------------------

Expected<void> ConfigReader::host_name(const Node& value, HostConfig& out) {
    constexpr const char* kAllowed = "1 to 32 letters, digits, -, _, ., the first a letter or digit";
    const auto name = string(value, kAllowed);
    if (!name)
        return {};
    if (!is_name(*name))
        errors_.add(value.line, "name: \"%.*s\" is not possible; allowed: %s", HV_TEXT(*name), kAllowed);
    out.name = *name;
    return {};
}

Expected<void> ConfigReader::when_idle(const Node& value, HostConfig& out) {
    static constexpr Choice<WhenIdle> kChoices[] = {
        {"monitor", WhenIdle::monitor}, {"poweroff", WhenIdle::poweroff}, {"reboot", WhenIdle::reboot}};
    out.when_idle = choice(value, kChoices).value_or(out.when_idle);
    return {};
}

Expected<void> ConfigReader::log_level(const Node& value, HostConfig& out) {
    static constexpr Choice<log::Level> kChoices[] = {{"error", log::Level::error},
                                                      {"warning", log::Level::warning},
                                                      {"info", log::Level::info},
                                                      {"debug", log::Level::debug}};
    out.log = choice(value, kChoices).value_or(out.log);
    return {};
}

Expected<void> ConfigReader::uplink(const Node& value, SwitchConfig& out) {
    constexpr const char* kAllowed = "a physical NIC, such as \"nic0\"";
    const auto name = string(value, kAllowed);
    if (!name)
        return {};
    if (!is_name(*name))
        errors_.add(value.line, "uplink: \"%.*s\" is not possible; allowed: %s", HV_TEXT(*name), kAllowed);
    for (const SwitchConfig& other : out_.switches)
        if (other.uplink == *name)
            errors_.add(value.line, "uplink: \"%.*s\" is the uplink of switch \"%.*s\" already",
                        HV_TEXT(*name), HV_TEXT(other.name));
    out.uplink = *name;
    return {};
}

Expected<void> ConfigReader::uplink_vlans(const Node& value, SwitchConfig& out) {
    vlans(value, 0, out.uplink_vlans);
    return {};
}

Expected<void> ConfigReader::uplink_rate(const Node& value, SwitchConfig& out) {
    out.uplink_rate = rate(value).value_or(0);
    return {};
}

Expected<void> ConfigReader::uplink_rate_in(const Node& value, SwitchConfig& out) {
    out.uplink_rate_in = rate(value).value_or(0);
    return {};
}

Expected<void> ConfigReader::subnet(const Node& value, SwitchConfig& out) {
    if (value.kind != Kind::array) {
        add_subnet(value, out);
        return {};
    }
    for (const Node* each = document_.first(value); each != nullptr; each = document_.next(*each)) {
        Node named = *each;
        named.key = value.key;
        add_subnet(named, out);
    }
    if (document_.first(value) == nullptr)
        errors_.add(value.line, "subnet: there is none; allowed: %s", kSubnets);
    return {};
}

void ConfigReader::add_subnet(const Node& value, SwitchConfig& out) {
    const auto text = string(value, kSubnets);
    const auto prefix = text ? parse_prefix(*text) : std::nullopt;
    if (text && !prefix)
        errors_.add(value.line, "subnet: \"%.*s\" is no prefix; allowed: %s", HV_TEXT(*text), kSubnets);
    if (!prefix)
        return;
    for (const net::IpPrefix& other : out.subnets.span())
        if (other.family == prefix->family)
            return errors_.add(value.line, "subnet: \"%.*s\" is the second of its family; allowed: %s",
                               HV_TEXT(*text), kSubnets);
    for (const SwitchConfig& other : out_.switches)
        for (const net::IpPrefix& taken : other.subnets.span())
            if (taken.covers(*prefix) || prefix->covers(taken))
                errors_.add(value.line, "subnet: \"%.*s\" has addresses of switch \"%.*s\"", HV_TEXT(*text),
                            HV_TEXT(other.name));
    out.subnets.prefixes[out.subnets.count++] = *prefix;
}

Expected<void> ConfigReader::storm_limit(const Node& value, SwitchConfig& out) {
    out.storm_limit = static_cast<std::uint32_t>(integer(value, 0, kMaxStormLimit).value_or(out.storm_limit));
    return {};
}

// --- [[vm]]
// ------------------------------------------------------------------------------------------------------------

Expected<void> ConfigReader::vm_name(const Node& value, VmConfig& out) {
    constexpr const char* kAllowed =
        "1 to 32 letters, digits, -, _, ., the first a letter or digit; not \"cairn\"";
    const auto name = string(value, kAllowed);
    if (!name)
        return {};
    out.name = *name;
    if (!is_name(*name) || *name == "cairn")  // the console's name for the hypervisor itself
        errors_.add(value.line, "name: \"%.*s\" is not possible; allowed: %s", HV_TEXT(*name), kAllowed);
    for (const VmConfig& other : out_.vms)
        if (other.name == *name) {
            errors_.add(value.line, "name: there is a VM \"%.*s\" already, in line %u", HV_TEXT(*name),
                        other.line);
            break;
        }
    return {};
}

Expected<void> ConfigReader::cpus(const Node& value, VmConfig& out) {
    out.cpus = static_cast<std::uint32_t>(integer(value, 1, kMaxVcpus).value_or(out.cpus));
    return {};
}

Expected<void> ConfigReader::memory(const Node& value, VmConfig& out) {
    static_assert(GuestMemory::kGranule == 2 * kMiB);
    out.memory = size(value, GuestMemory::kGranule, "a multiple of \"2M\", up to \"4096G\"").value_or(0);
    return {};
}

Expected<void> ConfigReader::boot(const Node& value, VmConfig& out) {
    static constexpr Choice<BootProtocol> kChoices[] = {
        {"linux", BootProtocol::linux}, {"pvh", BootProtocol::pvh}, {"multiboot", BootProtocol::multiboot}};
    out.boot = choice(value, kChoices).value_or(out.boot);
    return {};
}

Expected<void> ConfigReader::kernel(const Node& value, VmConfig& out) {
    if (const auto path = string(value, "a file's path"))
        out.kernel = file(value, *path).value_or(std::string_view{});
    return {};
}

Expected<void> ConfigReader::initrd(const Node& value, VmConfig& out) {
    if (const auto path = string(value, "a file's path"))
        out.initrd = file(value, *path).value_or(std::string_view{});
    return {};
}

Expected<void> ConfigReader::modules(const Node& value, VmConfig& out) {
    constexpr const char* kAllowed = "files with their arguments as in [\"a.bin\", \"b.bin x=1\"]";
    if (!is_kind(value, Kind::array, kAllowed))
        return {};
    for (const Node* each = document_.first(value); each != nullptr; each = document_.next(*each)) {
        Node named = *each;
        named.key = value.key;
        const auto text = string(named, kAllowed);
        const auto path = text ? file(named, text->substr(0, text->find(' '))) : std::nullopt;
        if (!path)
            continue;
        if (text->size() > kMaxCommandLine || has_control(*text))
            errors_.add(each->line,
                        "modules: what stands behind \"%.*s\" is too long or has control characters; "
                        "allowed: at most %zu bytes of text",
                        HV_TEXT(*path), kMaxCommandLine);
        if (out.modules.size() == kMaxModules) {
            errors_.add(each->line, "modules: there are more than %zu; allowed: at most so many",
                        kMaxModules);
            break;
        }
        HV_TRY(out.modules.push({*path, *text}));
    }
    return {};
}

Expected<void> ConfigReader::command_line(const Node& value, VmConfig& out) {
    const auto text = string(value, "the kernel's parameters as a string");
    if (!text)
        return {};
    if (text->size() > kMaxCommandLine)
        errors_.add(value.line, "cmdline: %zu bytes are too long; allowed: at most %zu", text->size(),
                    kMaxCommandLine);
    else if (has_control(*text))
        errors_.add(value.line,
                    "cmdline: it contains a control character (a line end, say), which is not allowed");
    out.command_line = *text;
    return {};
}

Expected<void> ConfigReader::autostart(const Node& value, VmConfig& out) {
    out.autostart = boolean(value).value_or(out.autostart);
    return {};
}

Expected<void> ConfigReader::restart(const Node& value, VmConfig& out) {
    static constexpr Choice<Restart> kChoices[] = {
        {"no", Restart::no}, {"on-failure", Restart::on_failure}, {"always", Restart::always}};
    out.restart = choice(value, kChoices).value_or(out.restart);
    return {};
}

Expected<void> ConfigReader::weight(const Node& value, VmConfig& out) {
    out.weight = static_cast<std::uint32_t>(integer(value, 1, kMaxWeight).value_or(out.weight));
    return {};
}

Expected<void> ConfigReader::cap(const Node& value, VmConfig& out) {
    out.cap = static_cast<std::uint32_t>(integer(value, 0, 100 * kMaxVcpus).value_or(out.cap));
    return {};
}

Expected<void> ConfigReader::pin(const Node& value, VmConfig& out) {
    if (!is_kind(value, Kind::array, "host CPUs as in [0, 1]"))
        return {};
    const std::uint64_t most = limits_.host_cpus == 0 ? kMaxHostCpu : limits_.host_cpus - 1;
    for (const Node* each = document_.first(value); each != nullptr; each = document_.next(*each)) {
        Node named = *each;
        named.key = value.key;
        const auto cpu = integer(named, 0, most);
        if (!cpu)
            continue;
        if (std::find(out.pin.begin(), out.pin.end(), *cpu) != out.pin.end())
            errors_.add(each->line, "pin: CPU %lu is named twice", *cpu);
        HV_TRY(out.pin.push(static_cast<std::uint32_t>(*cpu)));
    }
    if (document_.first(value) == nullptr)
        errors_.add(value.line,
                    "pin: without a CPU it cannot run; allowed: at least one, or no such key for any CPU");
    std::sort(out.pin.begin(), out.pin.end());
    return {};
}

Expected<void> ConfigReader::debug_exit(const Node& value, VmConfig& out) {
    out.debug_exit = boolean(value).value_or(out.debug_exit);
    return {};
}

std::uint64_t memory_needed(const VmConfig& vm) {
    std::uint64_t sum = vm.memory;
    for (const DiskConfig& disk : vm.disks)
        sum = disk.size > std::numeric_limits<std::uint64_t>::max() - sum
                  ? std::numeric_limits<std::uint64_t>::max()
                  : sum + disk.size;
    return sum;
}

/// VMs that start by themselves must fit all at once, the others each alone.
void ConfigReader::check_room(const Node& node, const VmConfig& vm) {
    const std::uint64_t needed = memory_needed(vm);
    const std::uint64_t used = vm.autostart ? memory_used_ : 0;
    const Node* value = document_.find(node, "memory");
    if (needed > limits_.memory || used > limits_.memory - needed) {
        errors_.add(value == nullptr ? node.line : value->line,
                    "memory: %lu MiB with the RAM disks do not fit; %lu of %lu MiB are left for it",
                    needed / kMiB, (limits_.memory - std::min(used, limits_.memory)) / kMiB,
                    limits_.memory / kMiB);
        return;
    }
    if (vm.autostart)
        memory_used_ += needed;
}

}  // namespace hv::config
