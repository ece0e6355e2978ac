// SPDX-License-Identifier: MIT
// Driver of a 16550A serial port [pc16550d], 115,200 baud, 8N1, with FIFOs. PortIo is the way to its
// registers: `std::uint8_t in8(port)` and `void out8(port, value)`.
#pragma once

#include "drivers/serial/console.hpp"

#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace hv::serial {

template <class T>
concept PortIo = requires(T io, std::uint16_t port, std::uint8_t value) {
    { io.in8(port) } -> std::same_as<std::uint8_t>;
    io.out8(port, value);
};

template <PortIo Io>
class Uart16550 final : public Console {
public:
    Uart16550(Io io, std::uint16_t base) : io_{io}, base_{base} {}

    /// Programs the port. False: there is none, its interrupt enable register does not keep what is written.
    bool init() {
        // What is still on its way to the line would be garbled. One character takes 87 us, a read of a port
        // about 1 us.
        for (unsigned tries = 0; tries < kDrainTries && (read(kLineStatus) & kAllSent) == 0; ++tries) {
        }
        // Not through its loopback, which Bochs does not have.
        write(kLineControl, k8N1);
        for (const std::uint8_t probe : {kInterruptAll, std::uint8_t{0}}) {
            write(kInterruptEnable, probe);
            if (read(kInterruptEnable) != probe)
                return false;
        }
        write(kLineControl, kDivisorLatch);
        write(kDivisorLow, 1);  // 115,200 baud
        write(kDivisorHigh, 0);
        write(kLineControl, k8N1);
        write(kFifoControl, kFifoEnable | kFifoClear | kTrigger1);
        write(kModemControl, kDataTerminalReady | kRequestToSend | kOut2);
        write(kInterruptEnable, kInterruptReceive);
        return true;
    }

    std::size_t write_some(std::string_view text) override {
        if ((line_status() & kTransmitterEmpty) == 0)
            return 0;
        // An empty transmitter takes a FIFO's worth.
        const std::size_t count = text.size() < kFifoDepth ? text.size() : kFifoDepth;
        for (std::size_t i = 0; i < count; ++i)
            write(kData, static_cast<std::uint8_t>(text[i]));
        return count;
    }

    std::optional<char> read() override {
        // Reading IIR and LSR ends the interrupts that no character stands behind.
        static_cast<void>(read(kInterruptId));
        if ((line_status() & kDataReady) == 0)
            return std::nullopt;
        return static_cast<char>(read(kData));
    }

    bool take_input_lost() override { return input_lost_.exchange(false, std::memory_order_relaxed); }

    void want_write_interrupt(bool wanted) override {
        if (wanted == write_interrupt_)
            return;
        write_interrupt_ = wanted;
        write(kInterruptEnable,
              static_cast<std::uint8_t>(kInterruptReceive | (wanted ? kInterruptTransmit : 0)));
    }

    [[nodiscard]] bool all_sent() override { return (line_status() & kAllSent) != 0; }

private:
    // Registers, by their offset.
    static constexpr std::uint16_t kData = 0, kDivisorLow = 0, kInterruptEnable = 1, kDivisorHigh = 1,
                                   kInterruptId = 2, kFifoControl = 2, kLineControl = 3, kModemControl = 4,
                                   kLineStatus = 5;
    static constexpr std::uint8_t kInterruptReceive = 0x01, kInterruptTransmit = 0x02, kInterruptAll = 0x0f;
    static constexpr std::uint8_t kFifoEnable = 0x01, kFifoClear = 0x06;
    /// An interrupt at the first character leaves the time of 15 more to read it.
    static constexpr std::uint8_t kTrigger1 = 0x00;
    static constexpr std::uint8_t k8N1 = 0x03, kDivisorLatch = 0x80;
    static constexpr std::uint8_t kDataTerminalReady = 0x01, kRequestToSend = 0x02, kOut2 = 0x08;
    static constexpr std::uint8_t kDataReady = 0x01, kOverrun = 0x02, kTransmitterEmpty = 0x20,
                                  kAllSent = 0x40;
    static constexpr std::size_t kFifoDepth = 16;
    static constexpr unsigned kDrainTries = 10'000;

    std::uint8_t read(std::uint16_t offset) { return io_.in8(static_cast<std::uint16_t>(base_ + offset)); }
    void write(std::uint16_t offset, std::uint8_t value) {
        io_.out8(static_cast<std::uint16_t>(base_ + offset), value);
    }

    /// Its read clears the overrun.
    std::uint8_t line_status() {
        const std::uint8_t status = read(kLineStatus);
        if ((status & kOverrun) != 0)
            input_lost_.store(true, std::memory_order_relaxed);
        return status;
    }

    [[no_unique_address]] Io io_;
    std::uint16_t base_;
    std::atomic<bool> input_lost_{false};  ///< one CPU may write while another reads
    bool write_interrupt_{false};
};

}  // namespace hv::serial
