// SPDX-License-Identifier: MIT
// EntryResult vmx_enter(VcpuRegs* regs [rdi], bool launched [esi], uint64_t* host_rsp [rdx]), see instructions.hpp.
// Clobbers what a call may clobber. A VM exit loads RSP from HOST_RSP and RFLAGS with all flags clear: interrupts masked,
// DF clear [sdm3 28.5.3 Loading Host RIP, RSP, and RFLAGS]. The guest's registers do not stay behind: those that no POP
// overwrites are cleared, so that no wrong path of the host computes with a guest's values.

#define GPR(index) (8 * (index))
#define RAX 0
#define RCX 1
#define RDX 2
#define RBX 3
#define RBP 5
#define RSI 6
#define RDI 7
#define HOST_RSP 0x6c14

    .text
    .globl vmx_enter
vmx_enter:
    pushq %rbp
    movq %rsp, %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    pushq %rdi                              // regs, found at RSP again on VM exit
    cmpq %rsp, (%rdx)
    je 1f
    movl $HOST_RSP, %eax
    vmwrite %rsp, %rax
    jbe failed
    movq %rsp, (%rdx)
1:  testb %sil, %sil                        // ZF lasts until the jump: MOV changes no flag
    movq GPR(RAX)(%rdi), %rax
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
    jnz 2f
    vmlaunch
    jmp failed
2:  vmresume
failed:
    movl $2, %eax                           // ZF: VMfailValid
    movl $1, %ecx                           // CF: VMfailInvalid
    cmovc %ecx, %eax
    jmp leave

    .globl vmx_exit_point
    .balign 16
vmx_exit_point:
    pushq %rdi
    movq 8(%rsp), %rdi                      // regs
    movq %rax, GPR(RAX)(%rdi)
    movq %rcx, GPR(RCX)(%rdi)
    movq %rdx, GPR(RDX)(%rdi)
    movq %rbx, GPR(RBX)(%rdi)
    movq %rbp, GPR(RBP)(%rdi)
    movq %rsi, GPR(RSI)(%rdi)
    popq GPR(RDI)(%rdi)
    movq %r8, GPR(8)(%rdi)
    movq %r9, GPR(9)(%rdi)
    movq %r10, GPR(10)(%rdi)
    movq %r11, GPR(11)(%rdi)
    movq %r12, GPR(12)(%rdi)
    movq %r13, GPR(13)(%rdi)
    movq %r14, GPR(14)(%rdi)
    movq %r15, GPR(15)(%rdi)
    xorl %eax, %eax                         // EntryResult::exited
    xorl %ecx, %ecx
    xorl %edx, %edx
    xorl %esi, %esi
    xorl %r8d, %r8d
    xorl %r9d, %r9d
    xorl %r10d, %r10d
    xorl %r11d, %r11d
leave:
    popq %rdi                               // regs
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .section .note.GNU-stack, "", @progbits
