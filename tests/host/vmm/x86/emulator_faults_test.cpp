// SPDX-License-Identifier: MIT
// Instructions that fault, and those that nobody emulates.
#include "emulator_fixture.hpp"

namespace hv::x86 {

TEST_CASE("faults are those of the processor and leave registers alone", "[x86]") {
    Twins twins;
    Guest& guest = twins.guest;
    VcpuRegs& regs = guest.vcpu.regs;
    regs.rip = kCode;
    const auto outcome = [&] {
        CHECK(guest.emulator.emulate() == Emulator::Result::exception);
        CHECK(regs.rip == kCode);
        CHECK(guest.events.deliver(guest.vcpu) == EventQueue::Delivery::delivered);
        return guest.vcpu.injected.back();
    };
    SECTION("a store to a read-only page") {
        guest.map(kData, RecordingBus::kBase, Guest::kPresent);
        guest.poke(kCodeGpa, {0x89, 0x03});
        regs.gpr[RBX] = kData + 8;
        const Event event = outcome();
        CHECK(event.vector == EXCEPTION_PF);
        CHECK(event.error_code == (PAGE_FAULT_P | PAGE_FAULT_WR));
        CHECK(guest.vcpu.state.cr2 == kData + 8);
    }
    SECTION("the second page of an operand is missing, and nothing was written") {
        guest.map(kData + kPageSize, 0, 0);
        guest.poke(kCodeGpa, {0x89, 0x03});
        regs.gpr[RBX] = kData + kPageSize - 2;
        regs.gpr[RAX] = ~0ull;
        const Event event = outcome();
        CHECK(event.vector == EXCEPTION_PF);
        CHECK(event.error_code == PAGE_FAULT_WR);
        CHECK(guest.vcpu.state.cr2 == kData + kPageSize);
        CHECK(guest.bus.accesses == 0);
    }
    SECTION("a non-canonical address") {
        guest.poke(kCodeGpa, {0x8b, 0x03});
        regs.gpr[RBX] = 0x8000'0000'0000;
        CHECK(outcome().vector == EXCEPTION_GP);
    }
    SECTION("a non-canonical address through the stack segment") {
        guest.poke(kCodeGpa, {0x8b, 0x45, 0x00});
        regs.gpr[RBP] = 0x8000'0000'0000;
        CHECK(outcome().vector == EXCEPTION_SS);
    }
    SECTION("a jump to a non-canonical address") {
        guest.poke(kCodeGpa, {0xff, 0x23});
        regs.gpr[RBX] = kData;
        store(guest.bus.bytes.data(), std::uint64_t{0x8000'0000'0000});
        CHECK(outcome().vector == EXCEPTION_GP);
    }
}

TEST_CASE("LOCK where it does not belong is undefined", "[x86]") {
    Twins twins;
    Guest& guest = twins.guest;
    guest.vcpu.regs.rip = kCode;
    guest.vcpu.regs.gpr[RBX] = kData;
    for (const auto& bytes :
         {std::initializer_list<int>{0xf0, 0x89, 0x03}, {0xf0, 0x39, 0x03}, {0xf0, 0x03, 0x03}}) {
        guest.poke(kCodeGpa, bytes);
        CHECK(guest.emulator.emulate() == Emulator::Result::exception);
        CHECK(guest.events.deliver(guest.vcpu) == EventQueue::Delivery::delivered);
        CHECK(guest.vcpu.injected.back().vector == EXCEPTION_UD);
        CHECK(guest.bus.accesses == 0);
    }
}

TEST_CASE("what is not emulated is named by its bytes", "[x86]") {
    Guest guest;
    guest.vcpu.enter_protected_mode();
    guest.vcpu.regs.rip = 0x2000;
    guest.poke(0x2000, {0x0f, 0x58, 0x03});  // ADDPS
    CHECK(guest.emulator.emulate() == Emulator::Result::unsupported);
    REQUIRE(guest.emulator.bytes().size() >= 3);
    CHECK(guest.emulator.bytes()[1] == 0x58);
}

}  // namespace hv::x86
