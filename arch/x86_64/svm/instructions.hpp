// SPDX-License-Identifier: MIT
// The SVM instructions, and the way into a guest [apm3 4 System Instruction Reference].
#pragma once

#include "vmm/base/address.hpp"
#include "vmm/core/cpu_state.hpp"

namespace hv::svm {

/// entry.S: runs the guest until its next #VMEXIT. GIF is set and interrupts are masked before and after.
/// RAX, RSP, RIP and RFLAGS of the guest are those of the VMCB, the others those of `registers`. `host` is
/// where vmsave() put this CPU's state.
extern "C" void svm_enter(VcpuRegs* registers, Hpa vmcb, Hpa host);

/// Stores FS, GS, TR, LDTR with their hidden parts and the SYSCALL and SYSENTER MSRs to a VMCB.
inline void vmsave(Hpa vmcb) {
    asm volatile("vmsave %0" ::"a"(vmcb.raw) : "memory");
}

}  // namespace hv::svm
