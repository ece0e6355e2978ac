// SPDX-License-Identifier: MIT
// The machine as the configuration file describes it. docs/config.md is the reference of the format.
#pragma once

#include "drivers/net/net_device.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/log.hpp"
#include "vmm/base/text.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/loader/boot_protocol.hpp"
#include "vmm/net/ip_prefix.hpp"
#include "vmm/net/vlan_set.hpp"

#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

namespace hv::config {

/// What the host does when the last VM has ended.
enum class WhenIdle : std::uint8_t { monitor, poweroff, reboot };
/// What happens to a VM that has ended.
enum class Restart : std::uint8_t { no, on_failure, always };
enum class DiskSource : std::uint8_t { module, ram, disk, partition };
enum class DiskMode : std::uint8_t { read_only, read_write, copy_on_write };

inline constexpr std::uint32_t kMaxVcpus = 64;
inline constexpr std::size_t kMaxDisks = 16;  ///< of one VM: they and its NICs share 32 PCI slots with others
inline constexpr std::size_t kMaxNics = 8;
inline constexpr unsigned kMaxNicQueues = 8;
inline constexpr std::uint32_t kMaxDiskQueues = 16;
inline constexpr std::size_t kMaxSerial = 20;
/// CIDs that a VM may have [virtio1.2 5.10.4 Device configuration layout].
inline constexpr std::uint32_t kFirstCid = 3;
inline constexpr std::uint32_t kLastCid = 0xffff'fffe;
inline constexpr std::size_t kMaxModules = 64;

struct HostConfig {
    std::string_view name{};  ///< empty: none
    WhenIdle when_idle{WhenIdle::poweroff};
    log::Level log{log::Level::info};
};

struct SwitchConfig {
    std::string_view name;
    std::string_view uplink;          ///< physical NIC, "nic0"; empty: none
    net::VlanSet uplink_vlans{};      ///< that pass there, 0 untagged; none: all
    std::uint32_t storm_limit{1000};  ///< frames per second; 0: none
    net::IpPrefixList subnets{};      ///< that its NICs may speak for, one of a family at most; none: any
    std::uint64_t uplink_rate{0};     ///< bits per second that leave by it; 0: no limit
    std::uint64_t uplink_rate_in{0};  ///< bits per second that come in by it
    /// False: it has errors. It has no uplink then, to which it might let through more than was meant, and
    /// no valid VM is on it.
    bool valid{true};
};

struct DiskConfig {
    DiskSource source{DiskSource::module};
    std::string_view name;  ///< file, disk or partition label; empty for DiskSource::ram
    std::uint64_t size{0};  ///< bytes, a multiple of 4 KiB; DiskSource::ram alone
    DiskMode mode{DiskMode::read_only};
    std::uint64_t rate{0};      ///< bytes per second; 0: no limit
    std::uint64_t iops{0};      ///< requests per second; 0: no limit
    std::uint32_t queues{1};    ///< at most kMaxDiskQueues
    std::uint64_t limit{0};     ///< bytes of memory that a copy_on_write disk may take; 0: no limit
    std::string_view serial{};  ///< at most kMaxSerial printable characters; empty: `name`
};

struct NicConfig {
    std::size_t switch_index{0};  ///< into Config::switches
    MacAddress mac{};
    std::uint16_t vlan{0};  ///< 1 to 4094; 0: untagged
    std::uint64_t rate{0};  ///< bits per second; 0: no limit
    std::uint16_t mtu{1500};
    std::uint32_t queues{1};  ///< pairs of receive and transmit queues, 1 to kMaxNicQueues
    std::uint64_t rate_in{0};
    bool trusted{false};            ///< others' addresses may be behind it
    net::VlanSet trunk{};           ///< further VLANs, tagged
    net::IpPrefixList addresses{};  ///< that it may speak for, if it does not say the switch's; none: any
};

/// A further file for the kernel.
struct ModuleConfig {
    std::string_view file;
    std::string_view command_line;  ///< begins with the file's name
};

struct VmConfig {
    std::string_view name;
    std::uint32_t line{0};  ///< of its [[vm]]
    /// False: errors name this VM, and it must not be started.
    bool valid{true};
    std::uint32_t cpus{1};
    std::uint64_t memory{0};  ///< bytes, a multiple of GuestMemory::kGranule
    BootProtocol boot{BootProtocol::linux};
    std::string_view kernel;
    std::string_view initrd;  ///< empty: none
    Vec<ModuleConfig> modules;
    std::string_view command_line;
    bool autostart{true};
    Restart restart{Restart::no};
    std::uint32_t weight{100};  ///< 1 to 10000
    std::uint32_t cap{0};       ///< per cent of one CPU; 0: none
    Vec<std::uint32_t> pin;     ///< host CPUs it may use, ascending; empty: any
    bool debug_exit{false};
    bool rng{true};
    bool console{false};
    bool balloon{false};
    std::uint32_t vsock{0};  ///< its CID; 0: no sockets
    Vec<DiskConfig> disks;
    Vec<NicConfig> nics;
};

/// Owns the text that its strings point into.
struct Config {
    HostConfig host;
    Vec<SwitchConfig> switches;
    Vec<VmConfig> vms;  ///< in the order of the file, the wrong ones among them
    Vec<char> text;
};

struct ConfigError {
    std::uint32_t line;  ///< 1-based; 0: the file as a whole
    TextBuffer<320> message;
};

/// Tells whether the file that a configuration names can be had.
class FileIndex {
public:
    [[nodiscard]] virtual bool exists(std::string_view path) const = 0;

protected:
    ~FileIndex() = default;
};

/// What is known about the machine while the configuration is read; what is not known is not checked.
struct ConfigLimits {
    const FileIndex* files{nullptr};
    std::uint32_t host_cpus{0};
    std::uint64_t memory{std::numeric_limits<std::uint64_t>::max()};  ///< bytes for guests' RAM and RAM disks
};

struct ConfigResult {
    Config config;
    /// In the order of their lines, kMaxErrors at most; empty: all is right.
    Vec<ConfigError> errors;
    static constexpr std::size_t kMaxErrors = 32;
};

/// Reads the file's text, which is not needed afterwards. Error::no_memory.
Expected<ConfigResult> parse_config(std::string_view text, const ConfigLimits& limits = {});

/// RAM and RAM disks of a VM in bytes; saturates.
std::uint64_t memory_needed(const VmConfig& vm);

}  // namespace hv::config
