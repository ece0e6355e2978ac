// SPDX-License-Identifier: MIT
#include "boot/main/host_interrupts.hpp"

#include "arch/x86_64/cpu/interrupts.hpp"
#include "arch/x86_64/cpu/per_cpu.hpp"
#include "arch/x86_64/irq/io_apic.hpp"

namespace hv::boot {

Expected<std::uint8_t> HostInterrupts::take_vector(void (*handler)(void*), void* context) {
    // The first one is COM1's.
    const unsigned vector = static_cast<unsigned>(cpu::HostVector::first_device) + 1 + used_;
    if (vector > static_cast<unsigned>(cpu::HostVector::last_device))
        return Unexpected{Error::out_of_range};
    ++used_;
    cpu::set_interrupt_handler(static_cast<std::uint8_t>(vector), handler, context);
    return static_cast<std::uint8_t>(vector);
}

Expected<std::uint8_t> HostInterrupts::take_vector(pci::InterruptGate& gate) {
    return take_vector([](void* each) { static_cast<pci::InterruptGate*>(each)->raise(); }, &gate);
}

Expected<pci::MsiMessage> HostInterrupts::message_to(std::uint32_t cpu, std::uint8_t vector) {
    // [sdm3 11.11 Message Signalled Interrupts]: destination in bits 19:12, fixed delivery, edge.
    const std::uint32_t apic_id = cpu::cpu_at(cpu).apic_id;
    if (apic_id >= 0xff)
        return Unexpected{Error::unsupported};
    return pci::MsiMessage{0xfee0'0000 | std::uint64_t{apic_id} << 12, vector};
}

void HostInterrupts::Wire::mask(bool masked) {
    irq::mask_gsi(gsi_, masked);
}

Expected<pci::SharedWire*> HostInterrupts::share_wire(std::uint32_t gsi, pci::InterruptGate& gate) {
    for (const auto& wire : wires_) {
        if (wire->gsi() == gsi) {
            HV_TRY(wire->add(gate));
            return wire.get();
        }
    }
    auto made = HV_TRY(make<Wire>(gsi));
    HV_TRY(made->add(gate));
    HV_TRY(wires_.push(std::move(made)));
    Wire* const wire = wires_.back().get();
    const std::uint8_t vector =
        HV_TRY(take_vector([](void* pulled) { static_cast<Wire*>(pulled)->raise(); }, wire));
    HV_TRY(
        irq::route_gsi(gsi, vector, cpu::this_cpu().apic_id, irq::Polarity::active_low, irq::Trigger::level));
    return wire;
}

}  // namespace hv::boot
