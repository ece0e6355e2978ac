// SPDX-License-Identifier: MIT
// One guest processor as the hardware extension provides it. Implemented by vmx::VmxVcpu, svm::SvmVcpu and,
// in host tests, FakeVcpuBackend. All calls but leave_cpu() happen on the CPU that the vCPU entered with
// enter_cpu(), interrupts masked.
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/core/cpu_state.hpp"
#include "vmm/core/vm_exit.hpp"

#include <cstdint>
#include <memory>

namespace hv {

class ApicAcceleration;
class GuestAddressSpace;

class VcpuBackend {
public:
    virtual ~VcpuBackend() = default;
    VcpuBackend(const VcpuBackend&) = delete;
    VcpuBackend& operator=(const VcpuBackend&) = delete;

    /// Enters the guest with `regs` until the VMM is needed; `regs` and `exit` hold the guest's registers and
    /// why it stopped afterwards.
    virtual void run() = 0;
    virtual void get_state(CpuState& out, RegSet which) const = 0;
    virtual void set_state(const CpuState& in, RegSet which) = 0;
    /// Makes the next run() deliver `event`. False, and nothing happens: the guest cannot take it now
    /// (interrupt flag, interrupt shadow, NMI blocking, another event already injected). Exceptions are
    /// always taken, replacing nothing.
    virtual bool inject(Event event) = 0;
    /// Makes run() return (interrupt_window, nmi_window) as soon as the guest can take such an event.
    virtual void request_window(Event::Type type) = 0;
    /// Whether inject() takes an external interrupt now: RFLAGS.IF is set, no STI or MOV SS shadow blocks it
    /// and nothing else is injected. A shadow ends when the VMM completes the instruction under it, which is
    /// to say that regs.rip has moved since run().
    [[nodiscard]] virtual bool can_take_interrupt() const = 0;
    /// The current privilege level, without the rest of RegSet::segments.
    [[nodiscard]] virtual unsigned cpl() const = 0;
    /// The base of a segment register, without the rest of RegSet::segments.
    [[nodiscard]] virtual std::uint64_t segment_base(SegmentName name) const = 0;
    /// Whether `context` is that of the guest: at less cost than reading it.
    [[nodiscard]] virtual bool runs_in(const CodeContext& context) const = 0;
    /// NMIs are blocked, as after the delivery of one, or no longer: the VMM did the work of delivery or
    /// IRET.
    virtual void set_nmi_blocking(bool blocked) = 0;
    [[nodiscard]] virtual bool nmi_blocking() const = 0;
    /// Guest TSC = host TSC + offset.
    virtual void set_tsc_offset(std::int64_t offset) = 0;
    /// RESET of what CpuState and `regs` do not hold: the x87, SSE and AVX registers, XCR0, TSC_AUX.
    virtual void reset() = 0;
    /// XCR0 as the guest sees it; validated by the caller.
    virtual void set_xcr0(std::uint64_t value) = 0;
    [[nodiscard]] virtual std::uint64_t xcr0() const = 0;
    /// TSC_AUX as the guest sees it.
    virtual void set_tsc_aux(std::uint64_t value) = 0;
    [[nodiscard]] virtual std::uint64_t tsc_aux() const = 0;
    /// A vector register, `index` < 16, of MMX < 8. YMM only while XCR0 has AVX. Any access to an MMX
    /// register turns the x87 registers into MMX registers, as MMX instructions do.
    virtual void get_vector(VectorFile file, unsigned index, VectorValue& out) = 0;
    virtual void set_vector(VectorFile file, unsigned index, const VectorValue& in) = 0;
    /// Drops this vCPU's cached guest translations (the guest changed CR3, CR4, EFER or asked for it).
    virtual void flush_guest_tlb() = 0;
    /// Before the first run() on a CPU: loads what is only switched with the vCPU (FPU, SYSCALL MSRs, debug
    /// registers).
    virtual void enter_cpu() = 0;
    /// Before another vCPU, or another CPU, takes over: saves it. What stays in the CPU's registers is
    /// overwritten by the next enter_cpu().
    virtual void leave_cpu() = 0;
    /// Whether each PAUSE of the guest ends run(), where the processor cannot tell a loop of them by itself
    /// (Reason::pause both ways). Nothing changes where it can.
    virtual void set_pause_exits(bool wanted) = 0;
    /// What the processor takes over of the local APIC; null: nothing. Lives as long as the backend.
    [[nodiscard]] virtual ApicAcceleration* apic_acceleration() { return nullptr; }
    /// Dumps the vendor's control structure to the log.
    virtual void log_state() const = 0;

    VcpuRegs regs{};
    VmExit exit{};

protected:
    VcpuBackend() = default;
};

/// Instructions that the extension can keep from guests: what it keeps is not to be offered.
struct GuestInstructions {
    bool rdtscp{true};  ///< and RDPID
    bool invpcid{true};
};

/// The processor's virtualization extension: what it takes to make vCPUs. boot/main picks one.
class VirtExtension {
public:
    virtual ~VirtExtension() = default;
    [[nodiscard]] virtual const char* name() const = 0;
    /// Turns the extension on for the executing CPU. Error::disabled: the firmware locked it off;
    /// Error::unsupported: a feature that this hypervisor needs is missing (named in the log).
    virtual Expected<void> enable_on_this_cpu() = 0;
    /// Which of these instructions work in guests, as far as the processor has them.
    [[nodiscard]] virtual GuestInstructions instructions() const { return {}; }
    virtual Expected<std::unique_ptr<GuestAddressSpace>> create_address_space() = 0;
    /// The vCPU starts in the processor's state after RESET.
    virtual Expected<std::unique_ptr<VcpuBackend>> create_vcpu(GuestAddressSpace& space) = 0;
};

}  // namespace hv
