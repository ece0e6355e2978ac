// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/monitor/text_ring.hpp"

#include <array>
#include <string>

using hv::TextRing;

namespace {

struct Ring {
    std::array<char, 4096> buffer{};
    TextRing ring{buffer};

    std::string take_all() {
        std::string out;
        while (ring.waiting() > 0)
            out += ring.take();
        return out;
    }
};

std::string numbered(unsigned from, unsigned to) {
    std::string out;
    for (unsigned i = from; i < to; ++i)
        out += "line " + std::to_string(10000 + i) + "\n";
    return out;
}

}  // namespace

TEST_CASE("what is not watched does not wait", "[monitor]") {
    Ring r;
    r.ring.append("before");
    CHECK(r.ring.waiting() == 0);
    r.ring.watch(true);
    r.ring.append("after");
    CHECK(r.take_all() == "after");
    r.ring.append("x");
    r.ring.watch(false);
    CHECK(r.ring.waiting() == 0);
    r.ring.append(std::string(10000, 'y'));
    CHECK(r.ring.take_lost() == 0);
}

TEST_CASE("a rewind shows again what was said last, from a line's start on", "[monitor]") {
    Ring r;
    r.ring.append("one\ntwo\nthree");
    r.ring.watch(true);
    r.ring.rewind(1000);
    CHECK(r.take_all() == "one\ntwo\nthree");
    r.ring.rewind(8);
    CHECK(r.take_all() == "three");
    r.ring.append("\n" + numbered(0, 1000));
    r.take_all();
    r.ring.rewind(100000);
    const std::string all = numbered(0, 1000);
    const std::size_t line = all.find('\n', all.size() - 4096) + 1;
    CHECK(r.take_all() == all.substr(line));
}

TEST_CASE("an overflow gives up the older half by whole lines and counts it", "[monitor]") {
    Ring r;
    r.ring.watch(true);
    const std::string all = numbered(0, 1000);
    r.ring.append(all);
    const std::uint64_t lost = r.ring.take_lost();
    CHECK(lost > 0);
    CHECK(r.ring.take_lost() == 0);
    const std::string rest = r.take_all();
    CHECK(rest.size() + lost == all.size());
    CHECK(rest == all.substr(lost));
    CHECK(rest.starts_with("line "));
    CHECK(rest.size() >= 4096 / 2 - 11);
}

TEST_CASE("an overflow without line ends keeps half", "[monitor]") {
    Ring r;
    r.ring.watch(true);
    r.ring.append(std::string(4096, 'x'));
    CHECK(r.ring.take_lost() == 0);
    r.ring.append('y');
    CHECK(r.ring.take_lost() == 2048);
    CHECK(r.take_all() == std::string(2048, 'x') + "y");
}
