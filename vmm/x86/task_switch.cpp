// SPDX-License-Identifier: MIT
#include "vmm/x86/task_switch.hpp"

#include "arch/x86_64/defs/cr.hpp"
#include "vmm/x86/control_registers.hpp"
#include "vmm/x86/segment_descriptor.hpp"

#include <algorithm>
#include <iterator>

/// Leaves the function unless the step succeeded.
#define HV_STEP(expression)                                                                                  \
    do {                                                                                                     \
        if (const ::hv::x86::Outcome hv_outcome = (expression); hv_outcome != ::hv::x86::Outcome::ok)        \
            return hv_outcome;                                                                               \
    } while (false)

namespace hv::x86 {
namespace {

using Cause = TaskSwitch::Cause;
using D = SegmentDescriptor;

// Descriptor types, bits 3:0 and S of the attributes [sdm3 3.5 System Descriptor Types].
constexpr unsigned kSystemType = 0x1f;
constexpr unsigned kLdt = 0x02;
constexpr unsigned kBusy = 0x02;      ///< of a TSS' type
constexpr unsigned k32bitTss = 0x08;  ///< of a TSS' type
constexpr unsigned kPresent = 0x80;

/// One of the two formats [sdm3 8.2.1 Task-State Segment (TSS)], [sdm3 8.6 16-Bit Task-State Segment (TSS)].
struct Format {
    unsigned min_limit;
    unsigned save_start, save_end;  ///< what a switch writes of the old task
    unsigned eip, eflags, gpr, segments, segment_count, ldt;
    unsigned width, segment_width;
};
constexpr Format kTss32{0x67, 0x20, 0x60, 0x20, 0x24, 0x28, 0x48, 6, 0x60, 4, 4};
constexpr Format kTss16{0x2b, 0x0e, 0x2a, 0x0e, 0x10, 0x12, 0x22, 4, 0x2a, 2, 2};
constexpr unsigned kCr3Offset = 0x1c;
constexpr unsigned kTrapOffset = 0x64;

constexpr std::uint32_t kEflags = 0x003f'7fd5;  ///< all flags that exist
constexpr std::uint16_t kVirtual8086Segment = 0xf3;

constexpr const Format& format_of(bool is_32bit) {
    return is_32bit ? kTss32 : kTss16;
}

}  // namespace

// --- faults
// --------------------------------------------------------------------------------------------------------------

/// [sdm3 6.13 Error Code]
Outcome TaskSwitcher::fail(std::uint8_t vector, std::uint16_t selector) {
    fault_ =
        Event::exception(vector, (selector & ~std::uint32_t{Selector::kRpl}) | (request_.external ? 1U : 0U));
    return Outcome::exception;
}

void TaskSwitcher::raise() {
    if (fault_.vector == EXCEPTION_PF)
        events_.raise_page_fault(backend_, memory_.fault_code(), memory_.fault_address());
    else
        events_.raise(fault_);
}

Outcome TaskSwitcher::resolve(std::uint64_t linear, unsigned size, Access access, SystemRange& out,
                              Accessor accessor) {
    const PagingState paging = PagingState::of(state_, backend_.regs.rflags);
    switch (memory_.resolve(paging, linear, size, access, accessor, out)) {
    case Translation::Status::ok: return Outcome::ok;
    case Translation::Status::page_fault:
        fault_ = Event::exception(EXCEPTION_PF, 0);
        return Outcome::exception;
    case Translation::Status::retry: return Outcome::retry;
    case Translation::Status::not_memory: break;
    }
    return Outcome::unsupported;
}

/// `vector` with the selector tells that the table has no such entry.
Outcome TaskSwitcher::find_descriptor(std::uint16_t selector, Access access, std::uint8_t vector,
                                      Descriptor& out) {
    const auto address = D::address(state_, selector);
    if (!address)
        return fail(vector, selector);
    out.linear = *address;
    HV_STEP(resolve(out.linear, D::kSize, access, out.range));
    out.segment = D::unpack(selector, out.range.load<std::uint64_t>(0));
    return Outcome::ok;
}

// --- the old task
// --------------------------------------------------------------------------------------------------------

/// [sdm3 8.3 Task Switching], steps 3 to 5, and table Exception Conditions Checked During a Task Switch.
Outcome TaskSwitcher::find_new_task() {
    const std::uint16_t selector = request_.selector;
    const bool returns = request_.cause == Cause::iret;
    const std::uint8_t wrong = returns ? EXCEPTION_TS : EXCEPTION_GP;
    if ((state_.efer & EFER_LMA) != 0 || Selector::is_null(selector) ||
        (selector & Selector::kTableIndicator) != 0)
        return fail(wrong, selector);
    HV_STEP(find_descriptor(selector, returns ? Access::read : Access::write, wrong, new_tss_));
    const Segment& tss = new_tss_.segment;
    const unsigned type = tss.attributes & kSystemType & ~k32bitTss;
    is_32bit_ = (tss.attributes & k32bitTss) != 0;
    if (type != (returns ? 1U | kBusy : 1U))
        return fail(wrong, selector);
    if (!tss.present())
        return fail(EXCEPTION_NP, selector);
    const Format& format = format_of(is_32bit_);
    if (tss.limit < format.min_limit)
        return fail(EXCEPTION_TS, selector);
    HV_STEP(resolve(tss.base, format.min_limit + 1, Access::read, new_task_));
    if (nested())
        HV_STEP(resolve(tss.base, sizeof(std::uint16_t), Access::write, new_link_));
    const bool pae = (state_.cr0 & CR0_PG) != 0 && (state_.cr4 & CR4_PAE) != 0;
    if (is_32bit_ && pae &&
        !ControlRegisters{cpu_, backend_, guest_memory_}.pdptes_are_valid(
            new_task_.load<std::uint32_t>(kCr3Offset)))
        return fail(EXCEPTION_GP, 0);
    return Outcome::ok;
}

Outcome TaskSwitcher::find_old_task() {
    const Segment& tss = state_.tr;
    const Format& format = format_of((tss.attributes & k32bitTss) != 0);
    if (tss.limit < format.save_end - 1)
        return fail(EXCEPTION_TS, tss.selector);
    HV_STEP(
        resolve(tss.base + format.save_start, format.save_end - format.save_start, Access::write, old_task_));
    if (!nested()) {
        Descriptor descriptor;
        HV_STEP(find_descriptor(tss.selector, Access::write, EXCEPTION_TS, descriptor));
        old_descriptor_ = descriptor.range;
    }
    return Outcome::ok;
}

void TaskSwitcher::save_task(const Task& task) {
    const Format& format = format_of((state_.tr.attributes & k32bitTss) != 0);
    const auto put = [&](unsigned offset, std::uint32_t value) {
        if (format.width == 4)
            old_task_.store(offset - format.save_start, value);
        else
            old_task_.store(offset - format.save_start, static_cast<std::uint16_t>(value));
    };
    put(format.eip, task.eip);
    put(format.eflags, task.eflags);
    for (unsigned i = 0; i < std::size(task.gpr); ++i)
        put(format.gpr + i * format.width, task.gpr[i]);
    // The upper halves of a 32-bit TSS' selector fields are reserved and stay as they are.
    for (unsigned i = 0; i < format.segment_count; ++i)
        old_task_.store(format.segments + i * format.segment_width - format.save_start, task.segment[i]);
}

/// Steps 6 to 8.
void TaskSwitcher::leave_old_task(unsigned instruction_length) {
    const VcpuRegs& regs = backend_.regs;
    Task task{};
    task.eip = static_cast<std::uint32_t>(regs.rip + (request_.instruction ? instruction_length : 0));
    task.eflags =
        static_cast<std::uint32_t>(regs.rflags & ~RFLAGS_RF) | (request_.resume_flag ? RFLAGS_RF : 0);
    if (request_.cause == Cause::iret)
        task.eflags &= ~static_cast<std::uint32_t>(RFLAGS_NT);
    for (unsigned i = 0; i < std::size(task.gpr); ++i)
        task.gpr[i] = static_cast<std::uint32_t>(regs.gpr[i]);
    for (unsigned i = 0; i < std::size(task.segment); ++i)
        task.segment[i] = state_.segment[i].selector;
    save_task(task);
    if (nested())
        new_link_.store(0, state_.tr.selector);
    else
        old_descriptor_.change_bits(D::kTypeByte, kBusy, 0);
    if (request_.cause != Cause::iret)
        new_tss_.range.change_bits(D::kTypeByte, 0, kBusy);
}

// --- the new task
// --------------------------------------------------------------------------------------------------------

TaskSwitcher::Task TaskSwitcher::load_task() const {
    const Format& format = format_of(is_32bit_);
    const auto get = [&](unsigned offset) {
        return is_32bit_ ? new_task_.load<std::uint32_t>(offset) : new_task_.load<std::uint16_t>(offset);
    };
    Task task{};
    task.cr3 = is_32bit_ ? new_task_.load<std::uint32_t>(kCr3Offset) : 0;
    task.eip = get(format.eip);
    task.eflags = get(format.eflags);
    // The manuals leave the upper halves undefined for a 16-bit TSS.
    for (unsigned i = 0; i < std::size(task.gpr); ++i)
        task.gpr[i] = get(format.gpr + i * format.width) | (is_32bit_ ? 0 : 0xffff'0000);
    for (unsigned i = 0; i < format.segment_count; ++i)
        task.segment[i] = new_task_.load<std::uint16_t>(format.segments + i * format.segment_width);
    task.ldt = new_task_.load<std::uint16_t>(format.ldt);
    task.trap = is_32bit_ && (new_task_.load<std::uint8_t>(kTrapOffset) & 1) != 0;
    return task;
}

/// Steps 9 to 12. What the segment registers hold until their descriptors are loaded: nothing, at the new
/// privilege level.
void TaskSwitcher::enter_new_task() {
    VcpuRegs& regs = backend_.regs;
    task_ = load_task();
    state_.tr = new_tss_.segment;
    state_.tr.attributes |= kBusy;
    state_.cr0 |= CR0_TS;
    state_.dr7 &= ~DR7_L0_L3_LE;
    if (is_32bit_ && (state_.cr0 & CR0_PG) != 0) {
        state_.cr3 = task_.cr3;
        backend_.flush_guest_tlb();
    }
    regs.rip = task_.eip;
    regs.rflags = (task_.eflags & kEflags) | RFLAGS_FIXED | (nested() ? RFLAGS_NT : 0);
    for (unsigned i = 0; i < std::size(task_.gpr); ++i)
        regs.gpr[i] = task_.gpr[i];
    state_.ldtr = {task_.ldt, 0, 0, 0};
    const auto cpl = static_cast<std::uint16_t>((regs.rflags & RFLAGS_VM) != 0
                                                    ? 3
                                                    : task_.segment[static_cast<unsigned>(SegmentName::cs)] &
                                                          Selector::kRpl);
    for (unsigned i = 0; i < std::size(task_.segment); ++i) {
        Segment& segment = state_.segment[i];
        const auto name = static_cast<SegmentName>(i);
        segment.selector = task_.segment[i];
        if (name == SegmentName::cs)  // VM entry wants code here
            segment.attributes = static_cast<std::uint16_t>(
                (segment.attributes & 0xf00U) | kPresent | D::kCodeOrData | D::kCode |
                D::kReadableOrWritable | D::kAccessed | unsigned{cpl} << 5);
        else
            segment.attributes = static_cast<std::uint16_t>(cpl << 5);
    }
}

void TaskSwitcher::load_virtual_8086_segments() {
    for (Segment& segment : state_.segment)
        segment = {segment.selector, kVirtual8086Segment, 0xffff, std::uint64_t{segment.selector} << 4};
}

Outcome TaskSwitcher::mark_accessed(Descriptor& descriptor) {
    if ((descriptor.segment.attributes & D::kAccessed) != 0)
        return Outcome::ok;
    HV_STEP(resolve(descriptor.linear, D::kSize, Access::write, descriptor.range));
    descriptor.range.change_bits(D::kTypeByte, 0, D::kAccessed);
    descriptor.segment.attributes |= D::kAccessed;
    return Outcome::ok;
}

Outcome TaskSwitcher::load_ldtr() {
    if (Selector::is_null(task_.ldt))
        return Outcome::ok;
    if ((task_.ldt & Selector::kTableIndicator) != 0)
        return fail(EXCEPTION_TS, task_.ldt);
    Descriptor descriptor;
    HV_STEP(find_descriptor(task_.ldt, Access::read, EXCEPTION_TS, descriptor));
    if ((descriptor.segment.attributes & kSystemType) != kLdt || !descriptor.segment.present())
        return fail(EXCEPTION_TS, task_.ldt);
    state_.ldtr = descriptor.segment;
    return Outcome::ok;
}

Outcome TaskSwitcher::load_code() {
    Segment& cs = state_.seg(SegmentName::cs);
    const std::uint16_t selector = cs.selector;
    if (Selector::is_null(selector))
        return fail(EXCEPTION_TS, selector);
    Descriptor descriptor;
    HV_STEP(find_descriptor(selector, Access::read, EXCEPTION_TS, descriptor));
    const Segment& found = descriptor.segment;
    const unsigned rpl = selector & Selector::kRpl;
    const bool code = (found.attributes & (D::kCodeOrData | D::kCode)) == (D::kCodeOrData | D::kCode);
    const bool conforming = (found.attributes & D::kConforming) != 0;
    if (!code || (conforming ? found.dpl() > rpl : found.dpl() != rpl))
        return fail(EXCEPTION_TS, selector);
    if (!found.present())
        return fail(EXCEPTION_NP, selector);
    HV_STEP(mark_accessed(descriptor));
    cs = found;
    return Outcome::ok;
}

Outcome TaskSwitcher::load_stack() {
    Segment& ss = state_.seg(SegmentName::ss);
    const std::uint16_t selector = ss.selector;
    const unsigned cpl = state_.seg(SegmentName::cs).selector & Selector::kRpl;
    if (Selector::is_null(selector))
        return fail(EXCEPTION_TS, selector);
    Descriptor descriptor;
    HV_STEP(find_descriptor(selector, Access::read, EXCEPTION_TS, descriptor));
    const Segment& found = descriptor.segment;
    const bool writable_data = (found.attributes & (D::kCodeOrData | D::kCode | D::kReadableOrWritable)) ==
                               (D::kCodeOrData | D::kReadableOrWritable);
    if (!writable_data || (selector & Selector::kRpl) != cpl || found.dpl() != cpl)
        return fail(EXCEPTION_TS, selector);
    if (!found.present())
        return fail(EXCEPTION_SS, selector);
    HV_STEP(mark_accessed(descriptor));
    ss = found;
    return Outcome::ok;
}

Outcome TaskSwitcher::load_data(SegmentName name) {
    Segment& segment = state_.seg(name);
    const std::uint16_t selector = segment.selector;
    if (Selector::is_null(selector))
        return Outcome::ok;
    Descriptor descriptor;
    HV_STEP(find_descriptor(selector, Access::read, EXCEPTION_TS, descriptor));
    const Segment& found = descriptor.segment;
    const bool code = (found.attributes & D::kCode) != 0;
    const bool readable = (found.attributes & D::kCodeOrData) != 0 &&
                          (!code || (found.attributes & D::kReadableOrWritable) != 0);
    const unsigned privilege = std::max<unsigned>(state_.cpl(), selector & Selector::kRpl);
    const bool conforming = code && (found.attributes & D::kConforming) != 0;
    if (!readable || (!conforming && found.dpl() < privilege))
        return fail(EXCEPTION_TS, selector);
    if (!found.present())
        return fail(EXCEPTION_NP, selector);
    HV_STEP(mark_accessed(descriptor));
    segment = found;
    return Outcome::ok;
}

/// Step 13. The order is that of the manual's table of conditions.
Outcome TaskSwitcher::load_segments() {
    const bool virtual_8086 = (backend_.regs.rflags & RFLAGS_VM) != 0;
    if (virtual_8086)
        load_virtual_8086_segments();
    HV_STEP(load_ldtr());
    if (!virtual_8086) {
        HV_STEP(load_code());
        HV_STEP(load_stack());
        for (const SegmentName name : {SegmentName::ds, SegmentName::es, SegmentName::fs, SegmentName::gs})
            HV_STEP(load_data(name));
    }
    HV_STEP(push_error_code());
    if (backend_.regs.rip > state_.seg(SegmentName::cs).limit)
        return fail(EXCEPTION_GP, 0);
    return Outcome::ok;
}

/// An exception's error code goes to the new task's stack [sdm3 6.12.2 Interrupt Tasks].
Outcome TaskSwitcher::push_error_code() {
    if (!request_.has_error_code)
        return Outcome::ok;
    const Segment& ss = state_.seg(SegmentName::ss);
    const std::uint32_t mask = ss.big() ? 0xffff'ffff : 0xffff;
    const unsigned size = is_32bit_ ? 4 : 2;
    std::uint64_t& rsp = backend_.regs.gpr[RSP];
    const auto top = static_cast<std::uint32_t>(rsp - size) & mask;
    const std::uint64_t last = std::uint64_t{top} + size - 1;
    const bool expands_down = (ss.attributes & (D::kCode | D::kConforming)) == D::kConforming;
    if (last > mask || (expands_down ? top <= ss.limit : last > ss.limit))
        return fail(EXCEPTION_SS, 0);
    SystemRange place;
    HV_STEP(resolve(ss.base + top, size, Access::write, place,
                    state_.cpl() == 3 ? Accessor::user : Accessor::supervisor));
    if (is_32bit_)
        place.store(0, request_.error_code);
    else
        place.store(0, static_cast<std::uint16_t>(request_.error_code));
    rsp = (rsp & ~std::uint64_t{mask}) | top;
    return Outcome::ok;
}

Outcome TaskSwitcher::run(unsigned instruction_length) {
    constexpr RegSet kState = RegSet::control | RegSet::segments | RegSet::tables | RegSet::debug;
    backend_.get_state(state_, kState);
    Outcome outcome = find_new_task();
    if (outcome == Outcome::ok)
        outcome = find_old_task();
    if (outcome != Outcome::ok) {
        if (outcome == Outcome::exception)
            raise();
        return outcome;
    }

    leave_old_task(instruction_length);
    enter_new_task();
    outcome = load_segments();
    if (outcome ==
        Outcome::retry)  // nobody can be asked to do the switch again: the new task meets the fault itself
        outcome = Outcome::ok;
    if (outcome == Outcome::ok && task_.trap)
        state_.dr6 |= DR6_BT;
    backend_.set_state(state_, RegSet::control | RegSet::segments | RegSet::debug);
    if (request_.cause == Cause::iret)
        backend_.set_nmi_blocking(false);
    else if (events_.interrupted().type == Event::Type::nmi)
        backend_.set_nmi_blocking(true);

    // An exception may yet make a #DF with one that the new task raises; all else has been delivered.
    if (outcome != Outcome::exception || events_.interrupted().type != Event::Type::exception)
        events_.forget_interrupted();
    if (outcome == Outcome::exception)
        raise();
    else if (outcome == Outcome::ok && task_.trap)
        events_.raise(Event::exception(EXCEPTION_DB));
    return outcome;
}

}  // namespace hv::x86

#undef HV_STEP
