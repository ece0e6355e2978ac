// SPDX-License-Identifier: MIT
#include "boot/multiboot2/multiboot2.hpp"
#include "boot/multiboot2/physical.hpp"
#include "catch.hpp"
#include "fakes/bytes_builder.hpp"

#include <memory>

using namespace hv;
using namespace hv::boot;
using fake::BytesBuilder;

namespace {

constexpr Hpa kAt{0x9000};

class InfoBuilder {
public:
    InfoBuilder() { bytes_.u32(0).u32(0); }
    InfoBuilder& tag(std::uint32_t type, const BytesBuilder& payload) {
        bytes_.u32(type).u32(8 + payload.size()).append(payload.span()).align(8);
        return *this;
    }
    BytesBuilder& raw() { return bytes_; }
    FakePhysical finish() {
        bytes_.u32(0).u32(8);
        bytes_.patch(0, static_cast<std::uint32_t>(bytes_.size()));
        return {kAt, bytes_.span()};
    }

private:
    BytesBuilder bytes_;
};

std::unique_ptr<BootInfo> parsed(const FakePhysical& memory) {
    auto out = std::make_unique<BootInfo>();
    REQUIRE(multiboot2::parse(kAt, memory, *out).has_value());
    return out;
}

}  // namespace

TEST_CASE("every tag that says something is taken over", "[multiboot2]") {
    InfoBuilder builder;
    builder.tag(1, BytesBuilder{}.text("log=debug").u8(0))
        .tag(2, BytesBuilder{}.text("GRUB 2.06").u8(0))
        .tag(3, BytesBuilder{}.u32(0x20'0000).u32(0x20'1234).text("/a/config.toml x").u8(0))
        .tag(6, BytesBuilder{}
                    .u32(24)
                    .u32(0)
                    .u64(0)
                    .u64(0x9'fc00)
                    .u32(1)
                    .u32(0)
                    .u64(0x10'0000)
                    .u64(0x1000)
                    .u32(5)
                    .u32(0))
        .tag(8, BytesBuilder{}
                    .u64(0xfd00'0000)
                    .u32(4096)
                    .u32(1024)
                    .u32(768)
                    .u8(32)
                    .u8(1)
                    .u16(0)
                    .u8(16)
                    .u8(8)
                    .u8(8)
                    .u8(8)
                    .u8(0)
                    .u8(8))
        .tag(14, BytesBuilder{}.text("RSD PTR ").fill_to(20))
        .tag(15, BytesBuilder{}.text("RSD PTR ").fill_to(36, std::byte{2}))
        .tag(18, BytesBuilder{})
        .tag(4711, BytesBuilder{}.u32(1));
    const auto info = parsed(builder.finish());
    CHECK(info->protocol == BootInfo::Protocol::multiboot2);
    CHECK(info->command_line == "log=debug");
    CHECK(info->loader_name == "GRUB 2.06");
    REQUIRE(info->modules.size() == 1);
    CHECK(info->modules[0].name() == "config.toml");
    CHECK(info->modules[0].start == Hpa{0x20'0000});
    CHECK(info->modules[0].length == 0x1234);
    REQUIRE(info->memory.size() == 2);
    CHECK(info->memory[0].end() == Hpa{0x9'fc00});
    CHECK(info->memory[1].type == MemoryType::bad);
    CHECK(info->rsdp().size() == 36);
    CHECK(info->boot_services_active);
    REQUIRE(info->framebuffer);
    CHECK(info->framebuffer->width == 1024);
    CHECK(info->framebuffer->red.position == 16);
}

TEST_CASE("the EFI memory map counts only where there is no other", "[multiboot2]") {
    const auto efi = BytesBuilder{}
                         .u32(48)
                         .u32(1)
                         .u32(7)
                         .u32(0)
                         .u64(0x10'0000)
                         .u64(0)
                         .u64(2)
                         .u64(0xf)
                         .u64(0)
                         .u32(5)
                         .u32(0)
                         .u64(0x10'2000)
                         .u64(0)
                         .u64(1)
                         .u64(0xf)
                         .u64(0)
                         .u32(7)
                         .u32(0)
                         .u64(0)
                         .u64(0)
                         .u64(~std::uint64_t{0})
                         .u64(0xf)
                         .u64(0);
    const auto alone = parsed(InfoBuilder{}.tag(17, efi).finish());
    REQUIRE(alone->memory.size() == 2);
    CHECK(alone->memory[0].length == 0x2000);
    CHECK(alone->memory[1].type == MemoryType::reserved);
    const auto both = parsed(InfoBuilder{}
                                 .tag(17, efi)
                                 .tag(6, BytesBuilder{}.u32(24).u32(0).u64(0).u64(0x1000).u32(1).u32(0))
                                 .finish());
    REQUIRE(both->memory.size() == 1);
    CHECK(both->memory[0].start == Hpa{0});
}

TEST_CASE("memory map entries may be longer than those we know", "[multiboot2]") {
    const auto info = parsed(InfoBuilder{}
                                 .tag(6, BytesBuilder{}
                                             .u32(32)
                                             .u32(1)
                                             .u64(0)
                                             .u64(0x1000)
                                             .u32(1)
                                             .u32(0)
                                             .u64(9)
                                             .u64(0x1000)
                                             .u64(0x1000)
                                             .u32(2)
                                             .u32(0)
                                             .u64(9))
                                 .finish());
    CHECK(info->memory.size() == 2);
}

TEST_CASE("a malformed tag is skipped and the next one read", "[multiboot2]") {
    InfoBuilder builder;
    builder
        .tag(3, BytesBuilder{}.u32(0x2000))                        // too short
        .tag(3, BytesBuilder{}.u32(0x3000).u32(0x2000).text("x"))  // ends before it starts
        .tag(6, BytesBuilder{}.u32(0).u32(0).u64(0))               // entries of no size
        .tag(8, BytesBuilder{}.u64(1))
        .tag(14, BytesBuilder{}.u32(1))
        .tag(1, BytesBuilder{}.text("unterminated"));
    const auto info = parsed(builder.finish());
    CHECK(info->modules.empty());
    CHECK(info->memory.empty());
    CHECK_FALSE(info->framebuffer);
    CHECK(info->rsdp().empty());
    CHECK(info->command_line == "unterminated");
}

TEST_CASE("a tag whose size cannot be ends the walk, keeping what came before", "[multiboot2]") {
    for (const std::uint32_t size : {0U, 7U, 0x1000U, 0xffff'ffffU}) {
        InfoBuilder builder;
        builder.tag(1, BytesBuilder{}.text("kept").u8(0));
        builder.raw().u32(3).u32(size);
        const auto info = parsed(builder.finish());
        CHECK(info->command_line == "kept");
        CHECK(info->modules.empty());
    }
}

TEST_CASE("what is no boot information is refused", "[multiboot2]") {
    auto out = std::make_unique<BootInfo>();
    const auto parse = [&](std::uint32_t size, std::size_t present) {
        const FakePhysical memory{kAt, BytesBuilder{}.u32(size).u32(0).fill_to(present).span()};
        return multiboot2::parse(kAt, memory, *out).has_value();
    };
    CHECK_FALSE(parse(0, 16));
    CHECK_FALSE(parse(8, 16));
    CHECK_FALSE(parse(64, 32));
    CHECK_FALSE(parse(0x4000'0000, 32));
    CHECK_FALSE(multiboot2::parse(Hpa{0x1}, FakePhysical{kAt, {}}, *out).has_value());
    CHECK(out->protocol == BootInfo::Protocol::none);
}
