// SPDX-License-Identifier: MIT
// What lies behind guest-physical addresses that are not RAM, and behind ports: the devices, as the emulator
// reaches them.
#pragma once

#include "vmm/base/address.hpp"

#include <cstdint>

namespace hv::x86 {

class GuestBus {
public:
    /// `size` is 1, 2, 4 or 8. Where nobody answers, reads yield all ones and writes are lost.
    virtual std::uint64_t mmio_read(Gpa gpa, unsigned size) = 0;
    virtual void mmio_write(Gpa gpa, unsigned size, std::uint64_t value) = 0;
    /// `size` is 1, 2 or 4.
    virtual std::uint64_t port_read(std::uint16_t port, unsigned size) = 0;
    virtual void port_write(std::uint16_t port, unsigned size, std::uint64_t value) = 0;

protected:
    ~GuestBus() = default;
};

}  // namespace hv::x86
