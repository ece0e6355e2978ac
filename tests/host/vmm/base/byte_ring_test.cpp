// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/base/byte_ring.hpp"

#include <deque>
#include <random>
#include <vector>

using namespace hv;

TEST_CASE("a ring of bytes gives back what was put in, in its order, as far as it has room", "[base]") {
    std::mt19937 random{1};
    ByteRing<13> ring;
    std::deque<std::byte> model;
    unsigned next = 0;
    for (unsigned step = 0; step < 10'000; ++step) {
        std::vector<std::byte> bytes(random() % 17);
        if (random() % 2 == 0) {
            for (std::byte& byte : bytes)
                byte = static_cast<std::byte>(++next);
            const std::size_t put = ring.put(bytes);
            CHECK(put == std::min(bytes.size(), 13 - model.size()));
            model.insert(model.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(put));
        } else {
            const std::size_t taken = ring.take(bytes);
            REQUIRE(taken == std::min(bytes.size(), model.size()));
            for (std::size_t i = 0; i < taken; ++i) {
                REQUIRE(bytes[i] == model.front());
                model.pop_front();
            }
        }
        REQUIRE(ring.size() == model.size());
        REQUIRE(ring.room() == 13 - model.size());
        REQUIRE(ring.empty() == model.empty());
    }
    ring.clear();
    CHECK(ring.room() == 13);
}
