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

VmExit decode_exit(const Vmcb& vmcb, const ExitAssists& assists);

/// EVENTINJ for an event, and the event of an EXITINTINFO. Software interrupts and the exceptions of INT3 and
/// INTO come out as none: the guest executes their instruction again [apm2 15.20 Event Injection].
std::uint64_t encode_event(const Event& event);
Event decode_event(std::uint64_t exit_int_info);

}  // namespace hv::svm
