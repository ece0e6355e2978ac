// SPDX-License-Identifier: MIT
#include "vmm/x86/event_queue.hpp"

namespace hv::x86 {
namespace {

enum class Class : std::uint8_t { benign, contributory, page_fault, double_fault };

Class class_of(const Event& event) {
    if (event.type != Event::Type::exception)
        return Class::benign;
    switch (event.vector) {
    case EXCEPTION_DE:
    case EXCEPTION_TS:
    case EXCEPTION_NP:
    case EXCEPTION_SS:
    case EXCEPTION_GP:
    case EXCEPTION_CP: return Class::contributory;
    case EXCEPTION_PF:
    case EXCEPTION_VE: return Class::page_fault;
    case EXCEPTION_DF: return Class::double_fault;
    default: return Class::benign;
    }
}

/// Faults restart their instruction with RF set in the saved flags [sdm3 18.3.1.1 Instruction-Breakpoint
/// Exception Condition]; #DB, #BP, #OF are traps or set RF themselves, #DF and #MC are aborts.
bool sets_resume_flag(const Event& event) {
    return event.type == Event::Type::exception && event.vector != EXCEPTION_DB &&
           event.vector != EXCEPTION_BP && event.vector != EXCEPTION_OF && event.vector != EXCEPTION_DF &&
           event.vector != EXCEPTION_MC;
}

}  // namespace

Combined combine(const Event& first, const Event& second) {
    const Class a = class_of(first);
    const Class b = class_of(second);
    if (b != Class::contributory && b != Class::page_fault)
        return Combined::second;
    if (a == Class::double_fault)
        return Combined::shutdown;
    if (a == Class::page_fault || (a == Class::contributory && b == Class::contributory))
        return Combined::double_fault;
    return Combined::second;
}

void EventQueue::raise(const Event& exception) {
    pending_ = true;
    Event& first = exception_.pending() ? exception_ : interrupted_;
    const Combined combined = combine(first, exception);
    // An exception or software interrupt gives way: its instruction runs again. An interrupt or NMI was taken
    // from its source already and must not be lost: it stays, to go in when the guest can take it.
    if (first.type == Event::Type::exception || first.type == Event::Type::software_interrupt)
        first = {};
    switch (combined) {
    case Combined::second: exception_ = exception; break;
    case Combined::double_fault: exception_ = Event::exception(EXCEPTION_DF, 0); break;
    case Combined::shutdown: shutdown_ = true; break;
    }
}

void EventQueue::raise_page_fault(VcpuBackend& backend, std::uint32_t error_code,
                                  std::uint64_t linear_address) {
    CpuState state;
    backend.get_state(state, RegSet::control);
    state.cr2 = linear_address;
    backend.set_state(state, RegSet::control);
    raise(Event::exception(EXCEPTION_PF, error_code));
}

bool EventQueue::inject(VcpuBackend& backend, const Event& event) {
    if (backend.inject(event))
        return true;
    backend.request_window(event.type);
    return false;
}

EventQueue::Delivery EventQueue::deliver_pending(VcpuBackend& backend) {
    if (shutdown_)
        return Delivery::shutdown;
    if (exception_.pending()) {
        if (sets_resume_flag(exception_))
            backend.regs.rflags |= RFLAGS_RF;
        if (!inject(backend, exception_))
            return Delivery::blocked;
        exception_ = {};
        if (interrupted_.pending())
            backend.request_window(interrupted_.type);
        else if (nmi_.load(std::memory_order_acquire))
            backend.request_window(Event::Type::nmi);
        return Delivery::delivered;
    }
    if (interrupted_.pending()) {
        if (!inject(backend, interrupted_))
            return Delivery::blocked;
        interrupted_ = {};
        if (nmi_.load(std::memory_order_acquire))
            backend.request_window(Event::Type::nmi);
        return Delivery::delivered;
    }
    // Cleared first: an NMI that arrives from here on is a second one.
    nmi_.store(false, std::memory_order_relaxed);
    if (inject(backend, Event::non_maskable()))
        return Delivery::delivered;
    nmi_.store(true, std::memory_order_release);
    return Delivery::blocked;
}

void EventQueue::reset() {
    interrupted_ = {};
    exception_ = {};
    shutdown_ = pending_ = false;
    nmi_.store(false, std::memory_order_release);
}

}  // namespace hv::x86
