// SPDX-License-Identifier: MIT
// Where an application processor begins: real mode at a page below 1 MiB, where this code has been copied. It depends on
// nothing but its page (CS << 4) and the parameters at its end.

#define OFFSET(symbol) ((symbol) - trampoline_start)

    .section .rodata
    .globl trampoline_start, trampoline_end, trampoline_parameters
    .balign 16
    .code16
trampoline_start:
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    movzwl %ax, %ebx
    shll $4, %ebx                           // physical address of this page
    leal OFFSET(trampoline_gdt)(%ebx), %eax
    movl %eax, OFFSET(trampoline_gdt_pointer) + 2
    leal OFFSET(protected_mode)(%ebx), %eax
    movl %eax, OFFSET(protected_mode_pointer)
    leal OFFSET(long_mode)(%ebx), %eax
    movl %eax, OFFSET(long_mode_pointer)
    lgdtl OFFSET(trampoline_gdt_pointer)
    movl $0x11, %eax                        // ET, PE
    movl %eax, %cr0
    ljmpl *OFFSET(protected_mode_pointer)

    .code32
protected_mode:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $0x20, %eax                        // PAE
    movl %eax, %cr4
    movl OFFSET(trampoline_root)(%ebx), %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx                  // EFER: LME, NXE
    rdmsr
    orl $0x900, %eax
    wrmsr
    movl $0x80010011, %eax                  // PG, WP, ET, PE
    movl %eax, %cr0
    ljmpl *OFFSET(long_mode_pointer)(%ebx)

    .code64
long_mode:
    movl %ebx, %ebx
    movq OFFSET(trampoline_stack)(%rbx), %rsp
    movq OFFSET(trampoline_argument)(%rbx), %rdi
    movq OFFSET(trampoline_entry)(%rbx), %rax
    xorl %ebp, %ebp
    pushq %rbp
    movq %rsp, %rbp
    call *%rax
    ud2

    .balign 8
trampoline_gdt:
    .quad 0
    .quad 0x00cf9b000000ffff                // 32-bit code
    .quad 0x00cf93000000ffff                // data
    .quad 0x00af9b000000ffff                // 64-bit code
trampoline_gdt_pointer:
    .short 4 * 8 - 1
    .long 0
    .balign 4
protected_mode_pointer:
    .long 0
    .short 0x08
    .balign 4
long_mode_pointer:
    .long 0
    .short 0x18
    .balign 8
// smp.cpp's Parameters
trampoline_parameters:
trampoline_root: .quad 0
trampoline_stack: .quad 0
trampoline_argument: .quad 0
trampoline_entry: .quad 0
trampoline_end:
    .section .note.GNU-stack, "", @progbits
