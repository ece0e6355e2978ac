// SPDX-License-Identifier: MIT
// The processor's I/O ports, as drivers want them.
#pragma once

#include "arch/x86_64/cpu/instructions.hpp"

#include <cstdint>

namespace hv::boot {

struct HostPorts {
    static std::uint8_t in8(std::uint16_t port) { return cpu::in8(port); }
    static std::uint16_t in16(std::uint16_t port) { return cpu::in16(port); }
    static std::uint32_t in32(std::uint16_t port) { return cpu::in32(port); }
    static void out8(std::uint16_t port, std::uint8_t value) { cpu::out8(port, value); }
    static void out16(std::uint16_t port, std::uint16_t value) { cpu::out16(port, value); }
    static void out32(std::uint16_t port, std::uint32_t value) { cpu::out32(port, value); }
};

}  // namespace hv::boot
