// SPDX-License-Identifier: MIT
// What a local APIC asks of the processor it belongs to.
#pragma once

#include <cstdint>

namespace hv {

/// Implemented by the vCPU. Called on any CPU, with locks up to Rank::interrupt held, and possibly for the
/// caller's own vCPU.
class LocalApicOwner {
public:
    /// The APIC has something for the processor to look at by LocalApic::pending_vector(): a vCPU that waits
    /// is woken, one that runs on another CPU leaves the guest. Not called again until the vCPU has looked.
    virtual void interrupt_posted() = 0;
    /// What pending_vector() says may have changed by what the processor itself did to its APIC.
    virtual void priority_changed() = 0;
    virtual void nmi() = 0;
    virtual void init() = 0;
    /// Start-up IPI: the vCPU, if it waits for one, starts in real mode at `vector` << 12.
    virtual void startup(std::uint8_t vector) = 0;

protected:
    ~LocalApicOwner() = default;
};

}  // namespace hv
