// SPDX-License-Identifier: MIT
// Bits of the control registers, EFER, RFLAGS and the debug registers, exception vectors and the error codes
// that go with them, spelled as the manuals spell them.
#pragma once

#include <cstdint>

namespace hv {

// [sdm3 2.5 Control Registers]
inline constexpr std::uint64_t CR0_PE = 1ULL << 0;
inline constexpr std::uint64_t CR0_MP = 1ULL << 1;
inline constexpr std::uint64_t CR0_EM = 1ULL << 2;
inline constexpr std::uint64_t CR0_TS = 1ULL << 3;
inline constexpr std::uint64_t CR0_ET = 1ULL << 4;
inline constexpr std::uint64_t CR0_NE = 1ULL << 5;
inline constexpr std::uint64_t CR0_WP = 1ULL << 16;
inline constexpr std::uint64_t CR0_AM = 1ULL << 18;
inline constexpr std::uint64_t CR0_NW = 1ULL << 29;
inline constexpr std::uint64_t CR0_CD = 1ULL << 30;
inline constexpr std::uint64_t CR0_PG = 1ULL << 31;

inline constexpr std::uint64_t CR3_PWT = 1ULL << 3;
inline constexpr std::uint64_t CR3_PCD = 1ULL << 4;
inline constexpr std::uint64_t CR3_PCID = 0xfff;           ///< with CR4.PCIDE
inline constexpr std::uint64_t CR3_NO_FLUSH = 1ULL << 63;  ///< of the operand of MOV to CR3, with CR4.PCIDE

inline constexpr std::uint64_t CR4_VME = 1ULL << 0;
inline constexpr std::uint64_t CR4_PVI = 1ULL << 1;
inline constexpr std::uint64_t CR4_TSD = 1ULL << 2;
inline constexpr std::uint64_t CR4_DE = 1ULL << 3;
inline constexpr std::uint64_t CR4_PSE = 1ULL << 4;
inline constexpr std::uint64_t CR4_PAE = 1ULL << 5;
inline constexpr std::uint64_t CR4_MCE = 1ULL << 6;
inline constexpr std::uint64_t CR4_PGE = 1ULL << 7;
inline constexpr std::uint64_t CR4_PCE = 1ULL << 8;
inline constexpr std::uint64_t CR4_OSFXSR = 1ULL << 9;
inline constexpr std::uint64_t CR4_OSXMMEXCPT = 1ULL << 10;
inline constexpr std::uint64_t CR4_UMIP = 1ULL << 11;
inline constexpr std::uint64_t CR4_LA57 = 1ULL << 12;
inline constexpr std::uint64_t CR4_VMXE = 1ULL << 13;
inline constexpr std::uint64_t CR4_SMXE = 1ULL << 14;
inline constexpr std::uint64_t CR4_FSGSBASE = 1ULL << 16;
inline constexpr std::uint64_t CR4_PCIDE = 1ULL << 17;
inline constexpr std::uint64_t CR4_OSXSAVE = 1ULL << 18;
inline constexpr std::uint64_t CR4_KL = 1ULL << 19;
inline constexpr std::uint64_t CR4_SMEP = 1ULL << 20;
inline constexpr std::uint64_t CR4_SMAP = 1ULL << 21;
inline constexpr std::uint64_t CR4_PKE = 1ULL << 22;
inline constexpr std::uint64_t CR4_CET = 1ULL << 23;
inline constexpr std::uint64_t CR4_PKS = 1ULL << 24;

// [sdm3 2.6 Extended Control Registers (Including XCR0)]
inline constexpr std::uint64_t XCR0_X87 = 1ULL << 0;
inline constexpr std::uint64_t XCR0_SSE = 1ULL << 1;
inline constexpr std::uint64_t XCR0_AVX = 1ULL << 2;
inline constexpr std::uint64_t XCR0_BNDREGS = 1ULL << 3;
inline constexpr std::uint64_t XCR0_BNDCSR = 1ULL << 4;
inline constexpr std::uint64_t XCR0_OPMASK = 1ULL << 5;
inline constexpr std::uint64_t XCR0_ZMM_HI256 = 1ULL << 6;
inline constexpr std::uint64_t XCR0_HI16_ZMM = 1ULL << 7;
inline constexpr std::uint64_t XCR0_AVX512 = XCR0_OPMASK | XCR0_ZMM_HI256 | XCR0_HI16_ZMM;
inline constexpr std::uint64_t XCR0_PKRU = 1ULL << 9;

// [apm2 3.1.7 Extended Feature Enable Register (EFER)]
inline constexpr std::uint64_t EFER_SCE = 1ULL << 0;
inline constexpr std::uint64_t EFER_LME = 1ULL << 8;
inline constexpr std::uint64_t EFER_LMA = 1ULL << 10;
inline constexpr std::uint64_t EFER_NXE = 1ULL << 11;
inline constexpr std::uint64_t EFER_SVME = 1ULL << 12;
inline constexpr std::uint64_t EFER_LMSLE = 1ULL << 13;
inline constexpr std::uint64_t EFER_FFXSR = 1ULL << 14;
inline constexpr std::uint64_t EFER_TCE = 1ULL << 15;

// [sdm1 3.4.3 EFLAGS Register]
inline constexpr std::uint64_t RFLAGS_CF = 1ULL << 0;
inline constexpr std::uint64_t RFLAGS_FIXED = 1ULL << 1;  ///< reads as 1
inline constexpr std::uint64_t RFLAGS_PF = 1ULL << 2;
inline constexpr std::uint64_t RFLAGS_AF = 1ULL << 4;
inline constexpr std::uint64_t RFLAGS_ZF = 1ULL << 6;
inline constexpr std::uint64_t RFLAGS_SF = 1ULL << 7;
inline constexpr std::uint64_t RFLAGS_TF = 1ULL << 8;
inline constexpr std::uint64_t RFLAGS_IF = 1ULL << 9;
inline constexpr std::uint64_t RFLAGS_DF = 1ULL << 10;
inline constexpr std::uint64_t RFLAGS_OF = 1ULL << 11;
inline constexpr std::uint64_t RFLAGS_IOPL = 3ULL << 12;
inline constexpr unsigned kRflagsIoplShift = 12;
inline constexpr std::uint64_t RFLAGS_NT = 1ULL << 14;
inline constexpr std::uint64_t RFLAGS_RF = 1ULL << 16;
inline constexpr std::uint64_t RFLAGS_VM = 1ULL << 17;
inline constexpr std::uint64_t RFLAGS_AC = 1ULL << 18;
inline constexpr std::uint64_t RFLAGS_VIF = 1ULL << 19;
inline constexpr std::uint64_t RFLAGS_VIP = 1ULL << 20;
inline constexpr std::uint64_t RFLAGS_ID = 1ULL << 21;

// [sdm3 18.2 Debug Registers]
inline constexpr std::uint64_t DR6_B0_B3 = 0xf;
inline constexpr std::uint64_t DR6_BD = 1ULL << 13;
inline constexpr std::uint64_t DR6_BS = 1ULL << 14;
inline constexpr std::uint64_t DR6_BT = 1ULL << 15;
inline constexpr std::uint64_t DR6_RTM = 1ULL << 16;  ///< inverted
inline constexpr std::uint64_t DR6_RESET = 0xffff'0ff0;
inline constexpr std::uint64_t DR7_ENABLES = 0xff;    ///< L0, G0 to L3, G3
inline constexpr std::uint64_t DR7_L0_L3_LE = 0x155;  ///< what a task switch clears
inline constexpr std::uint64_t DR7_GD = 1ULL << 13;
inline constexpr std::uint64_t DR7_RESET = 0x400;

// [sdm3 6.3.1 External Interrupts], table Protected-Mode Exceptions and Interrupts
inline constexpr std::uint8_t EXCEPTION_DE = 0;
inline constexpr std::uint8_t EXCEPTION_DB = 1;
inline constexpr std::uint8_t EXCEPTION_NMI = 2;
inline constexpr std::uint8_t EXCEPTION_BP = 3;
inline constexpr std::uint8_t EXCEPTION_OF = 4;
inline constexpr std::uint8_t EXCEPTION_BR = 5;
inline constexpr std::uint8_t EXCEPTION_UD = 6;
inline constexpr std::uint8_t EXCEPTION_NM = 7;
inline constexpr std::uint8_t EXCEPTION_DF = 8;
inline constexpr std::uint8_t EXCEPTION_TS = 10;
inline constexpr std::uint8_t EXCEPTION_NP = 11;
inline constexpr std::uint8_t EXCEPTION_SS = 12;
inline constexpr std::uint8_t EXCEPTION_GP = 13;
inline constexpr std::uint8_t EXCEPTION_PF = 14;
inline constexpr std::uint8_t EXCEPTION_MF = 16;
inline constexpr std::uint8_t EXCEPTION_AC = 17;
inline constexpr std::uint8_t EXCEPTION_MC = 18;
inline constexpr std::uint8_t EXCEPTION_XM = 19;
inline constexpr std::uint8_t EXCEPTION_VE = 20;
inline constexpr std::uint8_t EXCEPTION_CP = 21;

/// Exceptions that push an error code: #DF #TS #NP #SS #GP #PF #AC #CP.
constexpr bool exception_has_error_code(std::uint8_t vector) {
    return vector < 32 && ((0x0022'7d00U >> vector) & 1U) != 0;
}

// [sdm3 4.7 Page-Fault Exceptions]
inline constexpr std::uint32_t PAGE_FAULT_P = 1U << 0;
inline constexpr std::uint32_t PAGE_FAULT_WR = 1U << 1;
inline constexpr std::uint32_t PAGE_FAULT_US = 1U << 2;
inline constexpr std::uint32_t PAGE_FAULT_RSVD = 1U << 3;
inline constexpr std::uint32_t PAGE_FAULT_ID = 1U << 4;
inline constexpr std::uint32_t PAGE_FAULT_PK = 1U << 5;

}  // namespace hv
