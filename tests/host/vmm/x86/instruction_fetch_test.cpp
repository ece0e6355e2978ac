// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "guest.hpp"
#include "vmm/x86/instruction_fetch.hpp"

namespace hv::x86 {

TEST_CASE("the length of an intercepted instruction comes from memory, prefixes included", "[x86]") {
    Guest guest;
    guest.vcpu.enter_long_mode(Guest::kRoot);
    guest.map(0x40'0000, 0x10'0000, Guest::kPresent);
    guest.vcpu.regs.rip = 0x40'0010;
    guest.poke(0x10'0010, {0x0f, 0xa2});
    for (unsigned i = 0; i < 3; ++i)  // by a walk, then by the cache
        CHECK(guest.fetcher.length<Operation::cpuid>() == 2);
    guest.poke(0x10'0010, {0x48, 0x0f, 0xa2});
    CHECK(guest.fetcher.length<Operation::cpuid>() == 3);
    guest.poke(0x10'0010, {0x0f, 0x01, 0xc1});
    CHECK(guest.fetcher.length<Operation::vmmcall>() == 3);
    guest.poke(0x10'0010, {0xf4});
    CHECK(guest.fetcher.length<Operation::hlt>() == 1);
}

TEST_CASE("an instruction that is no longer there has no length", "[x86]") {
    Guest guest;
    guest.vcpu.enter_long_mode(Guest::kRoot);
    guest.vcpu.regs.rip = 0x40'0010;
    CHECK(guest.fetcher.length<Operation::cpuid>() == 0);
    guest.map(0x40'0000, 0x10'0000, Guest::kPresent);
    guest.poke(0x10'0010, {0x90});
    CHECK(guest.fetcher.length<Operation::cpuid>() == 0);
}

TEST_CASE("a remapped page is seen at once where an instruction is decoded", "[x86]") {
    Guest guest;
    guest.vcpu.enter_long_mode(Guest::kRoot);
    guest.map(0x40'0000, 0x10'0000, Guest::kPresent);
    guest.poke(0x10'0000, {0x8b, 0x00});
    guest.poke(0x10'1000, {0x89, 0x48, 0x10});
    guest.vcpu.regs.rip = 0x40'0000;
    CHECK(guest.fetcher.fetch(guest.vcpu.state).instruction->length == 2);
    CHECK(guest.fetcher.fetch(guest.vcpu.state).instruction->length == 2);
    SECTION("by its page table") {
        guest.map(0x40'0000, 0x10'1000, Guest::kPresent);
        CHECK(guest.fetcher.fetch(guest.vcpu.state).instruction->length == 3);
    }
    SECTION("by its bytes") {
        guest.poke(0x10'0000, {0x89, 0x48, 0x10});
        CHECK(guest.fetcher.fetch(guest.vcpu.state).instruction->length == 3);
    }
    SECTION("by another mode") {
        guest.poke(0x10'0000, {0x48, 0x8b, 0x00});
        CHECK(guest.fetcher.fetch(guest.vcpu.state).instruction->length == 3);
        guest.vcpu.state.seg(SegmentName::cs).attributes = 0xc9b;
        CHECK(guest.fetcher.fetch(guest.vcpu.state).instruction->length == 1);  // DEC EAX
    }
    SECTION("by losing its mapping") {
        guest.map(0x40'0000, 0, 0);
        const auto fetched = guest.fetcher.fetch(guest.vcpu.state);
        CHECK(fetched.status == InstructionFetcher::Fetched::Status::page_fault);
        CHECK(fetched.linear == 0x40'0000);
    }
}

TEST_CASE("an instruction across a page end is put together from both pages", "[x86]") {
    Guest guest;
    guest.vcpu.enter_long_mode(Guest::kRoot);
    guest.map(0x40'0000, 0x10'0000, Guest::kPresent);
    guest.map(0x40'1000, 0x10'5000, Guest::kPresent);
    guest.poke(0x10'0ffd, {0xc7, 0x05, 0x01});
    guest.poke(0x10'5000, {0x02, 0x03, 0x04, 5, 6, 7, 8});
    guest.vcpu.regs.rip = 0x40'0ffd;
    const auto fetched = guest.fetcher.fetch(guest.vcpu.state);
    REQUIRE(fetched.status == InstructionFetcher::Fetched::Status::ok);
    CHECK(fetched.instruction->length == 10);
    CHECK(fetched.instruction->displacement == 0x0403'0201);
    guest.map(0x40'1000, 0, 0);
    const auto again = guest.fetcher.fetch(guest.vcpu.state);
    CHECK(again.status == InstructionFetcher::Fetched::Status::page_fault);
    CHECK(again.linear == 0x40'1000);
}

TEST_CASE("real mode fetches at the code segment's base", "[x86]") {
    Guest guest;
    guest.vcpu.enter_real_mode();
    guest.vcpu.state.seg(SegmentName::cs).base = 0x12340;
    guest.vcpu.regs.rip = 0x10;
    guest.poke(0x12350, {0xf4});
    CHECK(guest.fetcher.length<Operation::hlt>() == 1);
    CHECK(guest.fetcher.length<Operation::hlt>() == 1);
}

}  // namespace hv::x86
