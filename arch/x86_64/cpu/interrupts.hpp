// SPDX-License-Identifier: MIT
// The host's interrupt descriptor table. Exceptions end in a panic; interrupts run the handler of their
// vector, with interrupts masked, at the few places where the hypervisor lets them in (the run loop and the
// idle sleep).
#pragma once

#include <cstdint>

namespace hv::cpu {

/// What interrupts.S leaves on the stack.
struct InterruptFrame {
    std::uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    std::uint64_t vector, error_code;
    std::uint64_t rip, cs, rflags, rsp, ss;
};

/// Vectors that the hypervisor uses for itself; device interrupts are below them.
enum class HostVector : std::uint8_t {
    first_device = 0x40,
    last_device = 0xdf,
    timer = 0xf0,
    kick = 0xf1,
    error = 0xfe,
    spurious = 0xff,
};

using InterruptHandler = void (*)(void* context);

/// Fills the IDT; once, on the boot CPU.
void build_idt();
/// Makes the executing CPU use it.
void load_idt();
/// `handler` runs for `vector` from now on. It does not send the EOI: the caller of handlers does.
void set_interrupt_handler(std::uint8_t vector, InterruptHandler handler, void* context);
/// Called after each handler: local APIC EOI.
void set_end_of_interrupt(void (*function)());

/// Executes WRMSR; false: it raised #GP. On the boot CPU, while it is alone.
bool try_wrmsr(std::uint32_t index, std::uint64_t value);

}  // namespace hv::cpu
