// SPDX-License-Identifier: MIT
// Entry of every payload by the PVH protocol and by Multiboot 1, entry of its other CPUs, and the interrupt stubs.
// Both enter in 32-bit protected mode without paging. EBX: physical address of PVH's start info, or of Multiboot's
// information, of which the command line alone is passed on; EAX tells Multiboot.

#define CODE32 0x08
#define CODE64 0x10
#define DATA 0x18
#define TRAMPOLINE 0x8000  // also in smp.cpp
#define STACK_SIZE 16384
#define XEN_ELFNOTE_PHYS32_ENTRY 18
#define MULTIBOOT_HEADER 0x1badb002
#define MULTIBOOT_ENTRY 0x2badb002
#define MULTIBOOT_COMMAND_LINE 16   // in the information
#define START_INFO_SIZE 56
#define START_INFO_COMMAND_LINE 24

    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 4, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long pvh_entry

    .section .multiboot, "a"
    .balign 4
    .long MULTIBOOT_HEADER, 0, -MULTIBOOT_HEADER

    .section .rodata
    .balign 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff  // 32-bit code
    .quad 0x00af9b000000ffff  // 64-bit code
    .quad 0x00cf93000000ffff  // data
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt

    .bss
    .balign 4096
    .globl page_map_level4, page_directory_pointers
page_map_level4: .skip 4096
page_directory_pointers: .skip 4096
page_directories: .skip 4 * 4096
    .skip STACK_SIZE
boot_stack_end:
    .globl start_info_address, ap_stack
start_info_address: .skip 8
multiboot_start_info: .skip START_INFO_SIZE
ap_stack: .skip 8

    .text
    .macro ENTER_LONG_MODE target
    movl %cr4, %eax
    orl $(1 << 5), %eax                   // PAE
    movl %eax, %cr4
    movl $page_map_level4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx                // IA32_EFER
    rdmsr
    orl $(1 << 8), %eax                   // LME
    wrmsr
    movl %cr0, %eax
    andl $~((1 << 30) | (1 << 29)), %eax  // CD, NW: an application processor comes with caches off
    orl $((1 << 31) | (1 << 16) | 1), %eax  // PG, WP, PE
    movl %eax, %cr0
    ljmp $CODE64, $\target
    .endm

    .code32
    .globl pvh_entry
pvh_entry:
    cld
    movl $boot_stack_end, %esp
    cmpl $MULTIBOOT_ENTRY, %eax
    jne 1f
    movl MULTIBOOT_COMMAND_LINE(%ebx), %eax
    movl $multiboot_start_info, %ebx
    movl %eax, START_INFO_COMMAND_LINE(%ebx)
1:  movl %ebx, start_info_address
    lgdt gdt_pointer
    movl $DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    // Identity map of the first 4 GiB in 2 MiB pages.
    movl $page_directories, %edi
    movl $0x83, %eax
    movl $(4 * 512), %ecx
1:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 1b
    movl $(page_directories + 3), %eax
    movl $page_directory_pointers, %edi
    movl $4, %ecx
2:  movl %eax, (%edi)
    addl $4096, %eax
    addl $8, %edi
    loop 2b
    movl $(page_directory_pointers + 3), page_map_level4
    ENTER_LONG_MODE boot_cpu_64

    .code64
boot_cpu_64:
    movl $DATA, %eax
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %fs
    movl %eax, %gs
    xorl %ebp, %ebp
    call runtime_start
    ud2

// Copied to TRAMPOLINE; a start-up IPI enters it in real mode with CS = TRAMPOLINE >> 4.
    .globl ap_trampoline, ap_trampoline_end
    .code16
ap_trampoline:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl TRAMPOLINE + (ap_gdt_pointer - ap_trampoline)
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $CODE32, $ap_32
ap_gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
ap_trampoline_end:

    .code32
ap_32:
    movl $DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    ENTER_LONG_MODE ap_64

    .code64
ap_64:
    movq ap_stack, %rsp
    xorl %ebp, %ebp
    call runtime_start_ap
    ud2

// --- interrupts: a Frame (interrupts.hpp) on the stack, its address in RDI ---------------------------------------------
    .section .text.stubs, "ax"
    .globl interrupt_stubs
    .balign 16
interrupt_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    // Vectors 8, 10 to 14, 17, 21: the processor pushes an error code.
    .if !((vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21))
    pushq $0
    .endif
    pushq $vector
    jmp interrupt_common
    .set vector, vector + 1
    .endr

interrupt_common:
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
    movq %rsp, %rbp
    andq $-16, %rsp
    call interrupt_entry
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
