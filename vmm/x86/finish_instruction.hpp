// SPDX-License-Identifier: MIT
// What completing an instruction entails when the VMM did its work instead of the processor.
#pragma once

#include "arch/x86_64/defs/cr.hpp"
#include "vmm/core/vcpu_backend.hpp"
#include "vmm/x86/event_queue.hpp"

namespace hv::x86 {

/// The rare part: the instruction pointer wraps, or the guest single-steps.
void finish_instruction_slowly(VcpuBackend& backend, EventQueue& events, std::uint64_t next_rip);

/// The single-step trap after an instruction, or an iteration of a repeated string instruction, that ran with
/// RFLAGS.TF [sdm3 18.3.1.4 Single-Step Exception Condition].
void raise_single_step(VcpuBackend& backend, EventQueue& events);

/// Skips the instruction at RIP: advances RIP, which ends an interrupt shadow, clears RF, raises the
/// single-step trap.
inline void finish_instruction(VcpuBackend& backend, EventQueue& events, unsigned length) {
    VcpuRegs& regs = backend.regs;
    const std::uint64_t next_rip = regs.rip + length;
    // EIP wraps at 4 GiB; RIP does not.
    if ((regs.rflags & RFLAGS_TF) != 0 || ((next_rip ^ regs.rip) >> 32) != 0) [[unlikely]] {
        finish_instruction_slowly(backend, events, next_rip);
        return;
    }
    regs.rip = next_rip;
    regs.rflags &= ~RFLAGS_RF;
}

}  // namespace hv::x86
