// SPDX-License-Identifier: MIT
#include "vmm/base/address.hpp"
#include "vmm/config/config_fixture.hpp"

#include <set>

using namespace hv;
using namespace hv::config;
using namespace hv::test;

namespace {

class Files final : public FileIndex {
public:
    explicit Files(std::set<std::string> names) : names_{std::move(names)} {}
    [[nodiscard]] bool exists(std::string_view path) const override {
        return names_.contains(std::string{path});
    }

private:
    std::set<std::string> names_;
};

constexpr std::string_view kComplete = R"(
[host]
when_idle = "reboot"
log = "debug"

[[vm]]
name = "web"
cpus = 2
memory = "256M"
boot = "pvh"
kernel = "vmlinuz"
initrd = "initrd.img"
modules = ["a.bin", "b.bin x=1 y"]
cmdline = "console=ttyS0"
autostart = false
restart = "on-failure"
weight = 200
cap = 150
pin = [1, 0]
debug_exit = true
rng = false
console = true
balloon = true
vsock = 42

[[vm.disk]]
source = "module:base.img"
mode = "cow"
limit = "64M"
[[vm.disk]]
source = "ram:16K"
[[vm.disk]]
source = "disk:nvme0"
mode = "rw"
rate = "100M"
iops = 1000
queues = 8
serial = "Disk 1/2"
[[vm.disk]]
source = "gpt:guest data"

[[vm.nic]]
switch = "wan"
mac = "52:54:00:00:00:01"
vlan = 10
rate = "100Mbit"
mtu = 1400
queues = 8
rate_in = "1Gbit"
trunk = [20, 4094]
addresses = ["10.0.0.2", "2001:db8::/64"]
[[vm.nic]]
switch = "lan"

[switch.lan]
[switch.wan]
uplink = "nic0"
uplink_vlans = [0, 10]
storm_limit = 50

[[vm]]
name = "db"
memory = 4194304
kernel = "dir/vmlinux"
)";

}  // namespace

TEST_CASE("every key arrives", "[config]") {
    const ConfigResult result = parse(kComplete);
    REQUIRE(result.errors.empty());
    const Config& config = result.config;
    CHECK(config.host.when_idle == WhenIdle::reboot);
    CHECK(config.host.log == log::Level::debug);
    REQUIRE(config.switches.size() == 2);
    CHECK(config.switches[0].name == "lan");
    CHECK(config.switches[0].uplink.empty());
    CHECK(config.switches[0].storm_limit == 1000);
    CHECK(config.switches[0].uplink_vlans.empty());
    CHECK(config.switches[1].uplink == "nic0");
    CHECK(config.switches[1].storm_limit == 50);
    CHECK(config.switches[1].uplink_vlans.contains(0));
    CHECK(config.switches[1].uplink_vlans.contains(10));
    CHECK_FALSE(config.switches[1].uplink_vlans.contains(20));
    REQUIRE(config.vms.size() == 2);

    const VmConfig& web = config.vms[0];
    CHECK(web.valid);
    CHECK(web.name == "web");
    CHECK(web.line == 6);
    CHECK(web.cpus == 2);
    CHECK(web.memory == 256 * kMiB);
    CHECK(web.boot == BootProtocol::pvh);
    CHECK(web.kernel == "vmlinuz");
    CHECK(web.initrd == "initrd.img");
    REQUIRE(web.modules.size() == 2);
    CHECK(web.modules[0].file == "a.bin");
    CHECK(web.modules[0].command_line == "a.bin");
    CHECK(web.modules[1].file == "b.bin");
    CHECK(web.modules[1].command_line == "b.bin x=1 y");
    CHECK(web.command_line == "console=ttyS0");
    CHECK_FALSE(web.autostart);
    CHECK(web.restart == Restart::on_failure);
    CHECK(web.weight == 200);
    CHECK(web.cap == 150);
    REQUIRE(web.pin.size() == 2);
    CHECK(web.pin[0] == 0);
    CHECK(web.debug_exit);
    CHECK_FALSE(web.rng);
    CHECK(web.console);
    CHECK(web.balloon);
    CHECK(web.vsock == 42);
    REQUIRE(web.disks.size() == 4);
    CHECK(web.disks[0].source == DiskSource::module);
    CHECK(web.disks[0].name == "base.img");
    CHECK(web.disks[0].mode == DiskMode::copy_on_write);
    CHECK(web.disks[0].limit == 64 * kMiB);
    CHECK(web.disks[1].source == DiskSource::ram);
    CHECK(web.disks[1].size == 16384);
    CHECK(web.disks[1].mode == DiskMode::read_write);
    CHECK(web.disks[2].source == DiskSource::disk);
    CHECK(web.disks[2].mode == DiskMode::read_write);
    CHECK(web.disks[2].rate == 100 * kMiB);
    CHECK(web.disks[2].iops == 1000);
    CHECK(web.disks[2].queues == 8);
    CHECK(web.disks[2].serial == "Disk 1/2");
    CHECK(web.disks[3].rate == 0);
    CHECK(web.disks[3].iops == 0);
    CHECK(web.disks[3].limit == 0);
    CHECK(web.disks[3].queues == 2);  // as many as vCPUs
    CHECK(web.disks[3].serial.empty());
    CHECK(web.disks[3].source == DiskSource::partition);
    CHECK(web.disks[3].name == "guest data");
    CHECK(web.disks[3].mode == DiskMode::read_only);
    REQUIRE(web.nics.size() == 2);
    CHECK(web.nics[0].switch_index == 1);
    CHECK(web.nics[0].mac == MacAddress{0x52, 0x54, 0, 0, 0, 1});
    CHECK(web.nics[0].vlan == 10);
    CHECK(web.nics[0].rate == 100'000'000);
    CHECK(web.nics[0].mtu == 1400);
    CHECK(web.nics[0].queues == 8);
    CHECK(web.nics[1].mtu == 1500);
    CHECK(web.nics[0].rate_in == 1'000'000'000);
    net::VlanSet trunk;
    trunk.add(20);
    trunk.add(4094);
    CHECK(web.nics[0].trunk == trunk);
    REQUIRE(web.nics[0].addresses.count == 2);
    CHECK(web.nics[0].addresses.prefixes[0] == net::IpPrefix{net::IpPrefix::Family::ipv4, 32, {10, 0, 0, 2}});
    CHECK(web.nics[0].addresses.prefixes[1] ==
          net::IpPrefix{net::IpPrefix::Family::ipv6, 64, {0x20, 0x01, 0x0d, 0xb8}});
    CHECK(web.nics[1].switch_index == 0);
    CHECK(web.nics[1].rate_in == 0);
    CHECK(web.nics[1].trunk.empty());
    CHECK(web.nics[1].addresses.count == 0);
    CHECK(web.nics[1].mac[0] == 0x52);
    CHECK(memory_needed(web) == 256 * kMiB + 16384);

    const VmConfig& db = config.vms[1];
    CHECK(db.cpus == 1);
    CHECK(db.memory == 4 * kMiB);
    CHECK(db.boot == BootProtocol::linux);
    CHECK(db.autostart);
    CHECK(db.restart == Restart::no);
    CHECK(db.weight == 100);
    CHECK(db.cap == 0);
    CHECK(db.pin.empty());
    CHECK_FALSE(db.debug_exit);
    CHECK(db.rng);
    CHECK_FALSE(db.console);
    CHECK_FALSE(db.balloon);
    CHECK(db.vsock == 0);
}

TEST_CASE("an error says where, what is wrong and what is allowed", "[config]") {
    CHECK(vm_error("cpu = 2") == "5: unknown key \"cpu\" in [[vm]]; allowed: name, cpus, memory, boot, "
                                 "kernel, initrd, modules, cmdline, autostart, "
                                 "restart, weight, cap, pin, debug_exit, rng, console, balloon, vsock, disk, "
                                 "nic");
    CHECK(vm_error("cpus = 0") == "5: cpus: 0 is out of range; allowed: 1 to 64");
    CHECK(vm_error("cpus = -1") == "5: cpus: -1 is out of range; allowed: 1 to 64");
    CHECK(vm_error("cpus = '2'") == "5: cpus: a string is not allowed; allowed: an integer from 1 to 64");
    CHECK(vm_error("boot = 'grub'") ==
          "5: boot: \"grub\" is unknown; allowed: \"linux\", \"pvh\", \"multiboot\"");
    CHECK(vm_error("restart = true") ==
          "5: restart: a boolean is not allowed; allowed: \"no\", \"on-failure\", \"always\"");
    CHECK(vm_error("autostart = 1") == "5: autostart: an integer is not allowed; allowed: true or false");
    CHECK(vm_error("weight = 10001") == "5: weight: 10001 is out of range; allowed: 1 to 10000");
    CHECK(vm_error("cap = 101") == "5: cap: 101 is more than 1 cpus can use; allowed: 0 (none) to 100");
    CHECK(vm_error("pin = [0, 0]") == "5: pin: CPU 0 is named twice");
    CHECK(vm_error("pin = []").find("at least one") != std::string::npos);
    CHECK(vm_error("pin = [2]", {.host_cpus = 2}) == "5: pin: 2 is out of range; allowed: 0 to 1");
    CHECK(vm_error("pin = 0") == "5: pin: an integer is not allowed; allowed: host CPUs as in [0, 1]");
    CHECK(vm_error("cmdline = \"a\\nb\"").find("control character") != std::string::npos);
    CHECK(vm_error("cmdline = '" + std::string(2048, 'x') + "'") ==
          "5: cmdline: 2048 bytes are too long; allowed: at most 2047");
    CHECK(vm_error("disk = 1") == "5: disk: an integer is not allowed; allowed: [[vm.disk]]");
    CHECK(vm_error("nic = [1]") == "5: nic: an integer is not allowed; allowed: [[vm.nic]]");
}

TEST_CASE("names are needed, plain and unique", "[config]") {
    const auto named = [](const std::string& name) {
        return errors_of("[[vm]]\nname = \"" + name + "\"\nmemory = '2M'\nkernel = 'k'\n");
    };
    CHECK(named("ok").empty());
    CHECK(named("").size() == 1);
    CHECK(named("a b").size() == 1);
    CHECK(named("cairn").size() == 1);
    CHECK(errors_of("[[vm]]\nmemory='2M'\nkernel='k'\n") ==
          std::vector<std::string>{"1: [[vm]] lacks the key name"});
    CHECK(errors_of("[[vm]]\nname='a'\n") ==
          std::vector<std::string>{"1: [[vm]] lacks the key memory", "1: [[vm]] lacks the key kernel"});
    const ConfigResult twice =
        parse("[[vm]]\nname='a'\nmemory='2M'\nkernel='k'\n[[vm]]\nname='a'\nmemory='2M'\nkernel='k'\n");
    REQUIRE(twice.errors.size() == 1);
    CHECK(twice.errors[0].line == 6);
    CHECK(twice.errors[0].message.view() == "name: there is a VM \"a\" already, in line 1");
    CHECK(twice.config.vms[0].valid);
    CHECK_FALSE(twice.config.vms[1].valid);
}

TEST_CASE("memory comes in multiples of 2 MiB", "[config]") {
    const auto memory = [](const std::string& value) {
        return errors_of("[[vm]]\nname='a'\nmemory=" + value + "\nkernel='k'\n");
    };
    CHECK(memory("'2M'").empty());
    CHECK(memory("'3G'").empty());
    CHECK(memory("4194304").empty());
    CHECK(memory("'3M'") ==
          std::vector<std::string>{
              "3: memory: \"3M\" is not possible; allowed: a multiple of \"2M\", up to \"4096G\""});
    for (const char* wrong : {"0", "'0'", "1", "-2097152", "'1M'", "'256 MB'", "''", "'8192G'", "true"})
        CHECK(memory(wrong).size() == 1);
}

TEST_CASE("disks have a source and a mode that fits it", "[config]") {
    const auto disk = [](const std::string& lines) { return device_error("[[vm.disk]]\n" + lines); };
    CHECK(disk("mode='ro'") == "6: [[vm.disk]] lacks the key source");
    CHECK(disk("source='file:x'") == "7: source: \"file:x\" is no disk; allowed: \"module:FILE\", "
                                     "\"ram:SIZE\", \"disk:NAME\", \"gpt:PARTLABEL\"");
    CHECK(disk("source='module:'").find("is no disk") != std::string::npos);
    CHECK(disk("source='ram:5'").find("not possible") != std::string::npos);
    CHECK(disk("source='module:x'\nmode='rw'").find("8: mode: a module cannot be \"rw\"") == 0);
    CHECK(disk("source='ram:4K'\nmode='cow'").find("8: mode: a RAM disk starts empty") == 0);
    CHECK(disk("source='ram:4K'\nmode='w'").find("8: mode: \"w\" is unknown") == 0);
    const auto key = [&](const std::string& line) { return disk("source='ram:4K'\n" + line); };
    CHECK(key("rate='1K'\niops=1\nqueues=16\nserial='12345678901234567890'") == "0 errors");
    CHECK(key("rate='100'").find("8: rate: \"100\" is not possible") == 0);
    CHECK(key("rate=0").find("8: rate: ") == 0);
    CHECK(key("iops=0").find("8: iops: 0 is out of range; allowed: 1 to 1000000000") == 0);
    CHECK(disk("source='gpt:x'\nmode='cow'\nlimit='4K'") == "0 errors");
    CHECK(disk("source='gpt:x'\nmode='cow'\nlimit='5K'").find("9: limit: \"5K\" is not possible") == 0);
    CHECK(disk("source='gpt:x'\nmode='cow'\nlimit=0").find("9: limit: ") == 0);
    CHECK(disk("source='gpt:x'\nlimit='4K'") == "8: limit: is for mode \"cow\" alone");
    CHECK(key("queues=0").find("8: queues: 0 is out of range; allowed: 1 to 16") == 0);
    CHECK(key("queues=17").find("8: queues: ") == 0);
    CHECK(key("serial=''").find("8: serial: \"\" is not possible; allowed: 1 to 20 printable") == 0);
    CHECK(key("serial='123456789012345678901'").find("8: serial: ") == 0);
    CHECK(key("serial='\u00e4'").find("8: serial: ") == 0);
    CHECK(key("serial=\"\\t\"").find("8: serial: ") == 0);
    std::string many;
    for (std::size_t i = 0; i <= kMaxDisks; ++i)
        many += "[[vm.disk]]\nsource='ram:4K'\n";
    CHECK(device_error(many).find("more than 16 disks") != std::string::npos);
}

TEST_CASE("a disk has a queue for each vCPU, up to four, unless it says otherwise", "[config]") {
    for (const std::uint32_t cpus : {1u, 3u, 4u, 64u}) {
        // The key may stand behind the disk.
        const ConfigResult result =
            parse("[[vm]]\nname='a'\nmemory='2M'\nkernel='k'\ndisk=[{source='ram:4K'}]\ncpus=" +
                  std::to_string(cpus) + "\n");
        REQUIRE(result.errors.empty());
        CHECK(result.config.vms[0].disks[0].queues == std::min(cpus, 4u));
    }
}

TEST_CASE("a disk that one VM writes is its own", "[config]") {
    const auto two = [](const std::string& first, const std::string& second) {
        return errors_of("[[vm]]\nname='a'\nmemory='2M'\nkernel='k'\n[[vm.disk]]\nsource='gpt:d'\nmode='" +
                         first +
                         "'\n[[vm]]\nname='b'\nmemory='2M'\nkernel='k'\n[[vm.disk]]\nsource='gpt:d'\nmode='" +
                         second + "'\n")
            .size();
    };
    CHECK(two("ro", "cow") == 0);
    CHECK(two("rw", "ro") == 1);
    CHECK(two("cow", "rw") == 1);
}

TEST_CASE("a VM has a CID of its own", "[config]") {
    CHECK(vm_error("vsock = 3") == "0 errors");
    CHECK(vm_error("vsock = 4294967294") == "0 errors");
    for (const char* wrong : {"2", "0", "-3", "4294967295", "'3'", "true"})
        CHECK(vm_error(std::string{"vsock = "} + wrong).starts_with("5: vsock: "));
    CHECK(vm_error("rng = 1").starts_with("5: rng: an integer is not allowed"));
    CHECK(vm_error("console = 'hvc0'").starts_with("5: console: a string is not allowed"));
    CHECK(vm_error("balloon = '64M'").starts_with("5: balloon: a string is not allowed"));
    const auto vm = [](const std::string& name) {
        return "[[vm]]\nname='" + name + "'\nmemory='2M'\nkernel='k'\nvsock=7\n";
    };
    CHECK(errors_of(vm("a") + vm("b")) ==
          std::vector<std::string>{"10: vsock: 7 is the CID of VM \"a\" already"});
}

TEST_CASE("missing files are named", "[config]") {
    const Files files{{"k", "dir/disk"}};
    CHECK(vm_error("initrd = 'i'", {.files = &files}) == "5: initrd: the file \"i\" is missing");
    CHECK(vm_error("modules = ['k', 'i x']", {.files = &files}) == "5: modules: the file \"i\" is missing");
    CHECK(vm_error("modules = ['k " + std::string(2046, 'x') + "']").starts_with("5: modules: what stands"));
    CHECK(vm_error("modules = ['k " + std::string(2045, 'x') + "']") == "0 errors");
    CHECK(vm_error("modules = [1]").starts_with("5: modules: an integer is not allowed"));
    CHECK(vm_error("modules = 'k'").starts_with("5: modules: a string is not allowed"));
    CHECK(vm_error("modules = ['']") == "5: modules: no file has this name");
    std::string many = "modules = ['k'";
    for (std::size_t i = 1; i < kMaxModules; ++i)
        many += ", 'k'";
    CHECK(vm_error(many + "]") == "0 errors");
    CHECK(vm_error(many + ", 'k']").starts_with("5: modules: there are more than 64"));
    CHECK(errors_of("[[vm]]\nname='a'\nmemory='2M'\nkernel='k'\n[[vm.disk]]\nsource='module:dir/disk'\n"
                    "[[vm.disk]]\nsource='module:disk'\n",
                    {.files = &files}) ==
          std::vector<std::string>{"8: source: the file \"disk\" is missing"});
}

TEST_CASE("VMs that start by themselves fit together, others alone", "[config]") {
    const auto vm = [](const std::string& name, const std::string& more) {
        return "[[vm]]\nname='" + name + "'\nmemory='64M'\nkernel='k'\n" + more;
    };
    const ConfigLimits limits{.memory = 100 * kMiB};
    const ConfigResult result = parse(vm("a", "") + vm("b", "") + vm("c", "autostart=false\n") +
                                          vm("d", "autostart=false\n[[vm.disk]]\nsource='ram:64M'\n"),
                                      limits);
    REQUIRE(result.errors.size() == 2);
    CHECK(result.errors[0].message.view() ==
          "memory: 64 MiB with the RAM disks do not fit; 36 of 100 MiB are left for it");
    CHECK(result.errors[0].line == 7);
    CHECK(result.config.vms[0].valid);
    CHECK_FALSE(result.config.vms[1].valid);
    CHECK(result.config.vms[2].valid);
    CHECK_FALSE(result.config.vms[3].valid);
}

TEST_CASE("right VMs stay right beside wrong ones, and errors come in order", "[config]") {
    const ConfigResult result = parse("[host]\nwhen_idel='x'\n"
                                      "[[vm]]\nname='a'\nmemory='2M'\nkernel='k'\n"
                                      "[[vm]]\nname='b'\nmemory='2M'\nkernel='k'\n[[vm.disk]]\nsource=?\n"
                                      "[[vm]]\nname='c'\nmemory='2M'\nkernel=1\n"
                                      "[[vm]]\nname='d'\nmemory='2M'\nkernel='k'\n");
    REQUIRE(result.config.vms.size() == 4);
    CHECK(result.config.vms[0].valid);
    CHECK_FALSE(result.config.vms[1].valid);
    CHECK_FALSE(result.config.vms[2].valid);
    CHECK(result.config.vms[3].valid);
    REQUIRE(result.errors.size() == 3);
    CHECK(result.errors[0].line == 2);
    CHECK(result.errors[1].line == 12);
    CHECK(result.errors[2].line == 16);
}

TEST_CASE("a file without VMs, or with unknown tables, is wrong", "[config]") {
    CHECK(errors_of("") == std::vector<std::string>{"0: there is no [[vm]]"});
    CHECK(errors_of("[vm]\nname='a'\n") ==
          std::vector<std::string>{"1: vm: a table is not allowed; allowed: [[vm]]"});
    CHECK(errors_of("[[vm]]\nname='a'\nmemory='2M'\nkernel='k'\n[hosts]\n") ==
          std::vector<std::string>{"5: unknown key \"hosts\"; allowed: [host], [switch.NAME], [[vm]]"});
}
