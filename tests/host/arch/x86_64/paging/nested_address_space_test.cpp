// SPDX-License-Identifier: MIT
#include "arch/x86_64/paging/nested_address_space.hpp"
#include "arch/x86_64/paging/npt_format.hpp"
#include "catch.hpp"

#include <set>

using namespace hv;
using namespace hv::paging;

namespace {

class BumpFrames final : public FrameSource {
public:
    Expected<Hpa> allocate(unsigned order) override {
        if (left_ == 0)
            return Unexpected{Error::no_memory};
        --left_;
        const Hpa frame{next_};
        next_ += kPageSize << order;
        std::memset(machine::hva(frame), 0xff, kPageSize << order);
        live.insert(frame);
        return frame;
    }
    void free(Hpa frame, unsigned) override { REQUIRE(live.erase(frame) == 1); }
    void limit(std::size_t frames) { left_ = frames; }

    std::set<Hpa> live;

private:
    std::size_t left_{1000};
    std::uint64_t next_{kMiB};
};

}  // namespace

TEST_CASE("a guest's address space maps, unmaps and translates", "[paging]") {
    BumpFrames frames;
    {
        auto space = NestedAddressSpace<NptFormat>::create(frames, NptFormat{true}).value();
        CHECK(frames.live.contains(Hpa{space->root()}));
        REQUIRE(space->map(Gpa{0}, Hpa{kPage1G}, kPage2M, GuestAccess::read_write_execute));
        CHECK(space->translate(Gpa{0x1234}) == Hpa{kPage1G + 0x1234});
        CHECK(space->table_bytes() == 3 * kPageSize);
        const auto generation = space->generation();
        REQUIRE(space->unmap(Gpa{kPageSize}, kPageSize));
        CHECK(space->generation() > generation);
        CHECK_FALSE(space->translate(Gpa{kPageSize}));
        CHECK(space->table_bytes() == 4 * kPageSize);
    }
    CHECK(frames.live.empty());
}

TEST_CASE("tables out of use are freed once the CPUs have flushed the last generation", "[paging]") {
    BumpFrames frames;
    auto space = NestedAddressSpace<NptFormat>::create(frames, NptFormat{true}).value();
    REQUIRE(space->map(Gpa{0}, Hpa{0}, kPage2M, GuestAccess::read));
    const auto generation = space->generation();
    REQUIRE(space->unmap(Gpa{0}, kPage2M));
    space->reclaim(generation);
    CHECK(frames.live.size() == 3);
    space->reclaim(space->generation());
    CHECK(frames.live.size() == 1);
}

TEST_CASE("access rights become NPT entries", "[paging]") {
    const NptFormat format{true};
    const auto entry = [&](unsigned level, GuestAccess access) {
        return format.make_leaf(level, Hpa{kPage1G}, NptFormat::attributes_of(access));
    };
    // [apm2 5.4 Page-Translation-Table Entry Fields]: P 0, R/W 1, U/S 2, PS 7, NX 63
    CHECK(entry(1, GuestAccess::read) == 0x8000'0000'4000'0005);
    CHECK(entry(1, GuestAccess::read_write_execute) == 0x4000'0007);
    CHECK(entry(2, GuestAccess::read_execute) == 0x4000'0085);
    CHECK(format.make_table(Hpa{0x1000}) == 0x1007);
}

TEST_CASE("an address space that finds no memory says so", "[paging]") {
    BumpFrames frames;
    frames.limit(0);
    CHECK(NestedAddressSpace<NptFormat>::create(frames, NptFormat{true}).error() == Error::no_memory);
    frames.limit(2);
    auto space = NestedAddressSpace<NptFormat>::create(frames, NptFormat{true}).value();
    CHECK(space->map(Gpa{0}, Hpa{0}, kPageSize, GuestAccess::read).error() == Error::no_memory);
    CHECK_FALSE(space->translate(Gpa{0}));
}
