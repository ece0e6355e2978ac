// SPDX-License-Identifier: MIT
// Arithmetic and logic with memory, exchanges included.
#include "emulator_fixture.hpp"
#include "vmm/x86/alu.hpp"

namespace hv::x86 {

TEST_CASE("arithmetic with memory matches the processor, flags included", "[x86]") {
    Twins twins;
    for (unsigned operation = 0; operation < 8; ++operation) {
        const bool logic = operation == 1 || operation == 4 || operation == 6;
        const std::uint64_t undefined = logic ? kAf : 0;
        const auto base = static_cast<std::uint8_t>(operation * 8);
        all_sizes(twins, {base}, 1, undefined);
        all_sizes(twins, {static_cast<std::uint8_t>(base + 2)}, 2, undefined);
        all_sizes(twins, {0x80}, operation, undefined, true, 4);
        with_memory(twins, {}, 8, {0x83}, operation, {0x9c}, undefined);
        with_memory(twins, {0x66}, 0, {0x83}, operation, {0x7f}, undefined);
    }
    all_sizes(twins, {0x84}, 6, kAf);
    all_sizes(twins, {0xf6}, 0, kAf, true, 4);
    for (unsigned reg : {2u, 3u})
        all_sizes(twins, {0xf6}, reg, 0);
    for (unsigned reg : {0u, 1u})
        all_sizes(twins, {0xfe}, reg, 0);
}

TEST_CASE("locked operations match the processor", "[x86]") {
    Twins twins;
    for (Bytes opcode :
         {Bytes{0x01}, Bytes{0x29}, Bytes{0x31}, Bytes{0x0f, 0xc1}, Bytes{0x0f, 0xb1}, Bytes{0x87}})
        with_memory(twins, {0xf0}, 8, opcode, 2, {}, kAf);
}

TEST_CASE("shifts and rotations of memory match the processor", "[x86]") {
    Twins twins;
    for (unsigned operation : {0u, 1u, 2u, 3u, 4u, 5u, 7u}) {
        const std::uint64_t af = operation >= 4 ? kAf : 0;
        all_sizes(twins, {0xd0}, operation, af);
        for (std::uint8_t count : {0, 1, 3, 7}) {
            const std::uint64_t undefined = af | (count == 1 ? 0 : kOf);
            with_memory(twins, {}, 0, {0xc0}, operation, {count}, undefined);
            with_memory(twins, {0x66}, 0, {0xc1}, operation, {count}, undefined);
            with_memory(twins, {}, 0, {0xc1}, operation, {count}, undefined);
            with_memory(twins, {}, 8, {0xc1}, operation, {count}, undefined);
        }
        all_sizes(twins, {0xd2}, operation, af | kOf | (operation >= 4 ? kCf : 0));
    }
}

TEST_CASE("bit operations match the processor, also far from their operand", "[x86]") {
    Twins twins;
    const std::uint64_t undefined = kOf | kSf | kAf | kPf;
    for (unsigned reg = 4; reg < 8; ++reg)
        for (unsigned rex : {0u, 8u})
            with_memory(twins, {}, rex, {0x0f, 0xba}, reg, {37}, undefined);
    for (std::uint8_t opcode : {0xa3, 0xab, 0xb3, 0xbb})
        for (const Bytes& prefix : {Bytes{}, Bytes{0x66}, Bytes{0x48}})
            for (int index : {0, 5, 63, 64, 200, -1, -77, -300}) {
                Bytes bytes = prefix;
                bytes.insert(bytes.end(), {0x0f, opcode, 0x13});  // [RBX], EDX
                std::uint64_t registers[16];
                for (auto& value : registers)
                    value = twins.random();
                registers[RBX] = kData + 0x300;
                registers[RSP] = kStack + 0x800;
                registers[RDX] = static_cast<std::uint64_t>(static_cast<std::int64_t>(index));
                CAPTURE(bytes, index);
                twins.compare(bytes, registers, twins.random_flags(), undefined, kData + 0x300);
            }
}

TEST_CASE("exchanges match the processor", "[x86]") {
    Twins twins;
    for (unsigned reg : {0u, 2u, 6u}) {
        all_sizes(twins, {0x86}, reg, 0);
        all_sizes(twins, {0x0f, 0xc0}, reg, 0);
        all_sizes(twins, {0x0f, 0xb0}, reg, 0);
    }
    with_memory(twins, {0xf0}, 0, {0x0f, 0xc7}, 1, {}, 0);
}

TEST_CASE("a compare-and-exchange that succeeds stores", "[x86]") {
    Twins twins;
    Guest& guest = twins.guest;
    guest.poke(kCodeGpa, {0xf0, 0x0f, 0xb1, 0x0b});  // LOCK CMPXCHG [RBX], ECX
    VcpuRegs& regs = guest.vcpu.regs;
    regs.rip = kCode;
    regs.gpr[RBX] = kData;
    regs.gpr[RAX] = 0x1234;
    regs.gpr[RCX] = 0x5678;
    store(guest.bus.bytes.data(), std::uint32_t{0x1234});
    NestedFault fault{};
    fault.gpa = Gpa{RecordingBus::kBase};
    CHECK(guest.emulator.emulate_mmio(fault) == Emulator::Result::done);
    CHECK((regs.rflags & kZf) != 0);
    CHECK(load<std::uint32_t>(guest.bus.bytes.data()) == 0x5678);
}

TEST_CASE("double shifts, bit counts and multiplications match the processor", "[x86]") {
    Twins twins;
    const std::uint64_t shifted = kAf | kOf;
    for (std::uint8_t opcode : {0xa4, 0xac})
        for (std::uint8_t count : {0, 1, 5, 15})
            for (const unsigned rex : {0u, 8u}) {
                const std::uint64_t undefined = count == 1 ? kAf : shifted;
                with_memory(twins, {}, rex, {0x0f, opcode}, 2, {count}, undefined);
                if (rex == 0)
                    with_memory(twins, {0x66}, rex, {0x0f, opcode}, 2, {count}, undefined);
            }
    for (std::uint8_t opcode : {0xa5, 0xad})
        for (const unsigned rex : {0u, 8u})
            with_memory(twins, {}, rex, {0x0f, opcode}, 2, {}, shifted);
    for (std::uint8_t opcode : {0xbc, 0xbd})
        all_sizes(twins, {0x0f, opcode}, 2, kCf | kPf | kAf | kSf | kOf, false);
    for (std::uint8_t opcode : {0xb8, 0xbc, 0xbd})
        for (const unsigned rex : {0u, 8u})
            with_memory(twins, {0xf3}, rex, {0x0f, opcode}, 2, {},
                        opcode == 0xb8 ? 0 : kPf | kAf | kSf | kOf);
    const std::uint64_t product = kPf | kAf | kZf | kSf;
    for (unsigned reg : {4u, 5u})
        all_sizes(twins, {0xf6}, reg, product);
    all_sizes(twins, {0x0f, 0xaf}, 2, product, false);
    all_sizes(twins, {0x69}, 2, product, false, 4);
    with_memory(twins, {}, 8, {0x6b}, 2, {0x9c}, product);
}

TEST_CASE("divisions match the processor where they do not fault", "[x86]") {
    Twins twins;
    for (const bool is_signed : {false, true})
        for (const unsigned size : {1u, 2u, 4u, 8u})
            for (unsigned round = 0; round < 200; ++round) {
                // The divisor comes from memory, which compare() fills: a quotient that fits is made by a
                // dividend whose high half is smaller than half of the smallest divisor, which is odd luck
                // for random bytes; so the dividend is small, or the sign of a small number.
                std::uint64_t registers[16]{};
                registers[RBX] = kData + 0x40;
                registers[RSP] = kStack + 0x800;
                const bool negative = is_signed && round % 2 == 1;
                const std::uint64_t small = twins.random() >> (65 - size * 8);
                registers[RAX] = negative ? 0 - small : small;
                registers[RDX] = negative ? ~0ull : 0;
                if (size == 1)
                    registers[RAX] &= 0xffff;
                twins.seed_memory = twins.random() | std::uint64_t{2} << (round % (size * 8 - 1));
                if (cut(*twins.seed_memory, size) == 0 || cut(*twins.seed_memory, size) == cut(~0ull, size))
                    continue;  // #DE
                Bytes bytes;
                if (size == 2)
                    bytes.push_back(0x66);
                if (size == 8)
                    bytes.push_back(0x48);
                bytes.push_back(size == 1 ? 0xf6 : 0xf7);
                bytes.push_back(is_signed ? 0x3b : 0x33);
                CAPTURE(bytes, registers[RAX], *twins.seed_memory);
                twins.compare(bytes, registers, twins.random_flags(), kStatusFlags, kData + 0x40);
            }
}

TEST_CASE("divisions that overflow raise #DE", "[x86]") {
    CHECK_FALSE(divide(Signedness::without, 0, 5, 0, 4));
    CHECK_FALSE(divide(Signedness::without, 7, 0, 7, 4));
    CHECK_FALSE(divide(Signedness::with, 0xffff'ffff, 0x8000'0000, 0xffff'ffff, 4));
    CHECK_FALSE(divide(Signedness::with, 0, 0x80, 1, 1));
    CHECK(divide(Signedness::with, 0xff, 0x80, 1, 1)->quotient == 0x80);
    Twins twins;
    Guest& guest = twins.guest;
    guest.poke(kCodeGpa, {0xf7, 0x33});  // DIV dword [RBX]
    guest.vcpu.regs.rip = kCode;
    guest.vcpu.regs.gpr[RBX] = kData;
    NestedFault fault{};
    fault.gpa = Gpa{RecordingBus::kBase};
    CHECK(guest.emulator.emulate_mmio(fault) == Emulator::Result::exception);
    CHECK(guest.vcpu.regs.rip == kCode);
    CHECK((guest.vcpu.regs.rflags & RFLAGS_RF) != 0);
    CHECK(guest.events.deliver(guest.vcpu) == EventQueue::Delivery::delivered);
    CHECK(guest.vcpu.injected.back().vector == EXCEPTION_DE);
    CHECK_FALSE(guest.vcpu.injected.back().has_error_code);
}

TEST_CASE("a compare-and-exchange of 16 bytes matches the processor", "[x86]") {
    Twins twins;
    for (const bool equal : {false, true}) {
        std::uint64_t registers[16];
        for (auto& value : registers)
            value = twins.random();
        registers[RSP] = kStack + 0x800;
        registers[RSI] = kData + 0x40;
        twins.seed_memory = registers[RAX];
        twins.seed_high = equal ? registers[RDX] : registers[RDX] + 1;
        twins.compare({0xf0, 0x48, 0x0f, 0xc7, 0x0e}, registers, twins.random_flags(), 0, kData + 0x40);
    }
}

}  // namespace hv::x86
