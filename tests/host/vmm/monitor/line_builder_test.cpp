// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/monitor/line_builder.hpp"

#include <string>
#include <vector>

using hv::LineBuilder;
using Lines = std::vector<std::string>;

namespace {

Lines lines_of(std::string_view text) {
    LineBuilder builder;
    Lines lines;
    const auto add = [&](std::string_view line) { lines.emplace_back(line); };
    builder.add(text, add);
    builder.finish(add);
    return lines;
}

}  // namespace

TEST_CASE("lines end with LF, with any CRs around it", "[monitor]") {
    CHECK(lines_of("a\nb\n") == Lines{"a", "b"});
    CHECK(lines_of("a\r\nb\r\r\n") == Lines{"a", "b"});
    CHECK(lines_of("a\n\rb\n\r") == Lines{"a", "b"});
    CHECK(lines_of("a\n\nb") == Lines{"a", "", "b"});
}

TEST_CASE("a CR in the middle ends the line, as what follows would overwrite it", "[monitor]") {
    CHECK(lines_of("10%\r20%\r30%\n") == Lines{"10%", "20%", "30%"});
    CHECK(lines_of("x\r[cairn] power off: ok\n") == Lines{"x", "[cairn] power off: ok"});
    CHECK(lines_of("\r\r\rx\n") == Lines{"x"});
}

TEST_CASE("a partial line waits for its end or for finish()", "[monitor]") {
    LineBuilder builder;
    Lines lines;
    const auto add = [&](std::string_view line) { lines.emplace_back(line); };
    builder.add("log", add);
    builder.add("in: \x1b[", add);
    CHECK(lines.empty());
    builder.finish(add);
    CHECK(lines == Lines{"login: "});
    builder.finish(add);
    CHECK(lines.size() == 1);
    builder.add("1mroot\n", add);
    CHECK(lines == Lines{"login: ", "root"});
}

TEST_CASE("a long line becomes several, never within a character", "[monitor]") {
    const std::string full(LineBuilder::kSize, 'x');
    CHECK(lines_of(full + "y\n") == Lines{full, "y"});
    CHECK(lines_of(full + "\n") == Lines{full});
    CHECK(lines_of(full.substr(1) + "\xe2\x82\xac\n") == Lines{full.substr(1), "\xe2\x82\xac"});
}
