// SPDX-License-Identifier: MIT
// Where physical memory comes from, for those who need whole frames: page tables, guest RAM, DMA, the heap.
#pragma once

#include "vmm/base/address.hpp"
#include "vmm/base/expected.hpp"

#include <cstdint>

namespace hv {

class FrameSource {
public:
    virtual ~FrameSource() = default;
    /// 2^order frames of 4 KiB, aligned to their size, contents undefined. Error::no_memory.
    virtual Expected<Hpa> allocate(unsigned order) = 0;
    /// Gives back what allocate(order) returned.
    virtual void free(Hpa frame, unsigned order) = 0;
};

}  // namespace hv
