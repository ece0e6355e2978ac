// SPDX-License-Identifier: MIT
// Moves between memory and the XMM or YMM register of a number. Each takes the memory's address in RDI and the
// number, below 16, in ESI; clobbers RAX and RSI. XMM moves need CR4.OSFXSR, YMM moves XCR0's AVX bit.
    .text

// Entry `esi` of the table of 16-byte entries that follows.
    .macro jump_to_entry
    lea 1f(%rip), %rax
    shl $4, %esi
    add %rsi, %rax
    jmp *%rax
    .balign 16
1:
    .endm

    .globl cpu_read_xmm, cpu_write_xmm, cpu_read_ymm, cpu_write_ymm
cpu_read_xmm:
    jump_to_entry
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    .balign 16
    movups %xmm\n, (%rdi)
    ret
    .endr
cpu_write_xmm:
    jump_to_entry
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    .balign 16
    movups (%rdi), %xmm\n
    ret
    .endr
cpu_read_ymm:
    jump_to_entry
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    .balign 16
    vmovups %ymm\n, (%rdi)
    ret
    .endr
cpu_write_ymm:
    jump_to_entry
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    .balign 16
    vmovups (%rdi), %ymm\n
    ret
    .endr

    .section .note.GNU-stack, "", @progbits
