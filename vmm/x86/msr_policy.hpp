// SPDX-License-Identifier: MIT
// The MSRs of one vCPU, by list: those named here behave as the manuals say, every other one is #GP. What
// CPUID hides is not here either.
#pragma once

#include "arch/x86_64/defs/cpuid.hpp"
#include "arch/x86_64/defs/msr.hpp"
#include "vmm/core/vcpu_backend.hpp"
#include "vmm/x86/guest_cpu.hpp"
#include "vmm/x86/kvm_clock.hpp"
#include "vmm/x86/local_apic.hpp"

#include <array>
#include <atomic>
#include <cstdint>

namespace hv::x86 {

/// Used on the vCPU's own CPU only.
class MsrFile {
public:
    /// All referenced objects outlive this one. `tsc_offset` is the VM's: guest TSC minus host TSC at RESET.
    MsrFile(const GuestCpu& cpu, VcpuBackend& backend, LocalApic& apic, const GuestMemory& memory,
            const KvmClock& clock, std::int64_t tsc_offset);

    /// RDMSR and WRMSR of `index`. Error::guest_fault: #GP(0).
    Expected<std::uint64_t> read(std::uint32_t index);
    Expected<void> write(std::uint32_t index, std::uint64_t value);

    /// RESET; INIT leaves MSRs alone, but for those in CpuState.
    void reset();
    /// What PC firmware leaves in the MTRRs of every processor: RAM write-back, devices uncached.
    void enter_firmware_state();
    /// Whether IA32_MISC_ENABLE takes something away from what CPUID says, and then what remains of it.
    [[nodiscard]] bool limits_cpuid() const { return (misc_enable_ & kCpuidLimits) != 0; }
    void limit_cpuid(std::uint32_t leaf, CpuidRegs& regs) const;

    [[nodiscard]] std::int64_t tsc_offset() const { return tsc_offset_; }
    /// How often a guest touched an MSR that it does not have.
    [[nodiscard]] std::uint64_t unknown_accesses() const { return unknown_.load(std::memory_order_relaxed); }

private:
    static constexpr unsigned kVariableRanges = 8;
    static constexpr unsigned kFixedRanges = 11;
    static constexpr std::uint64_t kCpuidLimits = MISC_ENABLE_LIMIT_CPUID_MAXVAL | MISC_ENABLE_XD_DISABLE;

    Expected<std::uint64_t> read_other(std::uint32_t index);
    Expected<void> write_other(std::uint32_t index, std::uint64_t value);
    Expected<std::uint64_t> read_intel(std::uint32_t index);
    Expected<void> write_intel(std::uint32_t index, std::uint64_t value);
    Expected<std::uint64_t> read_amd(std::uint32_t index);
    Expected<void> write_amd(std::uint32_t index, std::uint64_t value);
    Expected<std::uint64_t> read_state(Msr msr) const;
    Expected<void> write_state(Msr msr, std::uint64_t value);
    Expected<void> write_efer(std::uint64_t value);
    Expected<void> write_mtrr(std::uint32_t index, std::uint64_t value);
    [[nodiscard]] std::uint64_t* mtrr(std::uint32_t index);
    void move_tsc(std::uint64_t delta);
    void write_system_time(std::uint64_t value);
    [[nodiscard]] bool amd() const { return cpu_.vendor == Vendor::amd; }
    Unexpected unknown(const char* access, std::uint32_t index);

    const GuestCpu& cpu_;
    VcpuBackend& backend_;
    LocalApic& apic_;
    const GuestMemory& memory_;
    const KvmClock& clock_;
    const std::int64_t vm_tsc_offset_;

    std::int64_t tsc_offset_;
    std::uint64_t tsc_adjust_{0};
    std::uint64_t misc_enable_{0};
    std::uint64_t mcg_status_{0};
    std::uint64_t system_time_{0};
    std::uint64_t wall_clock_{0};
    std::uint64_t syscfg_{0}, hwcr_{0}, nb_cfg_{0};
    std::uint64_t mtrr_def_type_{0};
    std::array<std::uint64_t, 2 * kVariableRanges> mtrr_variable_{};
    std::array<std::uint64_t, kFixedRanges> mtrr_fixed_{};
    std::atomic<std::uint64_t> unknown_{0};  ///< statistics read it from anywhere
};

/// Whether each byte of an IA32_PAT value is a memory type [sdm3 12.12.2 IA32_PAT MSR].
bool is_valid_pat(std::uint64_t value);

}  // namespace hv::x86
