// SPDX-License-Identifier: MIT
#include "vmm/loader/loader_fixture.hpp"

using namespace hv;
using namespace hv::loader;

namespace {

constexpr std::size_t kSetupSize = 5 * 512;

/// A bzImage by protocol 2.15, 64-bit, relocatable, 4 KiB of kernel that wants 1 MiB at 16 MiB.
fake::BytesBuilder image() {
    fake::BytesBuilder image;
    image.fill_to(kSetupSize + 4096, std::byte{0xcc});
    for (std::size_t i = 0x1f1; i < 0x270; ++i)
        image.patch(i, std::uint8_t{0});
    image.patch(0x1f1, std::uint8_t{4});
    image.patch(0x1fe, std::uint16_t{0xaa55});
    image.patch(0x200, std::uint8_t{0xeb});
    image.patch(0x201, std::uint8_t{0x26c - 0x202});
    image.patch(0x202, std::uint32_t{0x5372'6448});
    image.patch(0x206, std::uint16_t{0x20f});
    image.patch(0x211, std::uint8_t{1});
    image.patch(0x214, std::uint32_t{0x10'0000});
    image.patch(0x22c, std::uint32_t{0x7fff'ffff});
    image.patch(0x230, std::uint32_t{0x20'0000});
    image.patch(0x234, std::uint8_t{1});
    image.patch(0x236, std::uint16_t{1});
    image.patch(0x238, std::uint32_t{2047});
    image.patch(0x258, std::uint64_t{0x100'0000});
    image.patch(0x260, std::uint32_t{0x10'0000});
    image.patch(kSetupSize, std::uint8_t{0x90});
    return image;
}

LoadRequest request_for(const fake::BytesBuilder& kernel) {
    LoadRequest request;
    request.vm_name = "test";
    request.kernel = kernel.span();
    return request;
}

Error error_of(const fake::BytesBuilder& kernel) {
    Guest guest;
    const auto state = load(request_for(kernel), guest.memory);
    REQUIRE_FALSE(state.has_value());
    return state.error();
}

}  // namespace

TEST_CASE("a 64-bit bzImage starts at 0x200 with the zero page in RSI", "[loader]") {
    const auto kernel = image();
    const std::vector<std::byte> initrd(5000, std::byte{0x11});
    auto request = request_for(kernel);
    request.initrd = initrd;
    request.command_line = "root=/dev/vda";
    request.rsdp = Gpa{0xe'0000};
    Guest guest;
    const auto state = load(request, guest.memory);
    REQUIRE(state.has_value());
    CHECK(state->regs.rip == 0x100'0200);
    CHECK(state->regs.rflags == 2);
    CHECK(guest.get<std::uint8_t>(0x100'0000) == 0x90);

    const std::uint64_t zero_page = state->regs.gpr[RSI];
    CHECK(guest.get<std::uint32_t>(zero_page + 0x202) == 0x5372'6448);
    CHECK(guest.get<std::uint8_t>(zero_page + 0x1ef) == 0);
    CHECK(guest.get<std::uint8_t>(zero_page + 0x210) == 0xff);
    CHECK(guest.get<std::uint32_t>(zero_page + 0x214) == 0x100'0000);
    CHECK(guest.get<std::uint64_t>(zero_page + 0x70) == 0xe'0000);
    CHECK(guest.text(guest.get<std::uint32_t>(zero_page + 0x228)) == "root=/dev/vda");
    const auto ramdisk = guest.get<std::uint32_t>(zero_page + 0x218);
    CHECK(ramdisk % kPageSize == 0);
    CHECK(guest.get<std::uint32_t>(zero_page + 0x21c) == 5000);
    CHECK(guest.bytes(ramdisk, 5000) == initrd);
    CHECK(guest.get<std::uint8_t>(zero_page + 0x1e8) == 5);
    CHECK(guest.get<std::uint64_t>(zero_page + 0x2d0 + 60) == kMiB);
    CHECK(guest.get<std::uint64_t>(zero_page + 0x2d0 + 68) == 63 * kMiB);
    CHECK(guest.get<std::uint32_t>(zero_page + 0x2d0 + 76) == 1);
}

TEST_CASE("the 64-bit entry state has the first 4 GiB mapped to themselves", "[loader]") {
    Guest guest;
    const auto state = load(request_for(image()), guest.memory);
    REQUIRE(state.has_value());
    CHECK(state->cpu.cr0 == 0x8000'0011);
    CHECK(state->cpu.cr4 == 0x20);
    CHECK(state->cpu.efer == 0x500);
    CHECK(state->cpu.seg(SegmentName::cs).selector == 0x10);
    CHECK(state->cpu.seg(SegmentName::cs).attributes == 0xa9b);
    CHECK(state->cpu.seg(SegmentName::ds).selector == 0x18);
    CHECK(guest.get<std::uint64_t>(state->cpu.gdtr.base + 0x10) == 0x00af'9b00'0000'ffff);
    CHECK(state->cpu.gdtr.limit == 31);
    for (std::uint64_t address = 0; address < 4 * kGiB; address += 0x1234'5000) {
        const auto pml4e = guest.get<std::uint64_t>(state->cpu.cr3);
        REQUIRE((pml4e & 0xfff) == 3);
        const auto pdpte = guest.get<std::uint64_t>((pml4e & ~0xfffULL) + (address >> 30) * 8);
        REQUIRE((pdpte & 0xfff) == 3);
        const auto pde = guest.get<std::uint64_t>((pdpte & ~0xfffULL) + ((address >> 21) & 511) * 8);
        CHECK(pde == (align_down(address, kPage2M) | 0x83));
    }
    CHECK(guest.get<std::uint64_t>(state->cpu.cr3 + 8) == 0);
}

TEST_CASE("a kernel without a 64-bit entry point starts by the 32-bit protocol", "[loader]") {
    auto kernel = image();
    kernel.patch(0x236, std::uint16_t{0});
    Guest guest;
    const auto state = load(request_for(kernel), guest.memory);
    REQUIRE(state.has_value());
    check_protected_mode(guest, *state);
    CHECK(state->regs.rip == 0x100'0000);
    CHECK(state->cpu.seg(SegmentName::cs).selector == 0x10);
    CHECK(state->cpu.seg(SegmentName::ds).selector == 0x18);
    CHECK(state->regs.gpr[RSI] != 0);
    for (const Gpr zero : {RBP, RDI, RBX})
        CHECK(state->regs.gpr[zero] == 0);
}

TEST_CASE("protocol 2.06 has no preferred address and loads at 1 MiB", "[loader]") {
    auto kernel = image();
    kernel.patch(0x206, std::uint16_t{0x206});
    kernel.patch(0x201, std::uint8_t{0x23c - 0x202});
    kernel.patch(0x234, std::uint8_t{0});
    Guest guest;
    const auto state = load(request_for(kernel), guest.memory);
    REQUIRE(state.has_value());
    CHECK(state->regs.rip == kMiB);
}

TEST_CASE("a relocatable kernel goes above its preferred address, another one does not", "[loader]") {
    auto kernel = image();
    kernel.patch(0x258, std::uint64_t{0xf'0000});  // firmware lies there
    Guest guest{16 * kMiB};
    const auto state = load(request_for(kernel), guest.memory);
    REQUIRE(state.has_value());
    CHECK(state->regs.rip == 0x20'0200);
    kernel.patch(0x234, std::uint8_t{0});
    CHECK(load(request_for(kernel), guest.memory).error() == Error::out_of_range);
    // Below 16 MiB it would only move itself to where there is no memory.
    kernel.patch(0x234, std::uint8_t{1}).patch(0x258, std::uint64_t{0x100'0000});
    CHECK(load(request_for(kernel), guest.memory).error() == Error::out_of_range);
}

TEST_CASE("init_size ends with memory at the latest", "[loader]") {
    auto kernel = image();
    kernel.patch(0x260, std::uint32_t{0x100'0000});
    Guest guest{32 * kMiB};
    CHECK(load(request_for(kernel), guest.memory).has_value());
    kernel.patch(0x260, std::uint32_t{0x100'0001});
    CHECK(load(request_for(kernel), guest.memory).error() == Error::out_of_range);
    kernel.patch(0x258, ~std::uint64_t{0} - 0xfff);
    CHECK(load(request_for(kernel), guest.memory).error() == Error::out_of_range);
}

TEST_CASE("a bzImage takes no modules, and its own setup_data pointer is not handed on", "[loader]") {
    auto kernel = image();
    kernel.patch(0x250, std::uint64_t{0x1234'5678});
    auto request = request_for(kernel);
    Guest guest;
    const auto state = load(request, guest.memory);
    REQUIRE(state.has_value());
    CHECK(guest.get<std::uint64_t>(state->regs.gpr[RSI] + 0x250) == 0);
    const BootModule modules[] = {{kernel.span(), "itself"}};
    request.modules = modules;
    CHECK(load(request, guest.memory).error() == Error::invalid_argument);
}

TEST_CASE("the initrd stays below the address that the kernel names", "[loader]") {
    auto kernel = image();
    kernel.patch(0x22c, std::uint32_t{0x1ff'ffff});
    const std::vector<std::byte> initrd(5000);
    auto request = request_for(kernel);
    request.initrd = initrd;
    Guest guest;
    const auto state = load(request, guest.memory);
    REQUIRE(state.has_value());
    CHECK(guest.get<std::uint32_t>(state->regs.gpr[RSI] + 0x218) == 0x1ff'e000);
    const std::vector<std::byte> large(40 * kMiB);
    request.initrd = large;
    CHECK(load(request, guest.memory).error() == Error::out_of_range);
}

TEST_CASE("command lines beyond what the kernel takes are refused", "[loader]") {
    const auto kernel = image();
    auto request = request_for(kernel);
    Guest guest;
    const std::string line(2048, 'x');
    request.command_line = line;
    CHECK(load(request, guest.memory).error() == Error::invalid_argument);
    request.command_line.remove_prefix(1);
    CHECK(load(request, guest.memory).has_value());
}

TEST_CASE("headers that contradict themselves are refused", "[loader]") {
    CHECK(error_of(image().patch(0x206, std::uint16_t{0x205})) == Error::unsupported);
    CHECK(error_of(image().patch(0x211, std::uint8_t{0})) == Error::unsupported);
    CHECK(error_of(image().patch(0x1f1, std::uint8_t{64})) == Error::corrupted);
    CHECK(error_of(image().patch(0x201, std::uint8_t{0x10})) == Error::corrupted);
    CHECK(error_of(image().patch(0x230, std::uint32_t{0x30'0000})) == Error::corrupted);
    CHECK(error_of(image().patch(0x1fe, std::uint16_t{0})) == Error::unsupported);
    auto cut = image();
    cut.bytes().resize(kSetupSize);
    CHECK(error_of(cut) == Error::corrupted);
}
