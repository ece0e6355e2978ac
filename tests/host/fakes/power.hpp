// SPDX-License-Identifier: MIT
#pragma once

#include "vmm/devices/power_control.hpp"

#include <vector>

namespace hv::fake {

class RecordingPower final : public PowerControl {
public:
    void power_off() override { ++offs; }
    void reset() override { ++resets; }
    void exit(std::uint32_t code) override { exits.push_back(code); }
    unsigned offs{0};
    unsigned resets{0};
    std::vector<std::uint32_t> exits;
};

}  // namespace hv::fake
