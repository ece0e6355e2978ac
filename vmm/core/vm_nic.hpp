// SPDX-License-Identifier: MIT
#pragma once
#include "vmm/core/board.hpp"
namespace hv {
struct VmServices;
class VmNic { public:
    static Expected<std::unique_ptr<VmNic>> create(const config::NicConfig&, const VmServices&, GuestMemory&, InterruptBus&, Board&) { return Unexpected{Error::unsupported}; }
    void reset() {}
};
}
