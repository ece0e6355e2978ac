// SPDX-License-Identifier: MIT
// The host's interrupt vectors for devices: who has which, and which wires they come by. Boot CPU only.
#pragma once

#include "drivers/pci/function.hpp"
#include "drivers/pci/interrupt_gate.hpp"
#include "drivers/pci/shared_wire.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/vec.hpp"

#include <cstdint>
#include <memory>

namespace hv::boot {

class HostInterrupts {
public:
    /// A vector that calls `gate` on whatever CPU it comes to. Error::out_of_range: none is left.
    Expected<std::uint8_t> take_vector(pci::InterruptGate& gate);
    /// The message that raises `vector` on CPU `cpu`. Error::unsupported: no device can address that CPU.
    static Expected<pci::MsiMessage> message_to(std::uint32_t cpu, std::uint8_t vector);
    /// Calls `gate` when the level-triggered wire `gsi` is pulled, as others on the same wire, which is
    /// returned: `gate` masks it for all of them. Errors as take_vector(); Error::not_found: no I/O APIC has
    /// it; Error::no_memory.
    Expected<pci::SharedWire*> share_wire(std::uint32_t gsi, pci::InterruptGate& gate);

private:
    class Wire final : public pci::SharedWire {
    public:
        explicit Wire(std::uint32_t gsi) : gsi_{gsi} {}
        [[nodiscard]] std::uint32_t gsi() const { return gsi_; }
        void mask(bool masked) override;

    private:
        const std::uint32_t gsi_;
    };
    Expected<std::uint8_t> take_vector(void (*handler)(void*), void* context);

    std::uint8_t used_{0};
    Vec<std::unique_ptr<Wire>> wires_;
};

}  // namespace hv::boot
