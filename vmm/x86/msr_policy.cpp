// SPDX-License-Identifier: MIT
#include "vmm/x86/msr_policy.hpp"

#include "arch/x86_64/defs/cr.hpp"
#include "vmm/base/log.hpp"
#include "vmm/base/machine.hpp"
#include "vmm/core/guest_map.hpp"

namespace hv::x86 {
namespace {

constexpr Unexpected kFault{Error::guest_fault};

/// The bits of IA32_MISC_ENABLE that the architecture defines [sdm4 2.1 Architectural MSRs]. Limit CPUID
/// Maxval and XD Disable act on what they name, on Intel's processors; the others are kept without effect.
constexpr std::uint64_t kMiscEnableBits = 0x4'00c5'1889;
/// Performance Monitoring, BTS and PEBS: (un)available as they are, writes do not change it.
constexpr std::uint64_t kMiscEnableReadOnly =
    MISC_ENABLE_EMON | MISC_ENABLE_BTS_UNAVAILABLE | MISC_ENABLE_PEBS_UNAVAILABLE;
constexpr std::uint64_t kMiscEnableReset =
    MISC_ENABLE_FAST_STRING | MISC_ENABLE_BTS_UNAVAILABLE | MISC_ENABLE_PEBS_UNAVAILABLE;

/// HWCR: SMMLOCK, TLBCACHEDIS, IGNNE_EM, INVD_WBINVD, MCSTATUS_WREN, and TSCFREQSEL, which says that the TSC
/// is constant.
constexpr std::uint64_t kHwcrTscFreqSel = bit(24);
constexpr std::uint64_t kHwcrBits = bit(0) | bit(3) | bit(4) | bit(6) | bit(8) | bit(18) | kHwcrTscFreqSel;
constexpr std::uint64_t kDeCfgLfenceSerialise = bit(1);
constexpr std::uint64_t kDebugCtlLbrBtf = 3;
constexpr std::uint32_t kFam10hMmioConfBase = 0xc001'0058;
constexpr std::uint64_t kMtrrDefTypeBits = 0xcff;
constexpr std::uint64_t kWriteBack = 6;
constexpr std::uint64_t kAllWriteBack = 0x0606'0606'0606'0606;  ///< the eight types of a fixed range

/// UC, WC, WT, WP, WB [sdm3 12.11.1 MTRR Feature Identification].
constexpr bool is_memory_type(std::uint64_t type) {
    return type < 8 && ((0x73U >> type) & 1) != 0;
}

constexpr std::uint32_t number(Msr msr) {
    return static_cast<std::uint32_t>(msr);
}

}  // namespace

bool is_valid_pat(std::uint64_t value) {
    for (unsigned i = 0; i < 64; i += 8) {
        const std::uint64_t type = (value >> i) & 0xff;
        if (!is_memory_type(type) && type != 7)  // 7: UC-
            return false;
    }
    return true;
}

MsrFile::MsrFile(const GuestCpu& cpu, VcpuBackend& backend, LocalApic& apic, const GuestMemory& memory,
                 const KvmClock& clock, std::int64_t tsc_offset)
    : cpu_{cpu},
      backend_{backend},
      apic_{apic},
      memory_{memory},
      clock_{clock},
      vm_tsc_offset_{tsc_offset},
      tsc_offset_{tsc_offset} {
    reset();
}

void MsrFile::reset() {
    tsc_adjust_ = 0;
    tsc_offset_ = vm_tsc_offset_;
    move_tsc(0);
    misc_enable_ = kMiscEnableReset;
    mcg_status_ = system_time_ = wall_clock_ = syscfg_ = nb_cfg_ = 0;
    hwcr_ = kHwcrTscFreqSel;
    mtrr_def_type_ = 0;
    mtrr_variable_ = {};
    mtrr_fixed_ = {};
}

void MsrFile::enter_firmware_state() {
    constexpr unsigned k64K = 0, kFirst16K = 1, kFirst4K = 3;
    mtrr_fixed_[k64K] = mtrr_fixed_[kFirst16K] = kAllWriteBack;
    mtrr_fixed_[kFirst16K + 1] = 0;  // a0000h to bffffh, a video card's on a PC: uncached
    for (unsigned i = kFirst4K; i < kFixedRanges; ++i)
        mtrr_fixed_[i] = kAllWriteBack;
    // Uncached: where devices are, up to 4 GiB.
    constexpr std::uint64_t size = (std::uint64_t{1} << 32) - guest_map::kPciWindow;
    static_assert((size & (size - 1)) == 0 && guest_map::kPciWindow % size == 0);  // one range covers it
    mtrr_variable_ = {guest_map::kPciWindow,
                      (((std::uint64_t{1} << cpu_.physical_bits) - 1) & ~(size - 1)) | MTRR_PHYSMASK_V};
    mtrr_def_type_ = MTRR_DEF_TYPE_E | MTRR_DEF_TYPE_FE | kWriteBack;
}

Expected<std::uint64_t> MsrFile::read(std::uint32_t index) {
    if (index - number(Msr::IA32_X2APIC_FIRST) < 0x100)
        return apic_.read_msr(index);
    const auto msr = static_cast<Msr>(index);
    switch (msr) {
    case Msr::IA32_TIME_STAMP_COUNTER: return machine::tsc() + static_cast<std::uint64_t>(tsc_offset_);
    case Msr::IA32_TSC_DEADLINE: return apic_.tsc_deadline();
    case Msr::IA32_APIC_BASE: return apic_.apic_base();
    case Msr::IA32_TSC_ADJUST: return tsc_adjust_;
    case Msr::IA32_TSC_AUX: return backend_.tsc_aux();
    case Msr::IA32_EFER:
    case Msr::IA32_STAR:
    case Msr::IA32_LSTAR:
    case Msr::IA32_CSTAR:
    case Msr::IA32_FMASK:
    case Msr::IA32_FS_BASE:
    case Msr::IA32_GS_BASE:
    case Msr::IA32_KERNEL_GS_BASE:
    case Msr::IA32_SYSENTER_CS:
    case Msr::IA32_SYSENTER_ESP:
    case Msr::IA32_SYSENTER_EIP:
    case Msr::IA32_PAT: return read_state(msr);
    default: return read_other(index);
    }
}

Expected<std::uint64_t> MsrFile::read_other(std::uint32_t index) {
    if (const std::uint64_t* range = mtrr(index); range != nullptr)
        return *range;
    switch (static_cast<Msr>(index)) {
    case Msr::IA32_MTRRCAP: return kVariableRanges | MTRRCAP_FIX | MTRRCAP_WC;
    case Msr::IA32_MISC_ENABLE: return misc_enable_;
    case Msr::IA32_BIOS_SIGN_ID: return amd() ? 0x0100'0065 : std::uint64_t{1} << 32;
    case Msr::IA32_P5_MC_ADDR:
    case Msr::IA32_P5_MC_TYPE:
    case Msr::EBL_CR_POWERON:
    case Msr::IA32_MCG_CAP:  // no banks
    case Msr::IA32_DEBUGCTL: return std::uint64_t{0};
    case Msr::IA32_MCG_STATUS: return mcg_status_;
    case Msr::KVM_WALL_CLOCK:
    case Msr::KVM_WALL_CLOCK_NEW: return wall_clock_;
    case Msr::KVM_SYSTEM_TIME:
    case Msr::KVM_SYSTEM_TIME_NEW: return system_time_;
    default: return amd() ? read_amd(index) : read_intel(index);
    }
}

Expected<std::uint64_t> MsrFile::read_intel(std::uint32_t index) {
    switch (static_cast<Msr>(index)) {
    // Bits 15:8: TSC frequency in units of 100 MHz.
    case Msr::MSR_PLATFORM_INFO: return cpu_.tsc_hz / 100'000'000 << 8;
    case Msr::IA32_FEATURE_CONTROL: return FEATURE_CONTROL_LOCK;  // and VMX off
    case Msr::IA32_PLATFORM_ID:
    case Msr::MSR_SMI_COUNT:
    case Msr::MISC_FEATURES_ENABLES:
    case Msr::IA32_PERF_STATUS: return std::uint64_t{0};
    default: return unknown("RDMSR", index);
    }
}

Expected<std::uint64_t> MsrFile::read_amd(std::uint32_t index) {
    switch (static_cast<Msr>(index)) {
    case Msr::SYSCFG: return syscfg_;
    case Msr::HWCR: return hwcr_;
    case Msr::NB_CFG: return nb_cfg_;
    case Msr::IC_CFG:
    case Msr::DC_CFG: return std::uint64_t{0};
    case Msr::DE_CFG: return kDeCfgLfenceSerialise;
    default: break;
    }
    if (index == kFam10hMmioConfBase)
        return std::uint64_t{0};  // ECAM is found by ACPI
    return unknown("RDMSR", index);
}

Expected<void> MsrFile::write(std::uint32_t index, std::uint64_t value) {
    if (index - number(Msr::IA32_X2APIC_FIRST) < 0x100)
        return apic_.write_msr(index, value);
    const auto msr = static_cast<Msr>(index);
    switch (msr) {
    case Msr::IA32_TSC_DEADLINE: apic_.set_tsc_deadline(value); return {};
    case Msr::IA32_TIME_STAMP_COUNTER:
        move_tsc(value - (machine::tsc() + static_cast<std::uint64_t>(tsc_offset_)));
        return {};
    case Msr::IA32_TSC_ADJUST: move_tsc(value - tsc_adjust_); return {};
    case Msr::IA32_APIC_BASE: return apic_.set_apic_base(value);
    case Msr::IA32_TSC_AUX:
        if (value >> 32 != 0)
            return kFault;
        backend_.set_tsc_aux(value);
        return {};
    case Msr::IA32_EFER: return write_efer(value);
    case Msr::IA32_PAT: return is_valid_pat(value) ? write_state(msr, value) : kFault;
    case Msr::IA32_LSTAR:
    case Msr::IA32_CSTAR:
    case Msr::IA32_FS_BASE:
    case Msr::IA32_GS_BASE:
    case Msr::IA32_KERNEL_GS_BASE:
    case Msr::IA32_SYSENTER_ESP:
    case Msr::IA32_SYSENTER_EIP: return is_canonical(value) ? write_state(msr, value) : kFault;
    case Msr::IA32_STAR:
    case Msr::IA32_FMASK:
    case Msr::IA32_SYSENTER_CS: return write_state(msr, value);
    default: return write_other(index, value);
    }
}

Expected<void> MsrFile::write_other(std::uint32_t index, std::uint64_t value) {
    if (mtrr(index) != nullptr)
        return write_mtrr(index, value);
    switch (static_cast<Msr>(index)) {
    case Msr::IA32_MISC_ENABLE:
        if ((value & ~kMiscEnableBits) != 0)
            return kFault;
        misc_enable_ = (misc_enable_ & kMiscEnableReadOnly) | (value & ~kMiscEnableReadOnly);
        return {};
    case Msr::IA32_BIOS_SIGN_ID:  // Linux clears it before it reads the revision
    case Msr::IA32_P5_MC_ADDR:
    case Msr::IA32_P5_MC_TYPE: return {};
    case Msr::IA32_DEBUGCTL: return (value & ~kDebugCtlLbrBtf) == 0 ? Expected<void>{} : kFault;
    case Msr::IA32_MCG_STATUS: mcg_status_ = value & 7; return {};
    case Msr::IA32_MTRRCAP:
    case Msr::IA32_MCG_CAP: return kFault;
    case Msr::KVM_WALL_CLOCK:
    case Msr::KVM_WALL_CLOCK_NEW:
        wall_clock_ = value;
        static_cast<void>(
            clock_.write_wall_clock(memory_, Gpa{value}));  // no RAM there: the guest's own loss
        return {};
    case Msr::KVM_SYSTEM_TIME:
    case Msr::KVM_SYSTEM_TIME_NEW: write_system_time(value); return {};
    default: return amd() ? write_amd(index, value) : write_intel(index, value);
    }
}

Expected<void> MsrFile::write_intel(std::uint32_t index, std::uint64_t value) {
    switch (static_cast<Msr>(index)) {
    case Msr::IA32_BIOS_UPDT_TRIG: return {};  // no update is ever taken
    case Msr::MISC_FEATURES_ENABLES: return value == 0 ? Expected<void>{} : kFault;
    default: return unknown("WRMSR", index);
    }
}

Expected<void> MsrFile::write_amd(std::uint32_t index, std::uint64_t value) {
    switch (static_cast<Msr>(index)) {
    case Msr::SYSCFG: syscfg_ = value & 0x00ff'0000; return {};
    case Msr::HWCR:
        if ((value & ~kHwcrBits) != 0)
            return kFault;
        hwcr_ = value;
        return {};
    case Msr::NB_CFG: nb_cfg_ = value; return {};
    case Msr::PATCH_LOADER:
    case Msr::IC_CFG:
    case Msr::DC_CFG: return {};
    case Msr::DE_CFG: return (value & ~kDeCfgLfenceSerialise) == 0 ? Expected<void>{} : kFault;
    default: return unknown("WRMSR", index);
    }
}

/// MSRs that the processor itself holds while the guest runs.
Expected<std::uint64_t> MsrFile::read_state(Msr msr) const {
    CpuState state;
    switch (msr) {
    case Msr::IA32_EFER: backend_.get_state(state, RegSet::control); return state.efer;
    case Msr::IA32_FS_BASE:
        backend_.get_state(state, RegSet::segments);
        return state.seg(SegmentName::fs).base;
    case Msr::IA32_GS_BASE:
        backend_.get_state(state, RegSet::segments);
        return state.seg(SegmentName::gs).base;
    default: break;
    }
    backend_.get_state(state, RegSet::msrs);
    switch (msr) {
    case Msr::IA32_STAR: return state.star;
    case Msr::IA32_LSTAR: return state.lstar;
    case Msr::IA32_CSTAR: return state.cstar;
    case Msr::IA32_FMASK: return state.sfmask;
    case Msr::IA32_KERNEL_GS_BASE: return state.kernel_gs_base;
    case Msr::IA32_SYSENTER_CS: return state.sysenter_cs;
    case Msr::IA32_SYSENTER_ESP: return state.sysenter_esp;
    case Msr::IA32_SYSENTER_EIP: return state.sysenter_eip;
    case Msr::IA32_PAT: return state.pat;
    default: return kFault;
    }
}

Expected<void> MsrFile::write_state(Msr msr, std::uint64_t value) {
    const bool base = msr == Msr::IA32_FS_BASE || msr == Msr::IA32_GS_BASE;
    const RegSet group = base ? RegSet::segments : RegSet::msrs;
    CpuState state;
    backend_.get_state(state, group);
    switch (msr) {
    case Msr::IA32_FS_BASE: state.seg(SegmentName::fs).base = value; break;
    case Msr::IA32_GS_BASE: state.seg(SegmentName::gs).base = value; break;
    case Msr::IA32_STAR: state.star = value; break;
    case Msr::IA32_LSTAR: state.lstar = value; break;
    case Msr::IA32_CSTAR: state.cstar = value; break;
    case Msr::IA32_FMASK: state.sfmask = value; break;
    case Msr::IA32_KERNEL_GS_BASE: state.kernel_gs_base = value; break;
    case Msr::IA32_SYSENTER_CS: state.sysenter_cs = value; break;
    case Msr::IA32_SYSENTER_ESP: state.sysenter_esp = value; break;
    case Msr::IA32_SYSENTER_EIP: state.sysenter_eip = value; break;
    case Msr::IA32_PAT: state.pat = value; break;
    default: return kFault;
    }
    backend_.set_state(state, group);
    return {};
}

/// [sdm4 2.1 Architectural MSRs], IA32_MISC_ENABLE: what its bits 22 and 34 do to CPUID.
void MsrFile::limit_cpuid(std::uint32_t leaf, CpuidRegs& regs) const {
    constexpr std::uint32_t kLimit = 2;
    if (amd())
        return;
    if (leaf == cpuid::kVendor && (misc_enable_ & MISC_ENABLE_LIMIT_CPUID_MAXVAL) != 0)
        regs.eax = kLimit;
    if (leaf == cpuid::kExtendedFeatures && (misc_enable_ & MISC_ENABLE_XD_DISABLE) != 0)
        regs.edx &= ~cpuid::ext1_edx::NX;
}

/// [apm2 3.1.7 Extended Feature Enable Register (EFER)]: LME changes only while paging is off; LMA is the
/// processor's own.
Expected<void> MsrFile::write_efer(std::uint64_t value) {
    if ((value & ~cpu_.efer_allowed) != 0)
        return kFault;
    CpuState state;
    backend_.get_state(state, RegSet::control);
    const std::uint64_t changed = (value ^ state.efer) & ~EFER_LMA;
    if (!amd() && (changed & value & EFER_NXE) != 0 && (misc_enable_ & MISC_ENABLE_XD_DISABLE) != 0)
        return kFault;
    if ((changed & EFER_LME) != 0 && (state.cr0 & CR0_PG) != 0)
        return kFault;
    state.efer ^= changed;
    backend_.set_state(state, RegSet::control);
    if ((changed & EFER_NXE) != 0)
        backend_.flush_guest_tlb();
    return {};
}

std::uint64_t* MsrFile::mtrr(std::uint32_t index) {
    if (index - number(Msr::IA32_MTRR_PHYSBASE0) < mtrr_variable_.size())
        return &mtrr_variable_[index - number(Msr::IA32_MTRR_PHYSBASE0)];
    if (index == number(Msr::IA32_MTRR_DEF_TYPE))
        return &mtrr_def_type_;
    if (index == number(Msr::IA32_MTRR_FIX64K_00000))
        return &mtrr_fixed_[0];
    if (index - number(Msr::IA32_MTRR_FIX16K_80000) < 2)
        return &mtrr_fixed_[1 + index - number(Msr::IA32_MTRR_FIX16K_80000)];
    if (index - number(Msr::IA32_MTRR_FIX4K_C0000) < 8)
        return &mtrr_fixed_[3 + index - number(Msr::IA32_MTRR_FIX4K_C0000)];
    return nullptr;
}

/// [sdm3 12.11.2 Setting Memory Ranges with MTRRs]. Guest memory is write-back whatever they say: they are
/// state alone.
Expected<void> MsrFile::write_mtrr(std::uint32_t index, std::uint64_t value) {
    if (index == number(Msr::IA32_MTRR_DEF_TYPE)) {
        if ((value & ~kMtrrDefTypeBits) != 0 || !is_memory_type(value & 0xff))
            return kFault;
    } else if (index < number(Msr::IA32_MTRR_FIX64K_00000)) {
        const std::uint64_t address = ((std::uint64_t{1} << cpu_.physical_bits) - 1) & ~(kPageSize - 1);
        const bool mask = (index & 1) != 0;
        if ((value & ~(address | (mask ? MTRR_PHYSMASK_V : 0xff))) != 0 ||
            (!mask && !is_memory_type(value & 0xff)))
            return kFault;
    } else {
        for (unsigned i = 0; i < 64; i += 8)
            if (!is_memory_type((value >> i) & 0xff))
                return kFault;
    }
    *mtrr(index) = value;
    return {};
}

/// [sdm3 18.17.3 Time-Stamp Counter Adjustment]: whatever moves the counter moves IA32_TSC_ADJUST alike.
void MsrFile::move_tsc(std::uint64_t delta) {
    tsc_adjust_ += delta;
    tsc_offset_ = static_cast<std::int64_t>(static_cast<std::uint64_t>(tsc_offset_) + delta);
    backend_.set_tsc_offset(tsc_offset_);
    apic_.set_tsc_offset(tsc_offset_);
    write_system_time(system_time_);
}

void MsrFile::write_system_time(std::uint64_t value) {
    system_time_ = value;
    if ((value & 1) == 0)  // bit 0 enables
        return;
    const auto skew = static_cast<std::uint64_t>(tsc_offset_) - static_cast<std::uint64_t>(vm_tsc_offset_);
    static_cast<void>(
        clock_.write_system_time(memory_, Gpa{value & ~std::uint64_t{1}}, static_cast<std::int64_t>(skew)));
}

Unexpected MsrFile::unknown(const char* access, std::uint32_t index) {
    static constinit log::RateLimit limit;
    unknown_.store(unknown_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    if (limit.admit())
        log::info(log::Topic::cpu, "guest's %s of MSR 0x%x: #GP", access, index);
    return kFault;
}

}  // namespace hv::x86
