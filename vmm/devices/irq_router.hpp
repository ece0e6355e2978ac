// SPDX-License-Identifier: MIT
// The board's interrupt wiring: ISA interrupts reach the 8259 pair and the I/O APIC, PCI interrupt lines are
// shared by their sources, and the HPET can take the places of PIT and RTC.
#pragma once

#include "vmm/core/guest_map.hpp"
#include "vmm/core/interrupt.hpp"

#include <array>
#include <atomic>
#include <cstdint>

namespace hv {

class IoApic;
class Pic8259;

/// Drives two lines as one.
class IrqFanOut final : public IrqLine {
public:
    void connect(IrqLine& first, IrqLine& second) {
        first_ = &first;
        second_ = &second;
    }
    void set(bool asserted) override {
        first_->set(asserted);
        second_->set(asserted);
    }

private:
    IrqLine* first_{nullptr};
    IrqLine* second_{nullptr};
};

/// Brings a line to the level that a function of atomic state asks for, whatever CPUs change that state at
/// once and without a lock of its own: who sets the line last has looked at the state after that.
template <class Level>
void settle(IrqLine& line, Level&& level) {
    for (bool wanted = level();;) {
        line.set(wanted);
        const bool now = level();
        if (now == wanted)
            return;
        wanted = now;
    }
}

/// A wired-or line: asserted while any of its sources asserts it. A source is driven by one CPU at a time.
class SharedIrqLine {
public:
    static constexpr unsigned kSources = 32;

    void connect(IrqLine& output);
    /// `index` < kSources, one for each device on the line.
    [[nodiscard]] IrqLine& source(unsigned index);

private:
    class Source final : public IrqLine {
    public:
        void attach(SharedIrqLine& line, std::uint32_t mask) {
            line_ = &line;
            mask_ = mask;
        }
        void set(bool asserted) override { line_->set(mask_, asserted); }

    private:
        SharedIrqLine* line_{nullptr};
        std::uint32_t mask_{0};
    };
    void set(std::uint32_t mask, bool asserted);

    IrqLine* output_{nullptr};
    std::atomic<std::uint32_t> asserted_{0};
    std::array<Source, kSources> sources_;
};

/// Passes on one of two inputs.
class IrqSelector {
public:
    void connect(IrqLine& output) { output_ = &output; }
    /// 0 is selected at first.
    [[nodiscard]] IrqLine& input(unsigned index) { return inputs_[index]; }
    void select(unsigned index);

private:
    class Input final : public IrqLine {
    public:
        Input(IrqSelector& selector, std::uint32_t mask) : selector_{selector}, mask_{mask} {}
        void set(bool asserted) override { selector_.set(mask_, asserted); }

    private:
        IrqSelector& selector_;
        std::uint32_t mask_;
    };
    static constexpr std::uint32_t kSecondSelected = 4;

    void set(std::uint32_t mask, bool asserted);
    [[nodiscard]] bool level() const;

    IrqLine* output_{nullptr};
    std::atomic<std::uint32_t> state_{0};  ///< levels of the inputs in bits 1:0, and the selection
    std::array<Input, 2> inputs_{Input{*this, 1}, Input{*this, 2}};
};

/// All lines take Rank::interrupt when set.
class IrqRouter {
public:
    static constexpr unsigned kPciLines = guest_map::kGsiCount - guest_map::kGsiPciFirst;
    /// What firmware writes to the ELCR: SCI and PCI interrupts are level-triggered.
    static constexpr std::uint16_t kLevelIrqs = 1U << guest_map::kGsiSci | 1U << 10 | 1U << 11;

    IrqRouter(Pic8259& pic, IoApic& io_apic);
    IrqRouter(const IrqRouter&) = delete;
    IrqRouter& operator=(const IrqRouter&) = delete;

    /// ISA interrupt 1, 3 to 15 but those of PIT and RTC. 10 and 11 share the 8259's inputs with PCI, not the
    /// I/O APIC's.
    [[nodiscard]] IrqLine& isa(unsigned irq);
    /// Behind whatever drives it: the wire of an ISA interrupt (below 16, nullptr for the cascade) or of a
    /// PCI line. For tests, which may overrule a device.
    [[nodiscard]] IrqLine* wire(unsigned gsi);
    /// IRQ 0 (GSI 2) and IRQ 8: input 0 for PIT and RTC, input 1 for the HPET in legacy replacement.
    [[nodiscard]] IrqSelector& pit() { return pit_; }
    [[nodiscard]] IrqSelector& rtc() { return rtc_; }
    /// GSI kGsiPciFirst + `index`. Sources 1 to 30 are PCI devices' by number, kHpetSource the HPET's; device
    /// 0, the bridge, has no interrupt, and its place is for wire().
    [[nodiscard]] SharedIrqLine& pci(unsigned index);
    static constexpr unsigned kTestSource = 0;
    static constexpr unsigned kHpetSource = 31;
    /// The 8259 interrupt of that line, for a function's interrupt line register and _PRT without I/O APIC.
    static constexpr std::uint8_t pic_irq_of_pci(unsigned index) { return index % 2 == 0 ? 10 : 11; }

private:
    std::array<IrqFanOut, 16> isa_;
    IrqSelector pit_;
    IrqSelector rtc_;
    static constexpr unsigned kIsaSource = kPciLines;  ///< of pci_pic_, behind those of the PCI lines
    std::array<SharedIrqLine, 2> pci_pic_;             ///< 8259 lines 10 and 11, shared by the PCI lines
    std::array<IrqFanOut, kPciLines> pci_wires_;
    std::array<SharedIrqLine, kPciLines> pci_;
};

}  // namespace hv
