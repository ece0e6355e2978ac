// SPDX-License-Identifier: MIT
// void svm_enter(VcpuRegs* registers [rdi], Hpa vmcb [rsi], Hpa host [rdx]), see instructions.hpp.
// Clobbers what a call may clobber. Assumes V_INTR_MASKING: IF as of VMRUN decides whether physical interrupts end the
// guest's run, so it is set under GIF = 0, where nothing can be taken [apm2 15.21.1 Physical (INTR) Interrupt Masking in
// EFLAGS]. Between VMLOAD of the guest and VMLOAD of the host, GS, FS and TR are the guest's: GIF stays clear there.

#define GPR(index) (8 * (index))
#define RCX 1
#define RDX 2
#define RBX 3
#define RBP 5
#define RSI 6
#define RDI 7

    .text
    .globl svm_enter
svm_enter:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    pushq %rdx                              // host
    pushq %rdi                              // registers
    movq %rsi, %rax
    clgi
    sti
    vmload %rax
    movq GPR(RCX)(%rdi), %rcx
    movq GPR(RDX)(%rdi), %rdx
    movq GPR(RBX)(%rdi), %rbx
    movq GPR(RBP)(%rdi), %rbp
    movq GPR(RSI)(%rdi), %rsi
    movq GPR(8)(%rdi), %r8
    movq GPR(9)(%rdi), %r9
    movq GPR(10)(%rdi), %r10
    movq GPR(11)(%rdi), %r11
    movq GPR(12)(%rdi), %r12
    movq GPR(13)(%rdi), %r13
    movq GPR(14)(%rdi), %r14
    movq GPR(15)(%rdi), %r15
    movq GPR(RDI)(%rdi), %rdi
    vmrun %rax
    vmsave %rax                             // RAX and RSP are the host's again
    xchgq %rdi, (%rsp)
    movq %rcx, GPR(RCX)(%rdi)
    movq %rdx, GPR(RDX)(%rdi)
    movq %rbx, GPR(RBX)(%rdi)
    movq %rbp, GPR(RBP)(%rdi)
    movq %rsi, GPR(RSI)(%rdi)
    movq %r8, GPR(8)(%rdi)
    movq %r9, GPR(9)(%rdi)
    movq %r10, GPR(10)(%rdi)
    movq %r11, GPR(11)(%rdi)
    movq %r12, GPR(12)(%rdi)
    movq %r13, GPR(13)(%rdi)
    movq %r14, GPR(14)(%rdi)
    movq %r15, GPR(15)(%rdi)
    popq GPR(RDI)(%rdi)
    popq %rax                               // host
    vmload %rax
    cli
    stgi                                    // a pending NMI is taken here
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .section .note.GNU-stack, "", @progbits
