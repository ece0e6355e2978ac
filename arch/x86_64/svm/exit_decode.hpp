// SPDX-License-Identifier: MIT
// Where a #VMEXIT becomes a VmExit.
#pragma once

#include "arch/x86_64/defs/vmcb.hpp"
#include "vmm/core/vm_exit.hpp"

namespace hv::svm {

/// What this processor tells beyond the exit code [apm3 E.4.9 Function 8000_000Ah-SVM Features].
struct ExitAssists {
    bool next_rip;  ///< NRIPS: the VMCB holds the next instruction's address
    bool decode;    ///< DecodeAssists: EXITINFO1 names the register of a MOV to or from CR
};

/// Why the guest stopped. Of `exit`, what the reason does not need keeps its old value.
void decode_exit(const Vmcb& vmcb, const ExitAssists& assists, VmExit& exit);

/// EVENTINJ for an event, and the event of an EXITINTINFO. Software interrupts and the exceptions of INT3 and
/// INTO come out as none: the guest executes their instruction again [apm2 15.20 Event Injection].
std::uint64_t encode_event(const Event& event);
Event decode_event(std::uint64_t exit_int_info);

/// The bytes from RIP to `next`, 0 if that makes no sense.
inline std::uint8_t length_to(const Vmcb& vmcb, std::uint64_t next) {
    constexpr std::uint64_t kMaxInstructionLength = 15;
    const std::uint64_t length = next - vmcb.save.rip;
    return length <= kMaxInstructionLength ? static_cast<std::uint8_t>(length) : 0;
}

/// decode_exit() for the most frequent exits, if they interrupted no event's delivery. False: it is another;
/// `exit` is incomplete.
inline bool decode_frequent_exit(const Vmcb& vmcb, const ExitAssists& assists, VmExit& exit) {
    const VmcbControl& control = vmcb.control;
    exit.interrupted.type = Event::Type::none;
    exit.instruction_length = 0;
    if (assists.next_rip && control.next_rip != 0)
        exit.instruction_length = length_to(vmcb, control.next_rip);
    const auto code = static_cast<ExitCode>(control.exit_code);
    // These two by themselves: MSRs are the most frequent, and without the other the codes are close
    // together.
    if (code == ExitCode::msr) {
        exit.reason = control.exit_info1 == 0 ? VmExit::Reason::rdmsr : VmExit::Reason::wrmsr;
        return true;
    }
    if (code == ExitCode::npf) {
        const std::uint64_t info = control.exit_info1;
        const bool write = NpfInfo::Write::test(info), execute = NpfInfo::Execute::test(info);
        exit.reason = VmExit::Reason::nested_fault;
        exit.instruction_length = 0;  // not the faulting instruction's
        exit.dr7 = static_cast<std::uint32_t>(vmcb.save.dr7);
        exit.fault = {
            Gpa{control.exit_info2},        !write && !execute, write, execute, NpfInfo::Present::test(info),
            NpfInfo::DuringWalk::test(info)};
        return true;
    }
    switch (code) {
    case ExitCode::ioio:
        exit.reason = VmExit::Reason::io;
        exit.io = IoExit{static_cast<std::uint32_t>(control.exit_info1)};
        // EXITINFO2 holds the next instruction's address on every processor.
        exit.instruction_length = length_to(vmcb, control.exit_info2);
        exit.dr7 = static_cast<std::uint32_t>(vmcb.save.dr7);
        return true;
    case ExitCode::intr: exit.reason = VmExit::Reason::host_interrupt; return true;
    case ExitCode::hlt: exit.reason = VmExit::Reason::hlt; return true;
    case ExitCode::cpuid: exit.reason = VmExit::Reason::cpuid; return true;
    case ExitCode::vmmcall: exit.reason = VmExit::Reason::vmcall; return true;
    default: return false;
    }
}

}  // namespace hv::svm
