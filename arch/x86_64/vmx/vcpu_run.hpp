// SPDX-License-Identifier: MIT
// BasicVcpu, second part: entering the guest, what an exit needs at once, events.
#pragma once

#include "arch/x86_64/vmx/vcpu.hpp"
#include "vmm/base/assert.hpp"
#include "vmm/base/log.hpp"

namespace hv::vmx {

template <VmxMachine Machine>
void BasicVcpu<Machine>::run() {
    if (space_.generation() != space_generation_ || flush_guest_physical_ || flush_linear_) [[unlikely]]
        flush_translations();
    if (regs.gpr[RSP] != written_.gpr[RSP])
        machine_.write(GUEST_RSP, regs.gpr[RSP]);
    if (regs.rip != written_.rip) {
        machine_.write(GUEST_RIP, regs.rip);
        clear_interrupt_shadow();
    }
    if (regs.rflags != written_.rflags)
        machine_.write(GUEST_RFLAGS, regs.rflags | RFLAGS_FIXED);
    if (apic_.client != nullptr) {
        update_tpr_threshold();
        apic_.tpr = page().read(kTprIndex);
    }
    if (shared_.mitigations.clear_buffers)
        machine_.clear_cpu_buffers();

    const EntryResult result = machine_.enter(regs, launched_, host_rsp_);
    if (result != EntryResult::exited) [[unlikely]] {
        entry_failed(result);
        return;
    }

    regs.gpr[RSP] = written_.gpr[RSP] = machine_.read(GUEST_RSP);
    regs.rip = written_.rip = machine_.read(GUEST_RIP);
    regs.rflags = written_.rflags = machine_.read(GUEST_RFLAGS);
    if (apic_.client != nullptr && page().read(kTprIndex) != apic_.tpr) [[unlikely]]
        apic_.client->task_priority_changed(static_cast<std::uint8_t>(page().read(kTprIndex)));
    injected_ = false;  // [sdm3 28.2 Recording VM-Exit Information and Updating VM-Entry Control Fields]
    exit = decode_exit(machine_);
    // A VM entry that failed has launched nothing.
    launched_ = launched_ || exit.reason != VmExit::Reason::invalid_state;
    if ((kSettled >> (exit.raw.code & 63) & 1) != 0 || exit.interrupted.pending()) [[unlikely]]
        settle();
}

/// Drops translations that another CPU, an earlier user of the VPID or a change of the page tables made void
/// [sdm3 29.4.3 Invalidating Cached Translation Information].
template <VmxMachine Machine>
void BasicVcpu<Machine>::flush_translations() {
    const std::uint64_t generation = space_.generation();
    if (generation != space_generation_ || flush_guest_physical_) {
        machine_.invept(shared_.controls.invept_type(), space_.root());
        space_generation_ = generation;
        flush_guest_physical_ = false;
    }
    if (flush_linear_) {
        if (shared_.controls.has_vpid())  // without, each VM entry flushes
            machine_.invvpid(shared_.controls.invvpid_type(), vpid_);
        flush_linear_ = false;
    }
}

/// VM entry did not begin: the VMCS' controls or host state are wrong [sdm3 27.2 Checks on VMX Controls and
/// Host-State Area].
template <VmxMachine Machine>
void BasicVcpu<Machine>::entry_failed(EntryResult result) {
    const std::uint32_t error = result == EntryResult::fail_valid ? machine_.read(VM_INSTRUCTION_ERROR) : 0;
    log::error(log::Topic::vmx, "%s failed: %s (%u)", launched_ ? "VMRESUME" : "VMLAUNCH",
               result == EntryResult::fail_valid ? vm_instruction_error(error) : "no current VMCS", error);
    exit = {};
    exit.reason = VmExit::Reason::invalid_state;
    exit.raw = {~std::uint64_t{0}, error, 0};
}

/// What has to be done about an exit before anything else, so that nobody above needs to know of it.
template <VmxMachine Machine>
void BasicVcpu<Machine>::settle() {
    switch (static_cast<ExitReason>(exit.raw.code)) {
    case ExitReason::EXCEPTION_OR_NMI: {
        const std::uint32_t info = machine_.read(VM_EXIT_INTERRUPTION_INFORMATION);
        const auto vector = static_cast<std::uint8_t>(InterruptionInfo::Vector::get(info));
        if (static_cast<InterruptionType>(InterruptionInfo::Type::get(info)) == InterruptionType::nmi) {
            // NMIs stay blocked until the IRET of the host's handler.
            machine_.deliver_nmi();
            break;
        }
        if (vector == EXCEPTION_MC)
            machine_.deliver_machine_check();
        else if (vector == EXCEPTION_DB)
            settle_debug_exception(exit.exception.instruction_length != 0);
        if (!exit.interrupted.pending())
            restore_nmi_blocking(InterruptionInfo::NmiUnblocking::test(info));
        break;
    }
    case ExitReason::EPT_VIOLATION:
        if (!exit.interrupted.pending())
            restore_nmi_blocking(EptViolation::NmiUnblocking::test(exit.raw.info1));
        break;
    case ExitReason::APIC_ACCESS:
        exit.fault.gpa = apic_.base + exit.fault.gpa.raw;
        exit.raw.info2 = exit.fault.gpa.raw;
        break;
    case ExitReason::INTERRUPT_WINDOW: set_primary_control(primary::INTERRUPT_WINDOW_EXITING, false); break;
    case ExitReason::NMI_WINDOW: set_primary_control(primary::NMI_WINDOW_EXITING, false); break;
    case ExitReason::PREEMPTION_TIMER: machine_.write(VMX_PREEMPTION_TIMER_VALUE, preemption_ticks()); break;
    case ExitReason::ENTRY_FAILURE_MACHINE_CHECK: machine_.deliver_machine_check(); break;
    default: break;
    }
    // The NMI was not delivered, so it blocks nothing yet [sdm3 28.3.4 Saving Non-Register State].
    if (exit.interrupted.type == Event::Type::nmi) [[unlikely]]
        set_interruptibility(interruptibility() &
                             ~static_cast<std::uint32_t>(Interruptibility::BlockingByNmi::kMask));
}

/// The exit happened instead of the exception's delivery: DR6 and DR7 are not changed yet [sdm3 28.1
/// Architectural State before a VM Exit]. The event itself is injected by whoever handles the exit. INT1
/// (`by_instruction`) changes neither.
template <VmxMachine Machine>
void BasicVcpu<Machine>::settle_debug_exception(bool by_instruction) {
    if (!by_instruction) {
        DebugRegisters debug{};
        machine_.save_debug_registers(debug);
        debug.dr6 = (debug.dr6 & ~DR6_B0_B3) | DR6_RTM |
                    (machine_.read(EXIT_QUALIFICATION) & DEBUG_QUALIFICATION_MASK);
        machine_.load_debug_registers(debug);
        machine_.write(GUEST_DR7, machine_.read(GUEST_DR7) & ~DR7_GD);
    }
    // VM entry asks for the pending trap of a single step under an interrupt shadow, though the exit has
    // taken it away [sdm3 27.3.1.5 Checks on Guest Non-Register State].
    if ((regs.rflags & RFLAGS_TF) != 0 && Interruptibility::Shadow::test(interruptibility()))
        machine_.write(GUEST_PENDING_DEBUG_EXCEPTIONS, PENDING_DEBUG_BS);
}

/// Breakpoints of a MOV SS that the instruction in its shadow was to report: an injected #DB takes their
/// place, and VM entry would drop them [sdm3 27.7.3 Delivery of Pending Debug Exceptions after VM Entry].
template <VmxMachine Machine>
void BasicVcpu<Machine>::take_pending_debug_exceptions() {
    const std::uint64_t pending = machine_.read(GUEST_PENDING_DEBUG_EXCEPTIONS);
    if (pending == 0 || interrupt_shadow())
        return;
    DebugRegisters debug{};
    machine_.save_debug_registers(debug);
    const bool breakpoints = (pending & PENDING_DEBUG_ENABLED_BREAKPOINT) != 0;
    debug.dr6 |= pending & (breakpoints ? DR6_B0_B3 | DR6_BS : DR6_BS);
    machine_.load_debug_registers(debug);
    machine_.write(GUEST_PENDING_DEBUG_EXCEPTIONS, std::uint64_t{0});
}

/// An IRET unblocked NMIs and then faulted: it will be executed again, and until then they are blocked
/// [sdm3 28.2.3 Information About NMI Unblocking Due to IRET].
template <VmxMachine Machine>
void BasicVcpu<Machine>::restore_nmi_blocking(bool unblocked_by_iret) {
    if (unblocked_by_iret)
        set_interruptibility(interruptibility() |
                             static_cast<std::uint32_t>(Interruptibility::BlockingByNmi::kMask));
}

template <VmxMachine Machine>
bool BasicVcpu<Machine>::inject(Event event) {
    if (injected_)
        return false;
    switch (event.type) {
    case Event::Type::none: return false;
    case Event::Type::external_interrupt:
        if (!can_take_interrupt())
            return false;
        break;
    case Event::Type::nmi:
        // Whether STI's shadow blocks NMIs is the processor's choice [sdm2 4.3 STI--Set Interrupt Flag]; some
        // refuse to inject one under it [sdm3 27.3.1.5 Checks on Guest Non-Register State], so it does.
        if (nmi_blocking() || interrupt_shadow())
            return false;
        break;
    case Event::Type::exception:
        if (event.vector == EXCEPTION_DB && event.instruction_length == 0)
            take_pending_debug_exceptions();
        break;
    case Event::Type::software_interrupt: break;
    }
    const std::uint32_t info = entry_information(event, (machine_.read(GUEST_CR0) & CR0_PE) != 0);
    if (InterruptionInfo::HasErrorCode::test(info))
        machine_.write(VM_ENTRY_EXCEPTION_ERROR_CODE, event.error_code & 0xffff);
    if (event.instruction_length != 0)
        machine_.write(VM_ENTRY_INSTRUCTION_LENGTH, std::uint32_t{event.instruction_length});
    machine_.write(VM_ENTRY_INTERRUPTION_INFORMATION, info);
    injected_ = true;
    return true;
}

template <VmxMachine Machine>
void BasicVcpu<Machine>::request_window(Event::Type type) {
    // The NMI-window exit does not wait for the end of STI's shadow, under which IF is set.
    const bool under_sti = type == Event::Type::nmi && !injected_ && regs.rip == written_.rip &&
                           Interruptibility::BlockingBySti::test(interruptibility()) && !nmi_blocking();
    set_primary_control(type == Event::Type::nmi && !under_sti ? primary::NMI_WINDOW_EXITING
                                                               : primary::INTERRUPT_WINDOW_EXITING,
                        true);
}

template <VmxMachine Machine>
void BasicVcpu<Machine>::set_primary_control(std::uint32_t bits, bool on) {
    const std::uint32_t value = on ? primary_controls_ | bits : primary_controls_ & ~bits;
    if (value == primary_controls_)
        return;
    primary_controls_ = value;
    machine_.write(PRIMARY_PROCESSOR_BASED_CONTROLS, value);
}

template <VmxMachine Machine>
void BasicVcpu<Machine>::clear_interrupt_shadow() {
    const std::uint32_t state = interruptibility();
    if (Interruptibility::Shadow::test(state))
        set_interruptibility(state & ~static_cast<std::uint32_t>(Interruptibility::Shadow::kMask));
}

template <VmxMachine Machine>
void BasicVcpu<Machine>::set_nmi_blocking(bool blocked) {
    constexpr auto kBlocking = static_cast<std::uint32_t>(Interruptibility::BlockingByNmi::kMask);
    set_interruptibility(blocked ? interruptibility() | kBlocking : interruptibility() & ~kBlocking);
}

template <VmxMachine Machine>
bool BasicVcpu<Machine>::interrupt_shadow() const {
    return regs.rip == written_.rip && Interruptibility::Shadow::test(interruptibility());
}

}  // namespace hv::vmx
