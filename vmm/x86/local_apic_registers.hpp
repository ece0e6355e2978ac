// SPDX-License-Identifier: MIT
// The local APIC's registers [sdm3 11.4.1 The Local APIC Block Diagram, 11.12.1.2 x2APIC Register Address
// Space]. A register's index is its xAPIC offset / 16 and its x2APIC MSR - 0x800.
#pragma once

#include "vmm/base/bits.hpp"

#include <cstdint>

namespace hv::apic {

enum Register : std::uint32_t {
    ID = 0x02,
    VERSION = 0x03,
    TPR = 0x08,
    APR = 0x09,
    PPR = 0x0a,
    EOI = 0x0b,
    RRD = 0x0c,  ///< remote read, not supported
    LDR = 0x0d,
    DFR = 0x0e,
    SVR = 0x0f,
    ISR = 0x10,  ///< eight registers, as TMR and IRR
    TMR = 0x18,
    IRR = 0x20,
    ESR = 0x28,
    ICR = 0x30,
    ICR_HIGH = 0x31,
    LVT_TIMER = 0x32,
    LVT_THERMAL = 0x33,
    LVT_PERFORMANCE = 0x34,
    LVT_LINT0 = 0x35,
    LVT_LINT1 = 0x36,
    LVT_ERROR = 0x37,
    INITIAL_COUNT = 0x38,
    CURRENT_COUNT = 0x39,
    DIVIDE = 0x3e,
    SELF_IPI = 0x3f,
};
inline constexpr unsigned kLvtCount = 6;

/// Integrated APIC, six LVT entries, can suppress EOI broadcasts [sdm3 11.4.8 Local APIC Version Register].
inline constexpr std::uint32_t kVersion = 0x0105'0014;

/// Spurious-interrupt vector register [sdm3 11.9 Spurious Interrupt].
struct Svr {
    using Vector = Bits<7, 0>;
    using Enabled = Bits<8>;
    using SuppressEoiBroadcast = Bits<12>;
    /// Bit 9, focus processor checking, is kept and has no effect.
    static constexpr std::uint32_t kWritable = 0x13ff;
    static constexpr std::uint32_t kReset = 0xff;
};

/// Local vector table [sdm3 11.5.1 Local Vector Table].
struct Lvt {
    using Vector = Bits<7, 0>;
    using Delivery = Bits<10, 8>;
    using Status = Bits<12>;
    using RemoteIrr = Bits<14>;
    using Level = Bits<15>;
    using Masked = Bits<16>;
    using TimerMode = Bits<18, 17>;
    static constexpr std::uint32_t kMasked = 0x1'0000;
    /// What software can set, in the order of the registers; delivery status and remote IRR are read-only.
    static constexpr std::uint32_t kWritable[kLvtCount]{0x7'00ff, 0x1'07ff, 0x1'07ff,
                                                        0x1'a7ff, 0x1'a7ff, 0x1'00ff};
    static constexpr std::uint32_t kReadOnly = 0x5000;
};

/// Interrupt command register [sdm3 11.6.1 Interrupt Command Register (ICR)].
struct Icr {
    using Vector = Bits<7, 0>;
    using Delivery = Bits<10, 8>;
    using Logical = Bits<11>;
    using Assert = Bits<14>;
    using Level = Bits<15>;
    using Shorthand = Bits<19, 18>;
    using XapicDestination = Bits<63, 56>;
    using X2apicDestination = Bits<63, 32>;
    /// The delivery status (bit 12) always reads as idle.
    static constexpr std::uint32_t kWritable = 0x000c'cfff;
    static constexpr std::uint32_t kReserved = 0xfff3'2000;
};
enum class Shorthand : std::uint8_t { none, self, all, others };

/// Error status register [sdm3 11.5.3 Error Handling].
enum EsrBit : std::uint32_t {
    SEND_ILLEGAL_VECTOR = 1U << 5,
    RECEIVE_ILLEGAL_VECTOR = 1U << 6,
    ILLEGAL_REGISTER = 1U << 7
};

/// Vectors below are illegal in fixed interrupts [sdm3 11.5.2 Valid Interrupt Vectors].
inline constexpr std::uint8_t kFirstVector = 16;

inline constexpr std::uint32_t kFirstMsr = 0x800;
inline constexpr std::uint32_t kLastMsr = 0x8ff;

/// IA32_APIC_BASE [sdm3 11.4.4 Local APIC Status and Location].
struct Base {
    using Bsp = Bits<8>;
    using X2apic = Bits<10>;
    using Enabled = Bits<11>;
};

}  // namespace hv::apic
