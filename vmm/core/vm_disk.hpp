// SPDX-License-Identifier: MIT
#pragma once
#include "vmm/core/board.hpp"
namespace hv {
struct VmServices;
class VmDisk { public:
    static Expected<std::unique_ptr<VmDisk>> create(const config::DiskConfig&, const VmServices&, GuestMemory&, InterruptBus&, Board&) { return Unexpected{Error::unsupported}; }
    void reset() {}
    std::uint64_t overhead_bytes() const { return 0; }
};
}
