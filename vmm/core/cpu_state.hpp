// SPDX-License-Identifier: MIT
// The architectural state of a guest processor in a vendor-neutral shape.
#pragma once

#include <cstdint>

namespace hv {

/// Indices into VcpuRegs::gpr, in the encoding order of ModRM and of both vendors' exit information.
enum Gpr : std::uint8_t { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

/// What nearly every exit handler looks at: kept in memory by the entry stub, always current while the guest
/// is stopped.
struct VcpuRegs {
    std::uint64_t gpr[16];
    std::uint64_t rip;
    std::uint64_t rflags;
};

/// A view of the vector registers. A write of an XMM register leaves what lies above it alone, one of a YMM
/// register clears what lies above that, as VEX-encoded instructions do.
enum class VectorFile : std::uint8_t { mmx, xmm, ymm };
struct VectorValue {
    std::uint64_t part[4];  ///< as many as the register has: 1, 2 or 4
};

/// A segment register with its hidden part.
struct Segment {
    std::uint16_t selector;
    /// Descriptor attributes packed as in the VMCB [apm2 App. B Layout of VMCB]: type 3:0, S 4, DPL 6:5, P 7,
    /// AVL 8, L 9, D/B 10, G 11. P clear means unusable.
    std::uint16_t attributes;
    std::uint32_t limit;  ///< in bytes, expanded by G
    std::uint64_t base;

    [[nodiscard]] constexpr unsigned dpl() const { return (attributes >> 5) & 3U; }
    [[nodiscard]] constexpr bool present() const { return (attributes & 0x080) != 0; }
    /// L; code segments only.
    [[nodiscard]] constexpr bool long_mode() const { return (attributes & 0x200) != 0; }
    /// D/B.
    [[nodiscard]] constexpr bool big() const { return (attributes & 0x400) != 0; }
};

struct DescriptorTable {
    std::uint64_t base;
    std::uint16_t limit;
};

/// Encoding order of instructions' segment fields.
enum class SegmentName : std::uint8_t { es, cs, ss, ds, fs, gs };

struct CpuState {
    // RegSet::control
    std::uint64_t cr0, cr2, cr3, cr4, efer;
    // RegSet::segments
    Segment segment[6];  ///< by SegmentName
    Segment tr, ldtr;
    // RegSet::tables
    DescriptorTable gdtr, idtr;
    // RegSet::debug
    std::uint64_t dr[4];
    std::uint64_t dr6, dr7;
    // RegSet::msrs
    std::uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
    std::uint64_t sysenter_cs, sysenter_esp, sysenter_eip, pat;

    [[nodiscard]] constexpr Segment& seg(SegmentName name) { return segment[static_cast<unsigned>(name)]; }
    [[nodiscard]] constexpr const Segment& seg(SegmentName name) const {
        return segment[static_cast<unsigned>(name)];
    }
    /// The current privilege level: SS.DPL [sdm3 5.5 Privilege Levels].
    [[nodiscard]] constexpr unsigned cpl() const { return seg(SegmentName::ss).dpl(); }
};

/// What decides, together with RIP and memory, which instruction comes next: paging, privilege, code segment.
struct CodeContext {
    std::uint64_t cr0, cr3, cr4, efer;
    std::uint64_t cs_base;
    std::uint16_t cs_attributes;
    std::uint8_t cpl;

    static constexpr CodeContext of(const CpuState& state) {
        const Segment& cs = state.seg(SegmentName::cs);
        return {state.cr0,
                state.cr3,
                state.cr4,
                state.efer,
                cs.base,
                cs.attributes,
                static_cast<std::uint8_t>(state.cpl())};
    }
    bool operator==(const CodeContext&) const = default;
};

/// Which groups of CpuState get_state() and set_state() move; groups are or-ed.
enum class RegSet : std::uint8_t { control = 1, segments = 2, tables = 4, debug = 8, msrs = 16, all = 31 };
constexpr RegSet operator|(RegSet a, RegSet b) {
    return static_cast<RegSet>(static_cast<unsigned>(a) | static_cast<unsigned>(b));
}
constexpr bool includes(RegSet set, RegSet member) {
    return (static_cast<unsigned>(set) & static_cast<unsigned>(member)) != 0;
}

}  // namespace hv
