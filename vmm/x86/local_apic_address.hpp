// SPDX-License-Identifier: MIT
// What other CPUs need to know of a local APIC to see whether a message is for it: one 64-bit word, so that
// it is read and published atomically [sdm3 11.6.2 Determining IPI Destination, 11.12.9 ICR Operation in
// x2APIC Mode].
#pragma once

#include "vmm/base/bits.hpp"
#include "vmm/core/interrupt.hpp"

#include <cstdint>

namespace hv {

struct LocalApicAddress {
    std::uint64_t raw{};

    using Id = Bits<31, 0>;
    using Ldr = Bits<39, 32>;    ///< xAPIC logical APIC ID
    using Model = Bits<43, 40>;  ///< xAPIC destination format: 0xf flat, 0 cluster
    using X2apic = Bits<48>;
    using Present = Bits<49>;    ///< globally enabled
    using Accepting = Bits<50>;  ///< software-enabled: takes fixed interrupts

    [[nodiscard]] constexpr std::uint32_t id() const { return static_cast<std::uint32_t>(Id::get(raw)); }
    /// The logical APIC ID in x2APIC mode [sdm3 11.12.10.2 Deriving Logical x2APIC ID from the Local x2APIC
    /// ID].
    [[nodiscard]] constexpr std::uint32_t logical_x2apic_id() const {
        return (id() >> 4) << 16 | std::uint32_t{1} << (id() & 15);
    }

    [[nodiscard]] constexpr bool matches(std::uint32_t destination, DestinationMode mode) const {
        if (!Present::test(raw))
            return false;
        if (destination == InterruptMessage::kBroadcast)
            return true;
        if (mode == DestinationMode::physical)
            return destination == id();
        return X2apic::test(raw) ? matches_x2apic(destination) : matches_xapic(destination);
    }

private:
    [[nodiscard]] constexpr bool matches_x2apic(std::uint32_t destination) const {
        const std::uint32_t own = logical_x2apic_id();
        return destination >> 16 == own >> 16 && (destination & own & 0xffff) != 0;
    }
    [[nodiscard]] constexpr bool matches_xapic(std::uint32_t destination) const {
        const auto ldr = static_cast<std::uint32_t>(Ldr::get(raw));
        if (destination > 0xff)
            return false;
        switch (Model::get(raw)) {
        case 0xf: return (destination & ldr) != 0;
        case 0x0: return destination >> 4 == ldr >> 4 && (destination & ldr & 0xf) != 0;
        default: return false;
        }
    }
};

}  // namespace hv
