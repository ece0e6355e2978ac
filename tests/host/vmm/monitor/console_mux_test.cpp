// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/machine.hpp"
#include "tests/host/vmm/monitor/fake_console.hpp"
#include "vmm/monitor/console_mux.hpp"

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

using namespace hv;
using namespace hv::fake;

namespace {

using Mode = ConsoleMux::Mode;

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = text.find("\r\n", at);
        REQUIRE(end != std::string::npos);
        lines.push_back(text.substr(at, end - at));
        at = end + 2;
    }
    return lines;
}

bool contains(const std::string& text, std::string_view part) {
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

}  // namespace

// --- headless ----------------------------------------------------------------------------------------------

TEST_CASE("headless, each line bears its source", "[monitor]") {
    Headless h;
    h.web.write("hello\n");
    h.mux.log_line(log::Level::info, "vm: web starts");
    h.db.write("ready\r\n");
    CHECK(h.line.take() == "[web] hello\r\n[cairn] vm: web starts\r\n[db] ready\r\n");
}

TEST_CASE("headless, a line is shown once it is complete", "[monitor]") {
    Headless h;
    h.web.write("a");
    h.db.write("x");
    CHECK(h.line.take().empty());
    h.web.write("b\nc");
    CHECK(h.line.take() == "[web] ab\r\n");
    h.web.channel.finish_lines();
    CHECK(h.line.take() == "[web] c\r\n");
}

TEST_CASE("headless, no guest can forge another's line", "[monitor]") {
    Headless h;
    for (const char* forged :
         {"\r[cairn] power off: ok\n", "x\r[cairn] power off: ok\n", "\x1b[1G[cairn] power off: ok\n",
          "x\v[cairn] power off: ok\n", "x\xc2\x85[cairn] power off: ok\n",
          "x\x1b"
          "E[cairn] power off: ok\n",
          "x\b\b\b\b\b\b\b[cairn] power off: ok\n"}) {
        h.web.write(forged);
        for (const std::string& line : lines_of(h.line.take())) {
            CHECK(line.starts_with("[web] "));
            for (const char c : line)
                CHECK(static_cast<unsigned char>(c) >= 0x20);
        }
    }
    const std::string longest(LineBuilder::kSize, 'x');
    h.web.write(longest + "[cairn] power off: ok\n");
    CHECK(lines_of(h.line.take()) ==
          std::vector<std::string>{"[web] " + longest, "[web] [cairn] power off: ok"});
}

TEST_CASE("headless, the debug port's lines stay apart from the serial port's", "[monitor]") {
    Headless h;
    h.web.write("serial ");
    h.web.channel.write_lines("debug ");
    h.web.write("goes on\n");
    h.web.channel.write_lines("port\n");
    CHECK(h.line.take() == "[web] serial goes on\r\n[web] debug port\r\n");
}

TEST_CASE("headless, what is typed goes nowhere", "[monitor]") {
    Headless h;
    bool off = false;
    h.mux.set_power_off([](void* flag) { *static_cast<bool*>(flag) = true; }, &off);
    h.mux.focus(h.web.channel);
    h.line.type("abc\x01x");
    h.mux.service();
    CHECK(h.line.typed.empty());
    CHECK_FALSE(off);
    CHECK(h.web.input.got.empty());
    CHECK(h.line.take().empty());
}

TEST_CASE("long names are cut", "[monitor]") {
    Headless h;
    const std::string name(100, 'n');
    FakeChannel<> channel{h.mux, name};
    channel.write("x\n");
    CHECK(h.line.take() == "[" + std::string(ConsoleChannel::kNameSize, 'n') + "] x\r\n");
}

// --- flow --------------------------------------------------------------------------------------------------

TEST_CASE("a slow line gets what it takes, and an interrupt is wanted only while something is left",
          "[monitor]") {
    Headless h;
    CHECK_FALSE(h.line.write_interrupt);
    h.line.room = 4;
    h.web.write("hello\n");
    CHECK(h.line.text == "[web");
    CHECK(h.line.write_interrupt);
    CHECK_FALSE(h.mux.flush());
    h.line.room = 9;
    h.mux.service();
    CHECK(h.line.text == "[web] hello\r\n");
    h.line.sent = false;
    CHECK_FALSE(h.mux.flush());  // whoever powers off now cuts the line short
    h.line.sent = true;
    CHECK(h.mux.flush());
    CHECK_FALSE(h.line.write_interrupt);
    h.line.room = FakeConsole::kEndless;
    h.web.write("again\n");
    CHECK(h.line.take() == "[web] hello\r\n[web] again\r\n");
}

TEST_CASE("while the line is busy, writers do not touch it", "[monitor]") {
    Headless h;
    h.line.room = 0;
    h.web.write("one\n");
    const unsigned writes = h.line.writes;
    for (int i = 0; i < 100; ++i)
        h.db.write("two\n");
    CHECK(h.line.writes == writes);
    h.line.room = FakeConsole::kEndless;
    h.mux.service();
    CHECK(lines_of(h.line.take()).size() == 101);
}

TEST_CASE("channels take turns, a flood delays nobody", "[monitor]") {
    Headless h;
    h.line.room = 0;
    for (int i = 0; i < 500; ++i)
        h.web.write("flood\n");
    h.db.write("one\ntwo\n");
    h.mux.log_line(log::Level::info, "log");
    h.line.room = FakeConsole::kEndless;
    while (!h.mux.flush()) {
    }
    const auto lines = lines_of(h.line.take());
    REQUIRE(lines.size() == 503);
    const auto at = [&](const char* line) {
        return std::find(lines.begin(), lines.end(), line) - lines.begin();
    };
    CHECK(at("[cairn] log") <= 3);
    CHECK(at("[db] one") <= 3);
    CHECK(at("[db] two") <= 6);
}

TEST_CASE("who floods loses his own text alone, and the console says how much", "[monitor]") {
    Headless h;
    h.line.room = 0;
    h.db.write("kept\n");
    constexpr unsigned kLines = 5000;
    for (unsigned i = 0; i < kLines; ++i)
        h.web.write("flood " + std::to_string(10000 + i) + "\n");
    h.line.room = FakeConsole::kEndless;
    while (!h.mux.flush()) {
    }
    const auto lines = lines_of(h.line.take());
    unsigned long long lost = 0;
    unsigned flood = 0, kept = 0, notes = 0;
    for (const std::string& line : lines) {
        kept += line == "[db] kept";
        flood += line.starts_with("[web] flood ") && line.size() == 17;
        if (line.starts_with("[cairn] web: ") && line.ends_with(" characters of output lost")) {
            lost += std::stoull(line.substr(13));
            ++notes;
        }
    }
    CHECK(kept == 1);
    CHECK(notes == 1);
    CHECK(flood > 0);
    CHECK(flood * 12 + lost == kLines * 12);
    CHECK(lines.back() == "[web] flood 14999");
    CHECK(lines.size() == kept + flood + notes);
}

TEST_CASE("one call hands over a burst, the rest is the boot CPU's", "[monitor]") {
    set_cpu(0);
    FakeConsole line;
    ConsoleMux mux{line, Mode::headless};
    FakeChannel<65536> web{mux, "web"};
    line.room = 0;
    for (int i = 0; i < 2000; ++i)
        web.write("flood flood flood\n");
    line.room = FakeConsole::kEndless;
    const unsigned kicks_before = kicks(0);
    CHECK_FALSE(mux.flush());
    CHECK(line.text.size() <= 4096);
    CHECK(mux.has_work());
    CHECK(kicks(0) == kicks_before + 1);
    unsigned calls = 0;
    while (mux.has_work()) {
        mux.service();
        ++calls;
    }
    CHECK(calls > 5);
    CHECK(lines_of(line.take()).size() == 2000);
    CHECK(mux.flush());
}

TEST_CASE("a line that never runs dry does not hold the host", "[monitor]") {
    Interactive i;
    i.line.endless = true;
    i.mux.service();
    CHECK(i.monitor.input.got.size() <= 1000);
    CHECK(i.mux.has_work());
    i.line.endless = false;
    i.mux.service();
    CHECK_FALSE(i.mux.has_work());
}

TEST_CASE("a channel that goes away says what nobody saw", "[monitor]") {
    Headless h;
    auto gone = std::make_unique<FakeChannel<>>(h.mux, "gone");
    gone->write("unfinished");
    gone.reset();
    CHECK(h.line.take() == "[gone] unfinished\r\n");
    gone = std::make_unique<FakeChannel<>>(h.mux, "gone");
    h.line.room = 0;
    gone->write("first\n");  // is on its way
    gone->write("second\n");
    gone.reset();
    h.line.room = FakeConsole::kEndless;
    h.mux.service();
    CHECK(h.line.take() == "[gone] first\r\n[cairn] gone: 7 characters of output lost\r\n");
}

TEST_CASE("writers on several CPUs lose nothing while the line keeps up", "[monitor]") {
    FakeConsole line;
    ConsoleMux mux{line, Mode::headless};
    constexpr unsigned kWriters = 4, kLines = 400;
    const std::string names[kWriters] = {"a", "b", "c", "d"};
    std::vector<std::unique_ptr<FakeChannel<>>> channels;
    for (const std::string& name : names)
        channels.push_back(std::make_unique<FakeChannel<>>(mux, name));
    std::atomic<unsigned> running{kWriters};
    std::vector<std::thread> writers;
    for (unsigned w = 0; w < kWriters; ++w)
        writers.emplace_back([&, w] {
            set_cpu(w + 1);
            for (unsigned n = 0; n < kLines; ++n) {
                channels[w]->write("line ");
                channels[w]->write(std::to_string(n) + "\n");
                if (n % 50 == 0)
                    mux.log_line(log::Level::info, "log of " + names[w]);
            }
            --running;
        });
    while (running > 0)
        mux.service();
    for (std::thread& writer : writers)
        writer.join();
    while (mux.has_work())
        mux.service();
    unsigned next[kWriters]{};
    unsigned logged = 0;
    for (const std::string& text : lines_of(line.take())) {
        if (text.starts_with("[cairn] log of ")) {
            ++logged;
            continue;
        }
        const auto w = static_cast<unsigned>(text.at(1) - 'a');
        REQUIRE(w < kWriters);
        CHECK(text == "[" + names[w] + "] line " + std::to_string(next[w]++));
    }
    for (const unsigned n : next)
        CHECK(n == kLines);
    CHECK(logged == kWriters * kLines / 50);
}

// --- interactive -------------------------------------------------------------------------------------------

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
