// SPDX-License-Identifier: MIT
#include "vmm/devices/reset_ports.hpp"

namespace hv {
namespace {

// Keyboard controller commands.
constexpr std::uint8_t READ_COMMAND_BYTE = 0x20;
constexpr std::uint8_t WRITE_COMMAND_BYTE = 0x60;
constexpr std::uint8_t DISABLE_MOUSE = 0xa7;
constexpr std::uint8_t ENABLE_MOUSE = 0xa8;
constexpr std::uint8_t TEST_MOUSE = 0xa9;
constexpr std::uint8_t SELF_TEST = 0xaa;
constexpr std::uint8_t TEST_KEYBOARD = 0xab;
constexpr std::uint8_t DISABLE_KEYBOARD = 0xad;
constexpr std::uint8_t ENABLE_KEYBOARD = 0xae;
constexpr std::uint8_t READ_OUTPUT_PORT = 0xd0;
constexpr std::uint8_t WRITE_OUTPUT_PORT = 0xd1;
constexpr std::uint8_t WRITE_OUTPUT_BUFFER = 0xd2;
constexpr std::uint8_t WRITE_MOUSE = 0xd4;
constexpr std::uint8_t PULSE_OUTPUT_PORT = 0xf0;  ///< to 0xff: bits that are 0 are pulled low

constexpr std::uint8_t kSelfTestPassed = 0x55;
constexpr std::uint8_t kInterfaceTestPassed = 0x00;

// The command byte.
constexpr std::uint8_t KEYBOARD_DISABLED = 0x10;
constexpr std::uint8_t MOUSE_DISABLED = 0x20;
// The status register.
constexpr std::uint8_t OUTPUT_FULL = 0x01;
constexpr std::uint8_t SYSTEM = 0x04;
constexpr std::uint8_t COMMAND_LAST = 0x08;
constexpr std::uint8_t UNLOCKED = 0x10;
// The output port: the line resets the processor while it is 0.
constexpr std::uint8_t RESET_LINE = 0x01;

}  // namespace

void ResetControl::write_byte(std::uint64_t, std::uint8_t value) {
    constexpr std::uint8_t kKept = 0x0e;
    constexpr std::uint8_t kResetCpu = 0x04;  // acts as it goes from 0 to 1
    const std::uint8_t before = value_.exchange(value & kKept, std::memory_order_relaxed);
    if ((value & ~before & kResetCpu) != 0)
        power_.reset();
}

void Port92::write_byte(std::uint64_t, std::uint8_t value) {
    constexpr std::uint8_t kReset = 0x01;
    const std::uint8_t before = value_.exchange(value, std::memory_order_relaxed);
    if ((value & ~before & kReset) != 0)
        power_.reset();
}

void KeyboardController::reset() {
    LockGuard guard{lock_};
    output_full_ = false;
    awaiting_data_ = 0;
    last_was_command_ = false;
    command_byte_ = 0x61;
    output_port_ = 0xcf;
}

std::uint8_t KeyboardController::read_data() {
    LockGuard guard{lock_};
    output_full_ = false;
    return output_;
}

std::uint8_t KeyboardController::read_status() {
    LockGuard guard{lock_};
    return static_cast<std::uint8_t>(UNLOCKED | (command_byte_ & SYSTEM) | (output_full_ ? OUTPUT_FULL : 0) |
                                     (last_was_command_ ? COMMAND_LAST : 0));
}

void KeyboardController::reply(std::uint8_t value) {
    output_ = value;
    output_full_ = true;
}

bool KeyboardController::set_output_port(std::uint8_t value) {
    output_port_ = value;
    return (value & RESET_LINE) == 0;
}

void KeyboardController::write_data(std::uint8_t value) {
    bool reset = false;
    {
        LockGuard guard{lock_};
        last_was_command_ = false;
        switch (awaiting_data_) {
        case WRITE_COMMAND_BYTE: command_byte_ = value; break;
        case WRITE_OUTPUT_PORT: reset = set_output_port(value); break;
        case WRITE_OUTPUT_BUFFER: reply(value); break;
        default: break;  // for a keyboard or mouse: nobody answers
        }
        awaiting_data_ = 0;
    }
    if (reset)
        power_.reset();
}

void KeyboardController::write_command(std::uint8_t value) {
    if (value >= PULSE_OUTPUT_PORT) {
        if ((value & RESET_LINE) == 0)
            power_.reset();
        return;
    }
    LockGuard guard{lock_};
    last_was_command_ = true;
    awaiting_data_ = 0;
    switch (value) {
    case READ_COMMAND_BYTE: reply(command_byte_); break;
    case DISABLE_MOUSE: command_byte_ |= MOUSE_DISABLED; break;
    case ENABLE_MOUSE: command_byte_ &= static_cast<std::uint8_t>(~MOUSE_DISABLED); break;
    case DISABLE_KEYBOARD: command_byte_ |= KEYBOARD_DISABLED; break;
    case ENABLE_KEYBOARD: command_byte_ &= static_cast<std::uint8_t>(~KEYBOARD_DISABLED); break;
    case SELF_TEST:
        command_byte_ |= SYSTEM;
        reply(kSelfTestPassed);
        break;
    case TEST_KEYBOARD:
    case TEST_MOUSE: reply(kInterfaceTestPassed); break;
    case READ_OUTPUT_PORT: reply(output_port_); break;
    case WRITE_COMMAND_BYTE:
    case WRITE_OUTPUT_PORT:
    case WRITE_OUTPUT_BUFFER:
    case WRITE_MOUSE: awaiting_data_ = value; break;
    default: break;
    }
}

}  // namespace hv
