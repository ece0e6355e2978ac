// SPDX-License-Identifier: MIT
// The stack, segments and descriptor tables.
#include "emulator_fixture.hpp"

namespace hv::x86 {

TEST_CASE("pushes, pops and direct addresses match the processor", "[x86]") {
    Twins twins;
    for (const Bytes& prefix : {Bytes{}, Bytes{0x66}}) {
        with_memory(twins, prefix, 0, {0xff}, 6, {}, 0);
        with_memory(twins, prefix, 0, {0x8f}, 0, {}, 0);
    }
    for (std::uint8_t opcode : {0xa0, 0xa1, 0xa2, 0xa3}) {
        std::uint64_t registers[16]{};
        registers[RAX] = twins.random();
        registers[RSP] = kStack + 0x800;
        const std::uint64_t at = kData + 0x48;
        Bytes bytes{opcode};
        for (unsigned i = 0; i < 8; ++i)
            bytes.push_back(static_cast<std::uint8_t>(at >> (8 * i)));
        twins.compare(bytes, registers, twins.random_flags(), 0, at);
    }
}

TEST_CASE("instructions that reach memory by the stack pointer match the processor", "[x86]") {
    Twins twins;
    for (const Bytes& bytes : {Bytes{0x50}, Bytes{0x54}, Bytes{0x41, 0x57}, Bytes{0x66, 0x53},
                               Bytes{0x6a, 0xf9}, Bytes{0x68, 1, 2, 3, 0x84}, Bytes{0x66, 0x68, 1, 0x92},
                               Bytes{0x58}, Bytes{0x5c}, Bytes{0x66, 0x5b}, Bytes{0x41, 0x5f}, Bytes{0xc9},
                               Bytes{0xc8, 0x38, 0x02, 0x00}, Bytes{0xff, 0xf1}, Bytes{0x8f, 0xc1}})
        for (unsigned round = 0; round < 4; ++round) {
            std::uint64_t registers[16];
            for (auto& value : registers)
                value = twins.random();
            registers[RSP] = kStack + 0x800;
            registers[RBP] = kStack + 0x900;
            CAPTURE(bytes);
            twins.compare(bytes, registers, twins.random_flags(), 0, 0);
        }
}

TEST_CASE("near calls and returns use the stack, in a device as well", "[x86]") {
    Twins twins;
    Guest& guest = twins.guest;
    VcpuRegs& regs = guest.vcpu.regs;
    regs.rip = kCode;
    regs.gpr[RSP] = kData + 0x100;
    SECTION("CALL") {
        guest.poke(kCodeGpa, {0xe8, 0x10, 0, 0, 0});
        CHECK(guest.emulator.emulate() == Emulator::Result::done);
        CHECK(regs.rip == kCode + 0x15);
        CHECK(regs.gpr[RSP] == kData + 0xf8);
        CHECK(load<std::uint64_t>(&guest.bus.bytes[0xf8]) == kCode + 5);
    }
    SECTION("RET 8") {
        guest.poke(kCodeGpa, {0xc2, 0x08, 0x00});
        store(&guest.bus.bytes[0x100], kCode + 0x40);
        CHECK(guest.emulator.emulate() == Emulator::Result::done);
        CHECK(regs.rip == kCode + 0x40);
        CHECK(regs.gpr[RSP] == kData + 0x110);
    }
    SECTION("PUSHF hides RF") {
        guest.poke(kCodeGpa, {0x9c});
        regs.rflags = 0x1'0246;
        CHECK(guest.emulator.emulate() == Emulator::Result::done);
        CHECK(load<std::uint64_t>(&guest.bus.bytes[0xf8]) == 0x246);
    }
    SECTION("POPF at CPL 3 changes neither IF nor IOPL") {
        guest.map(kData, RecordingBus::kBase, Guest::kPresent | Guest::kWritable | Guest::kUser);
        guest.map(kCode, kCodeGpa, Guest::kPresent | Guest::kUser);
        guest.vcpu.set_cpl(3);
        guest.poke(kCodeGpa, {0x9d});
        regs.rflags = 0x202;
        store(&guest.bus.bytes[0x100], std::uint64_t{0x3cd5});
        CHECK(guest.emulator.emulate() == Emulator::Result::done);
        CHECK(regs.rflags == 0xed7);
    }
}

TEST_CASE("segments limit what 32-bit and 16-bit code reaches", "[x86]") {
    Guest guest;
    VcpuRegs& regs = guest.vcpu.regs;
    regs.rip = 0x2000;
    SECTION("beyond a limit") {
        guest.vcpu.enter_protected_mode();
        guest.vcpu.state.seg(SegmentName::ds).limit = 0xfff;
        guest.poke(0x2000, {0x8b, 0x03});
        regs.gpr[RBX] = 0xffd;
        CHECK(guest.emulator.emulate() == Emulator::Result::exception);
        regs.gpr[RBX] = 0xffc;
        CHECK(guest.emulator.emulate() == Emulator::Result::done);
    }
    SECTION("real mode pushes no error code") {
        guest.vcpu.enter_real_mode();
        guest.poke(0x2000, {0x66, 0x8b, 0x07});  // MOV EAX, [BX]
        regs.gpr[RBX] = 0xfffd;
        CHECK(guest.emulator.emulate() == Emulator::Result::exception);
        CHECK(guest.events.deliver(guest.vcpu) == EventQueue::Delivery::delivered);
        CHECK(guest.vcpu.injected.back().vector == EXCEPTION_GP);
        CHECK_FALSE(guest.vcpu.injected.back().has_error_code);
    }
    SECTION("a data segment with a base") {
        guest.vcpu.enter_protected_mode();
        guest.vcpu.state.seg(SegmentName::ds).base = RecordingBus::kBase;
        guest.poke(0x2000, {0xc6, 0x03, 0x5a});
        regs.gpr[RBX] = 0x10;
        CHECK(guest.emulator.emulate() == Emulator::Result::done);
        CHECK(guest.bus.bytes[0x10] == 0x5a);
    }
}

TEST_CASE("segment registers and descriptor tables load from devices", "[x86]") {
    Twins twins;
    Guest& guest = twins.guest;
    VcpuRegs& regs = guest.vcpu.regs;
    regs.rip = kCode;
    regs.gpr[RBX] = kData;
    auto& state = guest.vcpu.state;
    state.gdtr = {kStack, 0x2f};
    guest.memory.store(Gpa{kStackGpa + 0x18}, std::uint64_t{0x00cf'9200'0000'ffff}).value();  // data
    guest.memory.store(Gpa{kStackGpa + 0x20}, std::uint64_t{0x00af'9a00'0000'ffff}).value();  // 64-bit code
    guest.memory.store(Gpa{kStackGpa + 0x28}, std::uint64_t{0x00cf'1200'0000'ffff}).value();  // not present
    const auto run = [&](std::initializer_list<int> bytes) {
        guest.poke(kCodeGpa, bytes);
        NestedFault fault{};
        fault.gpa = Gpa{RecordingBus::kBase};
        return guest.emulator.emulate_mmio(fault);
    };
    const auto faults = [&](std::uint16_t selector, std::uint8_t vector, std::uint32_t code) {
        store(guest.bus.bytes.data(), selector);
        CHECK(run({0x8e, 0x1b}) == Emulator::Result::exception);  // MOV DS, [RBX]
        CHECK(guest.events.deliver(guest.vcpu) == EventQueue::Delivery::delivered);
        CHECK(guest.vcpu.injected.back().vector == vector);
        CHECK(guest.vcpu.injected.back().error_code == code);
    };
    SECTION("MOV DS") {
        store(guest.bus.bytes.data(), std::uint16_t{0x18});
        CHECK(run({0x8e, 0x1b}) == Emulator::Result::done);
        CHECK(state.seg(SegmentName::ds).selector == 0x18);
        CHECK(state.seg(SegmentName::ds).limit == 0xffff'ffff);
        CHECK(state.seg(SegmentName::ds).attributes == 0xc93);
        CHECK(guest.memory.load<std::uint8_t>(Gpa{kStackGpa + 0x1d}).value() == 0x93);  // accessed
    }
    SECTION("what the checks refuse") {
        faults(0x28, EXCEPTION_NP, 0x28);
        faults(0x33, EXCEPTION_GP, 0x30);  // beyond the limit
        faults(0x1c, EXCEPTION_GP, 0x1c);  // no LDT
        faults(0x1b, EXCEPTION_GP, 0x18);  // RPL 3 above DPL 0
    }
    SECTION("MOV SS of null in 64-bit mode needs RPL = CPL") {
        store(guest.bus.bytes.data(), std::uint16_t{0});
        CHECK(run({0x8e, 0x13}) == Emulator::Result::done);
        CHECK_FALSE(state.seg(SegmentName::ss).present());
        store(guest.bus.bytes.data(), std::uint16_t{3});
        regs.rip = kCode;
        CHECK(run({0x8e, 0x13}) == Emulator::Result::exception);
    }
    SECTION("MOV from a segment register stores two bytes") {
        store(guest.bus.bytes.data(), ~0u);
        CHECK(run({0x48, 0x8c, 0x1b}) == Emulator::Result::done);
        CHECK(load<std::uint32_t>(guest.bus.bytes.data()) == 0xffff'0010);
    }
    SECTION("JMP FAR") {
        store(guest.bus.bytes.data(), std::uint64_t{kCode + 0x80});
        store(&guest.bus.bytes[8], std::uint16_t{0x20});
        CHECK(run({0x48, 0xff, 0x2b}) == Emulator::Result::done);
        CHECK(regs.rip == kCode + 0x80);
        CHECK(state.seg(SegmentName::cs).selector == 0x20);
        CHECK(state.seg(SegmentName::cs).attributes == 0xa9b);
    }
    SECTION("LGDT and SIDT") {
        store(guest.bus.bytes.data(), std::uint16_t{0xf234});
        store(&guest.bus.bytes[2], std::uint64_t{0x1234'5678'abcd});
        CHECK(run({0x0f, 0x01, 0x13}) == Emulator::Result::done);
        CHECK(state.gdtr.limit == 0xf234);
        CHECK(state.gdtr.base == 0x1234'5678'abcd);
        state.idtr = {0xffff'8000'0000'1000, 0xfff};
        regs.rip = kCode;
        CHECK(run({0x0f, 0x01, 0x0b}) == Emulator::Result::done);
        CHECK(load<std::uint16_t>(guest.bus.bytes.data()) == 0xfff);
        CHECK(load<std::uint64_t>(&guest.bus.bytes[2]) == 0xffff'8000'0000'1000);
    }
}

}  // namespace hv::x86
