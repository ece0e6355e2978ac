// SPDX-License-Identifier: MIT
#include "vmm/x86/local_apic_hardware.hpp"

#include "vmm/x86/local_apic.hpp"

#include <algorithm>
#include <bit>

namespace hv {

using namespace apic;

void HardwareApic::request(unsigned word, std::uint64_t vectors, std::uint64_t level) {
    set_word(IRR, word, word_of(IRR, word) | vectors);
    if (word_of(TMR, word) != level) {
        set_word(TMR, word, level);
        acceleration_->set_eoi_exits(word, level);
    }
    const auto highest = static_cast<std::uint8_t>(word * 64 + 63 - unsigned(std::countl_zero(vectors)));
    const ApicAcceleration::Status now = status();
    if (highest > now.requested)
        acceleration_->set_status({highest, now.in_service});
}

int HardwareApic::end() {
    const ApicAcceleration::Status now = status();
    if (now.in_service == 0)
        return -1;
    const std::uint8_t vector = now.in_service;
    const std::uint32_t index = ISR + vector / 32;
    write(index, read(index) & ~(std::uint32_t{1} << (vector % 32)));
    std::uint8_t highest = 0;
    for (unsigned word = VectorBits::kWords; word-- > 0 && highest == 0;) {
        if (const std::uint64_t bits = word_of(ISR, word); bits != 0)
            highest = static_cast<std::uint8_t>(word * 64 + 63 - unsigned(std::countl_zero(bits)));
    }
    acceleration_->set_status({now.requested, highest});
    return vector;
}

bool HardwareApic::pending() const {
    return class_of(status().requested) > class_of(ppr());
}

std::uint32_t HardwareApic::ppr() const {
    const std::uint8_t service = class_of(status().in_service);
    return service > class_of(tpr()) ? service : tpr();
}

void HardwareApic::clear() {
    page_->registers.fill({});
    acceleration_->set_status({0, 0});
    for (unsigned word = 0; word < VectorBits::kWords; ++word)
        acceleration_->set_eoi_exits(word, 0);
}

// --- LocalApic's side ------------------------------------------------------------------------------------

void LocalApic::attach(ApicAcceleration& acceleration) {
    hardware_.attach(acceleration);
    if (!hardware_.delivers())
        acceleration.watch(*this, irr_.highest_member());
    reset_hardware();
}

void LocalApic::reset_hardware() {
    if (!hardware_.delivers()) {
        hardware_.write(TPR, tpr_);
        return;
    }
    hardware_.clear();
    ppr_ = 0;
    change_hardware_mode();
}

void LocalApic::change_hardware_mode() {
    if (!hardware_.delivers())
        return;
    using Mode = ApicAcceleration::Mode;
    for (const std::uint32_t index : {ID, VERSION, LDR, DFR, SVR, ESR, ICR, ICR_HIGH, INITIAL_COUNT, DIVIDE})
        publish(index);
    for (std::uint32_t index = LVT_TIMER; index <= LVT_ERROR; ++index)
        publish(index);
    hardware_.set_mode(!enabled() ? Mode::disabled : x2apic() ? Mode::x2apic : Mode::xapic, base());
}

void LocalApic::publish(std::uint32_t index) {
    hardware_.write(index, kept_register(index));
}

void LocalApic::hand_over() {
    for (unsigned word = 0; word < VectorBits::kWords; ++word) {
        if (const std::uint64_t vectors = irr_.bits().word(word); vectors != 0)
            hardware_.request(word, vectors, tmr_.word(word));
    }
    irr_ = {};
}

bool LocalApic::hardware_pending() {
    hand_over();
    return hardware_.pending();
}

void LocalApic::end_in_hardware() {
    if (const int vector = hardware_.end(); vector >= 0 && tmr_.test(static_cast<std::uint8_t>(vector)))
        end_level(static_cast<std::uint8_t>(vector));
}

void LocalApic::set_hardware_tpr(std::uint8_t value) {
    hardware_.write(TPR, value);
    if (hardware_.delivers())
        ppr_ = 0;  // all that is accepted is handed over
}

std::uint32_t LocalApic::read_hardware(std::uint32_t index) {
    advance_timer();
    if (irr_.highest() >= 0)
        hand_over();
    return index == PPR ? hardware_.ppr() : hardware_.read(index);
}

void LocalApic::finish_write(std::uint32_t offset) {
    const std::uint32_t index = offset >> 4;
    const std::uint32_t value = hardware_.read(index);
    if (x2apic()) {
        if (index == SELF_IPI)
            write_self_ipi(static_cast<std::uint8_t>(value));
        return;
    }
    if (index == ICR)
        icr_ = hardware_icr();
    mmio_write(offset & ~0xfU, 4, value);
    publish(index);
}

/// In xAPIC mode, where writes that only say ICR_HIGH, or an IPI to the guest's own vCPU, make no exit.
std::uint64_t LocalApic::hardware_icr() const {
    return std::uint64_t{hardware_.read(ICR_HIGH)} << 32 | (hardware_.read(ICR) & Icr::kWritable);
}

void LocalApic::finish_eoi(std::uint8_t vector) {
    if (tmr_.test(vector))
        end_level(vector);
}

}  // namespace hv
