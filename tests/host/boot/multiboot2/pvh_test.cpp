// SPDX-License-Identifier: MIT
#include "boot/multiboot2/physical.hpp"
#include "boot/multiboot2/pvh.hpp"
#include "catch.hpp"
#include "fakes/bytes_builder.hpp"

#include <memory>
#include <string>

using namespace hv;
using namespace hv::boot;
using fake::BytesBuilder;

namespace {

constexpr Hpa kAt{0x6000};

/// The start info at kAt; the lists are placed by the test at kAt + 0x40 and above.
BytesBuilder start_info(std::uint32_t version, std::uint32_t modules, std::uint32_t ranges) {
    return BytesBuilder{}
        .u32(pvh::kStartMagic)
        .u32(version)
        .u32(0)
        .u32(modules)
        .u64(kAt.raw + 0x40)
        .u64(kAt.raw + 0x100)
        .u64(kAt.raw + 0x180)
        .u64(kAt.raw + 0x80)
        .u32(ranges)
        .u32(0)
        .fill_to(0x40);
}

std::unique_ptr<BootInfo> parsed(const BytesBuilder& bytes) {
    auto out = std::make_unique<BootInfo>();
    REQUIRE(pvh::parse(kAt, FakePhysical{kAt, bytes.span()}, *out).has_value());
    return out;
}

BytesBuilder complete(std::uint32_t version) {
    auto bytes = start_info(version, 1, 2);
    bytes.u64(0x80'0000).u64(0x321).u64(0).u64(0).fill_to(0x80);
    bytes.u64(0).u64(0x1000).u32(1).u32(0).u64(0x1000).u64(0x1000).u32(2).u32(0).fill_to(0x100);
    bytes.text("log=debug").fill_to(0x180).text("RSD PTR ").fill_to(0x1000);
    return bytes;
}

}  // namespace

TEST_CASE("start info yields modules, memory map, command line and RSDP", "[multiboot2]") {
    const auto info = parsed(complete(1));
    CHECK(info->protocol == BootInfo::Protocol::pvh);
    CHECK(info->command_line == "log=debug");
    REQUIRE(info->modules.size() == 1);
    CHECK(info->modules[0].start == Hpa{0x80'0000});
    CHECK(info->modules[0].length == 0x321);
    CHECK(info->modules[0].name().empty());
    REQUIRE(info->memory.size() == 2);
    CHECK(info->memory[1].type == MemoryType::reserved);
    CHECK(info->rsdp().size() == 20);
}

TEST_CASE("the RSDP's second part is read where its revision has one", "[multiboot2]") {
    auto bytes = complete(1);
    bytes.patch(0x180 + 15, std::uint8_t{2});
    CHECK(parsed(bytes)->rsdp().size() == 36);
}

TEST_CASE("version 0 has no memory map", "[multiboot2]") {
    CHECK(parsed(complete(0))->memory.empty());
}

TEST_CASE("lists and strings that cannot be reached are left out", "[multiboot2]") {
    const auto info = parsed(start_info(1, 1000, 0xffff'ffff));
    CHECK(info->modules.empty());
    CHECK(info->memory.empty());
    CHECK(info->command_line.empty());
    CHECK(info->rsdp().empty());
}

TEST_CASE("a string may cross pages, one without an end is left out", "[multiboot2]") {
    auto bytes = start_info(1, 0, 0);
    bytes.patch(24, std::uint64_t{kAt.raw + 0xff0});  // the command line's address
    bytes.fill_to(0xff0).text("this text crosses a page").fill_to(0x2000);
    CHECK(parsed(bytes)->command_line == "this text crosses a page");
    bytes.fill_to(0x1008);
    bytes.bytes().resize(0xff0);
    bytes.fill_to(0x4000, std::byte{'x'});
    CHECK(parsed(bytes)->command_line.empty());
}

TEST_CASE("anything but start info is refused", "[multiboot2]") {
    auto out = std::make_unique<BootInfo>();
    auto bytes = complete(1);
    bytes.patch(0, std::uint32_t{0x1badb002});
    CHECK_FALSE(pvh::parse(kAt, FakePhysical{kAt, bytes.span()}, *out).has_value());
    CHECK_FALSE(pvh::parse(Hpa{0x10}, FakePhysical{kAt, bytes.span()}, *out).has_value());
}
