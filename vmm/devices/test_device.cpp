// SPDX-License-Identifier: MIT
#include "vmm/devices/test_device.hpp"

namespace hv {

void TestDevice::Lines::reset() {
    for (IrqLine* wire : wires_)
        if (wire != nullptr)
            wire->set(false);
}

void TestDevice::reset() {
    register_.reset();
    memory_.reset();
    lines_.reset();
}

}  // namespace hv
