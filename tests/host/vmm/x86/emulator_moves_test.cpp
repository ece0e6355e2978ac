// SPDX-License-Identifier: MIT
// Moves between registers, memory, devices and ports.
#include "emulator_fixture.hpp"

#include <cstring>

namespace hv::x86 {

TEST_CASE("moves with memory match the processor", "[x86]") {
    Twins twins;
    for (unsigned reg : {0u, 1u, 2u, 6u, 7u}) {
        all_sizes(twins, {0x88}, reg, 0);
        all_sizes(twins, {0x8a}, reg, 0);
        all_sizes(twins, {0x0f, 0xb6}, reg, 0, false);
        all_sizes(twins, {0x0f, 0xb7}, reg, 0, false);
        all_sizes(twins, {0x0f, 0xbe}, reg, 0, false);
        all_sizes(twins, {0x0f, 0xbf}, reg, 0, false);
        with_memory(twins, {}, 8, {0x63}, reg, {}, 0);
        all_sizes(twins, {0x0f, 0x38, 0xf0}, reg, 0, false);
        all_sizes(twins, {0x0f, 0x38, 0xf1}, reg, 0, false);
        with_memory(twins, {}, 8, {0x0f, 0xc3}, reg, {}, 0);  // MOVNTI
    }
    all_sizes(twins, {0xc6}, 0, 0, true, 4);
    for (std::uint8_t cc = 0; cc < 16; ++cc) {
        with_memory(twins, {}, 0, {0x0f, static_cast<std::uint8_t>(0x90 + cc)}, 0, {}, 0);
        all_sizes(twins, {0x0f, static_cast<std::uint8_t>(0x40 + cc)}, 2, 0, false);
    }
}

TEST_CASE("byte registers 4 to 7 without REX are AH to BH", "[x86]") {
    Twins twins;
    for (std::uint8_t opcode : {0x88, 0x8a, 0x00, 0x02, 0x86})
        for (std::uint8_t reg = 4; reg < 8; ++reg) {
            std::uint64_t registers[16];
            for (auto& value : registers)
                value = twins.random();
            registers[RSI] = kData + 0x20;
            registers[RSP] = kStack + 0x800;
            twins.compare({opcode, static_cast<std::uint8_t>(reg << 3 | RSI)}, registers,
                          twins.random_flags(), 0, kData + 0x20);
        }
}

TEST_CASE("string instructions match the processor in both directions", "[x86]") {
    Twins twins;
    for (std::uint8_t opcode : {0xa4, 0xa6, 0xaa, 0xac, 0xae})
        for (const Bytes& prefix : {Bytes{}, Bytes{0xf3}, Bytes{0xf2}, Bytes{0x67}, Bytes{0xf3, 0x67}})
            for (unsigned size = 0; size < 4; ++size)
                for (const std::uint64_t direction : {std::uint64_t{0}, kDf})
                    for (const std::uint64_t count : {0u, 1u, 7u}) {
                        Bytes bytes = prefix;
                        if (size == 1)
                            bytes.push_back(0x66);
                        if (size == 3)
                            bytes.push_back(0x48);
                        bytes.push_back(static_cast<std::uint8_t>(opcode + (size != 0)));
                        std::uint64_t registers[16];
                        for (auto& value : registers)
                            value = twins.random();
                        registers[RSP] = kStack + 0x800;
                        registers[RSI] = kData + 0x400;
                        registers[RDI] = kData + kPageSize - 5;
                        registers[RCX] = count;
                        CAPTURE(bytes, direction, count);
                        twins.compare(bytes, registers, twins.random_flags() | direction, 0, 0);
                    }
}

TEST_CASE("a move on a device within one page walks no page tables", "[x86]") {
    Twins twins;
    Guest& guest = twins.guest;
    guest.poke(kCodeGpa, {0x89, 0x88, 0xb0, 0x00, 0x00, 0x00});  // MOV [RAX + 0xb0], ECX
    VcpuRegs& regs = guest.vcpu.regs;
    regs.rip = kCode;
    regs.gpr[RAX] = 0x7000'0000;  // not mapped at all: the exit knows better
    regs.gpr[RCX] = 0x1234'5678;
    NestedFault fault{};
    fault.gpa = Gpa{RecordingBus::kBase + 0xb0};
    fault.write = true;
    CHECK(guest.emulator.emulate_mmio(fault) == Emulator::Result::done);
    CHECK(guest.bus.accesses == 1);
    CHECK(guest.bus.last_size == 4);
    CHECK(load<std::uint32_t>(&guest.bus.bytes[0xb0]) == 0x1234'5678);
    SECTION("but not if the exit was caused by the walk") {
        regs.rip = kCode;
        fault.during_walk = true;
        CHECK(guest.emulator.emulate_mmio(fault) == Emulator::Result::exception);
        CHECK(guest.vcpu.state.cr2 == 0x7000'00b0);
    }
    SECTION("and not if the exit's address is not the operand's") {
        regs.rip = kCode;
        fault.gpa += 4;
        CHECK(guest.emulator.emulate_mmio(fault) == Emulator::Result::exception);
    }
}

TEST_CASE("a move that was decoded before is not used for what came in its place", "[x86]") {
    Guest guest;
    fake::FakeVcpuBackend& vcpu = guest.vcpu;
    constexpr std::uint64_t kOtherCodeGpa = 0x10'1000;
    constexpr std::uint64_t kOtherRoot = 0x20'0000;
    vcpu.enter_long_mode(Guest::kRoot);
    guest.map(kCode, kCodeGpa, Guest::kPresent);
    guest.poke(kCodeGpa, {0x64, 0x89, 0x08, 0x48});       // MOV FS:[RAX], ECX; in 32-bit code as well
    guest.poke(kOtherCodeGpa, {0x64, 0x88, 0x08, 0x90});  // MOV FS:[RAX], CL
    const auto stores = [&] {
        NestedFault fault{};
        fault.gpa = Gpa{RecordingBus::kBase + 0xb0};
        fault.write = true;
        guest.bus.last_size = 0;
        vcpu.regs.rip = kCode;
        vcpu.regs.gpr[RAX] = 0xb0;
        static_cast<void>(guest.emulator.emulate_mmio(fault));
        return guest.bus.last_size;
    };
    REQUIRE(stores() == 4);
    REQUIRE(stores() == 4);
    SECTION("other bytes") {
        guest.poke(kCodeGpa, {0x64, 0x66, 0x89, 0x08});
        CHECK(stores() == 2);
    }
    SECTION("another page at its address") {
        guest.map(kCode, kOtherCodeGpa, Guest::kPresent);
        CHECK(stores() == 1);
    }
    SECTION("no page at its address") {
        guest.map(kCode, 0, 0);
        CHECK(stores() == 0);
        CHECK(vcpu.state.cr2 == kCode);
    }
    SECTION("another address space") {
        std::memcpy(guest.memory.at(Gpa{kOtherRoot}, kPageSize),
                    guest.memory.at(Gpa{Guest::kRoot}, kPageSize), kPageSize);
        vcpu.state.cr3 = kOtherRoot;
        CHECK(stores() == 4);
        guest.memory.store(Gpa{kOtherRoot + (kCode >> 39) * 8}, std::uint64_t{0}).value();
        CHECK(stores() == 0);
    }
    SECTION("less privilege") {
        vcpu.set_cpl(3);  // the code is not open to users
        CHECK(stores() == 0);
    }
    SECTION("SMEP") {
        guest.map(kCode, kCodeGpa, Guest::kPresent | Guest::kUser);
        CHECK(stores() == 4);
        vcpu.state.cr4 |= CR4_SMEP;
        CHECK(stores() == 0);
    }
    SECTION("another segment base: the operand is not what the exit names") {
        vcpu.state.seg(SegmentName::fs).base = 8;
        CHECK(stores() == 0);
    }
    SECTION("another mode") {
        vcpu.enter_protected_mode();
        vcpu.state.seg(SegmentName::cs).base = kCodeGpa - kCode;
        CHECK(stores() == 4);
        vcpu.state.seg(SegmentName::cs).base = kOtherCodeGpa - kCode;
        CHECK(stores() == 1);
        vcpu.state.seg(SegmentName::cs).base = kCodeGpa - kCode;
        vcpu.state.seg(SegmentName::cs).attributes = 0x9b;  // 16-bit code: MOV FS:[BX+SI], CX
        vcpu.regs.gpr[RBX] = 0xb0;
        vcpu.regs.gpr[RSI] = 0;
        CHECK(stores() == 2);
    }
}

TEST_CASE("a device that nobody provides reads as all ones", "[x86]") {
    Twins twins;
    Guest& guest = twins.guest;
    guest.poke(kCodeGpa, {0x8b, 0x00});
    guest.vcpu.regs.rip = kCode;
    NestedFault fault{};
    fault.gpa = Gpa{0xfed4'0000};
    CHECK(guest.emulator.emulate_mmio(fault) == Emulator::Result::done);
    CHECK(guest.vcpu.regs.gpr[RAX] == 0xffff'ffff);
}

TEST_CASE("string I/O moves between ports and memory, in batches", "[x86]") {
    Guest guest;
    guest.vcpu.enter_protected_mode();
    VcpuRegs& regs = guest.vcpu.regs;
    regs.rip = 0x2000;
    regs.gpr[RDX] = 0x1f0;
    SECTION("OUTS") {
        guest.poke(0x2000, {0xf3, 0x6e});
        guest.poke(0x3000, {'a', 'b', 'c'});
        regs.gpr[RSI] = 0x3000;
        regs.gpr[RCX] = 3;
        CHECK(guest.emulator.emulate() == Emulator::Result::done);
        REQUIRE(guest.bus.port_writes.size() == 3);
        CHECK(guest.bus.port_writes[2].value == 'c');
        CHECK(guest.bus.port_writes[2].port == 0x1f0);
        CHECK(regs.gpr[RSI] == 0x3003);
        CHECK(regs.rip == 0x2002);
    }
    SECTION("INS gives way after a batch and goes on") {
        guest.poke(0x2000, {0xf3, 0x66, 0x6d});
        regs.gpr[RDI] = 0x4000;
        regs.gpr[RCX] = 300;
        CHECK(guest.emulator.emulate() == Emulator::Result::done);
        CHECK(regs.rip == 0x2000);
        CHECK(regs.gpr[RCX] == 44);
        CHECK(guest.emulator.emulate() == Emulator::Result::done);
        CHECK(regs.rip == 0x2003);
        CHECK(regs.gpr[RCX] == 0);
        CHECK(guest.memory.load<std::uint16_t>(Gpa{0x4000 + 2 * 299}).value() == 0x11 + 299);
    }
    SECTION("a single-stepping guest gets its trap after each iteration") {
        guest.poke(0x2000, {0xf3, 0x6e});
        regs.gpr[RSI] = 0x3000;
        regs.gpr[RCX] = 2;
        regs.rflags = 0x102;
        CHECK(guest.emulator.emulate() == Emulator::Result::done);
        CHECK(regs.gpr[RCX] == 1);
        CHECK(guest.events.exception_pending());
        CHECK((guest.vcpu.state.dr6 & DR6_BS) != 0);
    }
}

TEST_CASE("vector registers move to and from devices", "[x86]") {
    Twins twins;
    Guest& guest = twins.guest;
    VcpuRegs& regs = guest.vcpu.regs;
    guest.vcpu.state.cr4 |= CR4_OSFXSR | CR4_OSXSAVE;
    guest.vcpu.xcr0_value = XCR0_X87 | XCR0_SSE | XCR0_AVX;
    for (unsigned i = 0; i < 64; ++i)
        guest.bus.bytes[i] = static_cast<std::uint8_t>(i + 1);
    const auto device = [&](unsigned offset) { return load<std::uint64_t>(&guest.bus.bytes[offset]); };
    regs.gpr[RBX] = kData;
    auto& vectors = guest.vcpu.vectors;
    for (auto& vector : vectors)
        vector = {{0xa0, 0xa1, 0xa2, 0xa3}};
    const auto run = [&](std::initializer_list<int> bytes) {
        guest.poke(kCodeGpa, bytes);
        regs.rip = kCode;
        NestedFault fault{};
        fault.gpa = Gpa{RecordingBus::kBase + (regs.gpr[RBX] - kData)};
        return guest.emulator.emulate_mmio(fault);
    };
    const auto holds = [&](unsigned index, std::uint64_t a, std::uint64_t b, std::uint64_t c,
                           std::uint64_t d) {
        const auto& part = vectors[index].part;
        return part[0] == a && part[1] == b && part[2] == c && part[3] == d;
    };
    constexpr auto kDone = Emulator::Result::done;
    SECTION("loads") {
        CHECK(run({0xf3, 0x0f, 0x6f, 0x0b}) == kDone);  // MOVDQU XMM1: the upper half stays
        CHECK(holds(1, device(0), device(8), 0xa2, 0xa3));
        CHECK(run({0xc5, 0xfa, 0x6f, 0x13}) == kDone);  // VMOVDQU XMM2: it goes
        CHECK(holds(2, device(0), device(8), 0, 0));
        CHECK(run({0xc5, 0x7e, 0x6f, 0x03}) == kDone);  // VMOVDQU YMM8
        CHECK(holds(8, device(0), device(8), device(16), device(24)));
        CHECK(run({0xf3, 0x0f, 0x10, 0x1b}) == kDone);  // MOVSS
        CHECK(holds(3, device(0) & 0xffff'ffff, 0, 0xa2, 0xa3));
        CHECK(run({0x66, 0x48, 0x0f, 0x6e, 0x23}) == kDone);  // MOVQ by REX.W
        CHECK(holds(4, device(0), 0, 0xa2, 0xa3));
        CHECK(run({0x0f, 0x16, 0x2b}) == kDone);  // MOVHPS
        CHECK(holds(5, 0xa0, device(0), 0xa2, 0xa3));
        CHECK(run({0x0f, 0x6f, 0x33}) == kDone);  // MOVQ MM6
        CHECK(holds(16 + 6, device(0), 0xa1, 0xa2, 0xa3));
    }
    SECTION("stores") {
        CHECK(run({0x66, 0x0f, 0x7f, 0x0b}) == kDone);  // MOVDQA
        CHECK((device(0) == 0xa0 && device(8) == 0xa1));
        CHECK(device(16) == 0x1817'1615'1413'1211);
        CHECK(run({0xc5, 0xfd, 0xe7, 0x0b}) == kDone);  // VMOVNTDQ YMM1
        CHECK((device(16) == 0xa2 && device(24) == 0xa3));
        regs.gpr[RBX] = kData + 32;
        CHECK(run({0x66, 0x0f, 0xd6, 0x0b}) == kDone);  // MOVQ
        CHECK((device(32) == 0xa0 && device(40) == 0x302f'2e2d'2c2b'2a29));
    }
    SECTION("across pages") {
        regs.gpr[RBX] = kData + kPageSize - 5;
        CHECK(run({0x0f, 0x11, 0x0b}) == kDone);  // MOVUPS
        CHECK(device(kPageSize - 5) == 0xa0);
        CHECK(device(kPageSize + 3) == 0xa1);
    }
    SECTION("aligned forms fault on what is not") {
        regs.gpr[RBX] = kData + 8;
        CHECK(run({0x66, 0x0f, 0x6f, 0x0b}) == Emulator::Result::exception);
        CHECK(guest.events.deliver(guest.vcpu) == EventQueue::Delivery::delivered);
        CHECK(guest.vcpu.injected.back().vector == EXCEPTION_GP);
        CHECK(guest.bus.accesses == 0);
    }
    SECTION("what is switched off is undefined") {
        guest.vcpu.xcr0_value = XCR0_X87 | XCR0_SSE;
        CHECK(run({0xc5, 0xfa, 0x6f, 0x13}) == Emulator::Result::exception);
        CHECK(guest.events.deliver(guest.vcpu) == EventQueue::Delivery::delivered);
        CHECK(guest.vcpu.injected.back().vector == EXCEPTION_UD);
    }
}

}  // namespace hv::x86
