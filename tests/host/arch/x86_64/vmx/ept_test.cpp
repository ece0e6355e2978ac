// SPDX-License-Identifier: MIT
#include "arch/x86_64/vmx/ept.hpp"
#include "arch/x86_64/vmx/fake_machine.hpp"
#include "catch.hpp"

using namespace hv;
using namespace hv::vmx;
using namespace hv::vmx::test;

namespace {
constexpr std::uint64_t kAllPages = 0x0f01'0633'4141;
}

TEST_CASE("EPT entries are encoded as the SDM's tables show", "[vmx]") {
    constexpr EptFormat format{kAllPages};
    const auto entry = [&](unsigned level, GuestAccess access) {
        return format.make_leaf(level, Hpa{0x4000'0000}, EptFormat::attributes_of(access));
    };
    // R 0, W 1, X 2, memory type 5:3 = 6 (WB), ignore PAT 6, large 7
    CHECK(entry(1, GuestAccess::read) == 0x4000'0071);
    CHECK(entry(1, GuestAccess::read_write_execute) == 0x4000'0077);
    CHECK(entry(2, GuestAccess::read_execute) == 0x4000'00f5);
    CHECK(entry(3, GuestAccess::read_write_execute) == 0x4000'00f7);
    CHECK(format.make_table(Hpa{0x1000}) == 0x1007);
    // Write without read would be an EPT misconfiguration.
    CHECK(entry(1, GuestAccess::write) == 0x4000'0073);
    CHECK(EptFormat::is_leaf(1, entry(1, GuestAccess::read)));
    CHECK(EptFormat::is_leaf(2, entry(2, GuestAccess::read)));
    CHECK_FALSE(EptFormat::is_leaf(2, format.make_table(Hpa{0x1000})));
    CHECK_FALSE(EptFormat::is_present(0));
}

TEST_CASE("the EPT pointer says write-back and four levels", "[vmx]") {
    CHECK(EptFormat{kAllPages}.root(Hpa{0x7000}) == 0x701e);
}

TEST_CASE("leaves are as large as the processor allows", "[vmx]") {
    CHECK(EptFormat{kAllPages}.largest_leaf_level() == 3);
    CHECK(EptFormat{kAllPages & ~EptVpidCap::Page1G::kMask}.largest_leaf_level() == 2);
    CHECK(EptFormat{0}.largest_leaf_level() == 1);
}

TEST_CASE("a guest's address space by EPT maps, translates and changes generation", "[vmx]") {
    FakeFrames frames;
    auto space = EptAddressSpace::create(frames, EptFormat{kAllPages}).value();
    CHECK(frames.live.contains(space->root() & ~std::uint64_t{0xfff}));
    REQUIRE(space->map(Gpa{0}, Hpa{kPage1G}, kPage2M, GuestAccess::read_write_execute));
    CHECK(space->translate(Gpa{0x12'3456}) == Hpa{kPage1G + 0x12'3456});
    CHECK_FALSE(space->translate(Gpa{kPage2M}));
    const auto generation = space->generation();
    REQUIRE(space->unmap(Gpa{0}, kPage2M));
    CHECK(space->generation() > generation);
}
