// SPDX-License-Identifier: MIT
// The 16550A serial port [pc16550d]. The line is infinitely fast: what the guest transmits is out at once,
// what arrives waits in a queue behind the receive FIFO and never overruns it. DSR, CTS and DCD are always
// on. The interrupt output does not depend on OUT2: some kernels leave it off, and newer chips do not gate it
// either. Modem and line status are as without parity, framing errors and received breaks.
#pragma once

#include "vmm/base/guarded.hpp"
#include "vmm/base/timer.hpp"
#include "vmm/core/interrupt.hpp"
#include "vmm/devices/byte_registers.hpp"
#include "vmm/devices/char_sink.hpp"

#include <array>
#include <cstddef>
#include <cstdint>

namespace hv {

class Uart16550 final : public ByteRegisters<Uart16550>, private Timer {
public:
    static constexpr std::uint64_t kSize = 8;

    /// All outlive this. `sink` gets what the guest transmits.
    Uart16550(Clock& clock, IrqLine& irq, CharSink& sink);
    ~Uart16550() { clock_.disarm(*this); }

    /// A character from the line; any CPU. False: the queue is full, offer it again later.
    bool receive(char character);
    /// Power-up state. Characters that the guest has not read are dropped.
    void reset();

    std::uint8_t read_byte(std::uint64_t offset);
    void write_byte(std::uint64_t offset, std::uint8_t value);

private:
    static constexpr unsigned kFifoDepth = 16;

    /// A bounded queue of characters.
    template <std::size_t N>
    struct Ring {
        std::array<std::uint8_t, N> bytes{};
        std::size_t first{0};
        std::size_t count{0};

        [[nodiscard]] bool empty() const { return count == 0; }
        [[nodiscard]] bool full() const { return count == N; }
        void push(std::uint8_t byte) { bytes[(first + count++) % N] = byte; }
        std::uint8_t pop() {
            const std::uint8_t byte = bytes[first];
            first = (first + 1) % N;
            --count;
            return byte;
        }
        void clear() { first = count = 0; }
    };

    void fire() override;

    // Under lock_:
    [[nodiscard]] bool fifo_enabled() const;
    [[nodiscard]] bool loopback() const;
    [[nodiscard]] unsigned fifo_size() const { return fifo_enabled() ? kFifoDepth : 1; }
    [[nodiscard]] unsigned trigger_level() const;
    [[nodiscard]] std::uint8_t line_status() const;
    [[nodiscard]] std::uint8_t modem_lines() const;
    [[nodiscard]] std::uint8_t interrupt_id() const;
    std::uint8_t read_receiver();
    void write_transmitter(std::uint8_t byte);
    void write_fifo_control(std::uint8_t value);
    void write_modem_control(std::uint8_t value);
    /// Moves characters from the line's queue to the receiver, and restarts the character time-out.
    void refill();
    void restart_timeout();
    void update_irq();

    Clock& clock_;
    IrqLine& irq_;
    CharSink& sink_;
    Spinlock lock_{Rank::board};
    Ring<kFifoDepth> fifo_;
    Ring<1024> queue_;
    std::uint8_t ier_{0};
    std::uint8_t fcr_{0};
    std::uint8_t lcr_{0};
    std::uint8_t mcr_{0};
    std::uint8_t msr_deltas_{0};
    std::uint8_t scratch_{0};
    std::uint8_t divisor_low_{12};  ///< 9600 baud
    std::uint8_t divisor_high_{0};
    bool overrun_{false};
    bool transmitter_empty_event_{false};  ///< the THRE interrupt's latch
    bool timed_out_{false};
    bool irq_level_{false};
};

}  // namespace hv
