// SPDX-License-Identifier: MIT
// What the configuration of NICs and switches comes to.
#include "vmm/core/network_options.hpp"
#include "vmm/core/vm_fixture.hpp"

using namespace hv;
using namespace hv::test;

TEST_CASE("a NIC's port has all that its configuration says", "[core]") {
    VmFixture f;
    config::NicConfig& nic = f.add("a").nics[0];
    nic.vlan = 7;
    nic.rate = 8'000'000;
    nic.rate_in = 16'000'000;
    nic.trunk.add(10);
    nic.addresses.prefixes[nic.addresses.count++] = {net::IpPrefix::Family::ipv4, 32, {10, 0, 0, 2}};
    const VmServices services = f.services();
    auto vm = Vm::create(f.config.vms[0], services, {f.consoles.serial, f.consoles.debug}).value();
    const net::PortOptions& options = vm->nics()[0]->port().options();
    CHECK(options.kind == net::PortOptions::Kind::access);
    CHECK(options.mac == nic.mac);
    CHECK(options.vlan == 7);
    CHECK(options.bits_per_second == 8'000'000);
    CHECK(options.receive_bits_per_second == 16'000'000);
    CHECK(options.vlans == nic.trunk);
    REQUIRE(options.addresses.count == 1);
    CHECK(options.addresses.prefixes[0] == nic.addresses.prefixes[0]);
    nic.trusted = true;
    CHECK(nic_options(nic).kind == net::PortOptions::Kind::trusted);
}

TEST_CASE("a switch and its uplink have all that their configuration says", "[core]") {
    config::SwitchConfig config;
    config.storm_limit = 77;
    config.uplink_vlans.add(10);
    config.uplink_rate = 8'000'000;
    config.uplink_rate_in = 16'000'000;
    CHECK(switch_options(config).storm_limit == 77);
    const net::PortOptions options = uplink_options(config);
    CHECK(options.kind == net::PortOptions::Kind::uplink);
    CHECK(options.vlans == config.uplink_vlans);
    CHECK(options.receive_bits_per_second == 8'000'000);
    CHECK(options.bits_per_second == 16'000'000);
}
