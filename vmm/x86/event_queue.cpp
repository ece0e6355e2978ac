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

void EventQueue::request_nmi() {
    constexpr std::uint8_t kMost = 2;
    std::uint8_t old = nmis_.load(std::memory_order_relaxed);
    std::uint8_t now;
    do {
        const auto count = static_cast<std::uint8_t>(old & kNmiCount);
        now = static_cast<std::uint8_t>((count < kMost ? count + 1 : count) | kNewNmi);
    } while (!nmis_.compare_exchange_weak(old, now, std::memory_order_seq_cst, std::memory_order_relaxed));
}

bool EventQueue::something_wakes(const VcpuBackend& backend) {
    if (interrupted_.pending() || exception_.pending() || shutdown_)
        return true;
    // Cleared first: what comes from here on is for another look.
    nmis_.fetch_and(static_cast<std::uint8_t>(~kNewNmi), std::memory_order_seq_cst);
    return !backend.nmi_blocking();
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
        else if (waiting_nmis() != 0)
            backend.request_window(Event::Type::nmi);
        return Delivery::delivered;
    }
    if (interrupted_.pending()) {
        if (!inject(backend, interrupted_))
            return Delivery::blocked;
        interrupted_ = {};
        if (waiting_nmis() != 0)
            backend.request_window(Event::Type::nmi);
        return Delivery::delivered;
    }
    return deliver_nmi(backend);
}

/// Other CPUs only add to the count, up to 2: what is there can be taken away.
EventQueue::Delivery EventQueue::deliver_nmi(VcpuBackend& backend) {
    if (inject(backend, Event::non_maskable())) {
        nmis_.fetch_sub(1, std::memory_order_acq_rel);
        if (waiting_nmis() != 0)
            backend.request_window(Event::Type::nmi);
        return Delivery::delivered;
    }
    if (!backend.nmi_blocking())
        return Delivery::blocked;
    if (waiting_nmis() > 1)
        nmis_.fetch_sub(1, std::memory_order_acq_rel);
    return Delivery::idle;
}

void EventQueue::reset() {
    interrupted_ = {};
    exception_ = {};
    shutdown_ = pending_ = false;
    nmis_.store(0, std::memory_order_release);
}

}  // namespace hv::x86
