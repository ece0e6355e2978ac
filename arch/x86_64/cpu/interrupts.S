// SPDX-License-Identifier: MIT
// 256 entry points for the IDT. Those of exceptions bring the stack to one shape, cpu::InterruptFrame, and call
// exception_entry() with a pointer to it. Interrupts are frequent and nobody looks at what they interrupted: they call
// interrupt_entry() with their vector, and only what a function may clobber is saved. Clobbers nothing. GS needs no swap:
// the hypervisor's GS base is in place whenever an IDT vector can be taken, since guests are left and entered with all
// interrupts held off.

    .altmacro
    .macro stub vector
    .balign 16
interrupt_stub_\vector:
    .if \vector >= 32
    pushq $\vector
    jmp interrupt_common
    .else
    // [sdm3 6.15 Exception and Interrupt Reference] vectors with an error code: 8, 10-14, 17, 21, 29, 30
    .if (\vector == 8) || ((\vector >= 10) && (\vector <= 14)) || (\vector == 17) || (\vector == 21) || (\vector == 29) || (\vector == 30)
    .else
    pushq $0
    .endif
    pushq $\vector
    jmp exception_common
    .endif
    .endm

    .text
    .globl interrupt_stubs
    .balign 16
interrupt_stubs:
    .set i, 0
    .rept 256
    stub %i
    .set i, i + 1
    .endr

interrupt_common:
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %rbp                              // 16 words in all: the stack is as aligned as the processor made it
    cld
    movq 80(%rsp), %rdi                     // the vector
    call interrupt_entry
    popq %rbp
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rdx
    popq %rcx
    popq %rax
    addq $8, %rsp
    iretq

exception_common:
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rbx
    pushq %rbp
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    cld
    movq %rsp, %rdi
    // Frame pointer and alignment for C++: the frame is 22 words, the processor aligned the stack before its 5.
    movq %rsp, %rbp
    andq $-16, %rsp
    call exception_entry
    movq %rbp, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rbp
    popq %rbx
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq
    .section .note.GNU-stack, "", @progbits
