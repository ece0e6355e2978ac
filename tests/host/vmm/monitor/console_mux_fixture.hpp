// SPDX-License-Identifier: MIT
// The console of two VMs, with and without a monitor.
#pragma once

#include "catch.hpp"
#include "tests/host/vmm/monitor/fake_console.hpp"
#include "vmm/monitor/console_mux.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace hv::test {

using fake::FakeChannel;
using fake::FakeConsole;

using Mode = ConsoleMux::Mode;

inline std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = text.find("\r\n", at);
        REQUIRE(end != std::string::npos);
        lines.push_back(text.substr(at, end - at));
        at = end + 2;
    }
    return lines;
}

inline bool contains(const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
}

struct Headless {
    FakeConsole line;
    ConsoleMux mux{line, Mode::headless};
    FakeChannel<> web{mux, "web"};
    FakeChannel<> db{mux, "db"};
};

struct Interactive {
    Interactive() {
        mux.set_monitor(monitor.channel);
        line.take();
    }
    void type(std::string_view keys) {
        line.type(keys);
        mux.service();
    }
    FakeConsole line;
    ConsoleMux mux{line, Mode::interactive};
    FakeChannel<> monitor{mux, "monitor"};
    FakeChannel<> web{mux, "web"};
    FakeChannel<> db{mux, "db"};
};

}  // namespace hv::test
