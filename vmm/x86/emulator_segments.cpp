// SPDX-License-Identifier: MIT
// The emulator's instructions on segment registers, descriptor tables and the machine status word, and
// branches to other code segments. Gates and task switches are left out.
#include "arch/x86_64/defs/cr.hpp"
#include "vmm/x86/alu.hpp"
#include "vmm/x86/emulator.hpp"
#include "vmm/x86/emulator_step.hpp"
#include "vmm/x86/segment_descriptor.hpp"

#include <algorithm>
#include <cstring>

namespace hv::x86 {
namespace {

using D = SegmentDescriptor;

constexpr std::uint16_t kSegmentFlags = D::kCodeOrData | D::kCode;

}  // namespace

bool Emulator::uses_descriptors() const {
    return (state_.cr0 & CR0_PE) != 0 && (backend_.regs.rflags & RFLAGS_VM) == 0;
}

/// Reads a descriptor; #GP(selector) if it lies beyond its table. `linear` is where it is.
Outcome Emulator::read_descriptor(std::uint16_t selector, std::uint64_t& linear, Segment& segment) {
    const auto code = static_cast<std::uint16_t>(selector & ~Selector::kRpl);
    backend_.get_state(state_, RegSet::tables);
    const auto address = D::address(state_, selector);
    if (!address)
        return operands_.fail(EXCEPTION_GP, code);
    linear = *address;
    Place place;
    HV_STEP(operands_.resolve_system(linear, D::kSize, Access::read, place));
    segment = D::unpack(selector, operands_.read(place));
    return Outcome::ok;
}

Outcome Emulator::mark_accessed(std::uint64_t linear, Segment& segment) {
    if ((segment.attributes & D::kAccessed) != 0)
        return Outcome::ok;
    segment.attributes |= D::kAccessed;
    Place place;
    HV_STEP(operands_.resolve_system(linear + D::kTypeByte, 1, Access::write, place));
    operands_.write(place, segment.attributes & 0xff);
    return Outcome::ok;
}

/// [sdm2 4.3 MOV--Move], the checks of loading a segment register.
Outcome Emulator::load_data_segment(SegmentName name, std::uint16_t selector) {
    const bool stack = name == SegmentName::ss;
    const unsigned cpl = state_.cpl();
    const unsigned rpl = selector & Selector::kRpl;
    Segment segment{};
    if (Selector::is_null(selector)) {
        if (stack && (mode_ != CodeMode::bits64 || cpl == 3 || rpl != cpl))
            return operands_.fail(EXCEPTION_GP);
        segment.selector = selector;
        if (stack)  // where the processor keeps the CPL
            segment.attributes = static_cast<std::uint16_t>(cpl << 5);
        else if (cpu_.vendor == Vendor::amd)
            segment.base = state_.seg(name).base;
    } else {
        const auto code = static_cast<std::uint16_t>(selector & ~Selector::kRpl);
        std::uint64_t linear = 0;
        HV_STEP(read_descriptor(selector, linear, segment));
        const std::uint16_t type = segment.attributes;
        const bool is_code = (type & D::kCode) != 0;
        bool fits = (type & D::kCodeOrData) != 0;
        if (stack)
            fits = fits && !is_code && (type & D::kReadableOrWritable) != 0 && rpl == cpl &&
                   segment.dpl() == cpl;
        else
            fits = fits && (!is_code || (type & D::kReadableOrWritable) != 0) &&
                   ((is_code && (type & D::kConforming) != 0) || std::max(cpl, rpl) <= segment.dpl());
        if (!fits)
            return operands_.fail(EXCEPTION_GP, code);
        if (!segment.present())
            return operands_.fail(stack ? EXCEPTION_SS : EXCEPTION_NP, code);
        HV_STEP(mark_accessed(linear, segment));
    }
    state_.seg(name) = segment;
    backend_.set_state(state_, RegSet::segments);
    return Outcome::ok;
}

Outcome Emulator::load_segment(const Instruction& in) {
    const unsigned number = in.reg & 7U;
    if (number > static_cast<unsigned>(SegmentName::gs) || number == static_cast<unsigned>(SegmentName::cs))
        return operands_.fail(EXCEPTION_UD);
    Place place;
    HV_STEP(operand(in, Access::read, place));
    const auto selector = static_cast<std::uint16_t>(operands_.read(place));
    const auto name = static_cast<SegmentName>(number);
    if (uses_descriptors())
        return load_data_segment(name, selector);
    state_.seg(name).selector = selector;
    state_.seg(name).base = std::uint64_t{selector} << 4;
    backend_.set_state(state_, RegSet::segments);
    return Outcome::ok;
}

Outcome Emulator::store_segment(const Instruction& in) {
    const unsigned number = in.reg & 7U;
    if (number > static_cast<unsigned>(SegmentName::gs))
        return operands_.fail(EXCEPTION_UD);
    Place place;
    HV_STEP(operand(in, Access::write, place));
    operands_.write(place, state_.segment[number].selector);
    return Outcome::ok;
}

/// Checks a branch to a code segment and makes the segment that CS becomes [sdm3 5.8.1 Direct Calls or Jumps
/// to Code Segments].
Outcome Emulator::code_segment(std::uint16_t selector, std::uint64_t target, Segment& segment) {
    if (!uses_descriptors()) {
        segment = state_.seg(SegmentName::cs);
        segment.selector = selector;
        segment.base = std::uint64_t{selector} << 4;
        return target > segment.limit ? operands_.fail(EXCEPTION_GP) : Outcome::ok;
    }
    if (Selector::is_null(selector))
        return operands_.fail(EXCEPTION_GP);
    const auto code = static_cast<std::uint16_t>(selector & ~Selector::kRpl);
    const unsigned cpl = state_.cpl();
    std::uint64_t linear = 0;
    HV_STEP(read_descriptor(selector, linear, segment));
    const std::uint16_t type = segment.attributes;
    if ((type & D::kCodeOrData) == 0)
        return Outcome::unsupported;  // a gate, a TSS
    const bool reachable = (type & D::kConforming) != 0
                               ? segment.dpl() <= cpl
                               : segment.dpl() == cpl && (selector & Selector::kRpl) <= cpl;
    const bool long_mode = (state_.efer & EFER_LMA) != 0;
    const bool both_sizes = long_mode && segment.long_mode() && segment.big();
    if ((type & kSegmentFlags) != kSegmentFlags || !reachable || both_sizes)
        return operands_.fail(EXCEPTION_GP, code);
    if (!segment.present())
        return operands_.fail(EXCEPTION_NP, code);
    const bool allowed = long_mode && segment.long_mode() ? is_canonical(target) : target <= segment.limit;
    if (!allowed)
        return operands_.fail(EXCEPTION_GP);
    HV_STEP(mark_accessed(linear, segment));
    segment.selector = static_cast<std::uint16_t>(code | cpl);
    return Outcome::ok;
}

/// With REX.W the offset has 64 bits, as Intel has it.
Outcome Emulator::far_branch(const Instruction& in) {
    Place place;
    HV_STEP(operand(in, Access::read, place));
    std::uint8_t bytes[10];
    operands_.read_bytes(place, bytes);
    std::uint64_t target = 0;
    std::uint16_t selector = 0;
    std::memcpy(&target, bytes, in.operand_size);
    std::memcpy(&selector, bytes + in.operand_size, sizeof selector);
    Segment segment{};
    HV_STEP(code_segment(selector, target, segment));
    if (in.operation == Operation::call_far) {
        const std::uint64_t old = backend_.regs.gpr[RSP];
        HV_STEP(push_value(state_.seg(SegmentName::cs).selector, in.operand_size));
        if (const Outcome outcome = push_value(backend_.regs.rip + in.length, in.operand_size);
            outcome != Outcome::ok) {
            backend_.regs.gpr[RSP] = old;
            return outcome;
        }
    }
    state_.seg(SegmentName::cs) = segment;
    backend_.set_state(state_, RegSet::segments);
    jump(target);
    return Outcome::ok;
}

/// [sdm2 3.3 LGDT/LIDT--Load Global/Interrupt Descriptor Table Register]
Outcome Emulator::load_table(const Instruction& in) {
    if ((state_.cr0 & CR0_PE) != 0 && state_.cpl() != 0)
        return operands_.fail(EXCEPTION_GP);
    Place place;
    HV_STEP(operand(in, Access::read, place));
    std::uint8_t bytes[10]{};
    operands_.read_bytes(place, bytes);
    DescriptorTable table{};
    std::memcpy(&table.limit, bytes, sizeof table.limit);
    std::memcpy(&table.base, bytes + sizeof table.limit, sizeof table.base);
    if (mode_ != CodeMode::bits64 && in.operand_size == 2)
        table.base &= 0xff'ffff;
    if (!is_canonical(table.base))
        return operands_.fail(EXCEPTION_GP);
    backend_.get_state(state_, RegSet::tables);
    (in.operation == Operation::lgdt ? state_.gdtr : state_.idtr) = table;
    backend_.set_state(state_, RegSet::tables);
    return Outcome::ok;
}

Outcome Emulator::store_table(const Instruction& in) {
    Place place;
    HV_STEP(operand(in, Access::write, place));
    backend_.get_state(state_, RegSet::tables);
    const DescriptorTable& table = in.operation == Operation::sgdt ? state_.gdtr : state_.idtr;
    std::uint8_t bytes[10];
    std::memcpy(bytes, &table.limit, sizeof table.limit);
    std::memcpy(bytes + sizeof table.limit, &table.base, sizeof table.base);
    operands_.write_bytes(place, bytes);
    return Outcome::ok;
}

Outcome Emulator::store_status_word(const Instruction& in) {
    Place place;
    HV_STEP(operand(in, Access::write, place));
    operands_.write(place, state_.cr0 & 0xffff);
    return Outcome::ok;
}

}  // namespace hv::x86
