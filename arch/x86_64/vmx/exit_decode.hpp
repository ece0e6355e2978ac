// SPDX-License-Identifier: MIT
// Where a VM exit is decoded: VT-x' exit information becomes the neutral VmExit. Pure: it reads the VMCS and
// changes nothing.
#pragma once

#include "arch/x86_64/vmx/event.hpp"
#include "arch/x86_64/vmx/machine_io.hpp"
#include "vmm/core/vm_exit.hpp"

#include <cstdint>

namespace hv::vmx {

/// [sdm3 28.2.1 Basic VM-Exit Information], table Exit Qualification for Control-Register Accesses
constexpr CrExit decode_cr(std::uint64_t qualification) {
    const std::uint64_t access = CrQualification::Access::get(qualification);
    return {
        .cr = static_cast<std::uint8_t>(CrQualification::Register::get(qualification)),
        .write = access != 1,
        .decoded = access <= 1,  // CLTS and LMSW are left to the decoder
        .gpr = static_cast<std::uint8_t>(CrQualification::Gpr::get(qualification)),
    };
}

/// Table Exit Qualification for I/O Instructions
constexpr IoExit decode_io(std::uint64_t qualification) {
    return {static_cast<std::uint16_t>(IoQualification::Port::get(qualification)),
            static_cast<std::uint8_t>(IoQualification::SizeMinus1::get(qualification) + 1),
            IoQualification::In::test(qualification), IoQualification::String::test(qualification),
            IoQualification::Rep::test(qualification)};
}

/// Table Exit Qualification for EPT Violations
constexpr NestedFault decode_ept_violation(std::uint64_t qualification, std::uint64_t gpa) {
    return {
        .gpa = Gpa{gpa},
        .read = EptViolation::Read::test(qualification),
        .write = EptViolation::Write::test(qualification),
        .execute = EptViolation::Execute::test(qualification),
        .present = EptViolation::Mapped::test(qualification),
        // A load of the PDPTEs has no linear address; it is a walk all the same.
        .during_walk = !EptViolation::LinearValid::test(qualification) ||
                       !EptViolation::FinalTranslation::test(qualification),
    };
}

/// Table Exit Qualification for Task Switches. `event`: what comes through the task gate, if one is the
/// cause.
constexpr TaskSwitch decode_task_switch(std::uint64_t qualification, const Event& event,
                                        std::uint64_t rflags) {
    using Cause = TaskSwitch::Cause;
    constexpr Cause kSources[] = {Cause::call, Cause::iret, Cause::jump, Cause::gate};
    const Cause cause = kSources[TaskSwitchQualification::Source::get(qualification)];
    const bool gate = cause == Cause::gate;
    // INT1 counts as an event from outside the program [sdm3 6.13 Error Code].
    const bool software = gate && event.instruction_length != 0;
    return {
        .cause = cause,
        .instruction = !gate || software,
        .external = gate && !(software && event.vector != EXCEPTION_DB),
        // Saved as the old task's TSS would get it [sdm3 28.3.3 Saving RIP, RSP, RFLAGS, and SSP].
        .resume_flag = (rflags & RFLAGS_RF) != 0,
        .has_error_code = gate && event.has_error_code,
        .selector = static_cast<std::uint16_t>(TaskSwitchQualification::Selector::get(qualification)),
        .error_code = gate ? event.error_code : 0,
    };
}

/// Table Exit Qualification for APIC-Access VM Exits. The address is that in the page: whoever knows where
/// the page is adds it.
constexpr NestedFault decode_apic_access(std::uint64_t qualification) {
    using Type = ApicAccessType;
    const auto type = static_cast<Type>(ApicAccessQualification::Type::get(qualification));
    return {
        .gpa = Gpa{ApicAccessQualification::Offset::get(qualification)},
        .read = type == Type::read,
        .write = type == Type::write,
        .execute = type == Type::fetch,
        .present = true,
        .during_walk = type == Type::physical,
    };
}

template <VmcsIo Io>
VmExit decode_exit(Io& vmcs) {
    using Reason = VmExit::Reason;
    VmExit exit;
    const std::uint32_t field = vmcs.read(EXIT_REASON);
    const auto basic = static_cast<ExitReason>(ExitReasonField::Basic::get(field));
    exit.raw.code = static_cast<std::uint64_t>(basic);
    if (ExitReasonField::EntryFailure::test(field)) [[unlikely]] {
        // [sdm3 27.8 VM-Entry Failures During or After Loading Guest State]
        exit.reason = Reason::invalid_state;
        exit.raw.info1 = vmcs.read(EXIT_QUALIFICATION);
        return exit;
    }
    if (const std::uint32_t vectoring = vmcs.read(IDT_VECTORING_INFORMATION);
        InterruptionInfo::Valid::test(vectoring))
        exit.interrupted =
            event_of(vectoring, vmcs.read(IDT_VECTORING_ERROR_CODE), vmcs.read(VM_EXIT_INSTRUCTION_LENGTH));

    const auto qualification = [&] { return exit.raw.info1 = vmcs.read(EXIT_QUALIFICATION); };
    /// The exit is an instruction's, in its place: nothing of it has been done.
    const auto instruction = [&](Reason reason) {
        exit.reason = reason;
        exit.instruction_length = static_cast<std::uint8_t>(vmcs.read(VM_EXIT_INSTRUCTION_LENGTH));
    };

    switch (basic) {
    case ExitReason::EXCEPTION_OR_NMI: {
        const std::uint32_t info = vmcs.read(VM_EXIT_INTERRUPTION_INFORMATION);
        const Event event =
            event_of(info, vmcs.read(VM_EXIT_INTERRUPTION_ERROR_CODE), vmcs.read(VM_EXIT_INSTRUCTION_LENGTH));
        qualification();
        // NMIs and machine checks are the host's; VmxVcpu hands them over.
        if (event.type == Event::Type::nmi || event.vector == EXCEPTION_MC) {
            exit.reason = Reason::host_interrupt;
        } else {
            exit.reason = Reason::exception;
            exit.exception = event;
        }
        break;
    }
    case ExitReason::EXTERNAL_INTERRUPT:
    case ExitReason::PREEMPTION_TIMER: exit.reason = Reason::host_interrupt; break;
    case ExitReason::INTERRUPT_WINDOW: exit.reason = Reason::interrupt_window; break;
    case ExitReason::NMI_WINDOW: exit.reason = Reason::nmi_window; break;
    case ExitReason::TRIPLE_FAULT: exit.reason = Reason::shutdown; break;
    case ExitReason::INIT_SIGNAL: exit.reason = Reason::init_signal; break;

    case ExitReason::CPUID: instruction(Reason::cpuid); break;
    case ExitReason::RDMSR: instruction(Reason::rdmsr); break;
    case ExitReason::WRMSR: instruction(Reason::wrmsr); break;
    case ExitReason::HLT: instruction(Reason::hlt); break;
    case ExitReason::VMCALL: instruction(Reason::vmcall); break;
    case ExitReason::PAUSE: instruction(Reason::pause); break;
    case ExitReason::XSETBV: instruction(Reason::xsetbv); break;
    case ExitReason::INVD:
    case ExitReason::WBINVD: instruction(Reason::invd); break;
    case ExitReason::IO_INSTRUCTION:
        instruction(Reason::io);
        exit.io = decode_io(qualification());
        exit.dr7 = static_cast<std::uint32_t>(vmcs.read(GUEST_DR7));
        break;
    case ExitReason::CONTROL_REGISTER_ACCESS:
        instruction(Reason::cr_access);
        exit.cr = decode_cr(qualification());
        break;
    case ExitReason::MOV_DR:
        instruction(Reason::dr_access);
        qualification();
        break;
    case ExitReason::INVLPG:
        instruction(Reason::invlpg);
        qualification();
        break;
    case ExitReason::TASK_SWITCH:
        instruction(Reason::task_switch);
        exit.task = decode_task_switch(qualification(), exit.interrupted, vmcs.read(GUEST_RFLAGS));
        break;
    case ExitReason::EPT_VIOLATION:
        // The instruction length is not defined here [sdm3 28.2.5 Information for VM Exits Due to Instruction
        // Execution].
        exit.reason = Reason::nested_fault;
        exit.raw.info2 = vmcs.read(GUEST_PHYSICAL_ADDRESS);
        exit.fault = decode_ept_violation(qualification(), exit.raw.info2);
        exit.dr7 = static_cast<std::uint32_t>(vmcs.read(GUEST_DR7));
        break;

    case ExitReason::APIC_ACCESS:
        exit.reason = Reason::nested_fault;
        exit.fault = decode_apic_access(qualification());
        exit.dr7 = static_cast<std::uint32_t>(vmcs.read(GUEST_DR7));
        break;
    // The instructions behind these three are done.
    case ExitReason::TPR_BELOW_THRESHOLD: exit.reason = Reason::interrupt_window; break;
    case ExitReason::APIC_WRITE:
        exit.reason = Reason::apic_write;
        exit.apic = {static_cast<std::uint16_t>(qualification() & 0xfff), 0};
        break;
    case ExitReason::VIRTUALIZED_EOI:
        exit.reason = Reason::apic_eoi;
        exit.apic = {0, static_cast<std::uint8_t>(qualification())};
        break;

    case ExitReason::RDPMC:
        // No counter exists: #GP whatever the index [sdm2 4.3 Instructions (M-U), RDPMC].
        exit.reason = Reason::exception;
        exit.exception = Event::exception(EXCEPTION_GP, 0);
        break;
    case ExitReason::GETSEC:
    case ExitReason::VMCLEAR:
    case ExitReason::VMLAUNCH:
    case ExitReason::VMPTRLD:
    case ExitReason::VMPTRST:
    case ExitReason::VMREAD:
    case ExitReason::VMRESUME:
    case ExitReason::VMWRITE:
    case ExitReason::VMXOFF:
    case ExitReason::VMXON:
    case ExitReason::INVEPT:
    case ExitReason::INVVPID:
    case ExitReason::VMFUNC:
    case ExitReason::RSM:
    case ExitReason::MWAIT:
    case ExitReason::MONITOR:
    case ExitReason::ENCLS:
    case ExitReason::ENCLV:
    case ExitReason::SEAMCALL:
    case ExitReason::TDCALL: instruction(Reason::undefined); break;

    case ExitReason::EPT_MISCONFIGURATION:
        exit.reason = Reason::unhandled;
        exit.raw.info2 = vmcs.read(GUEST_PHYSICAL_ADDRESS);
        break;
    // Controls that cause these are never set.
    case ExitReason::STARTUP_IPI:
    case ExitReason::IO_SMI:
    case ExitReason::OTHER_SMI:
    case ExitReason::RDTSC:
    case ExitReason::RDTSCP:
    case ExitReason::MONITOR_TRAP_FLAG:
    case ExitReason::GDTR_OR_IDTR_ACCESS:
    case ExitReason::LDTR_OR_TR_ACCESS:
    case ExitReason::RDRAND:
    case ExitReason::RDSEED:
    case ExitReason::INVPCID:
    case ExitReason::PML_FULL:
    case ExitReason::XSAVES:
    case ExitReason::XRSTORS:
    case ExitReason::PCONFIG:
    case ExitReason::SPP_EVENT:
    case ExitReason::UMWAIT:
    case ExitReason::TPAUSE:
    case ExitReason::LOADIWKEY:
    case ExitReason::ENQCMD_PASID:
    case ExitReason::ENQCMDS_PASID:
    case ExitReason::BUS_LOCK:
    case ExitReason::INSTRUCTION_TIMEOUT:
    case ExitReason::RDMSRLIST:
    case ExitReason::WRMSRLIST:
    case ExitReason::ENTRY_FAILURE_GUEST_STATE:
    case ExitReason::ENTRY_FAILURE_MSR_LOADING:
    case ExitReason::ENTRY_FAILURE_MACHINE_CHECK:
        exit.reason = Reason::unhandled;
        qualification();
        break;
    default: exit.reason = Reason::unhandled; break;
    }
    return exit;
}

}  // namespace hv::vmx
