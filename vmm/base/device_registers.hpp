// SPDX-License-Identifier: MIT
// A physical device's registers, mapped uncached or behind ports. Behind virtual calls, so that drivers are
// compiled once and tests put a device of their own behind them: next to an access to a device, a call is
// nothing.
#pragma once

#include "vmm/base/expected.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace hv {

/// Offsets lie inside and are multiples of the width. What the device wrote to memory before it answered a
/// read is seen after it; what was written to memory before a write is seen by the device.
class DeviceRegisters {
public:
    [[nodiscard]] virtual std::size_t size() const = 0;
    [[nodiscard]] virtual std::uint8_t read8(std::size_t offset) = 0;
    [[nodiscard]] virtual std::uint16_t read16(std::size_t offset) = 0;
    [[nodiscard]] virtual std::uint32_t read32(std::size_t offset) = 0;
    virtual void write8(std::size_t offset, std::uint8_t value) = 0;
    virtual void write16(std::size_t offset, std::uint16_t value) = 0;
    virtual void write32(std::size_t offset, std::uint32_t value) = 0;

    // As two halves, the lower one first: any device allows that.
    [[nodiscard]] std::uint64_t read64(std::size_t offset) {
        const std::uint64_t low = read32(offset);
        return low | std::uint64_t{read32(offset + 4)} << 32;
    }
    void write64(std::size_t offset, std::uint64_t value) {
        write32(offset, static_cast<std::uint32_t>(value));
        write32(offset + 4, static_cast<std::uint32_t>(value >> 32));
    }

protected:
    ~DeviceRegisters() = default;
};

class MappedRegisters final : public DeviceRegisters {
public:
    MappedRegisters() = default;
    /// `base` is mapped for as long as the host runs.
    MappedRegisters(volatile std::byte* base, std::size_t size) : base_{base}, size_{size} {}

    [[nodiscard]] std::size_t size() const override { return size_; }
    [[nodiscard]] std::uint8_t read8(std::size_t offset) override { return read<std::uint8_t>(offset); }
    [[nodiscard]] std::uint16_t read16(std::size_t offset) override { return read<std::uint16_t>(offset); }
    [[nodiscard]] std::uint32_t read32(std::size_t offset) override { return read<std::uint32_t>(offset); }
    void write8(std::size_t offset, std::uint8_t value) override { write(offset, value); }
    void write16(std::size_t offset, std::uint16_t value) override { write(offset, value); }
    void write32(std::size_t offset, std::uint32_t value) override { write(offset, value); }

private:
    template <class T>
    [[nodiscard]] T read(std::size_t offset) const {
        const T value = *reinterpret_cast<const volatile T*>(base_ + offset);
        std::atomic_signal_fence(std::memory_order_seq_cst);
        return value;
    }
    template <class T>
    void write(std::size_t offset, T value) {
        std::atomic_signal_fence(std::memory_order_seq_cst);
        *reinterpret_cast<volatile T*>(base_ + offset) = value;
        std::atomic_signal_fence(std::memory_order_seq_cst);
    }

    volatile std::byte* base_{nullptr};
    std::size_t size_{0};
};

}  // namespace hv
