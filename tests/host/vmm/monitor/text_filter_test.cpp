// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/monitor/text_filter.hpp"

#include <string>

using hv::TextFilter;

namespace {

std::string filtered(std::string_view text, TextFilter::Escapes escapes = TextFilter::Escapes::drop) {
    TextFilter filter{escapes};
    std::string out;
    for (const char c : text)
        out += filter.feed(c);
    return out;
}

}  // namespace

TEST_CASE("plain text, tabs and line ends pass", "[monitor]") {
    CHECK(filtered("a b\tc\r\n~") == "a b\tc\r\n~");
}

TEST_CASE("control characters are taken out", "[monitor]") {
    std::string all;
    for (int c = 0; c < 0x20; ++c)
        all += static_cast<char>(c);
    CHECK(filtered(std::string{"\0\x01\a\b\v\f\x0e\x1f\x7f", 9} + "x") == "x");
    CHECK(filtered(all + "\n") == "\t\n\r\n");  // ESC FS to US is an escape sequence; the others are C0
}

TEST_CASE("escape sequences are taken out whole", "[monitor]") {
    CHECK(filtered("\x1b[31mred\x1b[0m") == "red");
    CHECK(filtered("a\x1b[2J\x1b[1;1Hb\x1b[?25lc") == "abc");
    CHECK(filtered("a\x1b(Bb\x1b"
                   "7c\x1b=d") == "abcd");
    CHECK(filtered("a\x1b]0;title\ab\x1b]0;title\x1b\\c") == "abc");
    CHECK(filtered("a\x1bP1$r\x1b\\b") == "ab");
    CHECK(filtered("a\x1b[1\x18"
                   "b") == "ab");
}

TEST_CASE("a sequence that is not finished swallows no other line", "[monitor]") {
    CHECK(filtered("a\x1b]0;never ended\nb") == "a\nb");
    CHECK(filtered("a\x1b[1;2\nb") == "a\nb");
    CHECK(filtered("a\x1b\nb") == "a\nb");
    CHECK(filtered("a\xe2\x82\nb") == "a?\nb");
}

TEST_CASE("UTF-8 passes from U+00A0 on", "[monitor]") {
    CHECK(filtered("\xc2\xa0 \xc3\xa9 \xe2\x82\xac \xf0\x9f\x90\xa7 \xf4\x8f\xbf\xbf") ==
          "\xc2\xa0 \xc3\xa9 \xe2\x82\xac \xf0\x9f\x90\xa7 \xf4\x8f\xbf\xbf");
}

TEST_CASE("C1 controls and ill-formed UTF-8 become question marks", "[monitor]") {
    CHECK(filtered("\x9b"
                   "31mx") == "?31mx");             // CSI as one byte
    CHECK(filtered("\xc2\x9bx") == "??x");          // CSI as U+009B
    CHECK(filtered("\xc2\x85x") == "??x");          // next line
    CHECK(filtered("\xc0\x8a") == "??");            // an overlong line feed
    CHECK(filtered("\xe0\x80\x8a") == "???");       // another one
    CHECK(filtered("\xed\xa0\x80") == "???");       // a surrogate
    CHECK(filtered("\xf4\x90\x80\x80") == "????");  // beyond U+10FFFF
    CHECK(filtered("\xff\xfe") == "??");
    CHECK(filtered("\xe2\x82"
                   "A") == "?A");  // broken off
    CHECK(filtered("\xe2\x82\x1b[1mA") == "?A");
}

TEST_CASE("what only looks stays when asked for", "[monitor]") {
    constexpr auto kLooks = TextFilter::Escapes::keep_looks;
    CHECK(filtered("\x1b[1;31mred\x1b[m\x1b[K\b", kLooks) == "\x1b[1;31mred\x1b[m\x1b[K\b");
    // Queries, which the terminal would answer by typing, and what it would remember.
    CHECK(filtered("\x1b[6n\x1b[c\x1b[?1049h\x1b[5;10r\x1b]0;t\ax\x1b"
                   "c",
                   kLooks) == "x");
}

TEST_CASE("a sequence with endless parameters is dropped and overruns nothing", "[monitor]") {
    constexpr auto kLooks = TextFilter::Escapes::keep_looks;
    CHECK(filtered("\x1b[" + std::string(10000, '1') + "mx", kLooks) == "x");
    const std::string longest = "\x1b[" + std::string(TextFilter::kSequenceSize - 3, '1') + "m";
    CHECK(filtered("\xe2" + longest, kLooks) == "?" + longest);
    CHECK(filtered("\x1b[1" + longest.substr(2), kLooks).empty());
}
