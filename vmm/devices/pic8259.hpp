// SPDX-License-Identifier: MIT
// The PC's pair of 8259A interrupt controllers with their edge/level control registers [ich9 13.4 Interrupt
// Controller I/O Registers]. The slave's INT is the master's line 2.
#pragma once

#include "vmm/base/guarded.hpp"
#include "vmm/core/interrupt.hpp"
#include "vmm/devices/byte_registers.hpp"
#include "vmm/devices/pic8259_chip.hpp"

#include <array>
#include <cstdint>

namespace hv {

class Pic8259 {
public:
    static constexpr unsigned kLines = 16;

    /// `intr` follows the pair's INTR output. It is set with Rank::interrupt held, so it takes no lock of
    /// that rank or below: LocalApic::lint0() and IoApic::ext_int_line() do not.
    explicit Pic8259(IrqLine& intr);
    Pic8259(const Pic8259&) = delete;
    Pic8259& operator=(const Pic8259&) = delete;

    /// ISA interrupt `irq` < kLines; 2 is the cascade, and not connected.
    [[nodiscard]] IrqLine& line(unsigned irq);
    /// The processor's INTA cycle: the vector of the highest request, which is in service then, or of a
    /// spurious interrupt.
    std::uint8_t acknowledge();

    /// Two bytes each, at guest_map::kPicMaster, kPicSlave and kElcr.
    [[nodiscard]] IoDevice& master() { return ports_[0]; }
    [[nodiscard]] IoDevice& slave() { return ports_[1]; }
    [[nodiscard]] IoDevice& elcr() { return elcr_; }

    /// `level_irqs` is what firmware writes to the ELCR: a bit per level-triggered IRQ.
    void reset(std::uint16_t level_irqs);

private:
    class Line final : public IrqLine {
    public:
        void attach(Pic8259& pic, std::uint8_t irq) {
            pic_ = &pic;
            irq_ = irq;
        }
        void set(bool asserted) override { pic_->set_line(irq_, asserted); }

    private:
        Pic8259* pic_{nullptr};
        std::uint8_t irq_{0};
    };
    class Ports final : public ByteRegisters<Ports> {
    public:
        Ports(Pic8259& pic, Pic8259Chip& chip) : pic_{pic}, chip_{chip} {}
        std::uint8_t read_byte(std::uint64_t offset);
        void write_byte(std::uint64_t offset, std::uint8_t value);

    private:
        Pic8259& pic_;
        Pic8259Chip& chip_;
    };
    class Elcr final : public ByteRegisters<Elcr> {
    public:
        explicit Elcr(Pic8259& pic) : pic_{pic} {}
        std::uint8_t read_byte(std::uint64_t offset);
        void write_byte(std::uint64_t offset, std::uint8_t value);

    private:
        Pic8259& pic_;
    };

    void set_line(unsigned irq, bool asserted);
    /// Cascade and INTR follow the chips. Under lock_.
    void update();

    IrqLine& intr_;
    Spinlock lock_{Rank::interrupt};
    /// Timer, keyboard, cascade, RTC and coprocessor are edge-triggered for ever.
    std::array<Pic8259Chip, 2> chips_{Pic8259Chip{0xf8}, Pic8259Chip{0xde}};
    bool intr_level_{false};
    std::array<Line, kLines> lines_;
    std::array<Ports, 2> ports_;
    Elcr elcr_;
};

}  // namespace hv
