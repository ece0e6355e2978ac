// SPDX-License-Identifier: MIT
// The opcode maps as data [sdm2 A.3 One, Two, and Three-Byte Opcode Maps]: what follows each opcode, and what
// it does where anybody asks.
#pragma once

#include "vmm/x86/instruction.hpp"

#include <array>
#include <cstdint>

namespace hv::x86 {

enum class Immediate : std::uint8_t {
    none,
    byte,         ///< sign-extended
    word,         ///< RET, and EXTRQ
    size_z,       ///< 2 or 4 bytes by operand size, sign-extended
    size_v,       ///< 2, 4 or 8 bytes by operand size: MOV to register
    address,      ///< as wide as addresses: MOV with a direct address
    far_pointer,  ///< size_z and a selector
    enter,        ///< word and byte
    test_byte,    ///< a byte if ModRM.reg is 0 or 1: F6
    test_z,       ///< size_z if ModRM.reg is 0 or 1: F7
    branch_z,     ///< 2 or 4 bytes; in 64-bit mode always 4, as Intel has it
};

/// Which opcodes ModRM.reg (or more) tells apart.
enum class Group : std::uint8_t {
    none,
    group1,
    group2,
    group3,
    group4,
    group5,
    group7,
    group8,
    group9,
    mov_imm,
    pop
};

struct Opcode {
    Operation operation{Operation::other};
    Form form{Form::none};
    Immediate immediate{Immediate::none};
    Group group{Group::none};
    std::uint8_t flags{0};

    static constexpr std::uint8_t kModrm = 1;
    static constexpr std::uint8_t kByte = 2;   ///< operands are bytes
    static constexpr std::uint8_t kStack = 4;  ///< operands are 64 bits wide in 64-bit mode without REX.W
    static constexpr std::uint8_t kNot64 = 8;  ///< undefined in 64-bit mode
    static constexpr std::uint8_t kInvalid = 16;
    static constexpr std::uint8_t kPrefix = 32;     ///< a prefix, an escape to another map, or VEX or EVEX
    static constexpr std::uint8_t kRegisters = 64;  ///< ModRM.mod is ignored: MOV CR, MOV DR
};

namespace opcode_table {

constexpr Operation operator+(Operation first, unsigned distance) {
    return static_cast<Operation>(static_cast<unsigned>(first) + distance);
}

constexpr std::array<Opcode, 256> make_one_byte() {
    constexpr auto M = Opcode::kModrm, B = Opcode::kByte, S = Opcode::kStack, N = Opcode::kNot64;
    std::array<Opcode, 256> t{};
    for (unsigned i = 0; i < 8; ++i) {
        const Operation operation = Operation::add + i;
        t[i * 8 + 0] = {.operation = operation, .form = Form::rm_reg, .flags = M | B};
        t[i * 8 + 1] = {.operation = operation, .form = Form::rm_reg, .flags = M};
        t[i * 8 + 2] = {.operation = operation, .form = Form::reg_rm, .flags = M | B};
        t[i * 8 + 3] = {.operation = operation, .form = Form::reg_rm, .flags = M};
        t[i * 8 + 4] = {
            .operation = operation, .form = Form::acc_imm, .immediate = Immediate::byte, .flags = B};
        t[i * 8 + 5] = {.operation = operation, .form = Form::acc_imm, .immediate = Immediate::size_z};
        t[i * 8 + 6] = t[i * 8 + 7] = {.flags = N};  // PUSH, POP of segments, DAA and the like
    }
    for (unsigned prefix : {0x0fU, 0x26U, 0x2eU, 0x36U, 0x3eU, 0x62U, 0x64U, 0x65U, 0x66U, 0x67U, 0xc4U,
                            0xc5U, 0xf0U, 0xf2U, 0xf3U})
        t[prefix] = {.flags = Opcode::kPrefix};
    for (unsigned i = 0; i < 8; ++i) {
        t[0x40 + i] = {.operation = Operation::inc, .form = Form::reg};  // REX prefixes in 64-bit mode
        t[0x48 + i] = {.operation = Operation::dec, .form = Form::reg};
        t[0x50 + i] = {.operation = Operation::push, .form = Form::reg, .flags = S};
        t[0x58 + i] = {.operation = Operation::pop, .form = Form::reg, .flags = S};
        t[0x90 + i] = {.operation = Operation::xchg, .form = Form::acc_reg};
        t[0xb0 + i] = {
            .operation = Operation::mov, .form = Form::reg_imm, .immediate = Immediate::byte, .flags = B};
        t[0xb8 + i] = {.operation = Operation::mov, .form = Form::reg_imm, .immediate = Immediate::size_v};
        t[0xd8 + i] = {.form = Form::rm, .flags = M};  // x87
    }
    t[0x60] = t[0x61] = {.flags = N};
    t[0x63] = {.operation = Operation::movsx, .form = Form::reg_rm, .flags = M};  // ARPL outside 64-bit mode
    t[0x68] = {.operation = Operation::push, .form = Form::imm, .immediate = Immediate::size_z, .flags = S};
    t[0x69] = {
        .operation = Operation::imul, .form = Form::reg_rm_imm, .immediate = Immediate::size_z, .flags = M};
    t[0x6a] = {.operation = Operation::push, .form = Form::imm, .immediate = Immediate::byte, .flags = S};
    t[0x6b] = {
        .operation = Operation::imul, .form = Form::reg_rm_imm, .immediate = Immediate::byte, .flags = M};
    for (unsigned i = 0x70; i < 0x80; ++i)
        t[i] = {.form = Form::relative, .immediate = Immediate::byte, .flags = S};
    for (unsigned i = 0x80; i < 0x84; ++i) {
        t[i] = {.form = Form::rm_imm, .immediate = Immediate::byte, .group = Group::group1, .flags = M};
        if ((i & 1) == 0)
            t[i].flags |= B;
    }
    t[0x81].immediate = Immediate::size_z;
    t[0x82].flags |= N;
    for (unsigned wide = 0; wide < 2; ++wide) {
        const std::uint8_t b = wide == 0 ? B : std::uint8_t{0};
        const std::uint8_t mb = M | b;
        const Immediate immediate = wide == 0 ? Immediate::byte : Immediate::size_z;
        t[0x6c + wide] = {.operation = Operation::ins, .form = Form::string, .flags = b};
        t[0x6e + wide] = {.operation = Operation::outs, .form = Form::string, .flags = b};
        t[0x84 + wide] = {.operation = Operation::test, .form = Form::rm_reg, .flags = mb};
        t[0x86 + wide] = {.operation = Operation::xchg, .form = Form::rm_reg, .flags = mb};
        t[0x88 + wide] = {.operation = Operation::mov, .form = Form::rm_reg, .flags = mb};
        t[0x8a + wide] = {.operation = Operation::mov, .form = Form::reg_rm, .flags = mb};
        t[0xa0 + wide] = {.operation = Operation::mov,
                          .form = Form::acc_moffs,
                          .immediate = Immediate::address,
                          .flags = b};
        t[0xa2 + wide] = {.operation = Operation::mov,
                          .form = Form::moffs_acc,
                          .immediate = Immediate::address,
                          .flags = b};
        t[0xa4 + wide] = {.operation = Operation::movs, .form = Form::string, .flags = b};
        t[0xa6 + wide] = {.operation = Operation::cmps, .form = Form::string, .flags = b};
        t[0xa8 + wide] = {
            .operation = Operation::test, .form = Form::acc_imm, .immediate = immediate, .flags = b};
        t[0xaa + wide] = {.operation = Operation::stos, .form = Form::string, .flags = b};
        t[0xac + wide] = {.operation = Operation::lods, .form = Form::string, .flags = b};
        t[0xae + wide] = {.operation = Operation::scas, .form = Form::string, .flags = b};
        t[0xc0 + wide] = {
            .form = Form::rm_imm, .immediate = Immediate::byte, .group = Group::group2, .flags = mb};
        t[0xc6 + wide] = {.form = Form::rm_imm, .immediate = immediate, .group = Group::mov_imm, .flags = mb};
        t[0xd0 + wide] = {.form = Form::rm_one, .group = Group::group2, .flags = mb};
        t[0xd2 + wide] = {.form = Form::rm_cl, .group = Group::group2, .flags = mb};
        t[0xe4 + wide] = {
            .operation = Operation::in, .form = Form::imm, .immediate = Immediate::byte, .flags = b};
        t[0xe6 + wide] = {
            .operation = Operation::out, .form = Form::imm, .immediate = Immediate::byte, .flags = b};
        t[0xec + wide] = {.operation = Operation::in, .flags = b};
        t[0xee + wide] = {.operation = Operation::out, .flags = b};
        t[0xf6 + wide] = {.form = Form::rm,
                          .immediate = wide == 0 ? Immediate::test_byte : Immediate::test_z,
                          .group = Group::group3,
                          .flags = mb};
        t[0xfe + wide] = {.form = Form::rm, .group = wide == 0 ? Group::group4 : Group::group5, .flags = mb};
    }
    t[0x8c] = {.operation = Operation::mov_from_segment, .form = Form::rm, .flags = M};
    t[0x8e] = {.operation = Operation::mov_to_segment, .form = Form::rm, .flags = M};
    t[0x8d] = {.form = Form::reg_rm, .flags = M};  // LEA
    t[0x8f] = {.operation = Operation::pop, .form = Form::rm, .group = Group::pop, .flags = M | S};
    t[0x9a] = {.immediate = Immediate::far_pointer, .flags = N};
    t[0x9c] = {.operation = Operation::pushf, .flags = S};
    t[0x9d] = {.operation = Operation::popf, .flags = S};
    t[0xc2] = {.operation = Operation::ret, .form = Form::imm, .immediate = Immediate::word, .flags = S};
    t[0xc3] = {.operation = Operation::ret, .flags = S};
    t[0xc8] = {.operation = Operation::enter, .immediate = Immediate::enter, .flags = S};
    t[0xc9] = {.operation = Operation::leave, .flags = S};
    t[0xca] = {.immediate = Immediate::word};
    t[0xcd] = {.immediate = Immediate::byte};
    t[0xce] = t[0xd6] = {.flags = N};
    t[0xd4] = t[0xd5] = {.immediate = Immediate::byte, .flags = N};
    for (unsigned i = 0xe0; i < 0xe4; ++i)
        t[i] = {.form = Form::relative, .immediate = Immediate::byte, .flags = S};
    t[0xe8] = {
        .operation = Operation::call, .form = Form::relative, .immediate = Immediate::branch_z, .flags = S};
    t[0xe9] = {
        .operation = Operation::jmp, .form = Form::relative, .immediate = Immediate::branch_z, .flags = S};
    t[0xea] = {.immediate = Immediate::far_pointer, .flags = N};
    t[0xeb] = {.operation = Operation::jmp, .form = Form::relative, .immediate = Immediate::byte, .flags = S};
    t[0xf4] = {.operation = Operation::hlt};
    return t;
}

constexpr std::array<Opcode, 256> make_two_byte() {
    constexpr auto M = Opcode::kModrm, B = Opcode::kByte, S = Opcode::kStack;
    std::array<Opcode, 256> t{};
    t.fill({.form = Form::reg_rm, .flags = M});  // most are SIMD, which nobody asks about
    for (unsigned invalid : {0x04U, 0x0aU, 0x0cU, 0x24U, 0x25U, 0x26U, 0x27U, 0x36U, 0x39U, 0x3bU, 0x3cU,
                             0x3dU, 0x3eU, 0x3fU, 0x7aU, 0x7bU, 0xa6U, 0xa7U})
        t[invalid] = {.flags = Opcode::kInvalid};
    for (unsigned bare : {0x05U, 0x07U, 0x0bU, 0x0eU, 0x34U, 0x35U, 0x37U, 0x77U, 0xaaU})
        t[bare] = {};
    t[0x38] = t[0x3a] = {.flags = Opcode::kPrefix};
    t[0x00] = {.form = Form::rm, .flags = M};
    t[0x01] = {.form = Form::rm, .group = Group::group7, .flags = M};
    t[0x06] = {.operation = Operation::clts};
    t[0x08] = {.operation = Operation::invd};
    t[0x09] = {.operation = Operation::wbinvd};
    t[0x0f].immediate = Immediate::byte;  // 3DNow!: the opcode comes last
    t[0x20] = {
        .operation = Operation::mov_from_cr, .form = Form::rm_reg, .flags = M | S | Opcode::kRegisters};
    t[0x21] = {
        .operation = Operation::mov_from_dr, .form = Form::rm_reg, .flags = M | S | Opcode::kRegisters};
    t[0x22] = {.operation = Operation::mov_to_cr, .form = Form::reg_rm, .flags = M | S | Opcode::kRegisters};
    t[0x23] = {.operation = Operation::mov_to_dr, .form = Form::reg_rm, .flags = M | S | Opcode::kRegisters};
    t[0x30] = {.operation = Operation::wrmsr};
    t[0x31] = {.operation = Operation::rdtsc};
    t[0x32] = {.operation = Operation::rdmsr};
    t[0x33] = {.operation = Operation::rdpmc};
    for (unsigned i = 0; i < 16; ++i) {
        t[0x40 + i] = {.operation = Operation::cmov, .form = Form::reg_rm, .flags = M};
        t[0x80 + i] = {.form = Form::relative, .immediate = Immediate::branch_z, .flags = S};
        t[0x90 + i] = {.operation = Operation::set_cc, .form = Form::rm, .flags = M | B};
    }
    for (unsigned i : {0x70U, 0x71U, 0x72U, 0x73U, 0xc2U, 0xc4U, 0xc5U, 0xc6U})
        t[i].immediate = Immediate::byte;
    for (unsigned i : {0xa0U, 0xa1U, 0xa8U, 0xa9U})
        t[i] = {.flags = S};  // PUSH, POP of FS and GS
    t[0xa4] = {
        .operation = Operation::shld, .form = Form::rm_reg_imm, .immediate = Immediate::byte, .flags = M};
    t[0xa5] = {.operation = Operation::shld, .form = Form::rm_reg_cl, .flags = M};
    t[0xac] = {
        .operation = Operation::shrd, .form = Form::rm_reg_imm, .immediate = Immediate::byte, .flags = M};
    t[0xad] = {.operation = Operation::shrd, .form = Form::rm_reg_cl, .flags = M};
    t[0xa2] = {.operation = Operation::cpuid};
    t[0xa3] = {.operation = Operation::bt, .form = Form::rm_reg, .flags = M};
    t[0xab] = {.operation = Operation::bts, .form = Form::rm_reg, .flags = M};
    t[0xaf] = {.operation = Operation::imul, .form = Form::reg_rm, .flags = M};
    t[0xb0] = {.operation = Operation::cmpxchg, .form = Form::rm_reg, .flags = M | B};
    t[0xb1] = {.operation = Operation::cmpxchg, .form = Form::rm_reg, .flags = M};
    t[0xb3] = {.operation = Operation::btr, .form = Form::rm_reg, .flags = M};
    t[0xb6] = t[0xb7] = {.operation = Operation::movzx, .form = Form::reg_rm, .flags = M};
    t[0xba] = {.form = Form::rm_imm, .immediate = Immediate::byte, .group = Group::group8, .flags = M};
    t[0xb8] = {.operation = Operation::popcnt, .form = Form::reg_rm, .flags = M};  // with F3
    t[0xbc] = {.operation = Operation::bsf, .form = Form::reg_rm, .flags = M};     // with F3: TZCNT
    t[0xbd] = {.operation = Operation::bsr, .form = Form::reg_rm, .flags = M};     // with F3: LZCNT
    t[0xbb] = {.operation = Operation::btc, .form = Form::rm_reg, .flags = M};
    t[0xbe] = t[0xbf] = {.operation = Operation::movsx, .form = Form::reg_rm, .flags = M};
    t[0xc0] = {.operation = Operation::xadd, .form = Form::rm_reg, .flags = M | B};
    t[0xc1] = {.operation = Operation::xadd, .form = Form::rm_reg, .flags = M};
    t[0xc3] = {.operation = Operation::mov, .form = Form::rm_reg, .flags = M};  // MOVNTI
    t[0xc7] = {.form = Form::rm, .group = Group::group9, .flags = M};
    for (unsigned i = 0xc8; i < 0xd0; ++i)
        t[i] = {.form = Form::reg};  // BSWAP
    return t;
}

/// A move between a vector register and memory: by map, opcode and the prefix that selects among
/// instructions.
struct VectorMove {
    std::uint8_t map;  ///< 1: 0F, 2: 0F38
    std::uint8_t opcode;
    std::uint8_t prefixes;  ///< k* or-ed
    std::uint8_t size;      ///< of the memory operand in bytes; kFull, kWord
    std::uint8_t flags;

    static constexpr std::uint8_t kBare = 1, k66 = 2, kF3 = 4, kF2 = 8;
    static constexpr std::uint8_t kFull = 0;   ///< the whole register
    static constexpr std::uint8_t kWord = 1;   ///< 4 bytes, 8 with REX.W
    static constexpr std::uint8_t kStore = 1;  ///< else it loads
    static constexpr std::uint8_t kAligned = 2;
    static constexpr std::uint8_t kHalf = 4;  ///< a load leaves the other half alone
    static constexpr std::uint8_t kHigh = 8;
    static constexpr std::uint8_t kMmx = 16;  ///< without prefix the register is an MMX register
};

inline constexpr VectorMove kVectorMoves[] = {
    {1, 0x10, VectorMove::kBare | VectorMove::k66, VectorMove::kFull, 0},  // MOVUPS, MOVUPD
    {1, 0x11, VectorMove::kBare | VectorMove::k66, VectorMove::kFull, VectorMove::kStore},
    {1, 0x10, VectorMove::kF3, 4, 0},  // MOVSS
    {1, 0x11, VectorMove::kF3, 4, VectorMove::kStore},
    {1, 0x10, VectorMove::kF2, 8, 0},  // MOVSD
    {1, 0x11, VectorMove::kF2, 8, VectorMove::kStore},
    {1, 0x12, VectorMove::kBare | VectorMove::k66, 8, VectorMove::kHalf},  // MOVLPS, MOVLPD
    {1, 0x13, VectorMove::kBare | VectorMove::k66, 8, VectorMove::kStore},
    {1, 0x16, VectorMove::kBare | VectorMove::k66, 8, VectorMove::kHalf | VectorMove::kHigh},  // MOVHPS
    {1, 0x17, VectorMove::kBare | VectorMove::k66, 8, VectorMove::kStore | VectorMove::kHigh},
    {1, 0x28, VectorMove::kBare | VectorMove::k66, VectorMove::kFull, VectorMove::kAligned},  // MOVAPS
    {1, 0x29, VectorMove::kBare | VectorMove::k66, VectorMove::kFull,
     VectorMove::kStore | VectorMove::kAligned},
    {1, 0x2b, VectorMove::kBare | VectorMove::k66, VectorMove::kFull,
     VectorMove::kStore | VectorMove::kAligned},                                          // MOVNTPS, MOVNTPD
    {1, 0x6e, VectorMove::kBare | VectorMove::k66, VectorMove::kWord, VectorMove::kMmx},  // MOVD, MOVQ
    {1, 0x7e, VectorMove::kBare | VectorMove::k66, VectorMove::kWord, VectorMove::kStore | VectorMove::kMmx},
    {1, 0x7e, VectorMove::kF3, 8, 0},                                     // MOVQ
    {1, 0xd6, VectorMove::k66, 8, VectorMove::kStore},                    // MOVQ
    {1, 0x6f, VectorMove::kBare, 8, VectorMove::kMmx},                    // MOVQ
    {1, 0x6f, VectorMove::k66, VectorMove::kFull, VectorMove::kAligned},  // MOVDQA
    {1, 0x6f, VectorMove::kF3, VectorMove::kFull, 0},                     // MOVDQU
    {1, 0x7f, VectorMove::kBare, 8, VectorMove::kStore | VectorMove::kMmx},
    {1, 0x7f, VectorMove::k66, VectorMove::kFull, VectorMove::kStore | VectorMove::kAligned},
    {1, 0x7f, VectorMove::kF3, VectorMove::kFull, VectorMove::kStore},
    {1, 0xe7, VectorMove::kBare, 8, VectorMove::kStore | VectorMove::kMmx},                    // MOVNTQ
    {1, 0xe7, VectorMove::k66, VectorMove::kFull, VectorMove::kStore | VectorMove::kAligned},  // MOVNTDQ
    {1, 0xf0, VectorMove::kF2, VectorMove::kFull, 0},                                          // LDDQU
    {2, 0x2a, VectorMove::k66, VectorMove::kFull, VectorMove::kAligned},                       // MOVNTDQA
};

inline constexpr std::array<Opcode, 256> kOneByte = make_one_byte();
inline constexpr std::array<Opcode, 256> kTwoByte = make_two_byte();

}  // namespace opcode_table
}  // namespace hv::x86
