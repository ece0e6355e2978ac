// SPDX-License-Identifier: MIT
// CPUID: the four registers, the leaves and the feature bits by the manuals' names, one namespace for each
// leaf and register [sdm2 3.3 Instructions (A-L), CPUID], [apm3 E.3 Standard Feature Function Numbers].
#pragma once

#include <cstdint>

namespace hv {

struct CpuidRegs {
    std::uint32_t eax, ebx, ecx, edx;
    constexpr bool operator==(const CpuidRegs&) const = default;
};

/// Where CPUID is executed: the processor, or a table in tests.
template <class T>
concept CpuidIo = requires(T& io, std::uint32_t leaf, std::uint32_t subleaf) {
    {io.cpuid(leaf, subleaf).eax};
};

namespace cpuid {

inline constexpr std::uint32_t kVendor = 0x0;
inline constexpr std::uint32_t kFeatures = 0x1;
inline constexpr std::uint32_t kCaches = 0x4;
inline constexpr std::uint32_t kMonitor = 0x5;
inline constexpr std::uint32_t kPower = 0x6;
inline constexpr std::uint32_t kStructured = 0x7;
inline constexpr std::uint32_t kTopology = 0xb;
inline constexpr std::uint32_t kXsave = 0xd;
inline constexpr std::uint32_t kTsc = 0x15;
inline constexpr std::uint32_t kFrequency = 0x16;
inline constexpr std::uint32_t kTopologyV2 = 0x1f;
inline constexpr std::uint32_t kHypervisor = 0x4000'0000;
inline constexpr std::uint32_t kHypervisorFeatures = 0x4000'0001;
inline constexpr std::uint32_t kHypervisorTiming = 0x4000'0010;
inline constexpr std::uint32_t kExtended = 0x8000'0000;
inline constexpr std::uint32_t kExtendedFeatures = 0x8000'0001;
inline constexpr std::uint32_t kAdvancedPower = 0x8000'0007;
inline constexpr std::uint32_t kAddressSizes = 0x8000'0008;
inline constexpr std::uint32_t kSvm = 0x8000'000a;
inline constexpr std::uint32_t kAmdCaches = 0x8000'001d;
inline constexpr std::uint32_t kAmdTopology = 0x8000'001e;

namespace leaf1_ecx {
inline constexpr std::uint32_t SSE3 = 1U << 0;
inline constexpr std::uint32_t PCLMULQDQ = 1U << 1;
inline constexpr std::uint32_t DTES64 = 1U << 2;
inline constexpr std::uint32_t MONITOR = 1U << 3;
inline constexpr std::uint32_t DS_CPL = 1U << 4;
inline constexpr std::uint32_t VMX = 1U << 5;
inline constexpr std::uint32_t SMX = 1U << 6;
inline constexpr std::uint32_t EIST = 1U << 7;
inline constexpr std::uint32_t TM2 = 1U << 8;
inline constexpr std::uint32_t SSSE3 = 1U << 9;
inline constexpr std::uint32_t FMA = 1U << 12;
inline constexpr std::uint32_t CMPXCHG16B = 1U << 13;
inline constexpr std::uint32_t PDCM = 1U << 15;
inline constexpr std::uint32_t PCID = 1U << 17;
inline constexpr std::uint32_t SSE4_1 = 1U << 19;
inline constexpr std::uint32_t SSE4_2 = 1U << 20;
inline constexpr std::uint32_t X2APIC = 1U << 21;
inline constexpr std::uint32_t MOVBE = 1U << 22;
inline constexpr std::uint32_t POPCNT = 1U << 23;
inline constexpr std::uint32_t TSC_DEADLINE = 1U << 24;
inline constexpr std::uint32_t AESNI = 1U << 25;
inline constexpr std::uint32_t XSAVE = 1U << 26;
inline constexpr std::uint32_t OSXSAVE = 1U << 27;
inline constexpr std::uint32_t AVX = 1U << 28;
inline constexpr std::uint32_t F16C = 1U << 29;
inline constexpr std::uint32_t RDRAND = 1U << 30;
inline constexpr std::uint32_t HYPERVISOR = 1U << 31;
}  // namespace leaf1_ecx

namespace leaf1_edx {
inline constexpr std::uint32_t FPU = 1U << 0;
inline constexpr std::uint32_t VME = 1U << 1;
inline constexpr std::uint32_t DE = 1U << 2;
inline constexpr std::uint32_t PSE = 1U << 3;
inline constexpr std::uint32_t TSC = 1U << 4;
inline constexpr std::uint32_t MSR = 1U << 5;
inline constexpr std::uint32_t PAE = 1U << 6;
inline constexpr std::uint32_t MCE = 1U << 7;
inline constexpr std::uint32_t CX8 = 1U << 8;
inline constexpr std::uint32_t APIC = 1U << 9;
inline constexpr std::uint32_t SEP = 1U << 11;
inline constexpr std::uint32_t MTRR = 1U << 12;
inline constexpr std::uint32_t PGE = 1U << 13;
inline constexpr std::uint32_t MCA = 1U << 14;
inline constexpr std::uint32_t CMOV = 1U << 15;
inline constexpr std::uint32_t PAT = 1U << 16;
inline constexpr std::uint32_t PSE36 = 1U << 17;
inline constexpr std::uint32_t CLFSH = 1U << 19;
inline constexpr std::uint32_t DS = 1U << 21;
inline constexpr std::uint32_t ACPI = 1U << 22;
inline constexpr std::uint32_t MMX = 1U << 23;
inline constexpr std::uint32_t FXSR = 1U << 24;
inline constexpr std::uint32_t SSE = 1U << 25;
inline constexpr std::uint32_t SSE2 = 1U << 26;
inline constexpr std::uint32_t SS = 1U << 27;
inline constexpr std::uint32_t HTT = 1U << 28;
}  // namespace leaf1_edx

namespace leaf6_eax {
inline constexpr std::uint32_t ARAT = 1U << 2;
}

namespace leaf7_ebx {
inline constexpr std::uint32_t FSGSBASE = 1U << 0;
inline constexpr std::uint32_t TSC_ADJUST = 1U << 1;
inline constexpr std::uint32_t SGX = 1U << 2;
inline constexpr std::uint32_t BMI1 = 1U << 3;
inline constexpr std::uint32_t HLE = 1U << 4;
inline constexpr std::uint32_t AVX2 = 1U << 5;
inline constexpr std::uint32_t FDP_EXCPTN_ONLY = 1U << 6;
inline constexpr std::uint32_t SMEP = 1U << 7;
inline constexpr std::uint32_t BMI2 = 1U << 8;
inline constexpr std::uint32_t ERMS = 1U << 9;
inline constexpr std::uint32_t INVPCID = 1U << 10;
inline constexpr std::uint32_t RTM = 1U << 11;
inline constexpr std::uint32_t FCS_FDS_DEPRECATED = 1U << 13;
inline constexpr std::uint32_t MPX = 1U << 14;
inline constexpr std::uint32_t AVX512F = 1U << 16;
inline constexpr std::uint32_t AVX512DQ = 1U << 17;
inline constexpr std::uint32_t RDSEED = 1U << 18;
inline constexpr std::uint32_t ADX = 1U << 19;
inline constexpr std::uint32_t SMAP = 1U << 20;
inline constexpr std::uint32_t AVX512_IFMA = 1U << 21;
inline constexpr std::uint32_t CLFLUSHOPT = 1U << 23;
inline constexpr std::uint32_t CLWB = 1U << 24;
inline constexpr std::uint32_t AVX512CD = 1U << 28;
inline constexpr std::uint32_t SHA = 1U << 29;
inline constexpr std::uint32_t AVX512BW = 1U << 30;
inline constexpr std::uint32_t AVX512VL = 1U << 31;
}  // namespace leaf7_ebx

namespace leaf7_ecx {
inline constexpr std::uint32_t AVX512_VBMI = 1U << 1;
inline constexpr std::uint32_t UMIP = 1U << 2;
inline constexpr std::uint32_t PKU = 1U << 3;
inline constexpr std::uint32_t OSPKE = 1U << 4;
inline constexpr std::uint32_t AVX512_VBMI2 = 1U << 6;
inline constexpr std::uint32_t CET_SS = 1U << 7;
inline constexpr std::uint32_t GFNI = 1U << 8;
inline constexpr std::uint32_t VAES = 1U << 9;
inline constexpr std::uint32_t VPCLMULQDQ = 1U << 10;
inline constexpr std::uint32_t AVX512_VNNI = 1U << 11;
inline constexpr std::uint32_t AVX512_BITALG = 1U << 12;
inline constexpr std::uint32_t AVX512_VPOPCNTDQ = 1U << 14;
inline constexpr std::uint32_t LA57 = 1U << 16;
inline constexpr std::uint32_t RDPID = 1U << 22;
}  // namespace leaf7_ecx

namespace leaf7_edx {
inline constexpr std::uint32_t FSRM = 1U << 4;
inline constexpr std::uint32_t AVX512_VP2INTERSECT = 1U << 8;
inline constexpr std::uint32_t MD_CLEAR = 1U << 10;
inline constexpr std::uint32_t SERIALIZE = 1U << 14;
inline constexpr std::uint32_t CET_IBT = 1U << 20;
inline constexpr std::uint32_t AVX512_FP16 = 1U << 23;
inline constexpr std::uint32_t IBRS_IBPB = 1U << 26;
inline constexpr std::uint32_t STIBP = 1U << 27;
inline constexpr std::uint32_t L1D_FLUSH = 1U << 28;
inline constexpr std::uint32_t ARCH_CAPABILITIES = 1U << 29;
inline constexpr std::uint32_t SSBD = 1U << 31;
}  // namespace leaf7_edx

namespace leaf7_1_eax {
inline constexpr std::uint32_t AVX_VNNI = 1U << 4;
inline constexpr std::uint32_t AVX512_BF16 = 1U << 5;
inline constexpr std::uint32_t FZRM = 1U << 10;
inline constexpr std::uint32_t FSRS = 1U << 11;
inline constexpr std::uint32_t FSRC = 1U << 12;
inline constexpr std::uint32_t AVX_IFMA = 1U << 23;
}  // namespace leaf7_1_eax

namespace leafd_1_eax {
inline constexpr std::uint32_t XSAVEOPT = 1U << 0;
inline constexpr std::uint32_t XSAVEC = 1U << 1;
inline constexpr std::uint32_t XGETBV_ECX1 = 1U << 2;
inline constexpr std::uint32_t XSAVES = 1U << 3;
}  // namespace leafd_1_eax

/// KVM's paravirtual features, as Linux' documentation of them numbers the bits.
namespace kvm_eax {
inline constexpr std::uint32_t CLOCKSOURCE = 1U << 0;
inline constexpr std::uint32_t CLOCKSOURCE2 = 1U << 3;
inline constexpr std::uint32_t PV_EOI = 1U << 6;
inline constexpr std::uint32_t CLOCKSOURCE_STABLE = 1U << 24;
}  // namespace kvm_eax

namespace ext1_ecx {
inline constexpr std::uint32_t LAHF_SAHF = 1U << 0;
inline constexpr std::uint32_t CMP_LEGACY = 1U << 1;
inline constexpr std::uint32_t SVM = 1U << 2;
inline constexpr std::uint32_t EXTAPIC = 1U << 3;
inline constexpr std::uint32_t CR8_LEGACY = 1U << 4;
inline constexpr std::uint32_t ABM = 1U << 5;  ///< Intel: LZCNT
inline constexpr std::uint32_t SSE4A = 1U << 6;
inline constexpr std::uint32_t MISALIGNSSE = 1U << 7;
inline constexpr std::uint32_t PREFETCH3DNOW = 1U << 8;  ///< Intel: PREFETCHW
inline constexpr std::uint32_t OSVW = 1U << 9;
inline constexpr std::uint32_t XOP = 1U << 11;
inline constexpr std::uint32_t FMA4 = 1U << 16;
inline constexpr std::uint32_t TBM = 1U << 21;
inline constexpr std::uint32_t TOPOEXT = 1U << 22;
}  // namespace ext1_ecx

namespace ext1_edx {
inline constexpr std::uint32_t SYSCALL = 1U << 11;
inline constexpr std::uint32_t NX = 1U << 20;
inline constexpr std::uint32_t MMXEXT = 1U << 22;
inline constexpr std::uint32_t FFXSR = 1U << 25;
inline constexpr std::uint32_t PAGE1GB = 1U << 26;
inline constexpr std::uint32_t RDTSCP = 1U << 27;
inline constexpr std::uint32_t LM = 1U << 29;
}  // namespace ext1_edx

namespace ext7_edx {
inline constexpr std::uint32_t INVARIANT_TSC = 1U << 8;
}

namespace ext8_ebx {
inline constexpr std::uint32_t CLZERO = 1U << 0;
inline constexpr std::uint32_t XSAVEERPTR = 1U << 2;
inline constexpr std::uint32_t WBNOINVD = 1U << 9;
inline constexpr std::uint32_t IBPB = 1U << 12;
inline constexpr std::uint32_t IBRS = 1U << 14;
inline constexpr std::uint32_t STIBP = 1U << 15;
inline constexpr std::uint32_t SSBD = 1U << 24;
inline constexpr std::uint32_t VIRT_SSBD = 1U << 25;
}  // namespace ext8_ebx

/// SVM features, leaf 8000_000ah EDX [apm3 E.4.9 Function 8000_000Ah-SVM Features].
namespace svm_edx {
inline constexpr std::uint32_t NP = 1U << 0;
inline constexpr std::uint32_t LBR_VIRT = 1U << 1;
inline constexpr std::uint32_t SVML = 1U << 2;
inline constexpr std::uint32_t NRIPS = 1U << 3;
inline constexpr std::uint32_t TSC_RATE_MSR = 1U << 4;
inline constexpr std::uint32_t VMCB_CLEAN = 1U << 5;
inline constexpr std::uint32_t FLUSH_BY_ASID = 1U << 6;
inline constexpr std::uint32_t DECODE_ASSISTS = 1U << 7;
inline constexpr std::uint32_t PAUSE_FILTER = 1U << 10;
inline constexpr std::uint32_t PAUSE_FILTER_THRESHOLD = 1U << 12;
inline constexpr std::uint32_t AVIC = 1U << 13;
inline constexpr std::uint32_t VMSAVE_VIRT = 1U << 15;
inline constexpr std::uint32_t VGIF = 1U << 16;
}  // namespace svm_edx

}  // namespace cpuid
}  // namespace hv
