// SPDX-License-Identifier: MIT
#include "fakes/run_on_cpu.hpp"

asm(R"(
    .pushsection .bss
    .balign 8
run_on_cpu_stack:     .skip 8
run_on_cpu_registers: .skip 8
run_on_cpu_code:      .skip 8
run_on_cpu_rax:       .skip 8
    .popsection
    .text
    .globl run_on_cpu, run_on_cpu_return
run_on_cpu:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, run_on_cpu_stack(%rip)
    mov %rdi, run_on_cpu_registers(%rip)
    mov %rsi, run_on_cpu_code(%rip)
    mov %rdi, %rax
    pushq 128(%rax)
    popfq
    mov 8(%rax), %rcx
    mov 16(%rax), %rdx
    mov 24(%rax), %rbx
    mov 32(%rax), %rsp
    mov 40(%rax), %rbp
    mov 48(%rax), %rsi
    mov 56(%rax), %rdi
    mov 64(%rax), %r8
    mov 72(%rax), %r9
    mov 80(%rax), %r10
    mov 88(%rax), %r11
    mov 96(%rax), %r12
    mov 104(%rax), %r13
    mov 112(%rax), %r14
    mov 120(%rax), %r15
    mov 0(%rax), %rax
    jmp *run_on_cpu_code(%rip)
run_on_cpu_return:
    mov %rax, run_on_cpu_rax(%rip)
    mov run_on_cpu_registers(%rip), %rax
    mov %rcx, 8(%rax)
    mov %rdx, 16(%rax)
    mov %rbx, 24(%rax)
    mov %rsp, 32(%rax)
    mov %rbp, 40(%rax)
    mov %rsi, 48(%rax)
    mov %rdi, 56(%rax)
    mov %r8, 64(%rax)
    mov %r9, 72(%rax)
    mov %r10, 80(%rax)
    mov %r11, 88(%rax)
    mov %r12, 96(%rax)
    mov %r13, 104(%rax)
    mov %r14, 112(%rax)
    mov %r15, 120(%rax)
    mov run_on_cpu_stack(%rip), %rsp
    pushfq
    popq 128(%rax)
    mov run_on_cpu_rax(%rip), %rcx
    mov %rcx, 0(%rax)
    cld
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret
)");
