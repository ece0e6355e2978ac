// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/sched/entitlement.hpp"

#include <vector>

using namespace hv;

namespace {

std::vector<std::uint64_t> entitlements(const std::vector<Claim>& claims, std::uint64_t capacity) {
    std::vector<std::uint64_t> parts;
    for (const Claim& own : claims)
        parts.push_back(entitlement(
            own, claims.size(), [&](std::size_t index) { return claims[index]; }, capacity));
    return parts;
}

using Parts = std::vector<std::uint64_t>;

}  // namespace

TEST_CASE("a capacity is divided by weight", "[sched]") {
    CHECK(entitlements({{100, 1000}, {300, 1000}}, 1000) == Parts{250, 750});
    CHECK(entitlements({{1, 1000}, {1, 1000}, {2, 1000}, {0, 0}}, 1000) == Parts{250, 250, 500, 0});
    CHECK(entitlements({}, 1000).empty());
}

TEST_CASE("what one may not have, the others get", "[sched]") {
    CHECK(entitlements({{100, 200}, {100, 1000}, {200, 1000}}, 1100) == Parts{200, 300, 600});
    // The first one's rest lifts the second one over what it may have, and so on.
    CHECK(entitlements({{100, 100}, {100, 350}, {100, 1000}}, 1000) == Parts{100, 350, 550});
    CHECK(entitlements({{10'000, 5}, {1, 2000}}, 1000) == Parts{5, 995});
}

TEST_CASE("nobody gets more than he may have, even if capacity is left", "[sched]") {
    CHECK(entitlements({{100, 300}, {1, 200}}, 1000) == Parts{300, 200});
    CHECK(entitlements({{100, 0}}, 1000) == Parts{0});
}
