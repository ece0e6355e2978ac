// SPDX-License-Identifier: MIT
// Two ports that virtual machines are known for: the debug console, whose writes are text and whose reads
// tell that it is there, and the debug exit, which ends the VM with a code.
#pragma once

#include "vmm/base/guarded.hpp"
#include "vmm/core/io_device.hpp"
#include "vmm/devices/byte_registers.hpp"
#include "vmm/devices/char_sink.hpp"
#include "vmm/devices/power_control.hpp"

#include <array>
#include <cstddef>
#include <cstdint>

namespace hv {

/// One byte at guest_map::kDebugConsole. The sink gets whole lines, with their ends, or 128 characters of a
/// longer one.
class DebugConsole final : public ByteRegisters<DebugConsole> {
public:
    explicit DebugConsole(CharSink& sink) : sink_{sink} {}

    /// Gives the sink the beginning of a line that has no end yet.
    void flush();

    std::uint8_t read_byte(std::uint64_t) { return 0xe9; }
    void write_byte(std::uint64_t, std::uint8_t value);

private:
    void put_line();

    CharSink& sink_;
    Spinlock lock_{Rank::board};
    std::array<char, 128> line_{};
    std::size_t length_{0};
};

/// Four bytes at guest_map::kDebugExit: a write of any size ends the VM.
class DebugExit final : public IoDevice {
public:
    explicit DebugExit(PowerControl& power) : power_{power} {}

    std::uint64_t read(std::uint64_t, unsigned) override { return 0; }
    void write(std::uint64_t, unsigned, std::uint64_t value) override {
        power_.exit(static_cast<std::uint32_t>(value));
    }

private:
    PowerControl& power_;
};

}  // namespace hv
