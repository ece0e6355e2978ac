// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/x86/decoder.hpp"

#include <random>
#include <vector>

namespace hv::x86 {
namespace {

constexpr auto k16 = CodeMode::bits16, k32 = CodeMode::bits32, k64 = CodeMode::bits64;

struct Case {
    CodeMode mode;
    std::vector<std::uint8_t> bytes;
    Operation operation;
};

Instruction decoded(CodeMode mode, const std::vector<std::uint8_t>& bytes) {
    Instruction in{};
    REQUIRE(decode(bytes, mode, in) == DecodeStatus::ok);
    CHECK(in.length == bytes.size());
    return in;
}

}  // namespace

TEST_CASE("lengths and operations are those of the manual", "[x86]") {
    const std::vector<Case> cases = {
        {k64, {0x0f, 0xa2}, Operation::cpuid},
        {k64, {0x48, 0x0f, 0xa2}, Operation::cpuid},
        {k32, {0x0f, 0x32}, Operation::rdmsr},
        {k16, {0x0f, 0x30}, Operation::wrmsr},
        {k64, {0x0f, 0x01, 0xd9}, Operation::vmmcall},
        {k64, {0x0f, 0x01, 0xc1}, Operation::vmcall},
        {k64, {0x0f, 0x01, 0xd1}, Operation::xsetbv},
        {k64, {0x0f, 0x01, 0x38}, Operation::invlpg},
        {k64, {0x0f, 0x01, 0xf9}, Operation::rdtscp},
        {k64, {0x0f, 0x01, 0xf0}, Operation::lmsw},
        {k64, {0xf4}, Operation::hlt},
        {k64, {0xf3, 0x90}, Operation::pause},
        {k64, {0x90}, Operation::xchg},
        {k64, {0x0f, 0x22, 0xd8}, Operation::mov_to_cr},
        {k64, {0x44, 0x0f, 0x20, 0xc0}, Operation::mov_from_cr},
        {k64, {0x0f, 0x23, 0x3c}, Operation::mov_to_dr},  // mod is ignored: no SIB
        {k64, {0x89, 0x88, 0xb0, 0x00, 0x00, 0x00}, Operation::mov},
        {k64, {0x89, 0x05, 1, 2, 3, 4}, Operation::mov},
        {k64, {0x8b, 0x04, 0x25, 0x20, 0x00, 0xe0, 0xfe}, Operation::mov},
        {k64, {0xc7, 0x04, 0x25, 0xb0, 0x00, 0xe0, 0xfe, 0, 0, 0, 0}, Operation::mov},
        {k64, {0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8}, Operation::mov},
        {k64, {0x66, 0xb8, 1, 2}, Operation::mov},
        {k64, {0x48, 0xa1, 1, 2, 3, 4, 5, 6, 7, 8}, Operation::mov},
        {k64, {0x67, 0xa1, 1, 2, 3, 4}, Operation::mov},
        {k32, {0xa1, 1, 2, 3, 4}, Operation::mov},
        {k16, {0xa1, 1, 2}, Operation::mov},
        {k16, {0x89, 0x46, 0x08}, Operation::mov},
        {k16, {0x89, 0x1e, 0x34, 0x12}, Operation::mov},
        {k16, {0x66, 0x67, 0x8b, 0x04, 0x8d, 1, 2, 3, 4}, Operation::mov},
        {k64, {0xf6, 0x00, 0x12}, Operation::test},
        {k64, {0xf6, 0x10}, Operation::not_},
        {k64, {0xf7, 0x40, 0x08, 1, 2, 3, 4}, Operation::test},
        {k64, {0x66, 0xf7, 0x00, 1, 2}, Operation::test},
        {k64, {0xff, 0x10}, Operation::call},
        {k64, {0xff, 0x30}, Operation::push},
        {k64, {0x0f, 0x38, 0xf1, 0x03}, Operation::movbe},
        {k64, {0xf2, 0x0f, 0x38, 0xf1, 0xc3}, Operation::other},  // CRC32
        {k64, {0x66, 0x0f, 0x3a, 0x0f, 0xc1, 0x08}, Operation::other},
        {k64, {0xc5, 0xf8, 0x77}, Operation::other},                          // VZEROUPPER
        {k64, {0xc5, 0xf9, 0x70, 0xc1, 0x1b}, Operation::other},              // VPSHUFD
        {k64, {0xc4, 0xe3, 0x79, 0x0f, 0xc1, 0x08}, Operation::other},        // VPALIGNR
        {k64, {0x62, 0xf1, 0x7c, 0x48, 0x10, 0x00}, Operation::other},        // VMOVUPS zmm
        {k64, {0x62, 0xf3, 0x7d, 0x48, 0x25, 0xc0, 0xff}, Operation::other},  // VPTERNLOGD
        {k32, {0xc4, 0x00}, Operation::other},                                // LES
        {k32, {0x62, 0x00}, Operation::other},                                // BOUND
        {k32, {0xea, 1, 2, 3, 4, 5, 6}, Operation::other},
        {k16, {0xea, 1, 2, 3, 4}, Operation::other},
        {k64, {0xc8, 1, 2, 3}, Operation::enter},
        {k64, {0x66, 0x0f, 0x84, 1, 2, 3, 4}, Operation::other},
        {k32, {0x66, 0x0f, 0x84, 1, 2}, Operation::other},
        {k64, {0xf3, 0xa4}, Operation::movs},
        {k64, {0xf3, 0x66, 0x6f}, Operation::outs},
        {k64, {0x0f, 0xba, 0x20, 0x03}, Operation::bt},
        {k64, {0x0f, 0xc7, 0x08}, Operation::cmpxchg8b},
        {k64, {0x66, 0x0f, 0x78, 0xc0, 1, 2}, Operation::other},  // EXTRQ
    };
    for (const Case& test : cases) {
        CAPTURE(test.bytes);
        CHECK(decoded(test.mode, test.bytes).operation == test.operation);
        Instruction in{};
        for (std::size_t shorter = 0; shorter < test.bytes.size(); ++shorter)
            CHECK(decode(std::span{test.bytes}.first(shorter), test.mode, in) == DecodeStatus::need_more);
    }
}

TEST_CASE("operands come from ModRM, SIB and REX", "[x86]") {
    const Instruction in = decoded(k64, {0x4f, 0x89, 0x94, 0xac, 0x78, 0x56, 0x34, 0x12});
    CHECK(in.form == Form::rm_reg);
    CHECK(in.operand_size == 8);
    CHECK(in.reg == R10);
    CHECK(in.memory);
    CHECK(in.base == R12);
    CHECK(in.index == R13);
    CHECK(in.scale == 2);
    CHECK(in.displacement == 0x12345678);
    CHECK(in.segment == SegmentName::ds);
    VcpuRegs regs{};
    regs.gpr[R12] = 0x1000;
    regs.gpr[R13] = 0x10;
    CHECK(effective_address(in, regs) == 0x12345678 + 0x1000 + 0x40);
}

TEST_CASE("stack-based addresses default to SS, an override wins, 64-bit mode knows FS and GS only",
          "[x86]") {
    CHECK(decoded(k64, {0x8b, 0x45, 0x00}).segment == SegmentName::ss);
    CHECK(decoded(k64, {0x8b, 0x04, 0x24}).segment == SegmentName::ss);
    CHECK(decoded(k64, {0x41, 0x8b, 0x45, 0x00}).segment == SegmentName::ds);  // R13
    CHECK(decoded(k64, {0x65, 0x8b, 0x45, 0x00}).segment == SegmentName::gs);
    CHECK(decoded(k64, {0x2e, 0x8b, 0x00}).segment == SegmentName::ds);
    CHECK(decoded(k32, {0x2e, 0x8b, 0x00}).segment == SegmentName::cs);
    CHECK(decoded(k16, {0x8b, 0x02}).segment == SegmentName::ss);
    CHECK(decoded(k32, {0x8b, 0x05, 1, 2, 3, 4}).base == Instruction::kNone);
    CHECK(decoded(k64, {0x8b, 0x05, 1, 2, 3, 4}).base == Instruction::kRip);
}

TEST_CASE("RIP-relative addresses count from the next instruction", "[x86]") {
    const Instruction in = decoded(k64, {0xc7, 0x05, 0xf6, 0xff, 0xff, 0xff, 1, 2, 3, 4});
    VcpuRegs regs{};
    regs.rip = 0xffff'8000'0000'1000;
    CHECK(effective_address(in, regs) == regs.rip);
}

TEST_CASE("memory and register sizes differ for extending moves", "[x86]") {
    const Instruction movzx = decoded(k64, {0x48, 0x0f, 0xb6, 0x00});
    CHECK((movzx.operand_size == 8 && movzx.memory_size == 1));
    const Instruction movsxd = decoded(k64, {0x48, 0x63, 0x00});
    CHECK((movsxd.operand_size == 8 && movsxd.memory_size == 4));
}

TEST_CASE("REX counts only right before the opcode", "[x86]") {
    CHECK(decoded(k64, {0x48, 0x66, 0x89, 0x00}).operand_size == 2);
    CHECK(decoded(k64, {0x66, 0x48, 0x89, 0x00}).operand_size == 8);
}

TEST_CASE("what the mode does not have, and what is too long, is invalid", "[x86]") {
    Instruction in{};
    CHECK(decode(std::vector<std::uint8_t>{0x06}, k64, in) == DecodeStatus::invalid);
    CHECK(decode(std::vector<std::uint8_t>{0x06}, k32, in) == DecodeStatus::ok);
    CHECK(decode(std::vector<std::uint8_t>{0x0f, 0x04}, k64, in) == DecodeStatus::invalid);
    std::vector<std::uint8_t> padded(13, 0x66);
    padded.insert(padded.end(), {0x0f, 0xa2});
    CHECK(decode(padded, k64, in) == DecodeStatus::ok);
    padded.insert(padded.begin(), 0x66);
    CHECK(decode(padded, k64, in) == DecodeStatus::invalid);
}

TEST_CASE("no instruction is complete before its last byte", "[x86]") {
    std::mt19937 random{1};
    for (unsigned i = 0; i < 200'000; ++i) {
        std::array<std::uint8_t, 15> bytes{};
        for (auto& byte : bytes)
            byte = static_cast<std::uint8_t>(random());
        const auto mode = static_cast<CodeMode>(i % 3);
        Instruction in{};
        if (decode(bytes, mode, in) != DecodeStatus::ok)
            continue;
        REQUIRE(in.length <= 15);
        Instruction again{};
        REQUIRE(decode(std::span{bytes}.first(in.length), mode, again) == DecodeStatus::ok);
        REQUIRE(again.length == in.length);
        REQUIRE(decode(std::span{bytes}.first(in.length - 1U), mode, again) == DecodeStatus::need_more);
    }
}

}  // namespace hv::x86
