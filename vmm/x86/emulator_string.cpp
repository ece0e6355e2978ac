// SPDX-License-Identifier: MIT
// The emulator's string instructions, string I/O among them.
#include "arch/x86_64/defs/cr.hpp"
#include "vmm/x86/alu.hpp"
#include "vmm/x86/emulator.hpp"
#include "vmm/x86/emulator_step.hpp"

namespace hv::x86 {

// --- string instructions
// -------------------------------------------------------------------------------------------------

Outcome Emulator::string(const Instruction& in) {
    const bool repeats = in.repeat != Repeat::none;
    if (!repeats)
        return string_step(in);
    const bool compares = in.operation == Operation::cmps || in.operation == Operation::scas;
    std::uint64_t& rcx = backend_.regs.gpr[RCX];
    const auto count = [&] { return cut(rcx, in.address_size); };
    const bool traps = (backend_.regs.rflags & RFLAGS_TF) != 0 || operands_.watcher() != nullptr;
    const unsigned limit = traps ? 1 : kBatch;
    for (unsigned done = 0; count() != 0; ++done) {
        if (done == limit) {
            unfinished_ = true;
            return Outcome::ok;
        }
        HV_STEP(string_step(in));  // on a fault, registers say how far it came
        const std::uint64_t left = count() - 1;
        rcx =
            in.address_size == 2 ? (rcx & ~std::uint64_t{0xffff}) | cut(left, 2) : cut(left, in.address_size);
        const bool equal = (backend_.regs.rflags & RFLAGS_ZF) != 0;
        if (compares && equal != (in.repeat == Repeat::rep))
            return Outcome::ok;
    }
    return Outcome::ok;
}

Outcome Emulator::string_step(const Instruction& in) {
    VcpuRegs& regs = backend_.regs;
    const unsigned size =
        in.operand_size == 8 && (in.operation == Operation::ins || in.operation == Operation::outs)
            ? 4
            : in.operand_size;
    const bool has_source = in.operation == Operation::movs || in.operation == Operation::cmps ||
                            in.operation == Operation::lods || in.operation == Operation::outs;
    const bool has_target = in.operation != Operation::lods && in.operation != Operation::outs;
    const bool writes =
        in.operation == Operation::movs || in.operation == Operation::stos || in.operation == Operation::ins;
    Place from;
    Place to;
    if (has_source)
        HV_STEP(operands_.resolve(in.segment, cut(regs.gpr[RSI], in.address_size), size, Access::read, from));
    if (has_target)
        HV_STEP(operands_.resolve(SegmentName::es, cut(regs.gpr[RDI], in.address_size), size,
                                  writes ? Access::write : Access::read, to));

    const auto port = static_cast<std::uint16_t>(regs.gpr[RDX]);
    const bool port_access = in.operation == Operation::ins || in.operation == Operation::outs;
    if (Breakpoints* watcher = operands_.watcher(); watcher != nullptr && port_access) [[unlikely]]
        watcher->note_port(port, size);
    const std::uint64_t accumulator = cut(regs.gpr[RAX], size);
    std::uint64_t value = 0;
    switch (in.operation) {
    case Operation::movs: operands_.write(to, operands_.read(from)); break;
    case Operation::stos: operands_.write(to, accumulator); break;
    case Operation::lods: set_gpr(in, RAX, size, operands_.read(from)); break;
    case Operation::cmps:
        value = operands_.read(from);
        set_rflags(alu(Operation::cmp, value, operands_.read(to), size, regs.rflags).rflags);
        break;
    case Operation::scas:
        set_rflags(alu(Operation::cmp, accumulator, operands_.read(to), size, regs.rflags).rflags);
        break;
    case Operation::ins: operands_.write(to, cut(bus_.port_read(port, size), size)); break;
    case Operation::outs: bus_.port_write(port, size, operands_.read(from)); break;
    default: return Outcome::unsupported;
    }

    const std::uint64_t step = (regs.rflags & RFLAGS_DF) != 0 ? std::uint64_t{0} - size : size;
    const auto advance = [&](Gpr reg) { set_gpr(in, reg, in.address_size, regs.gpr[reg] + step); };
    if (has_source)
        advance(RSI);
    if (has_target)
        advance(RDI);
    return Outcome::ok;
}

}  // namespace hv::x86
