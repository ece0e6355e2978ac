// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "drivers/block/nvme_prp.hpp"

#include <array>
#include <vector>

using namespace hv;
using namespace hv::block;

namespace {

constexpr Hpa kList{0x9'0000};

struct Made {
    explicit Made(const std::vector<DmaRun>& runs) {
        list.fill(~std::uint64_t{0});
        prps = nvme::make_prps(runs, list, kList);
    }
    std::array<std::uint64_t, nvme::kPrpListEntries> list{};
    nvme::Prps prps;
};

}  // namespace

TEST_CASE("a page needs one address, two need both, more a list", "[block]") {
    const Made one{{{Hpa{0x1200}, 0x200}}};
    CHECK(one.prps.prp1 == 0x1200);
    CHECK(one.prps.prp2 == 0);
    const Made two{{{Hpa{0x1200}, 0xe00}, {Hpa{0x5000}, 0x1000}}};
    CHECK(two.prps.prp1 == 0x1200);
    CHECK(two.prps.prp2 == 0x5000);
    const Made three{{{Hpa{0x1200}, 0x1e00}, {Hpa{0x5000}, 0x200}}};
    CHECK(three.prps.prp1 == 0x1200);
    CHECK(three.prps.prp2 == kList.raw);
    CHECK(three.list[0] == 0x2000);
    CHECK(three.list[1] == 0x5000);
    CHECK(three.list[2] == ~std::uint64_t{0});
}

TEST_CASE("a page that is named again is listed again", "[block]") {
    const Made twice{{{Hpa{0x1000}, 0x1000}, {Hpa{0x1000}, 0x1000}}};
    CHECK(twice.prps.prp1 == 0x1000);
    CHECK(twice.prps.prp2 == 0x1000);
    // As zeroes are written from one buffer.
    const Made often{{{Hpa{0x1000}, 0x2000}, {Hpa{0x1000}, 0x2000}, {Hpa{0x1000}, 0x1000}}};
    CHECK(often.prps.prp2 == kList.raw);
    CHECK(often.list[0] == 0x2000);
    CHECK(often.list[1] == 0x1000);
    CHECK(often.list[2] == 0x2000);
    CHECK(often.list[3] == 0x1000);
}
