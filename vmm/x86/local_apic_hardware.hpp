// SPDX-License-Identifier: MIT
// The part of a local APIC that the processor keeps where it delivers interrupts by itself: IRR, ISR, TPR
// and PPR in the register page, on top of ApicAcceleration. LocalApic has one, empty where the processor
// offers nothing.
#pragma once

#include "vmm/core/apic_acceleration.hpp"
#include "vmm/x86/local_apic_registers.hpp"

#include <cstdint>

namespace hv {

class HardwareApic {
public:
    void attach(ApicAcceleration& acceleration) {
        acceleration_ = &acceleration;
        page_ = &acceleration.page();
        delivers_ = acceleration.extent() == ApicAcceleration::Extent::interrupts;
    }
    /// There is a page, if only for TPR.
    [[nodiscard]] bool present() const { return page_ != nullptr; }
    [[nodiscard]] bool delivers() const { return delivers_; }

    // If present().
    [[nodiscard]] std::uint32_t read(std::uint32_t index) const { return page_->read(index); }
    void write(std::uint32_t index, std::uint32_t value) { page_->write(index, value); }
    [[nodiscard]] std::uint8_t tpr() const { return static_cast<std::uint8_t>(read(apic::TPR)); }

    // If delivers().
    /// Registers that the processor writes; what the VMM keeps of them may be old.
    static constexpr bool keeps(std::uint32_t index) {
        return index == apic::TPR || index == apic::PPR || (index >= apic::ISR && index < apic::TMR) ||
               (index >= apic::IRR && index < apic::ESR) || index == apic::ICR || index == apic::ICR_HIGH;
    }
    void set_mode(ApicAcceleration::Mode mode, Gpa base) { acceleration_->set_mode(mode, base); }
    /// Whether the bit of `vector` is set in the registers from `first` on: ISR, IRR.
    [[nodiscard]] bool has(std::uint32_t first, std::uint8_t vector) const {
        return (read(first + vector / 32) >> (vector % 32) & 1) != 0;
    }
    /// Adds the vectors 64 * `word` and up to IRR; of these 64, `level` are level-triggered.
    void request(unsigned word, std::uint64_t vectors, std::uint64_t level);
    /// The highest interrupt in service ends, as by a write to EOI. Its vector, or -1.
    int end();
    /// Whether an interrupt's priority is above the processor's.
    [[nodiscard]] bool pending() const;
    /// Computed, since the page's is that of the last VM exit.
    [[nodiscard]] std::uint32_t ppr() const;
    [[nodiscard]] ApicAcceleration::Status status() const { return acceleration_->status(); }
    /// No interrupt is requested or in service, TPR is 0, every register is 0.
    void clear();

private:
    static constexpr std::uint8_t class_of(std::uint32_t vector) {
        return static_cast<std::uint8_t>(vector & 0xf0);
    }
    [[nodiscard]] std::uint64_t word_of(std::uint32_t first, unsigned word) const {
        return std::uint64_t{read(first + word * 2 + 1)} << 32 | read(first + word * 2);
    }
    void set_word(std::uint32_t first, unsigned word, std::uint64_t value) {
        write(first + word * 2, static_cast<std::uint32_t>(value));
        write(first + word * 2 + 1, static_cast<std::uint32_t>(value >> 32));
    }

    ApicAcceleration* acceleration_{nullptr};
    ApicPage* page_{nullptr};
    bool delivers_{false};
};

}  // namespace hv
