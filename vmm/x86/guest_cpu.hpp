// SPDX-License-Identifier: MIT
// What the guest's processor can do, in the terms of its registers: derived once from the CPUID policy, so
// that CPUID, control registers, MSRs and page walks never disagree.
#pragma once

#include <cstdint>

namespace hv::x86 {

enum class Vendor : std::uint8_t { intel, amd };

struct GuestCpu {
    Vendor vendor{Vendor::intel};
    std::uint8_t physical_bits{36};  ///< MAXPHYADDR
    std::uint8_t linear_bits{48};
    bool has_1g_pages{false};
    std::uint64_t cr4_allowed{0};   ///< bits that may be set
    std::uint64_t efer_allowed{0};  ///< bits that may be set, LMA among them
    std::uint64_t xcr0_allowed{0};  ///< 0: no XSAVE
    std::uint64_t tsc_hz{0};
    std::uint64_t apic_timer_hz{0};  ///< clock of the local APIC timer before its divider
    std::uint32_t signature{0};      ///< CPUID 1 EAX: family, model, stepping
    std::uint32_t vcpus{1};

    /// Bits of a physical address that must be clear.
    [[nodiscard]] constexpr std::uint64_t reserved_address_bits() const {
        return ~((std::uint64_t{1} << physical_bits) - 1) & 0x000f'ffff'ffff'f000;
    }
};

/// Bits 63:47 equal [sdm1 3.3.7.1 Canonical Addressing].
constexpr bool is_canonical(std::uint64_t address) {
    const auto top = static_cast<std::int64_t>(address) >> 47;
    return top == 0 || top == -1;
}

}  // namespace hv::x86
