// SPDX-License-Identifier: MIT
#include "vmm/x86/cpuid_policy.hpp"

#include "arch/x86_64/defs/cr.hpp"
#include "arch/x86_64/defs/msr.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <string_view>

namespace hv::x86 {
namespace {

using namespace cpuid;

// What may be offered. Not here: what the VMM or both backends would have to virtualise and do not (VMX, SVM,
// SMX, PMU, MONITOR, thermal control, TSX, MPX, PKU, CET, LA57, AMX, SGX, XSAVES, XOP, speculation control
// MSRs).
constexpr std::uint32_t kLeaf1Ecx =
    leaf1_ecx::SSE3 | leaf1_ecx::PCLMULQDQ | leaf1_ecx::SSSE3 | leaf1_ecx::FMA | leaf1_ecx::CMPXCHG16B |
    leaf1_ecx::PCID | leaf1_ecx::SSE4_1 | leaf1_ecx::SSE4_2 | leaf1_ecx::MOVBE | leaf1_ecx::POPCNT |
    leaf1_ecx::AESNI | leaf1_ecx::XSAVE | leaf1_ecx::AVX | leaf1_ecx::F16C | leaf1_ecx::RDRAND;
constexpr std::uint32_t kLeaf1EcxAlways = leaf1_ecx::X2APIC | leaf1_ecx::TSC_DEADLINE | leaf1_ecx::HYPERVISOR;
constexpr std::uint32_t kLeaf1Edx = leaf1_edx::FPU | leaf1_edx::VME | leaf1_edx::DE | leaf1_edx::PSE |
                                    leaf1_edx::TSC | leaf1_edx::MSR | leaf1_edx::PAE | leaf1_edx::CX8 |
                                    leaf1_edx::SEP | leaf1_edx::PGE | leaf1_edx::CMOV | leaf1_edx::PAT |
                                    leaf1_edx::PSE36 | leaf1_edx::CLFSH | leaf1_edx::MMX | leaf1_edx::FXSR |
                                    leaf1_edx::SSE | leaf1_edx::SSE2 | leaf1_edx::SS;
constexpr std::uint32_t kLeaf1EdxAlways = leaf1_edx::MCE | leaf1_edx::MCA | leaf1_edx::MTRR;
constexpr std::uint32_t kLeaf7Ebx = leaf7_ebx::FSGSBASE | leaf7_ebx::BMI1 | leaf7_ebx::AVX2 |
                                    leaf7_ebx::FDP_EXCPTN_ONLY | leaf7_ebx::SMEP | leaf7_ebx::BMI2 |
                                    leaf7_ebx::ERMS | leaf7_ebx::INVPCID | leaf7_ebx::FCS_FDS_DEPRECATED |
                                    leaf7_ebx::RDSEED | leaf7_ebx::ADX | leaf7_ebx::SMAP |
                                    leaf7_ebx::CLFLUSHOPT | leaf7_ebx::CLWB | leaf7_ebx::SHA;
constexpr std::uint32_t kLeaf7EbxAvx512 = leaf7_ebx::AVX512F | leaf7_ebx::AVX512DQ | leaf7_ebx::AVX512_IFMA |
                                          leaf7_ebx::AVX512CD | leaf7_ebx::AVX512BW | leaf7_ebx::AVX512VL;
constexpr std::uint32_t kLeaf7Ecx = leaf7_ecx::UMIP | leaf7_ecx::GFNI | leaf7_ecx::RDPID;
constexpr std::uint32_t kLeaf7EcxAvx = leaf7_ecx::VAES | leaf7_ecx::VPCLMULQDQ;
constexpr std::uint32_t kLeaf7EcxAvx512 = leaf7_ecx::AVX512_VBMI | leaf7_ecx::AVX512_VBMI2 |
                                          leaf7_ecx::AVX512_VNNI | leaf7_ecx::AVX512_BITALG |
                                          leaf7_ecx::AVX512_VPOPCNTDQ;
constexpr std::uint32_t kLeaf7Edx = leaf7_edx::FSRM | leaf7_edx::MD_CLEAR | leaf7_edx::SERIALIZE;
constexpr std::uint32_t kLeaf7EdxAvx512 = leaf7_edx::AVX512_VP2INTERSECT | leaf7_edx::AVX512_FP16;
constexpr std::uint32_t kLeaf7_1Eax = leaf7_1_eax::FZRM | leaf7_1_eax::FSRS | leaf7_1_eax::FSRC;
constexpr std::uint32_t kLeaf7_1EaxAvx = leaf7_1_eax::AVX_VNNI | leaf7_1_eax::AVX_IFMA;
constexpr std::uint32_t kLeafD_1Eax = leafd_1_eax::XSAVEOPT | leafd_1_eax::XSAVEC | leafd_1_eax::XGETBV_ECX1;
constexpr std::uint32_t kExt1Ecx = ext1_ecx::LAHF_SAHF | ext1_ecx::CR8_LEGACY | ext1_ecx::ABM |
                                   ext1_ecx::SSE4A | ext1_ecx::MISALIGNSSE | ext1_ecx::PREFETCH3DNOW |
                                   ext1_ecx::TOPOEXT;
constexpr std::uint32_t kExt1Edx =
    ext1_edx::SYSCALL | ext1_edx::NX | ext1_edx::FFXSR | ext1_edx::PAGE1GB | ext1_edx::RDTSCP | ext1_edx::LM;
/// Bits of leaf 1 EDX that AMD repeats in leaf 8000_0001h.
constexpr std::uint32_t kExt1EdxRepeated = 0x0183'f3ff;
constexpr std::uint32_t kExt8Ebx = ext8_ebx::CLZERO | ext8_ebx::XSAVEERPTR;

constexpr std::uint64_t kXcr0 = XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512;
constexpr std::uint32_t kXsaveLegacySize = 576;  ///< legacy region and header

constexpr std::uint32_t kMaxBasic = 0x1f;
constexpr std::uint32_t kMaxExtendedIntel = kAddressSizes;
constexpr std::uint32_t kMaxExtendedAmd = kAmdTopology;

std::uint32_t word(std::string_view text, std::size_t at) {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < 4; ++i)
        if (at + i < text.size())
            value |= static_cast<std::uint32_t>(static_cast<unsigned char>(text[at + i])) << (8 * i);
    return value;
}

}  // namespace

CpuidRegs CpuidPolicy::Host::get(std::uint32_t leaf, std::uint32_t subleaf) const {
    const bool extended = leaf >= kExtended;
    return leaf > (extended ? max_extended : max_basic) ? CpuidRegs{} : query(context, leaf, subleaf);
}

CpuidPolicy::CpuidPolicy(Query query, void* context, const CpuidConfig& config)
    : instructions_{config.instructions} {
    const CpuidRegs vendor = query(context, kVendor, 0);
    const Host host{query, context, vendor.eax, query(context, kExtended, 0).eax};
    cpu_.vendor =
        vendor.ebx == word("Auth", 0) || vendor.ebx == word("Hygo", 0) ? Vendor::amd : Vendor::intel;
    cpu_.vcpus = std::max(config.vcpus, 1U);
    cpu_.tsc_hz = config.tsc_hz;
    cpu_.apic_timer_hz = config.apic_timer_hz;
    core_bits_ = static_cast<unsigned>(std::bit_width(cpu_.vcpus - 1));
    add_basic(host);
    add_extended(host);
    add_hypervisor(config);
}

CpuidPolicy::Slot& CpuidPolicy::slot_at(std::uint32_t leaf) {
    const unsigned range = leaf >= kExtended ? 1 : leaf >= kHypervisor ? 2 : 0;
    return slots_[range * kPerRange + leaf % kPerRange];
}

void CpuidPolicy::add(std::uint32_t leaf, const CpuidRegs& value, Kind kind) {
    HV_ASSERT(used_ < kEntries);  // the number of leaves and subleaves below is fixed
    slot_at(leaf) = {used_, 1, kind};
    entries_[used_++] = value;
}

void CpuidPolicy::add_subleaf(std::uint32_t leaf, const CpuidRegs& value) {
    HV_ASSERT(used_ < kEntries);
    ++slot_at(leaf).subleaves;
    entries_[used_++] = value;
}

void CpuidPolicy::add_basic(const Host& host) {
    const CpuidRegs vendor = host.get(kVendor);
    // Leaf 1fh says the same as 0bh; AMD processors lack it.
    const std::uint32_t max = cpu_.vendor == Vendor::amd ? kFrequency : kMaxBasic;
    add(kVendor, {max, vendor.ebx, vendor.ecx, vendor.edx});
    add_xsave(host);
    add_features(host);
    add_caches(host);
    add(kPower, {leaf6_eax::ARAT, 0, 0, 0});
    add_structured(host);
    add_topology(kTopology);
    add_timing();
    if (cpu_.vendor == Vendor::intel) {
        add_topology(kTopologyV2);
        // [sdm2 3.3 CPUID]: beyond the last leaf, also the last extended one, Intel returns the data of the
        // last basic leaf.
        out_of_range_ = slot_at(max);
        for (std::uint32_t leaf = kMaxExtendedIntel + 1; leaf < kExtended + kPerRange; ++leaf)
            slot_at(leaf) = out_of_range_;
    }
}

void CpuidPolicy::add_features(const Host& host) {
    const CpuidRegs regs = host.get(kFeatures);
    std::uint32_t ecx = regs.ecx & kLeaf1Ecx;
    if (cpu_.xcr0_allowed == 0)
        ecx &= ~(leaf1_ecx::XSAVE | leaf1_ecx::AVX | leaf1_ecx::FMA | leaf1_ecx::F16C);
    else if ((cpu_.xcr0_allowed & XCR0_AVX) == 0)
        ecx &= ~(leaf1_ecx::AVX | leaf1_ecx::FMA | leaf1_ecx::F16C);
    std::uint32_t edx = (regs.edx & kLeaf1Edx) | kLeaf1EdxAlways;
    if (cpu_.vcpus > 1)
        edx |= leaf1_edx::HTT;
    cpu_.signature = regs.eax;
    const std::uint32_t logical = std::min(1U << core_bits_, 255U);
    add(kFeatures, {regs.eax, (regs.ebx & 0xff00) | (logical << 16), ecx | kLeaf1EcxAlways, edx},
        Kind::features);
}

/// Sets how many vCPUs share a cache: level 3 and above all, the others one.
CpuidRegs CpuidPolicy::with_sharing(CpuidRegs cache) const {
    const bool shared = ((cache.eax >> 5) & 7) >= 3;
    cache.eax = (cache.eax & 0x3fff) | ((shared ? (1U << core_bits_) - 1 : 0) << 14);
    return cache;
}

void CpuidPolicy::add_caches(const Host& host) {
    if (cpu_.vendor == Vendor::amd)
        return;
    add(2, {0x00ff'ff01, 0, 0, 0});  // descriptor ffh: see leaf 4
    for (std::uint32_t i = 0; i < 8; ++i) {
        CpuidRegs cache = host.get(kCaches, i);
        if ((cache.eax & 0x1f) == 0)
            cache = {};
        else
            cache = with_sharing(cache);
        if (cache.eax != 0)
            cache.eax |= std::min((1U << core_bits_) - 1, 63U) << 26;
        i == 0 ? add(kCaches, cache) : add_subleaf(kCaches, cache);
        if (cache.eax == 0)
            break;
    }
}

void CpuidPolicy::add_structured(const Host& host) {
    const CpuidRegs regs = host.get(kStructured);
    const CpuidRegs second = regs.eax >= 1 ? host.get(kStructured, 1) : CpuidRegs{};
    std::uint32_t ebx = kLeaf7Ebx, ecx = kLeaf7Ecx, edx = kLeaf7Edx, eax1 = kLeaf7_1Eax;
    if ((cpu_.xcr0_allowed & XCR0_AVX) != 0) {
        ecx |= kLeaf7EcxAvx;
        eax1 |= kLeaf7_1EaxAvx;
    } else {
        ebx &= ~leaf7_ebx::AVX2;
    }
    if ((cpu_.xcr0_allowed & XCR0_AVX512) != 0) {
        ebx |= kLeaf7EbxAvx512;
        ecx |= kLeaf7EcxAvx512;
        edx |= kLeaf7EdxAvx512;
        eax1 |= leaf7_1_eax::AVX512_BF16;
    }
    if ((entries_[slot_at(kFeatures).first].ecx & leaf1_ecx::PCID) == 0)
        ebx &= ~leaf7_ebx::INVPCID;
    if (!instructions_.invpcid)
        ebx &= ~leaf7_ebx::INVPCID;
    if (!instructions_.rdtscp || (host.get(kExtendedFeatures).edx & ext1_edx::RDTSCP) == 0)
        ecx &= ~leaf7_ecx::RDPID;
    // TSC_ADJUST is the VMM's own work.
    add(kStructured, {1, (regs.ebx & ebx) | leaf7_ebx::TSC_ADJUST, regs.ecx & ecx, regs.edx & edx},
        Kind::indexed);
    add_subleaf(kStructured, {second.eax & eax1, 0, 0, 0});
}

/// [sdm2 3.3 CPUID], V2 Extended Topology Enumeration: a level of threads with one member, a level of cores.
void CpuidPolicy::add_topology(std::uint32_t leaf) {
    add(leaf, {0, 1, 0x100, 0}, Kind::topology);
    add_subleaf(leaf, {core_bits_, cpu_.vcpus, 0x200, 0});
    add_subleaf(leaf, {0, 0, 0, 0});
}

void CpuidPolicy::add_xsave(const Host& host) {
    const CpuidRegs first = host.get(kXsave);
    if ((host.get(kFeatures).ecx & leaf1_ecx::XSAVE) == 0)
        return;
    std::uint64_t allowed = first.eax & kXcr0;
    if ((allowed & XCR0_AVX512) != XCR0_AVX512 || (allowed & XCR0_AVX) == 0)
        allowed &= ~XCR0_AVX512;
    cpu_.xcr0_allowed = allowed;
    add(kXsave, {static_cast<std::uint32_t>(allowed), 0, 0, 0}, Kind::xsave);
    add_subleaf(kXsave, {host.get(kXsave, 1).eax & kLeafD_1Eax, 0, 0, 0});
    std::uint32_t end = kXsaveLegacySize;
    for (std::uint32_t i = 2; i < components_.size(); ++i) {
        CpuidRegs component = host.get(kXsave, i);
        if ((allowed >> i & 1) == 0)
            component = {};
        components_[i] = {component.eax, component.ebx, (component.ecx & 2) != 0};
        end = std::max(end, component.eax + component.ebx);
        add_subleaf(kXsave, {component.eax, component.ebx, component.ecx & 2, 0});
    }
    add_subleaf(kXsave, {});
    entries_[slot_at(kXsave).first].ecx = end;
}

/// TSC frequency = ECX * EBX / EAX of leaf 15h. The crystal is the APIC timer's clock, as Linux takes it to
/// be, and the ratio is reduced, so that the result is exact.
void CpuidPolicy::add_timing() {
    const std::uint64_t divisor = std::gcd(cpu_.tsc_hz, cpu_.apic_timer_hz);
    if (divisor == 0)
        return;
    const auto mhz = static_cast<std::uint32_t>((cpu_.tsc_hz + 500'000) / 1'000'000);
    add(kTsc, {static_cast<std::uint32_t>(cpu_.apic_timer_hz / divisor),
               static_cast<std::uint32_t>(cpu_.tsc_hz / divisor),
               static_cast<std::uint32_t>(cpu_.apic_timer_hz), 0});
    add(kFrequency, {mhz, mhz, 100, 0});
}

void CpuidPolicy::add_hypervisor(const CpuidConfig& config) {
    add(kHypervisor, {kHypervisorTiming, word("KVMK", 0), word("VMKV", 0), word("M", 0)});
    add(kHypervisorFeatures, {config.kvm_features, 0, 0, 0});
    add(kHypervisorTiming, {static_cast<std::uint32_t>(cpu_.tsc_hz / 1000),
                            static_cast<std::uint32_t>(cpu_.apic_timer_hz / 1000), 0, 0});
}

void CpuidPolicy::add_extended(const Host& host) {
    const bool amd = cpu_.vendor == Vendor::amd;
    const CpuidRegs vendor = host.get(kVendor);
    const CpuidRegs leaf1 = entries_[slot_at(kFeatures).first];
    const CpuidRegs leaf7 = entries_[slot_at(kStructured).first];
    const CpuidRegs host1 = host.get(kExtendedFeatures);
    if (amd)
        add(kExtended, {kMaxExtendedAmd, vendor.ebx, vendor.ecx, vendor.edx});
    else
        add(kExtended, {kMaxExtendedIntel, 0, 0, 0});
    std::uint32_t ecx = host1.ecx & kExt1Ecx;
    std::uint32_t edx = host1.edx & kExt1Edx;
    if (!instructions_.rdtscp)
        edx &= ~ext1_edx::RDTSCP;
    if (amd) {
        ecx |= cpu_.vcpus > 1 ? ext1_ecx::CMP_LEGACY : 0;
        edx |= (host1.edx & ext1_edx::MMXEXT) | (leaf1.edx & kExt1EdxRepeated);
    }
    add(kExtendedFeatures, {amd ? host1.eax : 0, amd ? host1.ebx & 0xf000'0000 : 0, ecx, edx},
        Kind::extended);
    constexpr std::string_view kBrand = "Cairn virtual processor";
    for (std::uint32_t i = 0; i < 3; ++i)
        add(kExtended + 2 + i, {word(kBrand, i * 16), word(kBrand, i * 16 + 4), word(kBrand, i * 16 + 8),
                                word(kBrand, i * 16 + 12)});
    if (amd)
        add(kExtended + 5, host.get(kExtended + 5));
    add(kExtended + 6, host.get(kExtended + 6));
    add(kAdvancedPower, {0, 0, 0, ext7_edx::INVARIANT_TSC});
    const std::uint32_t sizes = host.get(kAddressSizes).eax;
    cpu_.physical_bits = static_cast<std::uint8_t>(std::clamp(sizes & 0xff, 36U, 52U));
    cpu_.has_1g_pages = (edx & ext1_edx::PAGE1GB) != 0;
    add(kAddressSizes, {cpu_.physical_bits | (std::uint32_t{cpu_.linear_bits} << 8),
                        amd ? host.get(kAddressSizes).ebx & kExt8Ebx : 0,
                        amd ? (core_bits_ << 12) | std::min(cpu_.vcpus - 1, 255U) : 0, 0});
    if (amd)
        add_amd(host);
    derive_registers(leaf1.ecx, leaf1.edx, leaf7.ebx, leaf7.ecx, edx);
}

void CpuidPolicy::add_amd(const Host& host) {
    for (std::uint32_t i = 0; i < 8; ++i) {
        CpuidRegs cache = host.get(kAmdCaches, i);
        cache = (cache.eax & 0x1f) == 0 ? CpuidRegs{} : with_sharing(cache);
        i == 0 ? add(kAmdCaches, cache) : add_subleaf(kAmdCaches, cache);
        if (cache.eax == 0)
            break;
    }
    add(kAmdTopology, {}, Kind::amd_topology);
}

void CpuidPolicy::derive_registers(std::uint32_t ecx1, std::uint32_t edx1, std::uint32_t ebx7,
                                   std::uint32_t ecx7, std::uint32_t edx_ext1) {
    const auto when = [](std::uint32_t feature, std::uint64_t bits) { return feature != 0 ? bits : 0; };
    cpu_.cr4_allowed =
        CR4_TSD | CR4_PCE | CR4_MCE | when(edx1 & leaf1_edx::VME, CR4_VME | CR4_PVI) |
        when(edx1 & leaf1_edx::DE, CR4_DE) | when(edx1 & leaf1_edx::PSE, CR4_PSE) |
        when(edx1 & leaf1_edx::PAE, CR4_PAE) | when(edx1 & leaf1_edx::PGE, CR4_PGE) |
        when(edx1 & leaf1_edx::FXSR, CR4_OSFXSR) | when(edx1 & leaf1_edx::SSE, CR4_OSXMMEXCPT) |
        when(ecx1 & leaf1_ecx::PCID, CR4_PCIDE) | when(ecx1 & leaf1_ecx::XSAVE, CR4_OSXSAVE) |
        when(ebx7 & leaf7_ebx::FSGSBASE, CR4_FSGSBASE) | when(ebx7 & leaf7_ebx::SMEP, CR4_SMEP) |
        when(ebx7 & leaf7_ebx::SMAP, CR4_SMAP) | when(ecx7 & leaf7_ecx::UMIP, CR4_UMIP);
    cpu_.efer_allowed = when(edx_ext1 & ext1_edx::SYSCALL, EFER_SCE) |
                        when(edx_ext1 & ext1_edx::LM, EFER_SCE | EFER_LME | EFER_LMA) |
                        when(edx_ext1 & ext1_edx::NX, EFER_NXE) |
                        when(edx_ext1 & ext1_edx::FFXSR, EFER_FFXSR);
}

CpuidRegs CpuidPolicy::dynamic(Slot slot, std::uint32_t subleaf, const VcpuBackend& backend,
                               std::uint32_t apic_id, std::uint64_t apic_base) const {
    const bool beyond = subleaf >= slot.subleaves;
    CpuidRegs regs = entries_[slot.first + (beyond ? slot.subleaves - 1U : subleaf)];
    switch (slot.kind) {
    case Kind::constant: break;
    case Kind::indexed:
        if (beyond)
            regs = {};
        break;
    case Kind::features: {
        regs = entries_[slot.first];
        CpuState state;
        backend.get_state(state, RegSet::control);
        regs.ebx |= apic_id << 24;
        if ((apic_base & APIC_BASE_ENABLE) != 0)
            regs.edx |= leaf1_edx::APIC;
        if ((state.cr4 & CR4_OSXSAVE) != 0)
            regs.ecx |= leaf1_ecx::OSXSAVE;
        break;
    }
    case Kind::extended: extended_features(regs, backend, apic_base); break;
    case Kind::topology:
        regs.ecx |= subleaf & 0xff;
        regs.edx = apic_id;
        break;
    case Kind::xsave: return xsave(beyond ? CpuidRegs{} : regs, subleaf, backend.xcr0());
    case Kind::amd_topology: regs = {apic_id, apic_id & 0xff, 0, 0}; break;
    }
    return regs;
}

/// [sdm2 3.3 CPUID]: Intel's processors show SYSCALL to 64-bit code alone; [apm3 E.4.2 Function 8000_0001h]:
/// AMD's repeat bits of leaf 1.
void CpuidPolicy::extended_features(CpuidRegs& regs, const VcpuBackend& backend,
                                    std::uint64_t apic_base) const {
    if (cpu_.vendor == Vendor::amd) {
        if ((apic_base & APIC_BASE_ENABLE) != 0)
            regs.edx |= leaf1_edx::APIC;
        return;
    }
    CpuState state;
    backend.get_state(state, RegSet::control | RegSet::segments);
    if ((state.efer & EFER_LMA) == 0 || !state.seg(SegmentName::cs).long_mode())
        regs.edx &= ~ext1_edx::SYSCALL;
}

/// EBX of subleaf 0 and 1: the size of the area for the state components now enabled, in the standard and in
/// the compacted format [sdm1 13.4 XSAVE Area].
CpuidRegs CpuidPolicy::xsave(const CpuidRegs& fixed, std::uint32_t subleaf, std::uint64_t xcr0) const {
    CpuidRegs regs = fixed;
    if (subleaf > 1)
        return regs;
    std::uint32_t standard = kXsaveLegacySize;
    std::uint32_t compacted = kXsaveLegacySize;
    for (unsigned i = 2; i < components_.size(); ++i) {
        if ((xcr0 >> i & 1) == 0)
            continue;
        const Component& component = components_[i];
        standard = std::max(standard, component.offset + component.size);
        if (component.aligned)
            compacted = (compacted + 63) & ~63U;
        compacted += component.size;
    }
    if (subleaf == 0)
        regs.ebx = standard;
    else if ((regs.eax & leafd_1_eax::XSAVEC) != 0)
        regs.ebx = compacted;
    return regs;
}

}  // namespace hv::x86
