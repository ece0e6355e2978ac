// SPDX-License-Identifier: MIT
// What test kernels expect of a machine that is made for them, where QEMU's pc-testdev has it: interrupt
// lines that the guest drives itself, and a register and memory that do nothing but store. There is no
// device's behaviour behind them, so that a test sees interrupt controllers and instruction emulation alone.
#pragma once

#include "vmm/core/guest_map.hpp"
#include "vmm/core/interrupt.hpp"
#include "vmm/core/io_device.hpp"
#include "vmm/devices/byte_registers.hpp"

#include <array>
#include <atomic>
#include <cstdint>

namespace hv {

/// Storage of `kBytes` bytes that may be accessed in any way: byte by byte, as memory without a cache is.
template <std::uint64_t kBytes>
class StoringRegisters final : public ByteRegisters<StoringRegisters<kBytes>> {
public:
    static constexpr std::uint64_t kSize = kBytes;

    std::uint8_t read_byte(std::uint64_t offset) { return bytes_[offset].load(std::memory_order_relaxed); }
    void write_byte(std::uint64_t offset, std::uint8_t value) {
        bytes_[offset].store(value, std::memory_order_relaxed);
    }
    void reset() {
        for (auto& byte : bytes_)
            byte.store(0, std::memory_order_relaxed);
    }

private:
    std::array<std::atomic<std::uint8_t>, kBytes> bytes_{};
};

class TestDevice {
public:
    /// One byte a line; the wires of ISA interrupts, and from 16 on of GSIs.
    static constexpr unsigned kLines = guest_map::kGsiCount;
    using Wires = std::array<IrqLine*, kLines>;

    /// Lines that are nullptr are not there.
    explicit TestDevice(const Wires& wires) : lines_{wires} {}

    /// At guest_map::kTestRegister and kTestMemory.
    StoringRegisters<4>& register_block() { return register_; }
    StoringRegisters<2 * 4096>& memory() { return memory_; }
    /// kLines bytes at guest_map::kTestLines.
    IoDevice& lines() { return lines_; }
    /// Four bytes at guest_map::kTestFlush, which swallow what is written: elsewhere that takes a page away
    /// from under the guest, so that its next use exits.
    IoDevice& flush() { return flush_; }

    void reset();

private:
    class Lines final : public ByteRegisters<Lines> {
    public:
        explicit Lines(const Wires& wires) : wires_{wires} {}
        std::uint8_t read_byte(std::uint64_t) { return 0xff; }
        void write_byte(std::uint64_t offset, std::uint8_t value) {
            if (wires_[offset] != nullptr)
                wires_[offset]->set(value != 0);
        }
        void reset();

    private:
        Wires wires_;
    };
    class Flush final : public IoDevice {
    public:
        std::uint64_t read(std::uint64_t, unsigned size) override { return all_ones(size); }
        void write(std::uint64_t, unsigned, std::uint64_t) override {}
    };

    StoringRegisters<4> register_;
    StoringRegisters<2 * 4096> memory_;
    Lines lines_;
    Flush flush_;
};

}  // namespace hv
