// SPDX-License-Identifier: MIT
// A device's register block as a guest's port or memory accesses reach it.
#pragma once

#include <cstdint>

namespace hv {

/// Called by any vCPU of the VM at any time: a device protects its own state.
class IoDevice {
public:
    /// `offset` is relative to the block, `size` is 1, 2, 4 or (memory only) 8, offset + size lies inside the
    /// block. The access need not be aligned. Returns the value in the low `size` bytes; what does not exist
    /// reads as all ones.
    virtual std::uint64_t read(std::uint64_t offset, unsigned size) = 0;
    virtual void write(std::uint64_t offset, unsigned size, std::uint64_t value) = 0;

protected:
    ~IoDevice() = default;
};

/// All ones in `size` bytes: what a read that nobody answers returns.
constexpr std::uint64_t all_ones(unsigned size) {
    return size >= 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << (size * 8)) - 1;
}

}  // namespace hv
