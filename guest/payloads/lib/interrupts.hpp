// SPDX-License-Identifier: MIT
// The payload's IDT: handlers by vector, and instructions that are allowed to fault.
#pragma once

#include <cstdint>

namespace payload {

/// What start.S leaves on the stack.
struct Frame {
    std::uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    std::uint64_t vector, error_code;
    std::uint64_t rip, cs, rflags, rsp, ss;
};

using Handler = void (*)(Frame&);

/// An interrupt without a handler, and an exception outside of try_..., ends the payload with a dump and
/// code 2.
void set_handler(std::uint8_t vector, Handler handler);
/// The processor enters `entry` directly; for code that has to be as short as can be.
void set_gate(std::uint8_t vector, const void* entry);
/// For each CPU.
void load_idt();

inline constexpr int kNoFault = -1;
/// An instruction with its operands, as of an extended asm, that is allowed to fault; `outputs` may be
/// EMPTY, and several are separated by COMMA. Afterwards fault() tells.
#define TRY_INSTRUCTION(instruction, outputs, ...)                                                           \
    asm volatile("movl $-1, payload_fault; movq $1f, payload_fixup; " instruction                            \
                 "; 1: movq $0, payload_fixup"                                                               \
                 : outputs:__VA_ARGS__                                                                       \
                 : "memory", "cc")
#define EMPTY
#define COMMA ,
/// The vector of the exception that the last TRY_INSTRUCTION or try_... raised, or kNoFault; its error code.
int fault();
std::uint64_t fault_error_code();

/// Each returns the vector of the exception that the instruction raised, or kNoFault.
int try_rdmsr(std::uint32_t msr, std::uint64_t& value);
int try_wrmsr(std::uint32_t msr, std::uint64_t value);
/// VMMCALL on AMD's processors, VMCALL on others; RAX in and out.
int try_hypercall(std::uint64_t& rax);

}  // namespace payload
