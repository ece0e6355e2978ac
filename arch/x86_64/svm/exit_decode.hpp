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
inline void decode_exit(const Vmcb& vmcb, const ExitAssists& assists, VmExit& exit);

/// EVENTINJ for an event, and the event of an EXITINTINFO. Software interrupts and the exceptions of INT3 and
/// INTO come out as none: the guest executes their instruction again [apm2 15.20 Event Injection].
std::uint64_t encode_event(const Event& event);
Event decode_event(std::uint64_t exit_int_info);

namespace detail {

inline constexpr std::uint64_t kMaxInstructionLength = 15;

/// The bytes from RIP to `next`, 0 if that makes no sense.
inline std::uint8_t length_to(const Vmcb& vmcb, std::uint64_t next) {
    const std::uint64_t length = next - vmcb.save.rip;
    return length <= kMaxInstructionLength ? static_cast<std::uint8_t>(length) : 0;
}

inline void decode_io(const Vmcb& vmcb, VmExit& exit) {
    const std::uint64_t info = vmcb.control.exit_info1;
    exit.reason = VmExit::Reason::io;
    exit.io = {static_cast<std::uint16_t>(IoInfo::Port::get(info)),
               static_cast<std::uint8_t>(IoInfo::Size::get(info)), IoInfo::In::test(info),
               IoInfo::String::test(info), IoInfo::Rep::test(info)};
    // EXITINFO2 holds the next instruction's address on every processor.
    exit.instruction_length = length_to(vmcb, vmcb.control.exit_info2);
}

inline void decode_nested_fault(const Vmcb& vmcb, VmExit& exit) {
    const std::uint64_t info = vmcb.control.exit_info1;
    const bool write = NpfInfo::Write::test(info), execute = NpfInfo::Execute::test(info);
    exit.reason = VmExit::Reason::nested_fault;
    exit.fault = {
        Gpa{vmcb.control.exit_info2},   !write && !execute, write, execute, NpfInfo::Present::test(info),
        NpfInfo::DuringWalk::test(info)};
    exit.instruction_length = 0;
}

/// All exit codes, the frequent ones too.
void decode_rare(const Vmcb& vmcb, const ExitAssists& assists, VmExit& exit);

}  // namespace detail

inline void decode_exit(const Vmcb& vmcb, const ExitAssists& assists, VmExit& exit) {
    const VmcbControl& control = vmcb.control;
    exit.interrupted.type = Event::Type::none;
    if (EventInjection::Valid::test(control.exit_int_info)) [[unlikely]]
        exit.interrupted = decode_event(control.exit_int_info);
    exit.instruction_length = 0;
    if (assists.next_rip && control.next_rip != 0)
        exit.instruction_length = detail::length_to(vmcb, control.next_rip);
    switch (static_cast<ExitCode>(control.exit_code)) {
    case ExitCode::ioio: detail::decode_io(vmcb, exit); break;
    case ExitCode::msr:
        exit.reason = control.exit_info1 == 0 ? VmExit::Reason::rdmsr : VmExit::Reason::wrmsr;
        break;
    case ExitCode::npf: detail::decode_nested_fault(vmcb, exit); break;
    case ExitCode::cpuid: exit.reason = VmExit::Reason::cpuid; break;
    default: detail::decode_rare(vmcb, assists, exit);
    }
}

}  // namespace hv::svm
