// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

namespace hv {

/// What a guest can ask of its machine as a whole. Called on the CPU of the vCPU that asks, without locks;
/// takes effect before that vCPU's next instruction.
class PowerControl {
public:
    virtual void power_off() = 0;
    virtual void reset() = 0;
    /// The debug-exit port: the guest ends with `code`.
    virtual void exit(std::uint32_t code) = 0;

protected:
    ~PowerControl() = default;
};

}  // namespace hv
