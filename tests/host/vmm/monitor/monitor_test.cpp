// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "tests/host/vmm/monitor/fake_console.hpp"
#include "vmm/monitor/console_mux.hpp"
#include "vmm/monitor/monitor.hpp"

#include <array>
#include <string>

using namespace hv;
using namespace hv::fake;

namespace {

class EchoCommand final : public MonitorCommand {
public:
    [[nodiscard]] std::string_view name() const override { return "echo"; }
    [[nodiscard]] std::string_view help() const override { return "says it again"; }
    [[nodiscard]] std::string_view usage() const override { return "echo WORD   once\necho WORD 2 twice\n"; }
    Result run(Arguments arguments, Output& out) override {
        if (arguments.empty())
            return Result::wrong_arguments;
        for (const std::string_view word : arguments)
            out.print("%.*s\n", static_cast<int>(word.size()), word.data());
        return Result::done;
    }
    void complete(Arguments arguments, Completion& completion) const override {
        if (arguments.empty()) {
            completion.add("eggs");
            completion.add("eggplant");
            completion.add("ham");
        } else if (arguments.size() == 1) {
            completion.add(arguments[0]);
        }
    }
};

struct Fixture {
    Fixture() {
        monitor->add(echo);
        monitor->start();
    }
    std::string type(std::string_view keys) {
        line.take();
        line.type(keys);
        mux.service();
        return line.take();
    }
    FakeConsole line;
    ConsoleMux mux{line, ConsoleMux::Mode::interactive};
    std::unique_ptr<Monitor> monitor{std::move(Monitor::create(mux)).value()};
    EchoCommand echo;
    std::array<char, 4096> buffer{};
};

bool contains(const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("the monitor has the line and prompts", "[monitor]") {
    Fixture f;
    CHECK(f.line.take() == "cairn> ");
    CHECK(f.type("\r") == "\r\ncairn> ");
}

TEST_CASE("a command runs with its arguments", "[monitor]") {
    Fixture f;
    CHECK(f.type("echo a  b\r") == "echo a  b\r\na\r\nb\r\ncairn> ");
}

TEST_CASE("unknown commands and wrong arguments are answered with what is allowed", "[monitor]") {
    Fixture f;
    CHECK(f.type("eco\r") == "eco\r\nThere is no command \"eco\"; \"help\" lists them.\r\ncairn> ");
    CHECK(f.type("echo\r") == "echo\r\nAllowed:\r\n  echo WORD   once\r\n  echo WORD 2 twice\r\ncairn> ");
    CHECK(contains(f.type("echo 1 2 3 4 5 6 7 8 9 1 2 3 4 5 6 7\r"), "Allowed:"));
}

TEST_CASE("help lists the commands and explains one", "[monitor]") {
    Fixture f;
    const std::string all = f.type("help\r");
    CHECK(contains(all, "  help       what can be typed here\r\n  echo       says it again\r\n"));
    CHECK(contains(f.type("help echo\r"), "echo: says it again\r\n  echo WORD   once\r\n"));
    CHECK(contains(f.type("help nothing\r"), "There is no command \"nothing\""));
    CHECK(contains(f.type("help a b\r"), "Allowed:\r\n  help\r\n  help COMMAND\r\n"));
}

TEST_CASE("Tab completes commands and arguments", "[monitor]") {
    Fixture f;
    CHECK(f.type("e\t") == "echo ");
    CHECK(f.type("e\t") == "egg");
    CHECK(contains(f.type("\t"), "\r\neggs  eggplant  \r\n\rcairn> echo egg"));
    CHECK(f.type("p\t") == "plant ");
    CHECK(f.type("x\t") == "x\a");
    CHECK(f.type("\x15\t").ends_with("help  echo  \r\n\rcairn> \x1b[K"));
    CHECK(f.type("help e\t") == "help echo ");
    CHECK(f.type("\x15nothing \t").ends_with("\a"));
    CHECK(f.type("\x15"
                 "1 2 3 4 5 6 7 8 9 1 2 3 4 5 6 7 8 \t")
              .ends_with("8 "));
}

TEST_CASE("Tab in the middle of a line completes what is before the cursor", "[monitor]") {
    Fixture f;
    f.type("e x\x02\x02\t");
    CHECK(contains(f.type("\r"), "There is no command") == false);
}

TEST_CASE("a log line does not tear what is being typed", "[monitor]") {
    Fixture f;
    f.type("echo hel");
    f.mux.log_line(log::Level::info, "vm: web starts");
    f.mux.service();
    CHECK(f.line.take() == "\r\x1b[Kvm: web starts\r\n\rcairn> echo hel\x1b[K");
    CHECK(f.type("lo\r") == "lo\r\nhello\r\ncairn> ");
}

TEST_CASE("the monitor's answer is shown to the end on a slow line", "[monitor]") {
    Fixture f;
    f.line.take();
    f.line.room = 3;
    f.line.type("help\r");
    f.mux.service();
    std::string shown;
    for (unsigned i = 0; i < 1000; ++i) {
        f.line.room = 16;
        f.mux.service();
    }
    CHECK(f.line.take().ends_with("keys.\r\ncairn> "));
    CHECK_FALSE(f.line.write_interrupt);
}

TEST_CASE("lines that come unasked stand above the prompt, and no more of them than the line carries",
          "[monitor]") {
    Fixture f;
    f.type("ec");
    const std::size_t room = f.monitor->room();
    CHECK(room == 8192);
    f.monitor->show("one\ntwo\n");
    f.monitor->rest();
    CHECK(contains(f.line.take(), "\r\x1b[Kone\r\ntwo\r\n"));
    CHECK(contains(f.type("h"), "h"));
    ConsoleChannel other{f.mux, "web", nullptr, f.buffer};
    f.mux.focus(other);
    CHECK(f.monitor->room() == 0);
    f.mux.focus(f.monitor->channel());
    CHECK(f.monitor->room() == 8192);
}
