// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/net_device.hpp"
#include "vmm/monitor/capture_stream.hpp"
#include "vmm/monitor/net_command.hpp"
#include "vmm/monitor/switch_view.hpp"
#include "vmm/monitor/words.hpp"
#include "vmm/net/switch_fixture.hpp"
#include "vmm/net/uplink.hpp"

#include <algorithm>
#include <array>
#include <string>

using namespace hv;
using test::frame_bytes;
using test::kBroadcast;
using test::mac;

namespace {

using Result = MonitorCommand::Result;

class FakeOutput final : public Output {
public:
    void write(std::string_view more) override { text += more; }
    std::string text;
};

class FakeLine final : public LiveOutput {
public:
    [[nodiscard]] std::size_t room() override { return free; }
    void show(std::string_view lines) override {
        text += lines;
        free -= std::min(free, lines.size());
    }
    void rest() override { ++rests; }
    std::string text;
    std::size_t free{~std::size_t{0}};
    unsigned rests{0};
};

config::Config two_switches() {
    config::Config config;
    config::SwitchConfig lan;
    lan.name = "lan";
    lan.uplink = "nic0";
    config::SwitchConfig lab;
    lab.name = "lab";
    lab.storm_limit = 0;
    static_cast<void>(config.switches.push(lan));
    static_cast<void>(config.switches.push(lab));
    for (unsigned i = 1; i <= 2; ++i) {
        config::VmConfig vm;
        vm.name = i == 1 ? "web" : "db";
        static_cast<void>(vm.nics.push({0, mac(i), 0, 0}));
        static_cast<void>(vm.nics.push({0, mac(10 + i), 0, 0}));
        static_cast<void>(config.vms.push(std::move(vm)));
    }
    return config;
}

struct NetFixture {
    NetFixture() {
        fake::set_cpu(0);
        for (auto& each : lans)
            each = std::move(net::Switch::create(wire.clock)).value();
        wire.lan.swap(lans[0]);
        wire.access(1);
        net::PortOptions options{net::PortOptions::Kind::access, mac(2), 5, 8'000'000};
        for (const std::uint16_t vlan : {10, 20, 21, 22})
            options.vlans.add(vlan);
        options.addresses.prefixes[options.addresses.count++] = {
            net::IpPrefix::Family::ipv4, 24, {10, 0, 0, 0}};
        options.addresses.prefixes[options.addresses.count++] = {
            net::IpPrefix::Family::ipv6, 128, {0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}};
        wire.add(options);
        wire.uplink();
        web = const_cast<net::SwitchPort*>(wire.lan->port(0));
        up = const_cast<net::SwitchPort*>(wire.lan->port(2));
        wire.lan.swap(lans[0]);
    }
    std::pair<Result, std::string> run(std::string_view typed) {
        FakeOutput out;
        const Words words{typed};
        const Result result = command.run(words.all(), out);
        return {result, out.text};
    }
    void serve() {
        for (unsigned i = 0; i < 1000 && stream.has_work(); ++i)
            stream.service();
    }
    test::Network wire;
    std::array<std::unique_ptr<net::Switch>, 2> lans;
    config::Config config{two_switches()};
    std::unique_ptr<net::Capture> capture{std::move(net::Capture::create(wire.clock, 0)).value()};
    FakeLine line;
    CaptureStream stream{*capture, line};
    SwitchView view{config, lans, stream};
    NetCommand command{view};
    net::SwitchPort* web{};
    net::SwitchPort* up{};
};

bool contains(const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
}

std::string decoded(const std::string& text) {
    std::string bytes;
    unsigned group = 0, bits = 0;
    bool text_of_line = false;
    for (std::size_t at = 0; at < text.size(); ++at) {
        const char c = text[at];
        if (text.compare(at, 5, "pcap ") == 0) {
            at += 4;
            group = bits = 0;
            text_of_line = true;
            continue;
        }
        const auto digit =
            std::string_view{"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"}.find(c);
        text_of_line = text_of_line && c != '\n';
        if (!text_of_line || digit == std::string_view::npos)
            continue;
        group = group << 6 | static_cast<unsigned>(digit);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            bytes += static_cast<char>(group >> bits & 0xff);
        }
    }
    return bytes;
}

}  // namespace

TEST_CASE("net lists switches, their ports and what passes them", "[monitor]") {
    NetFixture net;
    net.wire.send(*net.web, frame_bytes(kBroadcast, mac(1)));
    net.wire.send(*net.web, frame_bytes(kBroadcast, mac(9)));
    const auto [result, text] = net.run("");
    CHECK(result == Result::done);
    CHECK(text ==
          "lan, uplink nic0\n"
          "PORT  STATION                  ADDRESS            VLAN    FRAMES IN   FRAMES OUT      DROPPED\n"
          "   0  web/0                    52:54:00:00:00:01     0            1            0            1\n"
          "   1  db/0                     52:54:00:00:00:02     5            0            0            0\n"
          "   2  nic0                     any                   0            0            1            0\n"
          "lab\n"
          "PORT  STATION                  ADDRESS            VLAN    FRAMES IN   FRAMES OUT      DROPPED\n");
}

TEST_CASE("net show tells all about a switch", "[monitor]") {
    NetFixture net;
    net.wire.send(*net.web, frame_bytes(kBroadcast, mac(9)));
    net.wire.send(*net.up, frame_bytes(mac(1), mac(60), 0));
    net.wire.clock.advance(3'000'000'000);
    const std::string text = net.run("show lan").second;
    for (const char* part :
         {"each port may send 1000 frames a second to all", "port 1, db/0\n  trunk      10 20-22\n",
          "  addresses  10.0.0.0/24 2001:db8:0:0:0:0:0:2\n", "  rate       at most 8000 kbit/s\n",
          "  refused    0 for their VLAN, 1 for their source, 0 in another's name, 0 in storms\n",
          "  got        1 frames, 60 B, lost 0 without room, 0 beyond its rate\n",
          "  sent       1 frames, 64 B, waited 0 times for room, lost 0 beyond its rate\n",
          "  device     3 lies\n", "52:54:00:00:00:3c     0     2  3 s ago\n"})
        CHECK(contains(text, part));
    CHECK_FALSE(contains(net.run("show lab").second, "each port"));
    CHECK(net.run("show wan").second == "There is no switch \"wan\"; there are: lan lab\n");
}

TEST_CASE("net shows a part of very many addresses", "[monitor]") {
    NetFixture net;
    for (unsigned i = 0; i < 100; ++i)
        net.wire.send(*net.up, frame_bytes(mac(1), mac(1000 + i)));
    const std::string text = net.run("show lan").second;
    CHECK(contains(text, "and 36 more\n"));
}

TEST_CASE("net takes nothing else", "[monitor]") {
    NetFixture net;
    for (const char* wrong : {"lan", "show", "show lan lab", "capture", "capture lan web 1",
                              "capture lan count 0", "capture lan web count x", "capture lan web db count 5"})
        CHECK(net.run(wrong).first == Result::wrong_arguments);
    Completion first{""};
    net.command.complete({}, first);
    CHECK(first.count() == 2);
    Completion second{""};
    net.command.complete(Words{"capture"}.all(), second);
    CHECK(second.count() == 3);
    std::string_view usage = net.command.usage();
    for (; !usage.empty(); usage.remove_prefix(usage.find('\n') + 1))
        CHECK(usage.starts_with("net"));
}

TEST_CASE("a capture comes as base64 lines as fast as they are shown", "[monitor]") {
    NetFixture net;
    CHECK(net.run("capture stop").second == "There is no capture.\n");
    CHECK(net.run("capture lan nobody").second == "lan has no port \"nobody\"; \"net\" lists them.\n");
    CHECK(net.run("capture lan web count 2").second.empty());
    CHECK(contains(net.run("capture lan").second, "under way"));
    net.serve();
    CHECK(net.line.text == "pcap TTyyoQIABAAAAAAAAAAAAP//AAABAAAA\n");
    CHECK(net.line.rests == 1);
    net.line.free = 100;
    for (unsigned i = 0; i < 3; ++i)
        net.wire.send(*net.web, frame_bytes(kBroadcast, mac(1), {}, 400));
    net.serve();
    CHECK(net.line.text.size() == 38);
    CHECK_FALSE(net.stream.has_work());
    net.line.free = 1'000'000;
    net.stream.service();  // the console was serviced
    net.serve();
    const std::string bytes = decoded(net.line.text);
    REQUIRE(bytes.size() == 24 + 2 * (16 + 400));
    CHECK(bytes.substr(24 + 16, 12) == std::string("\xff\xff\xff\xff\xff\xff\x52\x54\0\0\0\1", 12));
    CHECK(net.line.text.ends_with("\nThe capture has 2 frames; 0 more were lost.\n"));
    for (std::size_t at = 0, end; (end = net.line.text.find('\n', at)) != std::string::npos; at = end + 1)
        CHECK(end - at <= 133);
    CHECK(net.run("capture lan 2").second.empty());
    CHECK(net.run("capture stop").second.empty());
    net.serve();
    CHECK(net.line.text.ends_with("The capture has 0 frames; 0 more were lost.\n"));
    CHECK(contains(net.run("capture stop").second, "no capture"));
}

TEST_CASE("net show tells what NICs count, and an uplink's rates as the configuration says them",
          "[monitor]") {
    NetFixture net;
    fake::IdleNic nic;
    nic.counted.no_room = 1;
    nic.counted.missed = 2;
    nic.counted.errors = 3;
    nic.counted.resets = 4;
    net::Uplink uplink{nic};
    net::PortOptions options{net::PortOptions::Kind::uplink, {}, 0, 8'000'000};
    options.receive_bits_per_second = 16'000'000;
    net::SwitchPort* port = net.lans[0]->add_port(uplink, options).value();
    for (unsigned i = 0; i < 200; ++i)
        net.wire.send(*port, frame_bytes(mac(1), mac(60), {}, 1000));
    test::TestStation bridge;
    net::SwitchPort* trusted =
        net.lans[0]->add_port(bridge, {net::PortOptions::Kind::trusted, mac(3), 0, 0}).value();
    const std::string text = net.run("show lan").second;
    for (const char* part :
         {"  rate       at most 16000 kbit/s\n", "  rate_in    at most 8000 kbit/s\n",
          "  sent       132 frames, 128.9 KiB, waited 0 times for room, lost 68 beyond its rate\n",
          "  trusted    sends from any address, gets all frames\n",
          "  device     1 without room, 2 missed, 3 damaged, 4 resets\n"})
        CHECK(contains(text, part));
    CHECK(contains(net.run("").second, "132            0           68\n"));
    net.lans[0]->remove_port(*trusted);
    net.lans[0]->remove_port(*port);
}
