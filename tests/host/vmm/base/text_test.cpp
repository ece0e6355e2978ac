// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/base/text.hpp"

namespace {

template <class... Args>
std::string text(const char* format, Args... args) {
    char buffer[64];
    return std::string{hv::format_into(buffer, format, args...)};
}

}  // namespace

TEST_CASE("conversions print as printf's do", "[base]") {
    CHECK(text("%d|%5d|%-5d|%05d", -3, 42, 42, -42) == "-3|   42|42   |-0042");
    CHECK(text("%u %x %X", 1u, 0xbeefu, 0xbeefu) == "1 beef BEEF");
    CHECK(text("%lu %llx", ~0ul, ~0ull) == "18446744073709551615 ffffffffffffffff");
    CHECK(text("%hhu %zu", 0x1ff, std::size_t{7}) == "255 7");
    CHECK(text("%s|%6s|%-6s|%.2s|%.*s", "ab", "ab", "ab", "abc", 1, "xyz") == "ab|    ab|ab    |ab|x");
    CHECK(text("%c%%", 'z') == "z%");
    CHECK(text("%ld", std::int64_t{INT64_MIN}) == "-9223372036854775808");
}

TEST_CASE("a part of a text is printed with its width", "[base]") {
    const std::string_view part = std::string_view{"nvme0: gone"}.substr(0, 5);
    CHECK(text("%.*s|", hv::width(part), part.data()) == "nvme0|");
    CHECK(text("%.*s|", hv::width({}), "nothing") == "|");
}

TEST_CASE("text that does not fit is cut off", "[base]") {
    char buffer[4];
    CHECK(hv::format_into(buffer, "%s", "abcdef") == "abcd");
    hv::TextBuffer<5> built;
    built.append("abc");
    built.append("%d", 1234);
    CHECK(built.view() == "abc12");
}
