// SPDX-License-Identifier: MIT
// The ways in which PC software resets its machine: the reset control register 0xcf9, the keyboard
// controller, port 0x92.
#pragma once

#include "vmm/base/guarded.hpp"
#include "vmm/devices/byte_registers.hpp"
#include "vmm/devices/power_control.hpp"

#include <atomic>
#include <cstdint>

namespace hv {

/// One byte at guest_map::kReset [ich9 13.7.5 RST_CNT--Reset Control Register].
class ResetControl final : public ByteRegisters<ResetControl> {
public:
    explicit ResetControl(PowerControl& power) : power_{power} {}
    void reset() { value_.store(0, std::memory_order_relaxed); }

    std::uint8_t read_byte(std::uint64_t) { return value_.load(std::memory_order_relaxed); }
    void write_byte(std::uint64_t, std::uint8_t value);

private:
    PowerControl& power_;
    std::atomic<std::uint8_t> value_{0};
};

/// One byte at port 0x92 [ich9 13.7.2 PORT92--Fast A20 and Init Register]. The A20 gate is kept, and has no
/// effect.
class Port92 final : public ByteRegisters<Port92> {
public:
    static constexpr std::uint16_t kPort = 0x92;

    explicit Port92(PowerControl& power) : power_{power} {}
    void reset() { value_.store(kA20, std::memory_order_relaxed); }

    std::uint8_t read_byte(std::uint64_t) { return value_.load(std::memory_order_relaxed); }
    void write_byte(std::uint64_t, std::uint8_t value);

private:
    static constexpr std::uint8_t kA20 = 2;

    PowerControl& power_;
    std::atomic<std::uint8_t> value_{kA20};
};

/// An 8042 without keyboard and mouse: self-test, command byte, output port with reset and A20. It raises no
/// interrupts.
class KeyboardController {
public:
    /// Ports of the two register blocks, one byte each.
    static constexpr std::uint16_t kDataPort = 0x60;
    static constexpr std::uint16_t kCommandPort = 0x64;

    explicit KeyboardController(PowerControl& power) : power_{power} {}
    void reset();

    [[nodiscard]] IoDevice& data() { return data_; }
    [[nodiscard]] IoDevice& command() { return command_; }

private:
    class Data final : public ByteRegisters<Data> {
    public:
        explicit Data(KeyboardController& controller) : controller_{controller} {}
        std::uint8_t read_byte(std::uint64_t) { return controller_.read_data(); }
        void write_byte(std::uint64_t, std::uint8_t value) { controller_.write_data(value); }

    private:
        KeyboardController& controller_;
    };
    class Command final : public ByteRegisters<Command> {
    public:
        explicit Command(KeyboardController& controller) : controller_{controller} {}
        std::uint8_t read_byte(std::uint64_t) { return controller_.read_status(); }
        void write_byte(std::uint64_t, std::uint8_t value) { controller_.write_command(value); }

    private:
        KeyboardController& controller_;
    };

    std::uint8_t read_data();
    void write_data(std::uint8_t value);
    std::uint8_t read_status();
    void write_command(std::uint8_t value);
    // Under lock_:
    void reply(std::uint8_t value);
    /// True: the value pulls the reset line.
    bool set_output_port(std::uint8_t value);

    PowerControl& power_;
    Spinlock lock_{Rank::board};
    std::uint8_t output_{0};  ///< the output buffer
    bool output_full_{false};
    std::uint8_t awaiting_data_{0};  ///< the command that the next data byte belongs to
    bool last_was_command_{false};
    std::uint8_t command_byte_{0x61};
    std::uint8_t output_port_{0xcf};
    Data data_{*this};
    Command command_{*this};
};

}  // namespace hv
