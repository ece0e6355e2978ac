// SPDX-License-Identifier: MIT
#include "vmm/x86/local_apic_fabric.hpp"

#include "vmm/x86/local_apic.hpp"

namespace hv {

void InterruptFabric::deliver_except(const InterruptMessage& message, const LocalApic* excluded) {
    const bool one_id = message.destination_mode == DestinationMode::physical &&
                        message.destination != InterruptMessage::kBroadcast;
    if (one_id && message.destination < apics_.size()) {
        LocalApic& apic = *apics_[message.destination];
        if (apic.id() == message.destination) [[likely]] {
            if (&apic != excluded && apic.matches(message))
                apic.receive(message);
            return;
        }
    }
    if (message.delivery_mode == DeliveryMode::lowest_priority) {
        deliver_to_one_of(message, excluded);
        return;
    }
    for (LocalApic* apic : apics_) {
        if (apic != excluded && apic->matches(message))
            apic->receive(message);
    }
}

void InterruptFabric::deliver_to_one_of(const InterruptMessage& message, const LocalApic* excluded) {
    const auto count = static_cast<std::uint32_t>(apics_.size());
    const std::uint32_t first = turn_.load(std::memory_order_relaxed);
    for (std::uint32_t i = 0; i < count; ++i) {
        const std::uint32_t index = (first + i) % count;
        LocalApic* apic = apics_[index];
        if (apic != excluded && apic->matches(message) &&
            LocalApicAddress::Accepting::test(apic->address().raw)) {
            turn_.store((index + 1) % count, std::memory_order_relaxed);
            apic->receive(message);
            return;
        }
    }
}

}  // namespace hv
