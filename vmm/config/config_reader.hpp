// SPDX-License-Identifier: MIT
// From a TOML tree to the typed configuration: every key known, of the right type, in its range, and
// consistent with the others. All errors are collected; a VM with one is marked.
#pragma once

#include "vmm/config/table_reader.hpp"

namespace hv::config {

class ConfigReader : private TableReader {
public:
    ConfigReader(const toml::Document& document, const ConfigLimits& limits, ErrorList& errors, Config& out)
        : TableReader{document, limits, errors}, out_{out} {}

    /// Error::no_memory.
    Expected<void> run();

private:
    friend class TableReader;

    // Tables.
    Expected<void> host(const Node& node);
    Expected<void> switches(const Node& node);
    Expected<void> vms(const Node& node);
    Expected<void> vm(const Node& node);

    // Keys of [host], [switch.NAME], [[vm]], [[vm.disk]] and [[vm.nic]].
    Expected<void> host_name(const Node& value, HostConfig& out);
    Expected<void> when_idle(const Node& value, HostConfig& out);
    Expected<void> log_level(const Node& value, HostConfig& out);
    Expected<void> uplink(const Node& value, SwitchConfig& out);
    Expected<void> uplink_vlans(const Node& value, SwitchConfig& out);
    Expected<void> uplink_rate(const Node& value, SwitchConfig& out);
    Expected<void> uplink_rate_in(const Node& value, SwitchConfig& out);
    Expected<void> storm_limit(const Node& value, SwitchConfig& out);
    Expected<void> subnet(const Node& value, SwitchConfig& out);
    Expected<void> vm_name(const Node& value, VmConfig& out);
    Expected<void> cpus(const Node& value, VmConfig& out);
    Expected<void> memory(const Node& value, VmConfig& out);
    Expected<void> boot(const Node& value, VmConfig& out);
    Expected<void> kernel(const Node& value, VmConfig& out);
    Expected<void> initrd(const Node& value, VmConfig& out);
    Expected<void> modules(const Node& value, VmConfig& out);
    Expected<void> command_line(const Node& value, VmConfig& out);
    Expected<void> autostart(const Node& value, VmConfig& out);
    Expected<void> restart(const Node& value, VmConfig& out);
    Expected<void> weight(const Node& value, VmConfig& out);
    Expected<void> cap(const Node& value, VmConfig& out);
    Expected<void> pin(const Node& value, VmConfig& out);
    Expected<void> debug_exit(const Node& value, VmConfig& out);
    Expected<void> rng(const Node& value, VmConfig& out);
    Expected<void> console(const Node& value, VmConfig& out);
    Expected<void> balloon(const Node& value, VmConfig& out);
    Expected<void> vsock(const Node& value, VmConfig& out);
    Expected<void> disks(const Node& value, VmConfig& out);
    Expected<void> nics(const Node& value, VmConfig& out);
    Expected<void> disk_source(const Node& value, DiskConfig& out);
    Expected<void> disk_mode(const Node& value, DiskConfig& out);
    Expected<void> disk_rate(const Node& value, DiskConfig& out);
    Expected<void> disk_iops(const Node& value, DiskConfig& out);
    Expected<void> disk_limit(const Node& value, DiskConfig& out);
    Expected<void> disk_queues(const Node& value, DiskConfig& out);
    Expected<void> disk_serial(const Node& value, DiskConfig& out);
    Expected<void> nic_switch(const Node& value, NicConfig& out);
    Expected<void> nic_mac(const Node& value, NicConfig& out);
    Expected<void> nic_vlan(const Node& value, NicConfig& out);
    Expected<void> nic_trunk(const Node& value, NicConfig& out);
    Expected<void> nic_addresses(const Node& value, NicConfig& out);
    Expected<void> nic_trusted(const Node& value, NicConfig& out);
    Expected<void> nic_rate(const Node& value, NicConfig& out);
    Expected<void> nic_mtu(const Node& value, NicConfig& out);
    Expected<void> nic_queues(const Node& value, NicConfig& out);
    Expected<void> nic_rate_in(const Node& value, NicConfig& out);

    std::optional<std::uint64_t> rate(const Node& value);
    /// VLANs from `least` on.
    void vlans(const Node& value, std::uint16_t least, net::VlanSet& out);
    // What takes more than one key to judge.
    void check_trunk(const Node& node, const NicConfig& nic);
    void add_subnet(const Node& value, SwitchConfig& out);
    void check_addresses(const Node& node, const NicConfig& nic);
    void check_mtu(const Node& node, const NicConfig& nic);
    void check_ports(const Node& node, const NicConfig& nic);
    Expected<void> disk(const Node& node, VmConfig& out);
    /// Once the VM's cpus are known.
    static void choose_disk_queues(VmConfig& vm);
    void check_disk_mode(const Node& node, const DiskConfig& disk, bool has_mode);
    void check_disk_sharing(const Node& node, const DiskConfig& disk, const VmConfig& vm);
    static void choose_queues(VmConfig& vm);
    void check_room(const Node& node, const VmConfig& vm);
    [[nodiscard]] bool mac_taken(const MacAddress& mac, const VmConfig* also) const;
    void derive_macs();

    Config& out_;
    const VmConfig* current_{nullptr};  ///< the VM whose disks and NICs are being read
    std::uint64_t memory_used_{0};      ///< by the VMs that start by themselves
};

}  // namespace hv::config
