// SPDX-License-Identifier: MIT
// Guest writes of control registers and XCR0: checked as the processor checks them, restricted to what CPUID
// offers, then applied to the backend's state with all that follows (long mode's activation, TLB). CR8
// belongs to the local APIC.
#pragma once

#include "vmm/core/vcpu_backend.hpp"
#include "vmm/mm/guest_memory.hpp"
#include "vmm/x86/guest_cpu.hpp"

#include <cstdint>

namespace hv::x86 {

/// Holds references alone; used on the vCPU's own CPU.
class ControlRegisters {
public:
    ControlRegisters(const GuestCpu& cpu, VcpuBackend& backend, const GuestMemory& memory)
        : cpu_{cpu}, backend_{backend}, memory_{memory} {}

    /// MOV to CRn, n = 0, 2, 3 or 4, after the privilege check. Error::guest_fault: #GP(0); Error::not_found:
    /// #UD.
    Expected<void> write(unsigned number, std::uint64_t value);
    /// MOV from CRn, n as above.
    [[nodiscard]] Expected<std::uint64_t> read(unsigned number) const;
    Expected<void> write_cr0(std::uint64_t value);
    Expected<void> write_cr3(std::uint64_t value);
    Expected<void> write_cr4(std::uint64_t value);
    /// LMSW: bits 3:0 of CR0, of which PE can only be set.
    Expected<void> load_machine_status_word(std::uint16_t value);
    Expected<void> clear_task_switched();
    /// XSETBV of XCR[index]: #GP by Error::guest_fault, also for CPL != 0; #UD by Error::not_found.
    Expected<void> set_extended(std::uint32_t index, std::uint64_t value);
    /// Whether PAE paging may begin with this CR3.
    [[nodiscard]] bool pdptes_are_valid(std::uint64_t cr3) const;

private:
    [[nodiscard]] CpuState control() const;

    const GuestCpu& cpu_;
    VcpuBackend& backend_;
    const GuestMemory& memory_;
};

}  // namespace hv::x86
