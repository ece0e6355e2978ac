// SPDX-License-Identifier: MIT
// Configuration space of physical PCI functions.
#pragma once

#include "vmm/base/guarded.hpp"

#include <concepts>
#include <cstddef>
#include <cstdint>

namespace hv::pci {

/// Where a function is: its bus, device and function number.
struct Bdf {
    std::uint8_t bus;
    std::uint8_t device;    ///< 0 to 31
    std::uint8_t function;  ///< 0 to 7
    constexpr bool operator==(const Bdf&) const = default;
};

/// Access to the configuration space of one segment group. Offsets are multiples of the width; what does not
/// exist reads as all ones, and writes to it are lost.
class PciConfig {
public:
    virtual std::uint8_t read8(Bdf function, std::uint16_t offset) = 0;
    virtual std::uint16_t read16(Bdf function, std::uint16_t offset) = 0;
    virtual std::uint32_t read32(Bdf function, std::uint16_t offset) = 0;
    virtual void write8(Bdf function, std::uint16_t offset, std::uint8_t value) = 0;
    virtual void write16(Bdf function, std::uint16_t offset, std::uint16_t value) = 0;
    virtual void write32(Bdf function, std::uint16_t offset, std::uint32_t value) = 0;

protected:
    ~PciConfig() = default;
};

/// I/O ports.
template <class T>
concept PortIo = requires(T& ports, std::uint16_t port, std::uint8_t b, std::uint16_t w, std::uint32_t d) {
    { ports.in8(port) } -> std::same_as<std::uint8_t>;
    { ports.in16(port) } -> std::same_as<std::uint16_t>;
    { ports.in32(port) } -> std::same_as<std::uint32_t>;
    ports.out8(port, b);
    ports.out16(port, w);
    ports.out32(port, d);
};

/// Through ports 0xcf8 and 0xcfc [pci3 3.2.2.3.2 Software Generation of Configuration Transactions]: the
/// first 256 bytes only.
template <PortIo Ports>
class PortConfig final : public PciConfig {
public:
    explicit PortConfig(Ports ports = {}) : ports_{ports} {}

    std::uint8_t read8(Bdf f, std::uint16_t offset) override {
        return read<std::uint8_t>(f, offset, [this](std::uint16_t port) { return ports_.in8(port); });
    }
    std::uint16_t read16(Bdf f, std::uint16_t offset) override {
        return read<std::uint16_t>(f, offset, [this](std::uint16_t port) { return ports_.in16(port); });
    }
    std::uint32_t read32(Bdf f, std::uint16_t offset) override {
        return read<std::uint32_t>(f, offset, [this](std::uint16_t port) { return ports_.in32(port); });
    }
    void write8(Bdf f, std::uint16_t offset, std::uint8_t value) override {
        access(f, offset, [&](std::uint16_t port) { ports_.out8(port, value); });
    }
    void write16(Bdf f, std::uint16_t offset, std::uint16_t value) override {
        access(f, offset, [&](std::uint16_t port) { ports_.out16(port, value); });
    }
    void write32(Bdf f, std::uint16_t offset, std::uint32_t value) override {
        access(f, offset, [&](std::uint16_t port) { ports_.out32(port, value); });
    }

private:
    static constexpr std::uint16_t kAddressPort = 0xcf8;
    static constexpr std::uint16_t kDataPort = 0xcfc;

    template <class T, class In>
    T read(Bdf f, std::uint16_t offset, In&& in) {
        auto value = static_cast<T>(~T{0});
        access(f, offset, [&](std::uint16_t port) { value = in(port); });
        return value;
    }
    /// Selects the register and calls `transfer` with the port that it shows up at.
    template <class Transfer>
    void access(Bdf f, std::uint16_t offset, Transfer&& transfer) {
        if (offset >= 256)
            return;
        const LockGuard guard{lock_};
        const std::uint32_t address = std::uint32_t{1} << 31 | std::uint32_t{f.bus} << 16 |
                                      std::uint32_t{f.device} << 11 | std::uint32_t{f.function} << 8 |
                                      (offset & 0xfcU);
        ports_.out32(kAddressPort, address);
        transfer(static_cast<std::uint16_t>(kDataPort + (offset & 3)));
    }

    [[no_unique_address]] Ports ports_;
    Spinlock lock_{Rank::leaf};
};

}  // namespace hv::pci
