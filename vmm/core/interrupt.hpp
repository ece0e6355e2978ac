// SPDX-License-Identifier: MIT
// Interrupt wires and messages of a VM.
#pragma once

#include <cstdint>

namespace hv {

/// An interrupt input. Level semantics: the driver says what the wire's level is; a pulse is set(true),
/// set(false).
class IrqLine {
public:
    virtual void set(bool asserted) = 0;

protected:
    ~IrqLine() = default;
};

/// [sdm3 11.6.1 Interrupt Command Register (ICR)], the values of ICR, I/O APIC and MSI delivery modes.
enum class DeliveryMode : std::uint8_t { fixed, lowest_priority, smi, reserved, nmi, init, startup, ext_int };

enum class DestinationMode : std::uint8_t { physical, logical };
enum class TriggerMode : std::uint8_t { edge, level };

/// An interrupt on its way to local APICs.
struct InterruptMessage {
    /// APIC ID, or logical destination. An 8-bit xAPIC broadcast (0xff) is widened to kBroadcast by the
    /// sender.
    std::uint32_t destination;
    DestinationMode destination_mode;
    DeliveryMode delivery_mode;
    TriggerMode trigger_mode;
    std::uint8_t vector;
    static constexpr std::uint32_t kBroadcast = 0xffff'ffff;
};

/// The VM's system bus as interrupt sources see it (I/O APIC, MSI, local APIC's ICR). Any CPU, any time.
class InterruptBus {
public:
    virtual void deliver(const InterruptMessage& message) = 0;
    /// A local APIC saw the EOI of a level-triggered vector.
    virtual void broadcast_eoi(std::uint8_t vector) = 0;

protected:
    ~InterruptBus() = default;
};

/// Decodes an MSI's address and data [sdm3 11.11 Message Signalled Interrupts].
constexpr InterruptMessage message_of_msi(std::uint64_t address, std::uint32_t data) {
    const auto id = static_cast<std::uint32_t>((address >> 12) & 0xff);
    return {id == 0xff ? InterruptMessage::kBroadcast : id,
            (address & 4) != 0 ? DestinationMode::logical : DestinationMode::physical,
            static_cast<DeliveryMode>((data >> 8) & 7),
            (data & 0x8000) != 0 ? TriggerMode::level : TriggerMode::edge, static_cast<std::uint8_t>(data)};
}

}  // namespace hv
