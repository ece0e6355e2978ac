// SPDX-License-Identifier: MIT
// A level-triggered wire, at which several functions may be. Whoever pulls it, all drivers that listen are
// asked; and when it is pulled without end it is the wire that is masked: the function that does so may not
// be one of theirs, or may know no Interrupt Disable, which is younger than PCI 2.2.
#pragma once

#include "drivers/pci/interrupt_gate.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/vec.hpp"

namespace hv::pci {

/// What the sources of the gates that listen to it mask: unmasked when the first of them unmasks it.
class SharedWire {
public:
    SharedWire(const SharedWire&) = delete;
    SharedWire& operator=(const SharedWire&) = delete;

    /// At the interrupt controller's input.
    virtual void mask(bool masked) = 0;
    /// `gate` outlives the wire, which is not pulled meanwhile. Error::no_memory.
    Expected<void> add(InterruptGate& gate) { return gates_.push(&gate); }
    /// It is pulled.
    void raise() {
        for (InterruptGate* const gate : gates_)
            gate->raise();
    }

protected:
    SharedWire() = default;
    ~SharedWire() = default;

private:
    Vec<InterruptGate*> gates_;
};

}  // namespace hv::pci
