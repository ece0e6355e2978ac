// SPDX-License-Identifier: MIT
// NICs and switches.
#include "vmm/config/config_fixture.hpp"
#include "vmm/config/values.hpp"

using namespace hv;
using namespace hv::test;

TEST_CASE("NICs name a switch and have an address of their own", "[config]") {
    const auto nic = [](const std::string& lines) { return device_error("[[vm.nic]]\n" + lines); };
    CHECK(nic("switch='wan'") == "7: switch: \"wan\" is not defined; there is \"lan\"");
    CHECK(nic("vlan=1") == "6: [[vm.nic]] lacks the key switch");
    CHECK(nic("switch='lan'\nvlan=4095") == "8: vlan: 4095 is out of range; allowed: 1 to 4094");
    CHECK(nic("switch='lan'\nrate='100'").find("8: rate: \"100\" is not possible") == 0);
    CHECK(nic("switch='lan'\nrate='0kbit'").find("8: rate") == 0);
    CHECK(nic("switch='lan'\nmtu=67") == "8: mtu: 67 is out of range; allowed: 68 to 65535");
    CHECK(nic("switch='lan'\nmtu=65536").find("8: mtu") == 0);
    CHECK(nic("switch='lan'\nmtu='1500'").find("8: mtu") == 0);
    CHECK(nic("switch='lan'\nqueues=0") == "8: queues: 0 is out of range; allowed: 1 to 8");
    CHECK(nic("switch='lan'\nqueues=9").find("8: queues") == 0);
    CHECK(nic("switch='lan'\nmac='53:54:00:00:00:01'").find("8: mac") == 0);
    CHECK(nic("switch='lan'\nrate_in='fast'").find("8: rate_in: \"fast\" is not possible") == 0);
    CHECK(nic("switch='lan'\ntrunk=[0]") == "8: trunk: 0 is out of range; allowed: 1 to 4094");
    CHECK(nic("switch='lan'\ntrunk=[]") == "8: trunk: there is no VLAN in it; allowed: VLANs as in [10, 20]");
    CHECK(nic("switch='lan'\ntrunk=10") ==
          "8: trunk: an integer is not allowed; allowed: VLANs as in [10, 20]");
    CHECK(nic("switch='lan'\ntrunk=[7,10]\nvlan=10") ==
          "8: trunk: 10 is the NIC's vlan, whose frames have no tag; allowed: other VLANs");
    CHECK(
        nic("switch='lan'\naddresses=['10.0.0.256']").find("8: addresses: \"10.0.0.256\" is no IP address") ==
        0);
    CHECK(nic("switch='lan'\naddresses=[1]").find("8: addresses: an integer is not allowed") == 0);
    CHECK(nic("switch='lan'\naddresses=[]").find("8: addresses: there is none") == 0);
    CHECK(nic("switch='lan'\naddresses='10.0.0.2'").find("8: addresses: a string is not allowed") == 0);
    CHECK(nic("switch='lan'\naddresses=['::1','::2','::3','::4','::5','::6','::7','::8','::9']") ==
          "8: addresses: there are more than 8; allowed: at most so many");
    CHECK(nic("switch='lan'\nmac='x'").find("8: mac: \"x\" is not possible; allowed: six bytes") == 0);
    CHECK(device_error("[[vm.nic]]\nswitch='lan'\nmac='52:54:00:00:00:01'\n"
                       "[[vm.nic]]\nswitch='lan'\nmac='52:54:00:00:00:01'\n")
              .find("11: mac: \"52:54:00:00:00:01\" is the address of another NIC") == 0);
    CHECK(errors_of("[[vm]]\nname='a'\nmemory='2M'\nkernel='k'\n[[vm.nic]]\nswitch='x'\n") ==
          std::vector<std::string>{"6: switch: \"x\" is not defined; there is no [switch.NAME] at all"});
}

TEST_CASE("a NIC has a pair of queues for each CPU, up to four, unless it is told", "[config]") {
    const auto queues = [](unsigned cpus, const std::string& nic) {
        return parse("[switch.s]\n[[vm]]\nname='a'\nmemory='2M'\nkernel='k'\nnic=[{switch='s'" + nic +
                     "}]\ncpus=" + std::to_string(cpus) + "\n")
            .config.vms[0]
            .nics[0]
            .queues;
    };
    CHECK(queues(1, "") == 1);
    CHECK(queues(3, "") == 3);
    CHECK(queues(64, "") == 4);
    CHECK(queues(1, ",queues=5") == 5);
    CHECK(queues(64, ",queues=1") == 1);
}

TEST_CASE("a derived address avoids those that are written down", "[config]") {
    const std::string vm = "[switch.s]\n[[vm]]\nname='a'\nmemory='2M'\nkernel='k'\n[[vm.nic]]\nswitch='s'\n";
    const MacAddress derived = parse(vm).config.vms[0].nics[0].mac;
    char text[18];
    std::snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", derived[0], derived[1], derived[2],
                  derived[3], derived[4], derived[5]);
    const ConfigResult both =
        parse(vm + "[[vm]]\nname='b'\nmemory='2M'\nkernel='k'\n[[vm.nic]]\nswitch='s'\nmac='" + text + "'\n");
    REQUIRE(both.errors.empty());
    CHECK(both.config.vms[1].nics[0].mac == derived);
    CHECK(both.config.vms[0].nics[0].mac != derived);
}

TEST_CASE("a switch with errors leads nowhere, and no VM is on it", "[config]") {
    const std::string vm = "[[vm]]\nname='a'\nmemory='2M'\nkernel='k'\n[[vm.nic]]\nswitch='lan'\n";
    for (const char* wrong : {"uplink_vlans=10", "uplink_vlans=[4095]", "storm_limit=-1", "uplink_vlans ="}) {
        const ConfigResult read =
            parse(vm + "[switch.lan]\nuplink='nic0'\n" + wrong + "\n[switch.other]\nuplink='nic1'\n");
        REQUIRE(read.config.switches.size() == 2);
        CHECK_FALSE(read.config.switches[0].valid);
        CHECK(read.config.switches[0].uplink.empty());
        CHECK(read.config.switches[1].valid);
        CHECK(read.config.switches[1].uplink == "nic1");
        CHECK_FALSE(read.config.vms[0].valid);
    }
    CHECK(errors_of(vm + "[switch.lan]\nstorm_limit=-1\n").front() ==
          "6: switch: \"lan\" has errors of its own");
}

TEST_CASE("switches have plain names and an uplink of their own", "[config]") {
    const std::string vm = "[[vm]]\nname='a'\nmemory='2M'\nkernel='k'\n";
    CHECK(errors_of(vm + "[switch.a]\nuplink='nic0'\n[switch.b]\nuplink='nic0'\n") ==
          std::vector<std::string>{"8: uplink: \"nic0\" is the uplink of switch \"a\" already"});
    CHECK(errors_of(vm + "[switch.\"a b\"]\n").size() == 1);
    CHECK(errors_of(vm + "[switch.a]\nuplink_vlans=[4095]\n") ==
          std::vector<std::string>{"6: uplink_vlans: 4095 is out of range; allowed: 0 to 4094"});
    CHECK(errors_of(vm + "[switch.a]\nstorm_limit=-1\n") ==
          std::vector<std::string>{"6: storm_limit: -1 is out of range; allowed: 0 to 1000000"});
    CHECK(errors_of(vm + "[switch]\nuplink='nic0'\n") ==
          std::vector<std::string>{"6: uplink: a string is not allowed; allowed: [switch.NAME]"});
    CHECK(errors_of(vm + "[[switch]]\n").size() == 1);
}

TEST_CASE("frames on a switch with an uplink are no larger than what a NIC sends", "[config]") {
    const auto errors = [](const std::string& uplink, const std::string& mtu) {
        return errors_of("[switch.lan]\n" + uplink + "\n[[vm]]\nname='a'\nmemory='2M'\nkernel='k'\n" +
                         "[[vm.nic]]\nswitch='lan'\nmtu=" + mtu + "\n");
    };
    CHECK(errors("uplink='nic0'", "1500").empty());
    CHECK(errors("", "9000").empty());
    CHECK(errors("uplink='nic0'", "1501") ==
          std::vector<std::string>{
              "9: mtu: 1501 is more than the uplink of switch \"lan\" sends; allowed: 68 to 1500"});
}

TEST_CASE("a switch has no more NICs than ports", "[config]") {
    const auto errors = [](const std::string& uplink, unsigned nics) {
        std::string text = "[switch.other]\n[switch.lan]\n" + uplink;
        for (unsigned i = 0; i < nics; ++i) {
            if (i % 8 == 0)
                text += "[[vm]]\nname='a" + std::to_string(i) + "'\nmemory='2M'\nkernel='k'\n";
            text += "[[vm.nic]]\nswitch='lan'\n";
        }
        return errors_of(text + "[[vm]]\nname='b'\nmemory='2M'\nkernel='k'\n[[vm.nic]]\nswitch='other'\n");
    };
    CHECK(errors("", 256).empty());
    CHECK(errors("uplink='nic0'\n", 255).empty());
    const auto one_more = errors("", 257);
    REQUIRE(one_more.size() == 1);
    CHECK(one_more[0].ends_with("switch: \"lan\" has no port left; allowed: at most 256 NICs on it"));
    CHECK(errors("uplink='nic0'\n", 257).size() == 2);
}

TEST_CASE("an uplink has a rate each way", "[config]") {
    const std::string vm = "[[vm]]\nname='a'\nmemory='2M'\nkernel='k'\n[switch.lan]\n";
    const SwitchConfig lan =
        parse(vm + "uplink_rate='100Mbit'\nuplink_rate_in='50Mbit'\n").config.switches[0];
    CHECK(lan.uplink_rate == 100'000'000);
    CHECK(lan.uplink_rate_in == 50'000'000);
    CHECK(errors_of(vm + "uplink_rate='fast'\n").front().find("6: uplink_rate: \"fast\" is not possible") ==
          0);
    CHECK(errors_of(vm + "uplink_rate_in=1\n").size() == 1);
}

TEST_CASE("a host's name makes its NICs' addresses others", "[config]") {
    const std::string vm = "[[vm]]\nname='a'\nmemory='2M'\nkernel='k'\n[[vm.nic]]\nswitch='s'\n[switch.s]\n";
    const auto mac_on = [&](const std::string& host) {
        const ConfigResult read = parse(vm + host);
        REQUIRE(read.errors.empty());
        return read.config.vms[0].nics[0].mac;
    };
    CHECK(mac_on("") == derive_mac("", "a", 0, 0));
    CHECK(mac_on("[host]\nname='one'\n") == derive_mac("one", "a", 0, 0));
    CHECK(mac_on("[host]\nname='one'\n") != mac_on("[host]\nname='two'\n"));
    CHECK(
        errors_of(vm + "[host]\nname='a b'\n").front() ==
        "9: name: \"a b\" is not possible; allowed: 1 to 32 letters, digits, -, _, ., the first a letter or "
        "digit");
}

TEST_CASE("NICs speak for their switch's subnet", "[config]") {
    const std::string vm = "[[vm]]\nname='a'\nmemory='2M'\nkernel='k'\n[[vm.nic]]\nswitch='lan'\n";
    const auto addresses = [&](const std::string& nic, const std::string& lan) {
        const ConfigResult read = parse(vm + nic + "[switch.lan]\n" + lan);
        CHECK(read.errors.empty());
        return read.config.vms[0].nics[0].addresses;
    };
    net::IpPrefixList list = addresses("", "subnet='10.0.1.0/24'\n");
    REQUIRE(list.count == 1);
    CHECK(list.prefixes[0] == parse_prefix("10.0.1.0/24"));
    list = addresses("", "subnet=['10.0.1.0/24','2001:db8::/64']\n");
    REQUIRE(list.count == 2);
    CHECK(list.prefixes[1] == parse_prefix("2001:db8::/64"));
    CHECK(addresses("", "").count == 0);
    list = addresses("addresses=['10.0.1.2','fe80::/10','10.0.1.128/25']\n", "subnet='10.0.1.0/24'\n");
    REQUIRE(list.count == 3);
    CHECK(list.prefixes[0] == parse_prefix("10.0.1.2"));
    for (const char* outside : {"10.0.2.1", "10.0.0.0/16", "2001:db8::1"})
        CHECK(errors_of(vm + "addresses=['10.0.1.3',\n'" + outside +
                        "']\n[switch.lan]\nsubnet='10.0.1.0/24'\n") ==
              std::vector<std::string>{std::string("8: addresses: \"") + outside +
                                       "\" is not in the subnet of switch \"lan\""});
}

TEST_CASE("subnets are prefixes, one of a family, and no two switches share addresses", "[config]") {
    const std::string vm = "[[vm]]\nname='a'\nmemory='2M'\nkernel='k'\n";
    const auto error = [&](const std::string& lines) {
        const auto errors = errors_of(vm + lines);
        return errors.size() == 1 ? errors[0] : std::to_string(errors.size()) + " errors";
    };
    const std::string allowed =
        "; allowed: a prefix as in \"10.0.1.0/24\", or an array of an IPv4 and an IPv6 one";
    CHECK(error("[switch.a]\nsubnet='10.0.1'\n") == "6: subnet: \"10.0.1\" is no prefix" + allowed);
    CHECK(error("[switch.a]\nsubnet=[]\n") == "6: subnet: there is none" + allowed);
    CHECK(error("[switch.a]\nsubnet=1\n").find("6: subnet: an integer is not allowed") == 0);
    CHECK(error("[switch.a]\nsubnet=['10.0.1.0/24','10.0.2.0/24']\n") ==
          "6: subnet: \"10.0.2.0/24\" is the second of its family" + allowed);
    CHECK(error("[switch.a]\nsubnet='10.0.0.0/16'\n[switch.b]\nsubnet='10.0.1.0/24'\n") ==
          "8: subnet: \"10.0.1.0/24\" has addresses of switch \"a\"");
    CHECK(error("[switch.a]\nsubnet='2001:db8:0:1::/64'\n[switch.b]\nsubnet='2001:db8::/32'\n") ==
          "8: subnet: \"2001:db8::/32\" has addresses of switch \"a\"");
    CHECK(error("[switch.a]\nsubnet='10.0.0.0/24'\n[switch.b]\nsubnet=['10.0.1.0/24','::/0']\n") ==
          "0 errors");
}

TEST_CASE("a trusted NIC speaks for anybody", "[config]") {
    const std::string vm = "[[vm]]\nname='a'\nmemory='2M'\nkernel='k'\n[[vm.nic]]\nswitch='lan'\n";
    const std::string lan = "[switch.lan]\nsubnet='10.0.1.0/24'\n";
    const ConfigResult read = parse(vm + "trusted=true\n" + lan);
    CHECK(read.errors.empty());
    CHECK(read.config.vms[0].nics[0].trusted);
    CHECK(read.config.vms[0].nics[0].addresses.count == 0);
    CHECK_FALSE(parse(vm + lan).config.vms[0].nics[0].trusted);
    CHECK(errors_of(vm + "trusted=1\n" + lan).size() == 1);
    CHECK(errors_of(vm + "trusted=true\naddresses=['10.0.1.2']\n" + lan) ==
          std::vector<std::string>{
              "8: addresses: nobody looks at what a trusted NIC speaks for; allowed: one of both keys"});
}
