// SPDX-License-Identifier: MIT
#include "vmm/loader/loader_fixture.hpp"

using namespace hv;
using namespace hv::loader;

namespace {

LoadRequest request_for(std::span<const std::byte> kernel) {
    LoadRequest request;
    request.vm_name = "test";
    request.protocol = BootProtocol::pvh;
    request.kernel = kernel;
    return request;
}

Error error_of(const std::vector<std::byte>& kernel, std::uint64_t memory = 64 * kMiB) {
    Guest guest{memory};
    const auto state = load(request_for(kernel), guest.memory);
    REQUIRE_FALSE(state.has_value());
    return state.error();
}

std::vector<std::byte> bytes_of(std::string_view text) {
    const auto bytes = std::as_bytes(std::span{text});
    return {bytes.begin(), bytes.end()};
}

}  // namespace

TEST_CASE("a PVH kernel finds its start info, initrd, modules, map and RSDP", "[loader]") {
    for (const bool is_64 : {true, false}) {
        const auto kernel = ElfBuilder{is_64}
                                .load(0x100'0000, "code")
                                .load(0x120'0000, "data", 0x1000)
                                .pvh_note(0x100'0000)
                                .build();
        const auto initrd = bytes_of("initial ramdisk");
        const auto extra = bytes_of("extra");
        const BootModule modules[] = {{extra, "extra.bin with words"}};
        auto request = request_for(kernel);
        request.protocol = is_64 ? BootProtocol::linux : BootProtocol::pvh;
        request.initrd = initrd;
        request.modules = modules;
        request.command_line = "console=ttyS0 quiet";
        request.rsdp = Gpa{0xe'0000};
        Guest guest;
        const auto state = load(request, guest.memory);
        REQUIRE(state.has_value());
        CHECK(state->regs.rip == 0x100'0000);
        check_protected_mode(guest, *state);
        CHECK(guest.bytes(0x100'0000, 4) == bytes_of("code"));
        CHECK(guest.bytes(0x120'0000, 5) == bytes_of(std::string_view{"data\0", 5}));

        const std::uint64_t info = state->regs.gpr[RBX];
        CHECK(guest.get<std::uint32_t>(info) == 0x336e'c578);
        CHECK(guest.get<std::uint32_t>(info + 4) == 1);
        CHECK(guest.get<std::uint32_t>(info + 8) == 0);
        REQUIRE(guest.get<std::uint32_t>(info + 12) == 2);
        CHECK(guest.text(guest.get<std::uint64_t>(info + 24)) == "console=ttyS0 quiet");
        CHECK(guest.get<std::uint64_t>(info + 32) == 0xe'0000);

        const auto list = guest.get<std::uint64_t>(info + 16);
        CHECK(guest.get<std::uint64_t>(list + 8) == initrd.size());
        CHECK(guest.bytes(guest.get<std::uint64_t>(list), initrd.size()) == initrd);
        CHECK(guest.get<std::uint64_t>(list + 16) == 0);
        CHECK(guest.bytes(guest.get<std::uint64_t>(list + 32), extra.size()) == extra);
        CHECK(guest.text(guest.get<std::uint64_t>(list + 48)) == "extra.bin with words");

        const auto map = guest.get<std::uint64_t>(info + 40);
        REQUIRE(guest.get<std::uint32_t>(info + 48) == 5);
        CHECK(guest.get<std::uint64_t>(map) == 0);
        CHECK(guest.get<std::uint64_t>(map + 8) == 0x9'fc00);
        CHECK(guest.get<std::uint32_t>(map + 16) == 1);
        CHECK(guest.get<std::uint64_t>(map + 72) == kMiB);
        CHECK(guest.get<std::uint64_t>(map + 80) == 63 * kMiB);
    }
}

TEST_CASE("nothing that is loaded overlaps", "[loader]") {
    // The kernel sits where boot data would go first.
    const auto kernel =
        ElfBuilder{true}.load(0x1000, "low", 0x8000).load(0x100000, "high").pvh_note(0x1000).build();
    Guest guest;
    const auto state = load(request_for(kernel), guest.memory);
    REQUIRE(state.has_value());
    CHECK(guest.bytes(0x1000, 3) == bytes_of("low"));
    CHECK(state->regs.gpr[RBX] >= 0x9000);
    CHECK(state->cpu.gdtr.base >= 0x9000);
}

TEST_CASE("the note is found behind others and with 8-byte padding", "[loader]") {
    fake::BytesBuilder note;
    note.u32(4).u32(5).u32(1).text("GNU").u8(0).u64(0);  // value padded to 8
    note.u32(4).u32(4).u32(18).text("Xen").u8(0).u32(0x10'0008);
    const auto kernel = ElfBuilder{true}
                            .load(0x10'0000, "0123456789")
                            .segment({kPtNote, 0, 0, note.size(), note.bytes(), 8})
                            .build();
    Guest guest;
    const auto state = load(request_for(kernel), guest.memory);
    REQUIRE(state.has_value());
    CHECK(state->regs.rip == 0x10'0008);
}

TEST_CASE("an ELF that cannot be started is refused", "[loader]") {
    CHECK(error_of(bytes_of("no ELF at all, but long enough to look at; really long enough for a header")) ==
          Error::unsupported);
    CHECK(error_of(ElfBuilder{true}.load(0x10'0000, "x").build()) == Error::unsupported);  // no note
    CHECK(error_of(ElfBuilder{true}.pvh_note(0x10'0000).build()) == Error::corrupted);     // nothing to load
    CHECK(error_of(ElfBuilder{true}.pvh_note(1).load(0x1000'0000, "x").build()) == Error::out_of_range);
    CHECK(error_of(ElfBuilder{true}.pvh_note(1).load(0xe'0000, "x").build()) == Error::out_of_range);
    CHECK(error_of(ElfBuilder{true}.pvh_note(1).load(0x10'0000, "x", ~0ULL - 0x10).build()) ==
          Error::out_of_range);
    CHECK(error_of(ElfBuilder{true}.pvh_note(1).load(0x10'0000, "x", 99).load(0x10'0010, "x").build()) ==
          Error::out_of_range);
    CHECK(error_of(ElfBuilder{true}
                       .pvh_note(1)
                       .segment({kPtLoad, 0x10'0000, 0x10'0000, 1, bytes_of("longer than memory")})
                       .build()) == Error::corrupted);
    auto foreign = ElfBuilder{true}.pvh_note(1).load(0x10'0000, "x").build();
    foreign[18] = std::byte{183};  // AArch64
    CHECK(error_of(foreign) == Error::unsupported);
}

TEST_CASE("no truncation or change of a header's byte does harm", "[loader]") {
    const auto kernel = ElfBuilder{true}.load(0x10'0000, "code").pvh_note(0x10'0000).build();
    Guest guest{2 * kMiB};
    for (std::size_t size = 0; size < kernel.size(); ++size) {
        const std::vector<std::byte> cut{kernel.begin(), kernel.begin() + static_cast<std::ptrdiff_t>(size)};
        CHECK_FALSE(load(request_for(cut), guest.memory).has_value());
    }
    for (std::size_t at = 0; at < kernel.size(); ++at)
        for (const unsigned value : {0x00U, 0x7fU, 0xffU}) {
            auto changed = kernel;
            changed[at] = std::byte{static_cast<unsigned char>(value)};
            static_cast<void>(load(request_for(changed), guest.memory));
        }
}

TEST_CASE("what does not fit beside the kernel is refused", "[loader]") {
    const auto kernel = ElfBuilder{true}.load(0x10'0000, "code").pvh_note(0x10'0000).build();
    const std::vector<std::byte> initrd(2 * kMiB);
    auto request = request_for(kernel);
    request.initrd = initrd;
    Guest guest{2 * kMiB};
    CHECK(load(request, guest.memory).error() == Error::out_of_range);
    const std::string line(0xa'0000, 'x');
    request.initrd = {};
    request.command_line = line;
    CHECK(load(request, guest.memory).has_value());  // above 1 MiB, beside the kernel
    const std::string longer(2 * kMiB, 'x');
    request.command_line = longer;
    CHECK(load(request, guest.memory).error() == Error::out_of_range);
}
