// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/monitor/line_editor.hpp"

#include <random>
#include <string>

using hv::LineEditor;

namespace {

/// What a terminal makes of the editor's output: one row of 80 columns, and the rows above it.
class Terminal final : public hv::Output {
public:
    void write(std::string_view text) override {
        for (const char c : text)
            put(c);
    }
    [[nodiscard]] std::string row() const {
        const std::size_t end = row_.find_last_not_of(' ');
        return end == std::string::npos ? "" : row_.substr(0, end + 1);
    }
    std::size_t column{0};
    unsigned bells{0};

private:
    void put(char c) {
        escape_ += c == '\x1b' || !escape_.empty() ? std::string(1, c) : "";
        if (!escape_.empty()) {
            if (escape_ == "\x1b[K") {
                row_.resize(column);
                row_.resize(80, ' ');
                escape_.clear();
            }
            REQUIRE(escape_.size() < 3);
        } else if (c == '\n') {
            row_.assign(80, ' ');
            column = 0;
        } else if (c == '\r') {
            column = 0;
        } else if (c == '\b') {
            REQUIRE(column > 0);
            --column;
        } else if (c == '\a') {
            ++bells;
        } else {
            REQUIRE((c >= ' ' && c <= '~'));
            REQUIRE(column < 80);
            row_[column++] = c;
        }
    }
    std::string row_ = std::string(80, ' ');
    std::string escape_;
};

struct Fixture {
    Fixture() { editor.begin(); }
    LineEditor::Event type(std::string_view keys) {
        auto event = LineEditor::Event::none;
        for (const char c : keys)
            event = editor.key(c);
        return event;
    }
    /// The line, with a bar where the cursor is; the terminal shows the same.
    std::string line() {
        CHECK(terminal.row() == trimmed("> " + std::string{editor.line()}));
        CHECK(terminal.column == 2 + editor.before_cursor().size());
        std::string text{editor.line()};
        return text.insert(editor.before_cursor().size(), "|");
    }
    void enter(std::string_view text) {
        CHECK(type(text) == LineEditor::Event::none);
        CHECK(type("\r") == LineEditor::Event::line);
        CHECK(editor.line() == text);
        editor.begin();
    }
    static std::string trimmed(std::string text) {
        text.erase(text.find_last_not_of(' ') + 1);
        return text;
    }
    Terminal terminal;
    LineEditor editor{"> ", terminal};
};

constexpr auto kLeft = "\x1b[D", kRight = "\x1b[C", kUp = "\x1b[A", kDown = "\x1b[B";

}  // namespace

TEST_CASE("text is inserted at the cursor", "[monitor]") {
    Fixture f;
    f.type("vm st");
    CHECK(f.line() == "vm st|");
    f.type(kLeft);
    f.type(kLeft);
    f.type("li");
    CHECK(f.line() == "vm li|st");
    f.type(kRight);
    CHECK(f.line() == "vm lis|t");
}

TEST_CASE("backspace and delete", "[monitor]") {
    Fixture f;
    f.type("abc\b");
    CHECK(f.line() == "ab|");
    f.type("\x7f\x7f\x7f\b");
    CHECK(f.line() == "|");
    f.type("abc\x01\x1b[3~");
    CHECK(f.line() == "|bc");
    f.type("\x04\x04\x04");
    CHECK(f.line() == "|");
}

TEST_CASE("home, end and the cursor's ends", "[monitor]") {
    Fixture f;
    f.type("abc");
    for (const char* home : {"\x01", "\x1b[H", "\x1b[1~", "\x1b[7~", "\x1bOH"}) {
        f.type(home);
        CHECK(f.line() == "|abc");
        f.type(kLeft);
        CHECK(f.line() == "|abc");
        f.type("\x05");
    }
    for (const char* end : {"\x05", "\x1b[F", "\x1b[4~", "\x1b[8~", "\x1bOF"}) {
        f.type("\x01");
        f.type(end);
        CHECK(f.line() == "abc|");
        f.type(kRight);
        CHECK(f.line() == "abc|");
    }
    f.type("\x1bOD\x02");
    CHECK(f.line() == "a|bc");
    f.type("\x1bOC\x06");
    CHECK(f.line() == "abc|");
}

TEST_CASE("Ctrl-U, Ctrl-K and Ctrl-W erase", "[monitor]") {
    Fixture f;
    f.type("vm  show web");
    f.type("\x17");
    CHECK(f.line() == "vm  show |");
    f.type("\x17");
    CHECK(f.line() == "vm  |");
    f.type("\x17\x17");
    CHECK(f.line() == "|");
    f.type("one two\x1b[D\x1b[D\x17");
    CHECK(f.line() == "one |wo");
    f.type("\x0b");
    CHECK(f.line() == "one |");
    f.type("two\x1b[D\x15");
    CHECK(f.line() == "|o");
}

TEST_CASE("Enter takes the whole line wherever the cursor is", "[monitor]") {
    Fixture f;
    f.type("vm list\x01");
    CHECK(f.type("\r") == LineEditor::Event::line);
    CHECK(f.editor.line() == "vm list");
    f.editor.begin();
    CHECK(f.line() == "|");
    CHECK(f.type("\n") == LineEditor::Event::none);  // of the same key
    CHECK(f.type("\n") == LineEditor::Event::line);
}

TEST_CASE("Ctrl-C gives a line up", "[monitor]") {
    Fixture f;
    CHECK(f.type("vm stop web\x03") == LineEditor::Event::cancelled);
    f.editor.begin();
    CHECK(f.line() == "|");
}

TEST_CASE("history goes back and forth and keeps what was being typed", "[monitor]") {
    Fixture f;
    f.enter("one");
    f.enter("two");
    f.enter("two");
    f.enter("   ");
    f.type("thr");
    f.type(kUp);
    CHECK(f.line() == "two|");
    f.type(kUp);
    CHECK(f.line() == "one|");
    CHECK(f.terminal.bells == 0);
    f.type(kUp);
    CHECK(f.line() == "one|");
    CHECK(f.terminal.bells == 1);
    f.type(kDown);
    f.type("\x0e");
    CHECK(f.line() == "thr|");
    f.type(kDown);
    CHECK(f.terminal.bells == 2);
    f.type("\x10\x10 changed");
    CHECK(f.type("\r") == LineEditor::Event::line);
    CHECK(f.editor.line() == "one changed");
    f.editor.begin();
    f.type("\x10\x10\x10");
    CHECK(f.line() == "one|");
}

TEST_CASE("history keeps the latest lines", "[monitor]") {
    Fixture f;
    for (unsigned i = 0; i < 40; ++i)
        f.enter("line " + std::to_string(i));
    for (std::size_t i = 0; i < LineEditor::kHistorySize + 3; ++i)
        f.type(kUp);
    CHECK(f.line() == "line " + std::to_string(40 - LineEditor::kHistorySize) + "|");
    CHECK(f.terminal.bells == 3);
}

TEST_CASE("a full line rings the bell", "[monitor]") {
    Fixture f;
    f.type(std::string(LineEditor::kLineSize, 'x'));
    CHECK(f.terminal.bells == 0);
    f.type("y");
    CHECK(f.terminal.bells == 1);
    f.editor.insert("z");
    CHECK(f.line() == std::string(LineEditor::kLineSize, 'x') + "|");
}

TEST_CASE("a redraw shows prompt, line and cursor again", "[monitor]") {
    Fixture f;
    f.type("vm list\x1b[D\x1b[D");
    f.terminal.write("\r[cairn] something\n");
    f.editor.redraw();
    CHECK(f.line() == "vm li|st");
    f.type("\x0c");
    CHECK(f.line() == "vm li|st");
}

TEST_CASE("unknown sequences and keys do nothing", "[monitor]") {
    Fixture f;
    f.type("ab\x1b[5~\x1b[15~\x1b[1;5D\x1bx\x1bOP\x1b[99999999999999999999~\x1b[Z\x02");
    CHECK(f.line() == "|ab");  // with Ctrl held, the cursor keys do as without
    f.type("\x80\xff\x1d");
    f.type(std::string(1, '\0'));
    CHECK(f.line() == "|ab");
    CHECK(f.type("\t") == LineEditor::Event::complete);
}

TEST_CASE("the terminal always shows what the editor holds", "[monitor]") {
    std::mt19937 random{1};
    Fixture f;
    const std::string keys = "\x01\x02\x04\x05\x06\b\x0b\x0c\x0e\x10\x15\x17\x1b[OABCD3~HF  abcdef";
    for (unsigned i = 0; i < 20000; ++i) {
        const char c = keys[random() % keys.size()];
        if (f.editor.key(random() % 50 == 0 ? '\r' : c) == LineEditor::Event::line)
            f.editor.begin();
        REQUIRE(f.terminal.row() == Fixture::trimmed("> " + std::string{f.editor.line()}));
        REQUIRE(f.terminal.column == 2 + f.editor.before_cursor().size());
    }
}
