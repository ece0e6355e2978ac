// SPDX-License-Identifier: MIT
#include "vmm/x86/control_registers.hpp"

#include "arch/x86_64/defs/cr.hpp"

namespace hv::x86 {
namespace {

constexpr Unexpected kFault{Error::guest_fault};

constexpr std::uint64_t kCr0Bits =
    CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG;
/// Changes that drop cached translations [sdm3 4.10.4.1 Operations that Invalidate TLBs and Paging-Structure
/// Caches].
constexpr std::uint64_t kCr0Flushes = CR0_PG | CR0_WP;
constexpr std::uint64_t kCr4Flushes = CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP;
constexpr std::uint64_t kPdptePresent = 1;

bool pae_paging(const CpuState& state) {
    return (state.cr0 & CR0_PG) != 0 && (state.cr4 & CR4_PAE) != 0 && (state.efer & EFER_LMA) == 0;
}

}  // namespace

CpuState ControlRegisters::control() const {
    CpuState state;
    backend_.get_state(state, RegSet::control | RegSet::segments);
    return state;
}

Expected<void> ControlRegisters::write(unsigned number, std::uint64_t value) {
    switch (number) {
    case 0: return write_cr0(value);
    case 2: {
        CpuState state = control();
        state.cr2 = value;
        backend_.set_state(state, RegSet::control);
        return {};
    }
    case 3: return write_cr3(value);
    case 4: return write_cr4(value);
    default: return Unexpected{Error::not_found};
    }
}

Expected<std::uint64_t> ControlRegisters::read(unsigned number) const {
    const CpuState state = control();
    switch (number) {
    case 0: return state.cr0;
    case 2: return state.cr2;
    case 3: return state.cr3;
    case 4: return state.cr4;
    default: return Unexpected{Error::not_found};
    }
}

/// [sdm2 4.3 MOV--Move to/from Control Registers], [apm2 14.6.1 Activating Long Mode].
Expected<void> ControlRegisters::write_cr0(std::uint64_t value) {
    CpuState state = control();
    if (value >> 32 != 0)
        return kFault;
    value = (value & kCr0Bits) | CR0_ET;
    const bool paging = (value & CR0_PG) != 0;
    if ((paging && (value & CR0_PE) == 0) || ((value & CR0_NW) != 0 && (value & CR0_CD) == 0))
        return kFault;
    const std::uint64_t changed = value ^ state.cr0;
    const bool code_is_64bit = (state.efer & EFER_LMA) != 0 && state.seg(SegmentName::cs).long_mode();
    if ((changed & CR0_PG) != 0) {
        if (!paging && (code_is_64bit || (state.cr4 & CR4_PCIDE) != 0))
            return kFault;
        if (paging && (state.efer & EFER_LME) != 0) {
            if ((state.cr4 & CR4_PAE) == 0 || state.seg(SegmentName::cs).long_mode())
                return kFault;
            state.efer |= EFER_LMA;
        }
        if (!paging)
            state.efer &= ~EFER_LMA;
    }
    state.cr0 = value;
    if ((changed & (CR0_PG | CR0_CD | CR0_NW)) != 0 && pae_paging(state) && !pdptes_are_valid(state.cr3))
        return kFault;
    backend_.set_state(state, RegSet::control);
    if ((changed & kCr0Flushes) != 0)
        backend_.flush_guest_tlb();
    return {};
}

Expected<void> ControlRegisters::write_cr3(std::uint64_t value) {
    CpuState state = control();
    const bool long_mode = (state.efer & EFER_LMA) != 0;
    if (long_mode) {
        if ((state.cr4 & CR4_PCIDE) != 0)
            value &= ~CR3_NO_FLUSH;  // to flush all the same is allowed
        if ((value & (cpu_.reserved_address_bits() | 0xfff0'0000'0000'0000)) != 0)
            return kFault;
    } else {
        value &= 0xffff'ffff;
        if (pae_paging(state) && !pdptes_are_valid(value))
            return kFault;
    }
    state.cr3 = value;
    backend_.set_state(state, RegSet::control);
    backend_.flush_guest_tlb();
    return {};
}

Expected<void> ControlRegisters::write_cr4(std::uint64_t value) {
    CpuState state = control();
    const std::uint64_t changed = value ^ state.cr4;
    const bool long_mode = (state.efer & EFER_LMA) != 0;
    if ((value & ~cpu_.cr4_allowed) != 0 || (long_mode && (value & CR4_PAE) == 0))
        return kFault;
    if ((changed & value & CR4_PCIDE) != 0 && (!long_mode || (state.cr3 & CR3_PCID) != 0))
        return kFault;
    state.cr4 = value;
    constexpr std::uint64_t kReloadsPdptes = CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP;
    if ((changed & kReloadsPdptes) != 0 && pae_paging(state) && !pdptes_are_valid(state.cr3))
        return kFault;
    backend_.set_state(state, RegSet::control);
    if ((changed & kCr4Flushes) != 0)
        backend_.flush_guest_tlb();
    return {};
}

Expected<void> ControlRegisters::load_machine_status_word(std::uint16_t value) {
    constexpr std::uint64_t kBits = CR0_PE | CR0_MP | CR0_EM | CR0_TS;
    const std::uint64_t cr0 = control().cr0;
    return write_cr0((cr0 & ~(kBits & ~CR0_PE)) | (value & kBits));
}

Expected<void> ControlRegisters::clear_task_switched() {
    return write_cr0(control().cr0 & ~CR0_TS);
}

/// [sdm2 6.1 Instructions (W-Z), XSETBV], [sdm1 13.3 Enabling the XSAVE Feature Set and
/// XSAVE-Enabled Features].
Expected<void> ControlRegisters::set_extended(std::uint32_t index, std::uint64_t value) {
    const CpuState state = control();
    if ((state.cr4 & CR4_OSXSAVE) == 0)
        return Unexpected{Error::not_found};
    const std::uint64_t avx512 = value & XCR0_AVX512;
    const bool consistent = (value & XCR0_X87) != 0 && ((value & XCR0_AVX) == 0 || (value & XCR0_SSE) != 0) &&
                            (avx512 == 0 || (avx512 == XCR0_AVX512 && (value & XCR0_AVX) != 0));
    if (index != 0 || !consistent || (value & ~cpu_.xcr0_allowed) != 0 || state.cpl() != 0)
        return kFault;
    backend_.set_xcr0(value);
    return {};
}

/// [sdm3 4.4.1 PDPTE Registers]: reserved bits of present entries are checked when they are loaded. AMD's
/// processors load nothing with nested paging, but read the entries as part of a walk [apm2 15.25.10 Legacy
/// PAE Mode].
bool ControlRegisters::pdptes_are_valid(std::uint64_t cr3) const {
    if (cpu_.vendor == Vendor::amd)
        return true;
    const std::uint64_t reserved = 0x1e6 | cpu_.reserved_address_bits() | 0xfff0'0000'0000'0000;
    for (std::uint64_t i = 0; i < 4; ++i) {
        const auto entry = memory_.load<std::uint64_t>(Gpa{(cr3 & 0xffff'ffe0) + i * 8});
        if (!entry || ((*entry & kPdptePresent) != 0 && (*entry & reserved) != 0))
            return false;
    }
    return true;
}

}  // namespace hv::x86
