// SPDX-License-Identifier: MIT
// From the boot loader to boot_main() in 64-bit mode. Two ways in, both in 32-bit protected mode without paging:
// Multiboot2 (EAX magic, EBX information) and PVH (EBX start info). The code up to long mode does not depend on where it
// was loaded; EBP holds the distance from the linked place.

#define KERNEL_VMA 0xffffffff80000000
#define PHYSICAL(symbol) ((symbol) - KERNEL_VMA)

#define MULTIBOOT2_MAGIC 0xe85250d6
#define MULTIBOOT2_BOOTLOADER_MAGIC 0x36d76289
#define PVH_START_INFO_MAGIC 0x336ec578
#define XEN_ELFNOTE_PHYS32_ENTRY 18

#define COM1 0x3f8
#define DEBUG_CONSOLE 0xe9
#define TEXT_SCREEN 0xb8000

#define MSR_EFER 0xc0000080
#define EFER_LME_NXE ((1 << 8) | (1 << 11))
#define CR4_PAE (1 << 5)
#define CR0_PG_WP_PE ((1 << 31) | (1 << 16) | (1 << 0))
#define PTE_PRESENT_WRITE 0x3
#define PTE_LARGE 0x80

// --- Multiboot2 header [multiboot2 3.1 OS image format] ------------------------------------------------------------------
    .section .multiboot2, "a"
    .balign 8
header:
    .long MULTIBOOT2_MAGIC
    .long 0
    .long header_end - header
    .long -(MULTIBOOT2_MAGIC + 0 + (header_end - header))

    .balign 8                               // information request: memory map, modules, both RSDPs
    .short 1, 0
    .long 8 + 5 * 4
    .long 6, 3, 1, 14, 15

    .balign 8                               // module alignment on page boundaries
    .short 6, 0
    .long 8

    .balign 8                               // relocatable: below 4 GiB, 2 MiB aligned, lowest address preferred
    .short 10, 1
    .long 24
    .long 0x200000, 0xffffffff, 0x200000, 1

    .balign 8                               // end
    .short 0, 0
    .long 8
header_end:

// --- PVH note: QEMU's -kernel -------------------------------------------------------------------------------------------
    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 4, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long PHYSICAL(pvh_entry)

// --- 32-bit -------------------------------------------------------------------------------------------------------------
    .section .boot.text, "ax"
    .code32

    .globl pvh_entry
pvh_entry:
    cli
    cld
    movl $2, %edi
    cmpl $PVH_START_INFO_MAGIC, (%ebx)
    je 1f
    jmp no_loader

    .globl multiboot2_entry
multiboot2_entry:
    cli
    cld
    cmpl $MULTIBOOT2_BOOTLOADER_MAGIC, %eax
    jne no_loader
    movl $1, %edi

    // Where are we? A call needs a stack; the second word of either information structure serves for a moment.
1:  movl 4(%ebx), %esi
    leal 8(%ebx), %esp
    call 2f
2:  popl %ebp
    movl %esi, 4(%ebx)
    subl $PHYSICAL(2b), %ebp
    leal PHYSICAL(boot_stack_top)(%ebp), %esp
    movl %ebx, %esi

    // CPUID, long mode, NX.
    movl $0x80000000, %eax
    cpuid
    cmpl $0x80000001, %eax
    jb no_long_mode
    movl $0x80000001, %eax
    cpuid
    btl $29, %edx
    jnc no_long_mode
    btl $20, %edx
    jnc no_nx

    // Boot page tables: the first 4 GiB at 0 and at the direct map, the image at KERNEL_VMA. 2 MiB pages.
    leal PHYSICAL(boot_pml4)(%ebp), %ebx
    leal PHYSICAL(boot_pdpt_low)(%ebp), %eax
    orl $PTE_PRESENT_WRITE, %eax
    movl %eax, 0(%ebx)
    movl %eax, 256 * 8(%ebx)
    leal PHYSICAL(boot_pdpt_high)(%ebp), %eax
    orl $PTE_PRESENT_WRITE, %eax
    movl %eax, 511 * 8(%ebx)

    leal PHYSICAL(boot_pdpt_low)(%ebp), %ebx
    leal PHYSICAL(boot_pd_low)(%ebp), %eax
    orl $PTE_PRESENT_WRITE, %eax
    movl $4, %ecx
3:  movl %eax, (%ebx)
    addl $4096, %eax
    addl $8, %ebx
    loop 3b

    leal PHYSICAL(boot_pd_low)(%ebp), %ebx
    movl $(PTE_PRESENT_WRITE | PTE_LARGE), %eax
    movl $2048, %ecx
4:  movl %eax, (%ebx)
    addl $0x200000, %eax
    addl $8, %ebx
    loop 4b

    leal PHYSICAL(boot_pdpt_high)(%ebp), %ebx
    leal PHYSICAL(boot_pd_high)(%ebp), %eax
    orl $PTE_PRESENT_WRITE, %eax
    movl %eax, 510 * 8(%ebx)

    leal PHYSICAL(boot_pd_high)(%ebp), %ebx
    movl %ebp, %eax
    orl $(PTE_PRESENT_WRITE | PTE_LARGE), %eax
    movl $512, %ecx
5:  movl %eax, (%ebx)
    addl $0x200000, %eax
    addl $8, %ebx
    loop 5b

    // Long mode [sdm3 10.8.5 Initializing IA-32e Mode].
    movl %cr4, %eax
    orl $CR4_PAE, %eax
    movl %eax, %cr4
    leal PHYSICAL(boot_pml4)(%ebp), %eax
    movl %eax, %cr3
    movl $MSR_EFER, %ecx
    rdmsr
    orl $EFER_LME_NXE, %eax
    wrmsr
    movl $CR0_PG_WP_PE, %eax
    movl %eax, %cr0

    leal PHYSICAL(boot_gdt)(%ebp), %eax
    leal PHYSICAL(boot_gdt_pointer)(%ebp), %ebx
    movl %eax, 2(%ebx)
    lgdt (%ebx)
    leal PHYSICAL(long_mode)(%ebp), %eax
    pushl $0x08
    pushl %eax
    lret

no_loader:
    xorl %ebp, %ebp
    movl $PHYSICAL(text_no_loader), %esi
    jmp fail
no_long_mode:
    leal PHYSICAL(text_no_long_mode)(%ebp), %esi
    jmp fail
no_nx:
    leal PHYSICAL(text_no_nx)(%ebp), %esi

// Writes the text at ESI to serial line, debug port and text screen, and stops. Uses no stack.
fail:
    movl $TEXT_SCREEN, %edi
    movb $0x4f, %ah
6:  lodsb
    testb %al, %al
    jz 8f
    movw %ax, (%edi)
    addl $2, %edi
    movb %al, %cl
    outb %al, $DEBUG_CONSOLE
    movw $(COM1 + 5), %dx
    movl $100000, %ebx                      // a missing UART never gets ready
7:  inb %dx, %al
    decl %ebx
    jz 9f
    testb $0x20, %al
    jz 7b
9:  movw $COM1, %dx
    movb %cl, %al
    outb %al, %dx
    jmp 6b
8:  hlt
    jmp 8b

// --- 64-bit -------------------------------------------------------------------------------------------------------------
    .code64
long_mode:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    xorl %eax, %eax
    movw %ax, %fs
    movw %ax, %gs
    movq $boot_stack_top, %rsp
    xorl %ecx, %ecx
    pushq %rcx                              // end of the frame chain
    movq %rsp, %rbp
    // boot_main(protocol, physical address of the loader's information, physical address of the image)
    movl %edi, %edi
    movl %esi, %esi
    movl boot_pd_high(%rip), %edx           // its first entry maps physical 0 of the image
    andl $0xffe00000, %edx
    movq $boot_main, %rax
    call *%rax
    ud2

    .section .rodata
text_no_loader:
    .asciz "cairn: not started by a Multiboot2 loader or by PVH; use GRUB's multiboot2 command or qemu -kernel\r\n"
text_no_long_mode:
    .asciz "cairn: this processor has no 64-bit mode (CPUID 80000001h EDX bit 29)\r\n"
text_no_nx:
    .asciz "cairn: this processor has no execute-disable pages (CPUID 80000001h EDX bit 20), or the firmware turned them off\r\n"

    .section .data
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff                // 64-bit code
    .quad 0x00cf93000000ffff                // data
boot_gdt_pointer:
    .short 3 * 8 - 1
    .quad 0

    .section .bss
    .balign 4096
boot_pml4: .skip 4096
boot_pdpt_low: .skip 4096
boot_pdpt_high: .skip 4096
boot_pd_low: .skip 4 * 4096
boot_pd_high: .skip 4096
    .balign 16
    .skip 16384
boot_stack_top:
    .section .note.GNU-stack, "", @progbits
