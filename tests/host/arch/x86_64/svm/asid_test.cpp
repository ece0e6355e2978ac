// SPDX-License-Identifier: MIT
#include "arch/x86_64/svm/asid.hpp"
#include "catch.hpp"

#include <set>
#include <utility>

using namespace hv::svm;

TEST_CASE("no ASID is dealt out twice without a flush in between, and 0 stays the host's", "[svm]") {
    for (const std::uint32_t count : {2U, 3U, 16U}) {
        AsidPool pool;
        pool.init(count);
        std::set<std::uint32_t> since_flush;
        std::uint64_t generation = pool.generation();
        for (unsigned i = 0; i < 100; ++i) {
            const Asid asid = pool.next();
            CHECK(asid.value != 0);
            CHECK(asid.value < count);
            CHECK(asid.flush_all == (asid.generation != generation));
            if (i == 0)
                CHECK(asid.flush_all);
            if (asid.flush_all)
                since_flush.clear();
            CHECK(since_flush.insert(asid.value).second);
            generation = asid.generation;
            CHECK(pool.generation() == generation);
        }
    }
}
