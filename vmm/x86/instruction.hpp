// SPDX-License-Identifier: MIT
// A decoded x86 instruction: what it does, as far as an intercept or the emulator asks, its operands and its
// length. Instructions that nobody asks about are Operation::other; their length is right all the same.
#pragma once

#include "vmm/core/cpu_state.hpp"

#include <cstdint>

namespace hv::x86 {

/// The default operand and address size of the code segment.
enum class CodeMode : std::uint8_t { bits16, bits32, bits64 };

enum class Operation : std::uint8_t {
    // The eight in the order of ModRM.reg of opcodes 80 to 83 and of opcode bits 5:3 below 40.
    add,
    or_,
    adc,
    sbb,
    and_,
    sub,
    xor_,
    cmp,
    // In the order of ModRM.reg of C0, C1 and D0 to D3 [sdm2 A.4.2 Opcode Extension Tables], group 2.
    rol,
    ror,
    rcl,
    rcr,
    shl,
    shr,
    sal,
    sar,
    // In the order of ModRM.reg of F6 and F7, group 3.
    test,
    test_alias,
    not_,
    neg,
    mul,
    imul,
    div,
    idiv,
    // In the order of ModRM.reg 4 to 7 of 0F BA, group 8.
    bt,
    bts,
    btr,
    btc,
    inc,
    dec,
    mov,
    movzx,
    movsx,
    movbe,
    xchg,
    xadd,
    cmpxchg,
    cmpxchg8b,
    shld,
    shrd,
    bsf,
    bsr,
    tzcnt,
    lzcnt,
    popcnt,
    set_cc,
    cmov,
    push,
    pop,
    call,
    jmp,
    call_far,
    jmp_far,
    ret,
    enter,
    leave,
    pushf,
    popf,
    mov_from_segment,
    mov_to_segment,
    vector_move,
    movs,
    cmps,
    stos,
    lods,
    scas,
    ins,
    outs,
    in,
    out,
    cpuid,
    rdmsr,
    wrmsr,
    rdtsc,
    rdtscp,
    rdpmc,
    hlt,
    pause,
    vmcall,
    vmmcall,
    invd,
    wbinvd,
    invlpg,
    xsetbv,
    clts,
    // In the order of ModRM.reg of 0F 01, group 7.
    sgdt,
    sidt,
    lgdt,
    lidt,
    lmsw,
    smsw,
    mov_from_cr,
    mov_to_cr,
    mov_from_dr,
    mov_to_dr,
    other,
};

/// Which operands an instruction has; "rm" is the register or memory that ModRM.mod and ModRM.rm name.
enum class Form : std::uint8_t {
    none,
    rm,          ///< rm alone
    rm_reg,      ///< rm is the destination
    reg_rm,      ///< rm is the source
    reg_rm_imm,  ///< IMUL
    rm_reg_imm,  ///< SHLD, SHRD
    rm_reg_cl,   ///< SHLD, SHRD
    rm_imm,
    rm_one,  ///< shifts by one
    rm_cl,   ///< shifts by CL
    acc_imm,
    reg_imm,    ///< the register in the opcode
    reg,        ///< the register in the opcode
    acc_reg,    ///< XCHG of the accumulator with the register in the opcode
    acc_moffs,  ///< MOV from a direct address, in `displacement`
    moffs_acc,
    imm,
    relative,  ///< a branch's displacement, in `immediate`
    string,
};

enum class Repeat : std::uint8_t { none, rep, repne };  ///< F3 is `rep` (REP, REPE), F2 is `repne`

struct Instruction {
    static constexpr std::uint8_t kNone = 0xff;  ///< no base or index register
    static constexpr std::uint8_t kRip = 0xfe;   ///< base is the address of the next instruction

    Operation operation;
    Form form;
    std::uint8_t length;
    std::uint8_t opcode;        ///< the last opcode byte
    std::uint8_t operand_size;  ///< in bytes: 1, 2, 4 or 8
    std::uint8_t
        memory_size;  ///< in bytes, of the memory operand; differs from operand_size for MOVZX and the like
    std::uint8_t address_size;  ///< in bytes: 2, 4 or 8
    std::uint8_t modrm;
    std::uint8_t reg;  ///< ModRM.reg extended by REX.R, or the register in the opcode extended by REX.B
    std::uint8_t rm;   ///< ModRM.rm extended by REX.B, if it names a register
    bool has_modrm;
    bool memory;  ///< there is a memory operand, addressed by `segment`, `base`, `index`, `scale`,
                  ///< `displacement`
    bool rex;     ///< a REX prefix: byte registers 4 to 7 are SPL, BPL, SIL, DIL
    bool lock;
    Repeat repeat;
    VectorFile vector;    ///< which registers a vector_move names by `reg`
    bool aligned;         ///< the memory operand of a vector_move has to be
    bool half;            ///< a vector_move replaces one half of its register and leaves the other
    bool high;            ///< a vector_move is about the register's bits 127:64
    SegmentName segment;  ///< of the memory operand, of a string instruction's source
    std::uint8_t base;
    std::uint8_t index;
    std::uint8_t scale;  ///< shift count of the index
    CodeMode mode;       ///< what it was decoded for
    std::int64_t displacement;
    std::uint64_t immediate;  ///< sign-extended where the instruction does that
};

/// The sum that effective_address() cuts: right in its low 16 bits.
inline std::uint64_t uncut_address(const Instruction& instruction, const VcpuRegs& regs) {
    auto address = static_cast<std::uint64_t>(instruction.displacement);
    if (instruction.base < 16)
        address += regs.gpr[instruction.base];
    else if (instruction.base == Instruction::kRip)
        address += regs.rip + instruction.length;
    if (instruction.index < 16)
        address += regs.gpr[instruction.index] << instruction.scale;
    return address;
}

/// The memory operand's offset in its segment, cut to the address size. `regs.rip` is the instruction's own.
inline std::uint64_t effective_address(const Instruction& instruction, const VcpuRegs& regs) {
    const std::uint64_t address = uncut_address(instruction, regs);
    return instruction.address_size == 8   ? address
           : instruction.address_size == 4 ? static_cast<std::uint32_t>(address)
                                           : static_cast<std::uint16_t>(address);
}

}  // namespace hv::x86
