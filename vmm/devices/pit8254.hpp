// SPDX-License-Identifier: MIT
// The PC's 8254 interval timer: counter 0 drives IRQ 0, counter 1 once refreshed memory, counter 2 the
// speaker through port 0x61 [ich9 13.3 Timer I/O Registers, 13.7.1 NMI_SC--NMI Status and Control Register].
// The speaker is silent.
#pragma once

#include "vmm/base/guarded.hpp"
#include "vmm/base/timer.hpp"
#include "vmm/core/interrupt.hpp"
#include "vmm/devices/byte_registers.hpp"
#include "vmm/devices/clock_ratio.hpp"
#include "vmm/devices/late_ticks.hpp"
#include "vmm/devices/pit8254_channel.hpp"

#include <array>
#include <cstdint>

namespace hv {

class Pit8254 final : public ByteRegisters<Pit8254>, private Timer {
public:
    /// Three counters and the control word, at guest_map::kPit.
    static constexpr std::uint64_t kSize = 4;
    static constexpr std::uint64_t kHz = 1'193'182;

    /// Both outlive this. Counter 0's output is `irq`, low for no longer than an edge takes in the periodic
    /// modes.
    Pit8254(Clock& clock, IrqLine& irq);
    ~Pit8254() { clock_.disarm(*this); }

    /// One byte at guest_map::kPort61.
    [[nodiscard]] IoDevice& port61() { return port61_; }
    /// Who takes counter 0's interrupts; before the VM runs.
    void set_target(const TickTarget* target) { late_.set_target(target); }
    void reset();

    std::uint8_t read_byte(std::uint64_t offset);
    void write_byte(std::uint64_t offset, std::uint8_t value);

private:
    class Port61 final : public ByteRegisters<Port61> {
    public:
        explicit Port61(Pit8254& pit) : pit_{pit} {}
        std::uint8_t read_byte(std::uint64_t) { return pit_.read_port61(); }
        void write_byte(std::uint64_t, std::uint8_t value) { pit_.write_port61(value); }

    private:
        Pit8254& pit_;
    };

    void fire() override;
    std::uint8_t read_port61();
    void write_port61(std::uint8_t value);

    // Under lock_:
    void read_back(std::uint8_t command, std::uint64_t now);
    /// Passes on rises of counter 0's output that are due.
    void deliver(std::uint64_t now);
    /// Counter 0 was programmed: makes line and timer agree with it.
    void reprogrammed(std::uint64_t now);
    void set_irq(bool level);
    void raise_irq();

    DeviceClock clock_;
    IrqLine& irq_;
    Spinlock lock_{Rank::board};
    std::array<Pit8254Channel, 3> channels_;
    LateTicks late_{kHz};
    std::uint64_t delivered_{0};  ///< rises up to this clock have been passed on
    bool irq_level_{false};
    std::uint8_t port61_bits_{0};
    Port61 port61_{*this};
};

}  // namespace hv
