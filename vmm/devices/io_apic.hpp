// SPDX-License-Identifier: MIT
// The I/O APIC [82093aa; ich9 13.5 Advanced Programmable Interrupt Controller (APIC)]: 24 pins, version 0x20
// with EOI register. Edges on a masked pin are lost, as on the chip. Pin 0 has the 8259's INTR and serves
// ExtINT entries only.
#pragma once

#include "vmm/base/guarded.hpp"
#include "vmm/core/guest_map.hpp"
#include "vmm/core/interrupt.hpp"
#include "vmm/core/io_device.hpp"
#include "vmm/x86/local_apic_fabric.hpp"

#include <array>
#include <atomic>
#include <cstdint>

namespace hv {

class IoApic final : public IoDevice, public EoiListener {
public:
    static constexpr unsigned kPins = guest_map::kGsiCount;
    /// Size of the register block.
    static constexpr std::uint64_t kSize = 0x1000;
    /// PCI interrupt lines are active low: with entries for active-high inputs they look asserted while idle.
    static constexpr std::uint32_t kActiveLowWires = 0xff'ffff & (0xff'ffffU << guest_map::kGsiPciFirst);

    /// The bus outlives this.
    explicit IoApic(InterruptBus& bus);
    IoApic(const IoApic&) = delete;
    IoApic& operator=(const IoApic&) = delete;

    /// The wire of a pin, 1 <= `gsi` < kPins. set() takes Rank::interrupt.
    [[nodiscard]] IrqLine& line(unsigned gsi);
    /// Pin 0. set() takes no lock.
    [[nodiscard]] IrqLine& ext_int_line() { return ext_int_; }

    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
    /// A local APIC ended `vector`, or software wrote it to the EOI register.
    void eoi(std::uint8_t vector) override;

    /// All entries masked. The levels of the wires stay.
    void reset();

private:
    class Pin final : public IrqLine {
    public:
        void attach(IoApic& apic, std::uint8_t number) {
            apic_ = &apic;
            number_ = number;
        }
        void set(bool asserted) override { apic_->set_pin(number_, asserted); }

    private:
        IoApic* apic_{nullptr};
        std::uint8_t number_{0};
    };
    class ExtInt final : public IrqLine {
    public:
        explicit ExtInt(InterruptBus& bus) : bus_{bus} {}
        void set(bool asserted) override;
        /// Entry 0, 0 unless it is an unmasked ExtINT entry.
        void route(std::uint64_t entry);

    private:
        InterruptBus& bus_;
        std::atomic<bool> asserted_{false};
        std::atomic<std::uint64_t> entry_{0};
    };

    void set_pin(unsigned pin, bool asserted);
    // Under lock_:
    [[nodiscard]] std::uint32_t read_window() const;
    void write_window(std::uint32_t value);
    void write_entry_low(unsigned pin, std::uint32_t value);
    [[nodiscard]] bool active(unsigned pin) const;
    /// Sends a level-triggered pin's interrupt if one is due.
    void evaluate_level(unsigned pin);

    InterruptBus& bus_;
    Spinlock lock_{Rank::interrupt};
    std::array<std::uint64_t, kPins> entries_{};
    std::uint32_t asserted_{0};  ///< wires, a bit per pin
    std::uint32_t id_{0};        ///< as the register holds it
    std::uint8_t select_{0};
    std::array<Pin, kPins> pins_;
    ExtInt ext_int_;
};

}  // namespace hv
