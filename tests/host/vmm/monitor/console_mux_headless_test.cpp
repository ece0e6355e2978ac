// SPDX-License-Identifier: MIT
// A console that shows lines and takes none, and what both kinds do with a line that is slow.
#include "fakes/machine.hpp"
#include "vmm/monitor/console_mux_fixture.hpp"

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>

using namespace hv;
using namespace hv::fake;
using namespace hv::test;

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
