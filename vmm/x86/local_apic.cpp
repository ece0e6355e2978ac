// SPDX-License-Identifier: MIT
#include "vmm/x86/local_apic.hpp"

#include "vmm/core/io_device.hpp"

#include <algorithm>
#include <bit>

namespace hv {

using namespace apic;

LocalApic::LocalApic(const Config& config, InterruptFabric& fabric, LocalApicOwner& owner, Clock& clock)
    : config_{config},
      fabric_{fabric},
      owner_{owner},
      timer_{clock, *this},
      lint_{Lint{*this, kLint0}, Lint{*this, kLint1}} {
    reset();
}

void LocalApic::reset() {
    base_ = guest_map::kLocalApic | Base::Enabled::kMask | (config_.bsp ? Base::Bsp::kMask : 0);
    init_reset();
}

void LocalApic::init_reset() {
    timer_.reset();
    owed_tick_waits_ = false;
    attention_.exchange(0, std::memory_order_acquire);
    for (unsigned word = 0; word < VectorBits::kWords; ++word) {
        posted_edge_.take(word);
        posted_level_.take(word);
    }
    irr_ = {};
    isr_ = {};
    tmr_ = {};
    tpr_ = 0;
    update_ppr();
    ext_int_message_ = false;
    ldr_ = 0;
    dfr_ = 0xf;
    svr_ = Svr::kReset;
    errors_ = 0;
    esr_ = 0;
    icr_ = 0;
    lvt_.fill(Lvt::kMasked);
    publish_address();
    if (hardware_.present())
        reset_hardware();
    owner_.priority_changed();
}

void LocalApic::enter_virtual_wire_mode() {
    write_svr(Svr::kReset | Svr::Enabled::kMask);
    write_lvt(LVT_LINT0,
              static_cast<std::uint32_t>(Lvt::Delivery::make(static_cast<unsigned>(DeliveryMode::ext_int))));
    write_lvt(LVT_LINT1,
              static_cast<std::uint32_t>(Lvt::Delivery::make(static_cast<unsigned>(DeliveryMode::nmi))));
}

void LocalApic::publish_address() {
    using A = LocalApicAddress;
    address_.store(A::Id::make(config_.id) | A::Ldr::make(ldr_) | A::Model::make(dfr_) |
                       A::X2apic::make(x2apic()) | A::Present::make(enabled()) |
                       A::Accepting::make(enabled() && software_enabled()),
                   std::memory_order_relaxed);
}

// --- interrupts from elsewhere ---------------------------------------------------------------------------

void LocalApic::raise(std::uint32_t attention) {
    // Who finds other bits set leaves it to whoever set them to tell the owner.
    if (attention_.fetch_or(attention, std::memory_order_acq_rel) == 0)
        owner_.interrupt_posted();
}

void LocalApic::post(std::uint8_t vector, TriggerMode trigger) {
    if (!LocalApicAddress::Accepting::test(address().raw))
        return;
    if (vector < kFirstVector) {
        raise(kIllegalVector);
        return;
    }
    (trigger == TriggerMode::edge ? posted_edge_ : posted_level_).post(vector);
    raise(1U << (vector / 64));
}

void LocalApic::receive(const InterruptMessage& message) {
    switch (message.delivery_mode) {
    case DeliveryMode::fixed:
    case DeliveryMode::lowest_priority: post(message.vector, message.trigger_mode); break;
    case DeliveryMode::nmi: owner_.nmi(); break;
    case DeliveryMode::init: owner_.init(); break;
    case DeliveryMode::startup: owner_.startup(message.vector); break;
    case DeliveryMode::ext_int: raise(kExtInt); break;
    case DeliveryMode::smi:  // no system management mode
    case DeliveryMode::reserved: break;
    }
}

void LocalApic::Lint::set(bool asserted) {
    if (!asserted_.exchange(asserted, std::memory_order_acq_rel) && asserted)
        apic_.raise(attention_);
}

void LocalApic::absorb() {
    const std::uint32_t attention = attention_.exchange(0, std::memory_order_acq_rel);
    absorbing_ = true;
    for (std::uint32_t left = attention & kVectors; left != 0; left &= left - 1) {
        const auto word = static_cast<unsigned>(std::countr_zero(left));
        const std::uint64_t edge = posted_edge_.take(word);
        const std::uint64_t level = posted_level_.take(word);
        if ((edge | level) == 0)
            continue;
        irr_.merge_word(word, edge | level);
        tmr_.set_word(word, (tmr_.word(word) & ~edge) | level);
    }
    if ((attention & kTimer) != 0)
        account(timer_.advance());  // advance_timer(), but for a call on the way of each timer interrupt
    if ((attention & kIllegalVector) != 0)
        report_error(RECEIVE_ILLEGAL_VECTOR);
    if ((attention & kExtInt) != 0)
        ext_int_message_ = true;
    if ((attention & kLint0) != 0)
        evaluate_lint(0, LintEvent::rising_edge);
    if ((attention & kLint1) != 0)
        evaluate_lint(1, LintEvent::rising_edge);
    absorbing_ = false;
}

// --- local interrupts ------------------------------------------------------------------------------------

void LocalApic::advance_timer() {
    account(timer_.advance());
}

/// `expired`: what the timer's advance() says.
void LocalApic::account(bool expired) {
    if (timer_.owes() || owed_tick_waits_) [[unlikely]]
        catch_up_timer(expired);
    else if (expired)
        deliver_local(LVT_TIMER);
}

void LocalApic::resume(bool preempted) {
    timer_.resume(preempted && requested(static_cast<std::uint8_t>(lvt(LVT_TIMER))));
    advance_timer();
}

bool LocalApic::requested(std::uint8_t vector) const {
    return irr_.bits().test(vector) || (hardware_.delivers() && hardware_.has(IRR, vector));
}

bool LocalApic::in_service(std::uint8_t vector) const {
    return hardware_.delivers() ? hardware_.has(ISR, vector) : isr_.bits().test(vector);
}

/// While the guest is owed ticks: IRR and ISR hold one each, as on a processor, so a late one comes only once
/// the guest is done with the last, and an expiry that finds a late one still in IRR is owed as well.
void LocalApic::catch_up_timer(bool expired) {
    const auto vector = static_cast<std::uint8_t>(lvt(LVT_TIMER));
    const bool waits = requested(vector);
    if (expired) {
        if (waits && owed_tick_waits_)
            timer_.owe();
        owed_tick_waits_ = false;
        deliver_local(LVT_TIMER);
    } else if (waits || in_service(vector)) {
        timer_.postpone();
    } else {
        owed_tick_waits_ = timer_.pay();
        if (owed_tick_waits_)
            deliver_local(LVT_TIMER);
    }
}

void LocalApic::deliver_local(std::uint32_t lvt_index) {
    const std::uint32_t entry = lvt(lvt_index);
    static_assert(static_cast<unsigned>(DeliveryMode::fixed) == 0);
    if ((entry & (Lvt::Masked::kMask | Lvt::Delivery::kMask)) == 0) [[likely]] {
        accept_local(static_cast<std::uint8_t>(entry), TriggerMode::edge);
        return;
    }
    if (Lvt::Masked::test(entry))
        return;
    switch (static_cast<DeliveryMode>(Lvt::Delivery::get(entry))) {
    case DeliveryMode::nmi: owner_.nmi(); break;
    case DeliveryMode::init: owner_.init(); break;
    default: break;  // ExtINT follows the line's level; the rest is invalid
    }
}

void LocalApic::accept_local(std::uint8_t vector, TriggerMode trigger) {
    if (vector < kFirstVector) {
        report_error(RECEIVE_ILLEGAL_VECTOR);
    } else if (software_enabled()) {
        irr_.set(vector);
        tmr_.assign(vector, trigger == TriggerMode::level);
        if (!absorbing_)
            owner_.priority_changed();
    }
}

void LocalApic::evaluate_lint(unsigned pin, LintEvent event) {
    if (!enabled()) {  // the pins are INTR and NMI [sdm3 11.4.3 Enabling or Disabling the Local APIC]
        if (pin == 1 && event == LintEvent::rising_edge)
            owner_.nmi();
        return;
    }
    std::uint32_t& entry = lvt(LVT_LINT0 + pin);
    const bool fixed = static_cast<DeliveryMode>(Lvt::Delivery::get(entry)) == DeliveryMode::fixed;
    if (pin == 0 && fixed && Lvt::Level::test(entry)) {  // LINT1 knows edges only
        if (lint_[pin].asserted() && !Lvt::Masked::test(entry) && !Lvt::RemoteIrr::test(entry)) {
            entry |= static_cast<std::uint32_t>(Lvt::RemoteIrr::kMask);
            changed(LVT_LINT0);
            accept_local(static_cast<std::uint8_t>(entry), TriggerMode::level);
        }
    } else if (event == LintEvent::rising_edge) {
        deliver_local(LVT_LINT0 + pin);
    }
}

void LocalApic::end_level(std::uint8_t vector) {
    std::uint32_t& entry = lvt(LVT_LINT0);
    if (Lvt::RemoteIrr::test(entry) && static_cast<std::uint8_t>(entry) == vector) {
        entry &= ~static_cast<std::uint32_t>(Lvt::RemoteIrr::kMask);
        changed(LVT_LINT0);
        evaluate_lint(0, LintEvent::none);
    }
    if (!Svr::SuppressEoiBroadcast::test(svr_))
        fabric_.broadcast_eoi(vector);
}

bool LocalApic::lint0_is_ext_int() const {
    const std::uint32_t entry = lvt(LVT_LINT0);
    return !enabled() || (!Lvt::Masked::test(entry) &&
                          static_cast<DeliveryMode>(Lvt::Delivery::get(entry)) == DeliveryMode::ext_int);
}

void LocalApic::report_error(std::uint32_t esr_bit) {
    // One interrupt until software writes ESR; this also ends the recursion of an illegal vector in the error
    // entry.
    const bool first = errors_ == 0;
    errors_ |= esr_bit;
    if (first)
        deliver_local(LVT_ERROR);
}

bool LocalApic::eoi_can_wait() {
    if (attention_.load(std::memory_order_relaxed) != 0)
        absorb();
    if (hardware_.delivers() || irr_.highest() >= 0 || isr_.highest() < 0 ||
        tmr_.test(static_cast<std::uint8_t>(isr_.highest())))
        return false;
    int in_service = 0;
    for (unsigned word = 0; word < VectorBits::kWords; ++word)
        in_service += std::popcount(isr_.bits().word(word));
    return in_service == 1;
}

// --- registers -------------------------------------------------------------------------------------------

std::uint32_t LocalApic::logical_id() const {
    return x2apic() ? address().logical_x2apic_id() : std::uint32_t{ldr_} << 24;
}

std::uint32_t LocalApic::arbitration_priority() const {
    if (!hardware_.delivers())
        return arbitration_priority(tpr_, irr_.highest(), isr_.highest());
    const ApicAcceleration::Status status = hardware_.status();
    return arbitration_priority(hardware_.tpr(), status.requested, status.in_service);
}

/// [sdm3 11.6.2.4 Lowest Priority Delivery Mode]
std::uint32_t LocalApic::arbitration_priority(unsigned tpr, int highest_request, int highest_service) {
    const auto class_of = [](int vector) { return vector < 0 ? 0U : static_cast<unsigned>(vector) & 0xf0; };
    const unsigned task = tpr & 0xf0U;
    const unsigned request = class_of(highest_request);
    const unsigned service = class_of(highest_service);
    if (task >= request && task > service)
        return tpr;
    return std::max({task, request, service});
}

std::uint32_t LocalApic::read_register(std::uint32_t index) {
    if (attention_.load(std::memory_order_relaxed) != 0)
        absorb();
    if (hardware_.delivers() && HardwareApic::keeps(index)) [[unlikely]]
        return read_hardware(index);
    switch (index) {
    case TPR: return tpr_;
    case APR: return arbitration_priority();
    case PPR: return static_cast<std::uint32_t>(ppr_);
    case CURRENT_COUNT: advance_timer(); return timer_.current_count();
    default: break;
    }
    switch (index & ~7U) {
    case ISR: return isr_.bits().register_value(index & 7);
    case TMR: return tmr_.register_value(index & 7);
    case IRR: advance_timer(); return irr_.bits().register_value(index & 7);
    default: return kept_register(index);
    }
}

std::uint32_t LocalApic::kept_register(std::uint32_t index) const {
    switch (index) {
    case ID: return x2apic() ? config_.id : config_.id << 24;
    case VERSION: return kVersion;
    case LDR: return logical_id();
    case DFR: return std::uint32_t{dfr_} << 28 | 0x0fff'ffff;
    case SVR: return svr_;
    case ESR: return esr_;
    case ICR: return static_cast<std::uint32_t>(icr_);
    case ICR_HIGH: return static_cast<std::uint32_t>(icr_ >> 32);
    case INITIAL_COUNT: return timer_.initial_count();
    case DIVIDE: return timer_.divide();
    default: return index >= LVT_TIMER && index <= LVT_ERROR ? lvt(index) : 0;
    }
}

void LocalApic::write_register(std::uint32_t index, std::uint32_t value) {
    switch (index) {
    case TPR: set_tpr(static_cast<std::uint8_t>(value)); break;
    case EOI: eoi(); break;
    case SVR: write_svr(value); break;
    case ESR: write_esr(); break;
    case INITIAL_COUNT: timer_.set_initial_count(value); break;
    case DIVIDE:
        advance_timer();
        timer_.set_divide(value);
        changed(DIVIDE);
        break;
    default: write_lvt(index, value); break;
    }
}

void LocalApic::write_svr(std::uint32_t value) {
    svr_ = value & Svr::kWritable;
    changed(SVR);
    publish_address();
    if (software_enabled())
        return;
    for (std::uint32_t index = LVT_TIMER; index <= LVT_ERROR; ++index)
        write_lvt(index, lvt(index));
}

void LocalApic::write_esr() {
    if (attention_.load(std::memory_order_relaxed) != 0)
        absorb();
    esr_ = errors_;
    errors_ = 0;
    changed(ESR);
}

void LocalApic::write_lvt(std::uint32_t index, std::uint32_t value) {
    if (index == LVT_TIMER)
        advance_timer();
    std::uint32_t entry = value & Lvt::kWritable[index - LVT_TIMER];
    if (Lvt::Level::test(entry))
        entry |= lvt(index) & static_cast<std::uint32_t>(Lvt::RemoteIrr::kMask);
    if (!software_enabled())
        entry |= Lvt::kMasked;
    lvt(index) = entry;
    changed(index);
    if (index == LVT_TIMER)
        timer_.configure(entry);
    else if (index == LVT_LINT0) {
        evaluate_lint(0, LintEvent::none);
        owner_.priority_changed();  // it may let the 8259's INTR through
    }
}

std::uint64_t LocalApic::tsc_deadline() {
    advance_timer();
    return timer_.deadline();
}

}  // namespace hv
