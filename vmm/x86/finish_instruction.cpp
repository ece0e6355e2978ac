// SPDX-License-Identifier: MIT
#include "vmm/x86/finish_instruction.hpp"

namespace hv::x86 {

void raise_single_step(VcpuBackend& backend, EventQueue& events) {
    CpuState state;
    backend.get_state(state, RegSet::debug);
    state.dr6 |= DR6_BS;
    backend.set_state(state, RegSet::debug);
    events.raise(Event::exception(EXCEPTION_DB));
}

void finish_instruction_slowly(VcpuBackend& backend, EventQueue& events, std::uint64_t next_rip) {
    VcpuRegs& regs = backend.regs;
    if (((next_rip ^ regs.rip) >> 32) != 0) {
        CpuState state;
        backend.get_state(state, RegSet::control | RegSet::segments);
        if ((state.efer & EFER_LMA) == 0 || !state.seg(SegmentName::cs).long_mode())
            next_rip = static_cast<std::uint32_t>(next_rip);
    }
    regs.rip = next_rip;
    regs.rflags &= ~RFLAGS_RF;
    if ((regs.rflags & RFLAGS_TF) != 0)
        raise_single_step(backend, events);
}

}  // namespace hv::x86
