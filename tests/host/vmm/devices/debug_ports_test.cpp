// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/power.hpp"
#include "vmm/devices/debug_ports.hpp"

#include <string>
#include <vector>

using namespace hv;

namespace {

struct Lines final : CharSink {
    void put(std::string_view text) override { lines.emplace_back(text); }
    std::vector<std::string> lines;
};

}  // namespace

TEST_CASE("the debug console passes lines on", "[devices]") {
    Lines sink;
    DebugConsole console{sink};
    CHECK(console.read(0, 1) == 0xe9);
    const auto print = [&](const std::string& text) {
        for (const char character : text)
            console.write(0, 1, static_cast<std::uint8_t>(character));
    };
    print("one\ntwo");
    CHECK(sink.lines == std::vector<std::string>{"one\n"});
    console.flush();
    console.flush();
    CHECK(sink.lines == std::vector<std::string>{"one\n", "two"});
    print(std::string(130, 'x'));
    CHECK(sink.lines.back() == std::string(128, 'x'));
    print("\n");
    CHECK(sink.lines.back() == "xx\n");
}

TEST_CASE("the debug exit ends the VM with the value written", "[devices]") {
    fake::RecordingPower power;
    DebugExit exit{power};
    exit.write(0, 1, 0x21);
    exit.write(0, 4, 0x1234'5678);
    CHECK(power.exits == std::vector<std::uint32_t>{0x21, 0x1234'5678});
}
