// SPDX-License-Identifier: MIT
// The emulator's moves between memory and MMX, XMM and YMM registers.
#include "arch/x86_64/defs/cr.hpp"
#include "vmm/x86/emulator.hpp"
#include "vmm/x86/emulator_step.hpp"

#include <cstring>

namespace hv::x86 {

/// What the processor checked before the access that brought us here; since then another vCPU may have
/// changed the instruction, and the host's own use of the registers must not fault [sdm2 2.4 AVX and SSE
/// Instruction Exception Classification].
Outcome Emulator::check_vectors_enabled(VectorFile file) {
    bool enabled = (state_.cr0 & CR0_EM) == 0;
    if (file == VectorFile::xmm)
        enabled = enabled && (state_.cr4 & CR4_OSFXSR) != 0;
    if (file == VectorFile::ymm) {
        constexpr std::uint64_t kNeeded = XCR0_SSE | XCR0_AVX;
        enabled = (state_.cr0 & CR0_PE) != 0 && (backend_.regs.rflags & RFLAGS_VM) == 0 &&
                  (state_.cr4 & CR4_OSXSAVE) != 0 && (backend_.xcr0() & kNeeded) == kNeeded;
    }
    if (!enabled)
        return operands_.fail(EXCEPTION_UD);
    return (state_.cr0 & CR0_TS) != 0 ? operands_.fail(EXCEPTION_NM) : Outcome::ok;
}

Outcome Emulator::vector_move(const Instruction& in) {
    HV_STEP(check_vectors_enabled(in.vector));
    const std::uint64_t address = operands_.linear(in.segment, effective_address(in, backend_.regs));
    if (in.aligned && (address & (in.memory_size - 1U)) != 0)
        return operands_.fail(EXCEPTION_GP);
    const bool loads = in.form == Form::reg_rm;
    Place place;
    HV_STEP(operand(in, loads ? Access::read : Access::write, place));
    VectorValue value{};
    if (!loads || in.half)
        backend_.get_vector(in.vector, in.reg, value);
    auto* const bytes = reinterpret_cast<std::byte*>(value.part) + (in.high ? 8 : 0);
    if (loads) {
        operands_.read_bytes(place, bytes);
        backend_.set_vector(in.vector, in.reg, value);
    } else {
        operands_.write_bytes(place, bytes);
    }
    return Outcome::ok;
}

}  // namespace hv::x86
