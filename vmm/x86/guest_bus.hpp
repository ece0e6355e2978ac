// SPDX-License-Identifier: MIT
// What lies behind guest-physical addresses that are not RAM, and behind ports: the devices, as the emulator
// reaches them.
#pragma once

#include "vmm/base/address.hpp"

#include <cstdint>

namespace hv::x86 {

class GuestBus {
public:
    /// `size` is 1, 2, 4 or 8. False: nobody answers; reads then yield all ones, writes are lost.
    virtual bool mmio_read(Gpa gpa, unsigned size, std::uint64_t& value) = 0;
    virtual bool mmio_write(Gpa gpa, unsigned size, std::uint64_t value) = 0;
    /// `size` is 1, 2 or 4.
    virtual bool port_read(std::uint16_t port, unsigned size, std::uint64_t& value) = 0;
    virtual bool port_write(std::uint16_t port, unsigned size, std::uint64_t value) = 0;

protected:
    ~GuestBus() = default;
};

}  // namespace hv::x86
