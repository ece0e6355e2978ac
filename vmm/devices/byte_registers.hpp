// SPDX-License-Identifier: MIT
// Devices on an 8-bit bus: the chipset splits wider port accesses into bytes at rising addresses.
#pragma once

#include "vmm/core/io_device.hpp"

#include <cstdint>

namespace hv {

/// `Device` has std::uint8_t read_byte(std::uint64_t offset) and void write_byte(std::uint64_t offset,
/// std::uint8_t).
template <class Device>
class ByteRegisters : public IoDevice {
public:
    std::uint64_t read(std::uint64_t offset, unsigned size) final {
        return size == 1 ? self().read_byte(offset) : read_wide(offset, size);
    }
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) final {
        if (size == 1)
            self().write_byte(offset, static_cast<std::uint8_t>(value));
        else
            write_wide(offset, size, value);
    }

protected:
    ~ByteRegisters() = default;

private:
    [[gnu::noinline]] std::uint64_t read_wide(std::uint64_t offset, unsigned size) {
        std::uint64_t value = 0;
        for (unsigned i = 0; i < size; ++i)
            value |= std::uint64_t{self().read_byte(offset + i)} << (i * 8);
        return value;
    }
    [[gnu::noinline]] void write_wide(std::uint64_t offset, unsigned size, std::uint64_t value) {
        for (unsigned i = 0; i < size; ++i)
            self().write_byte(offset + i, static_cast<std::uint8_t>(value >> (i * 8)));
    }
    Device& self() { return static_cast<Device&>(*this); }
};

}  // namespace hv
