// SPDX-License-Identifier: MIT
#include "vmm/loader/loader_fixture.hpp"

using namespace hv;
using namespace hv::loader;

namespace {

std::string header(std::uint32_t flags, std::initializer_list<std::uint32_t> addresses = {}) {
    fake::BytesBuilder bytes;
    bytes.u32(0x1bad'b002).u32(flags).u32(0 - 0x1bad'b002U - flags);
    for (const std::uint32_t address : addresses)
        bytes.u32(address);
    return {reinterpret_cast<const char*>(bytes.span().data()), bytes.size()};
}

std::vector<std::byte> bytes_of(std::string_view text) {
    const auto bytes = std::as_bytes(std::span{text});
    return {bytes.begin(), bytes.end()};
}

LoadRequest request_for(std::span<const std::byte> kernel) {
    LoadRequest request;
    request.vm_name = "test";
    request.protocol = BootProtocol::multiboot;
    request.kernel = kernel;
    return request;
}

Error error_of(const std::vector<std::byte>& kernel) {
    Guest guest;
    const auto state = load(request_for(kernel), guest.memory);
    REQUIRE_FALSE(state.has_value());
    return state.error();
}

}  // namespace

TEST_CASE("a Multiboot ELF of either class finds its information", "[loader]") {
    for (const bool is_64 : {true, false}) {
        const auto kernel = ElfBuilder{is_64}.entry(0x10'0010).load(0x10'0000, header(3) + "code").build();
        const auto extra = bytes_of("module bytes");
        const BootModule modules[] = {{extra, "name args"}};
        auto request = request_for(kernel);
        request.modules = modules;
        request.command_line = "a b";
        Guest guest;
        const auto state = load(request, guest.memory);
        REQUIRE(state.has_value());
        check_protected_mode(guest, *state);
        CHECK(state->regs.rip == 0x10'0010);
        CHECK(state->regs.gpr[RAX] == 0x2bad'b002);

        const std::uint64_t info = state->regs.gpr[RBX];
        CHECK(guest.get<std::uint32_t>(info) == (1U | 4U | 8U | 64U | 512U));
        CHECK(guest.get<std::uint32_t>(info + 4) == 639);
        CHECK(guest.get<std::uint32_t>(info + 8) == 63 * 1024);
        CHECK(guest.text(guest.get<std::uint32_t>(info + 16)) == "a b");
        CHECK(guest.text(guest.get<std::uint32_t>(info + 64)) == "Cairn");
        REQUIRE(guest.get<std::uint32_t>(info + 20) == 1);
        const auto list = guest.get<std::uint32_t>(info + 24);
        const auto start = guest.get<std::uint32_t>(list);
        CHECK(start % kPageSize == 0);
        CHECK(guest.get<std::uint32_t>(list + 4) - start == extra.size());
        CHECK(guest.bytes(start, extra.size()) == extra);
        CHECK(guest.text(guest.get<std::uint32_t>(list + 8)) == "name args");

        CHECK(guest.get<std::uint32_t>(info + 44) == 5 * 24);
        const auto map = guest.get<std::uint32_t>(info + 48);
        CHECK(guest.get<std::uint32_t>(map) == 20);
        CHECK(guest.get<std::uint64_t>(map + 4) == 0);
        CHECK(guest.get<std::uint64_t>(map + 12) == 0x9'fc00);
        CHECK(guest.get<std::uint32_t>(map + 20) == 1);
        CHECK(guest.get<std::uint64_t>(map + 3 * 24 + 4) == kMiB);
    }
}

TEST_CASE("a virtual entry point is started at its physical address", "[loader]") {
    const auto kernel = ElfBuilder{false}
                            .entry(0xc010'0020)
                            .segment({kPtLoad, 0xc010'0000, 0x10'0000, 0x100, bytes_of(header(0) + "code")})
                            .build();
    Guest guest;
    const auto state = load(request_for(kernel), guest.memory);
    REQUIRE(state.has_value());
    CHECK(state->regs.rip == 0x10'0020);
}

TEST_CASE("a header with addresses needs no ELF", "[loader]") {
    // The header 8 bytes into the file, which is loaded whole.
    const std::uint32_t load_at = 0x20'0000;
    auto kernel = bytes_of(
        "8 bytes." + header(1 << 16, {load_at + 8, load_at, 0, load_at + 0x1000, load_at + 40}) + "code");
    Guest guest;
    const auto state = load(request_for(kernel), guest.memory);
    REQUIRE(state.has_value());
    CHECK(state->regs.rip == load_at + 40);
    CHECK(guest.bytes(load_at, kernel.size()) == kernel);
    // A part of it.
    kernel =
        bytes_of("8 bytes." + header(1 << 16, {load_at, load_at, load_at + 34, 0, load_at + 4}) + "code");
    Guest other;
    REQUIRE(load(request_for(kernel), other.memory).has_value());
    CHECK(other.get<std::uint32_t>(load_at) == 0x1bad'b002);
    CHECK(other.bytes(load_at + 32, 4) == bytes_of(std::string_view{"co\0\0", 4}));
}

TEST_CASE("modules follow the kernel page by page, the initrd first", "[loader]") {
    const auto kernel =
        ElfBuilder{false}.entry(0x20'0010).load(0x20'0000, header(1) + "code", 0x1234).build();
    const auto first = bytes_of(std::string(5000, 'a'));
    const auto second = bytes_of("b");
    const BootModule modules[] = {{second, "second x=1"}};
    auto request = request_for(kernel);
    request.initrd = first;
    request.initrd_name = "first";
    request.modules = modules;
    Guest guest;
    const auto state = load(request, guest.memory);
    REQUIRE(state.has_value());
    const std::uint64_t info = state->regs.gpr[RBX];
    REQUIRE(guest.get<std::uint32_t>(info + 20) == 2);
    const auto list = guest.get<std::uint32_t>(info + 24);
    CHECK(guest.get<std::uint32_t>(list) == 0x20'2000);
    CHECK(guest.get<std::uint32_t>(list + 4) == 0x20'2000 + 5000);
    CHECK(guest.text(guest.get<std::uint32_t>(list + 8)) == "first");
    CHECK(guest.get<std::uint32_t>(list + 16) == 0x20'4000);
    CHECK(guest.text(guest.get<std::uint32_t>(list + 24)) == "second x=1");
    CHECK(guest.bytes(0x20'2000, 5000) == first);
    const std::vector<std::byte> large(63 * kMiB);
    request.initrd = large;
    CHECK(load(request, guest.memory).error() == Error::out_of_range);
}

TEST_CASE("a Multiboot ELF gets its section headers and symbols", "[loader]") {
    for (const bool is_64 : {true, false}) {
        auto kernel = ElfBuilder{is_64}.entry(0x10'0010).load(0x10'0000, header(0) + "code").build();
        const std::size_t symbols = kernel.size();
        kernel.resize(symbols + 40, std::byte{0x5a});
        const std::size_t table = kernel.size();
        const std::size_t size = is_64 ? 64 : 40;
        const std::size_t word = is_64 ? 8 : 4;
        kernel.resize(table + 3 * size);
        const auto set = [&](std::size_t at, std::uint64_t value, std::size_t bytes) {
            std::memcpy(kernel.data() + at, &value, bytes);
        };
        // Section 1 is loaded by the segment, section 2 is the symbol table.
        const std::size_t address = is_64 ? 16 : 12;
        set(table + size + 4, 1, 4);
        set(table + size + address, 0x10'0000, word);
        set(table + size + address + 2 * word, 4, word);
        set(table + 2 * size + 4, 2, 4);
        set(table + 2 * size + address + word, symbols, word);
        set(table + 2 * size + address + 2 * word, 40, word);
        set(is_64 ? 40 : 32, table, word);
        set(is_64 ? 58 : 46, size, 2);
        set(is_64 ? 60 : 48, 3, 2);
        set(is_64 ? 62 : 50, 2, 2);
        Guest guest;
        const auto state = load(request_for(kernel), guest.memory);
        REQUIRE(state.has_value());
        const std::uint64_t info = state->regs.gpr[RBX];
        REQUIRE((guest.get<std::uint32_t>(info) & (1U << 5)) != 0);
        CHECK(guest.get<std::uint32_t>(info + 28) == 3);
        CHECK(guest.get<std::uint32_t>(info + 32) == size);
        CHECK(guest.get<std::uint32_t>(info + 40) == 2);
        const auto at = guest.get<std::uint32_t>(info + 36);
        CHECK(guest.get<std::uint32_t>(at + size + address) == 0x10'0000);
        const auto place = guest.get<std::uint32_t>(at + 2 * size + address);
        CHECK(place >= kMiB);
        CHECK(guest.bytes(place, 40) == std::vector<std::byte>(40, std::byte{0x5a}));
        // Symbols beyond the file's end: the kernel starts without any.
        set(table + 2 * size + address + 2 * word, 4000, word);
        Guest other;
        const auto bare = load(request_for(kernel), other.memory);
        REQUIRE(bare.has_value());
        CHECK((other.get<std::uint32_t>(bare->regs.gpr[RBX]) & (1U << 5)) == 0);
    }
}

TEST_CASE("what Multiboot does not allow is refused", "[loader]") {
    const auto kludge = [](std::initializer_list<std::uint32_t> addresses) {
        return error_of(bytes_of(header(1 << 16, addresses) + "code"));
    };
    CHECK(error_of(bytes_of("no header")) == Error::unsupported);
    CHECK(error_of(bytes_of(std::string(8192, ' ') + header(0))) == Error::unsupported);
    CHECK(error_of(bytes_of(header(1 << 3) + "x")) == Error::unsupported);
    CHECK(error_of(bytes_of(header(0) + "no ELF")) == Error::unsupported);
    CHECK(error_of(bytes_of(header(1 << 16))) == Error::corrupted);
    CHECK(kludge({0x10'0000, 0x10'0010, 0, 0, 0}) == Error::corrupted);  // header before its file
    CHECK(kludge({0x10'0010, 0x10'0000, 0, 0, 0}) == Error::corrupted);  // load address before the file
    CHECK(kludge({0x10'0000, 0x10'0000, 0x10'1000, 0, 0}) == Error::corrupted);  // more than the file
    CHECK(kludge({0x10'0000, 0x10'0000, 0xf'ffff, 0, 0}) == Error::corrupted);   // ends before it starts
    CHECK(kludge({0x10'0000, 0x10'0000, 0, 0xffff'ffff, 0}) == Error::out_of_range);
    CHECK(kludge({0x10'0000, 0x10'0000, 0, 0, 0xf'ffff}) == Error::corrupted);  // entry outside
    CHECK(kludge({0x10'0000, 0x10'0000, 0x10'0010, 0, 0x10'0010}) == Error::corrupted);
    CHECK(kludge({0xe'0000, 0xe'0000, 0, 0, 0}) == Error::out_of_range);
}
