// SPDX-License-Identifier: MIT
// A console that one channel has at a time, and the keys that switch it.
#include "fakes/machine.hpp"
#include "vmm/monitor/console_mux_fixture.hpp"

#include <array>
#include <memory>

using namespace hv;
using namespace hv::fake;
using namespace hv::test;

TEST_CASE("interactive, one channel has the line and it is raw", "[monitor]") {
    Interactive i;
    i.monitor.write("cairn> ");
    i.web.write("not seen");
    CHECK(i.line.take() == "cairn> ");
    i.monitor.write("\x1b[1mbold\x1b[0m\r\n\x1b[6n");
    CHECK(i.line.take() == "\x1b[1mbold\x1b[0m\r\n\x1b[6n");
}

TEST_CASE("interactive, a switch says where one is and shows what was said", "[monitor]") {
    Interactive i;
    i.web.write("Linux boots\r\n# ");
    i.type("\x01"
           "1");
    const std::string shown = i.line.take();
    CHECK(contains(shown, "[cairn] console of web (Ctrl-A ? for help)\r\nLinux boots\r\n# "));
    i.web.write("x");
    i.monitor.write("hidden");
    CHECK(i.line.take() == "x");
    i.type("\x01m");
    CHECK(i.line.take() == "\r\x1b[K[cairn] console of monitor (Ctrl-A ? for help)\r\nhidden");
}

TEST_CASE("what is shown again asks the terminal nothing", "[monitor]") {
    Interactive i;
    i.web.write("\x1b[6n\x1b[31mred\x1b[0m\x1b[2J# \x1b[3");
    i.type("\x01"
           "1");
    CHECK(i.line.take().ends_with("\x1b[31mred\x1b[0m# "));
    i.web.write("1mgo\x1b[6n");  // the sequence's end does not become text, what is new is raw
    CHECK(i.line.take() == "\x1b[31mgo\x1b[6n");
}

TEST_CASE("what is shown again is the end, from a line's start on", "[monitor]") {
    Interactive i;
    for (int n = 0; n < 3000; ++n)
        i.web.write("line " + std::to_string(10000 + n) + "\r\n");
    i.type("\x01"
           "1");
    while (i.mux.has_work())
        i.mux.service();
    const std::string shown = i.line.take();
    CHECK(contains(shown, "help)\r\nline "));
    CHECK(shown.ends_with("line 12999\r\n"));
    CHECK(shown.size() < 8400);
    CHECK(shown.size() > 8000);
    CHECK_FALSE(contains(shown, "lost"));
}

TEST_CASE("Ctrl-A and a digit count the VMs, without the monitor", "[monitor]") {
    Interactive i;
    i.type("\x01"
           "2");
    CHECK(contains(i.line.take(), "console of db"));
    i.type("\x01"
           "1");
    CHECK(contains(i.line.take(), "console of web"));
    i.type("\x01"
           "3");
    CHECK(contains(i.line.take(), "there is no such console"));
    i.type("x");
    CHECK(i.web.input.got == "x");
}

TEST_CASE("Ctrl-A n goes round", "[monitor]") {
    Interactive i;
    i.type("\x01n");
    CHECK(contains(i.line.take(), "console of web"));
    i.type("\x01n");
    CHECK(contains(i.line.take(), "console of db"));
    i.type("\x01n");
    CHECK(contains(i.line.take(), "console of monitor"));
}

TEST_CASE("what is typed goes to the console that has the line", "[monitor]") {
    Interactive i;
    i.type("vm\r");
    i.type("\x01"
           "1root\r");
    i.type("\x01");
    i.type("2ls\r\x01mq");
    CHECK(i.monitor.input.got == "vm\rq");
    CHECK(i.web.input.got == "root\r");
    CHECK(i.db.input.got == "ls\r");
}

TEST_CASE("Ctrl-A a and Ctrl-A twice send Ctrl-A", "[monitor]") {
    Interactive i;
    i.type("\x01"
           "1\x01"
           "a\x01\x01z");
    CHECK(i.web.input.got == "\x01\x01z");
}

TEST_CASE("Ctrl-A x powers off", "[monitor]") {
    Interactive i;
    i.type("\x01x");  // nobody to tell
    unsigned calls = 0;
    i.mux.set_power_off([](void* count) { ++*static_cast<unsigned*>(count); }, &calls);
    i.type("x\x01x");
    CHECK(calls == 1);
    CHECK(i.monitor.input.got == "x");
}

TEST_CASE("Ctrl-A ? names the keys and the consoles", "[monitor]") {
    Interactive i;
    i.type("\x01?");
    const std::string help = i.line.take();
    for (const char* part : {"Ctrl-A ?", "Ctrl-A m", "Ctrl-A n", "Ctrl-A a", "Ctrl-A x", "Ctrl-A 1  web\r\n",
                             "Ctrl-A 2  db\r\n"})
        CHECK(contains(help, part));
    CHECK_FALSE(contains(help, "Ctrl-A 3"));
    CHECK(i.monitor.input.redraws == 1);  // its prompt stands above
    i.type("\x01"
           "1\x01?");
    CHECK(contains(i.line.take(), "Ctrl-A 1  web (here)"));
    i.type("\x01q");
    CHECK(contains(i.line.take(), "no such key"));
    CHECK(i.web.input.got.empty());
}

TEST_CASE("a full or missing input rings the bell", "[monitor]") {
    Interactive i;
    i.web.input.room = 1;
    i.type("\x01"
           "1");
    i.line.take();
    i.type("ab");
    CHECK(i.web.input.got == "a");
    CHECK(i.line.take() == "\a");
    std::array<char, 4096> buffer{};
    ConsoleChannel mute{i.mux, "mute", nullptr, buffer};
    i.mux.focus(mute);
    i.line.take();
    i.type("c");
    CHECK(i.line.take() == "\a");
}

TEST_CASE("the monitor takes over when the console in focus goes away", "[monitor]") {
    Interactive i;
    auto gone = std::make_unique<FakeChannel<>>(i.mux, "gone");
    i.mux.focus(gone->channel);
    gone->write("last words");
    gone.reset();
    const std::string shown = i.line.take();
    CHECK(contains(shown, "last words"));
    CHECK(contains(shown, "[cairn] console of monitor"));
    i.type("x");
    CHECK(i.monitor.input.got == "x");
}

TEST_CASE("without a monitor nobody gets what is typed once the console in focus is gone", "[monitor]") {
    FakeConsole line;
    ConsoleMux mux{line, Mode::interactive};
    auto gone = std::make_unique<FakeChannel<>>(mux, "gone");
    mux.focus(gone->channel);
    gone.reset();
    line.type("x\x01m\x01n\x01"
              "1\x01?");
    mux.service();
    CHECK(contains(line.take(), "Ctrl-A x"));
}

TEST_CASE("interactive, the log is the monitor's, and grave lines are everybody's", "[monitor]") {
    Interactive i;
    i.monitor.write("cairn> ");
    i.line.take();
    i.mux.log_line(log::Level::info, "vm: web starts");
    CHECK(i.line.take() == "\r\x1b[Kvm: web starts\r\n");
    CHECK(i.mux.has_work());
    i.mux.service();
    CHECK(i.monitor.input.redraws == 1);
    i.type("\x01"
           "1");
    i.web.write("# ");
    i.line.take();
    i.mux.log_line(log::Level::info, "vm: db starts");
    CHECK(i.line.take().empty());
    i.mux.log_line(log::Level::warning, "disk is slow");
    CHECK(i.line.take() == "\x1b[m\r\n[cairn] disk is slow\r\n");
    i.web.write("ls\r\n");
    i.line.take();
    i.mux.log_line(log::Level::error, "disk is gone");
    CHECK(i.line.take() == "\x1b[m[cairn] disk is gone\r\n");
    i.type("\x01m");
    const std::string shown = i.line.take();
    for (const char* part : {"web starts", "db starts", "disk is slow", "disk is gone"})
        CHECK(contains(shown, part));
}

TEST_CASE("interactive, before there is a monitor the log has the line", "[monitor]") {
    FakeConsole line;
    ConsoleMux mux{line, Mode::interactive};
    mux.log_line(log::Level::info, "boot: here");
    CHECK(line.take() == "[cairn] boot: here\r\n");
}

TEST_CASE("an announcement is seen whoever has the line", "[monitor]") {
    Interactive i;
    i.type("\x01"
           "1");
    i.line.take();
    i.mux.announce("power off: ok");
    CHECK(i.line.take() == "\x1b[m[cairn] power off: ok\r\n");
    Headless h;
    h.mux.announce("power off: ok");
    CHECK(h.line.take() == "[cairn] power off: ok\r\n");
}

TEST_CASE("what was typed and got lost on the line is told of, once a second at most", "[monitor]") {
    Interactive i;
    i.line.take();
    for (unsigned second = 0; second < 3; ++second) {
        CHECK_FALSE(contains(i.line.take(), "lost"));
        i.line.input_lost = true;
        i.type("x");
        CHECK(contains(i.line.take(), "[cairn] some of what was typed got lost"));
        i.type("x");
        for (unsigned more = 0; more < 100; ++more) {
            i.line.input_lost = true;
            i.type("x");
        }
        CHECK_FALSE(contains(i.line.take(), "lost"));
        fake::advance_tsc(machine::tsc_hz());
    }
}

TEST_CASE("a stream is prepared in pieces that leave time to read what is typed", "[monitor]") {
    Interactive i;
    for (int n = 0; n < 500; ++n)
        i.web.write("line " + std::to_string(10000 + n) + "\r\n");
    i.line.largest = 0;
    i.mux.focus(i.web.channel);
    while (!i.mux.flush()) {
    }
    CHECK(i.line.largest > 0);
    CHECK(i.line.largest <= 512);
}

TEST_CASE("interactive, debug lines come in between, on lines of their own", "[monitor]") {
    Interactive i;
    i.mux.focus(i.web.channel);
    i.line.take();
    i.web.write("# l");
    i.web.channel.write_lines("deb");
    i.web.write("s");
    i.web.channel.write_lines("ug\nmore\n");
    CHECK(i.line.take() == "# ls\r\ndebug\r\nmore\r\n");
}

TEST_CASE("interactive, a flood in focus loses its middle and says so", "[monitor]") {
    Interactive i;
    i.mux.focus(i.web.channel);
    i.line.take();
    i.line.room = 0;
    for (int n = 0; n < 3000; ++n)
        i.web.write("line " + std::to_string(10000 + n) + "\r\n");
    i.line.room = FakeConsole::kEndless;
    while (!i.mux.flush()) {
    }
    const std::string shown = i.line.take();
    CHECK(contains(shown, " characters of output lost\r\nline "));
    CHECK(shown.ends_with("line 12999\r\n"));
}

TEST_CASE("interactive, what is not in focus costs the line nothing", "[monitor]") {
    Interactive i;
    const unsigned writes = i.line.writes;
    for (int n = 0; n < 1000; ++n)
        i.web.write("line\r\n");
    CHECK(i.line.writes == writes);
}
