// SPDX-License-Identifier: MIT
// Registers and descriptors of Intel's 8254x and 82574 network controllers, spelled as in their manuals, as
// far as the driver uses them. What only one of the two families has is marked.
// [8254x 13 Register Descriptions], [82574 10 Driver Programming Interface]
#pragma once

#include "vmm/base/bits.hpp"

#include <cstddef>
#include <cstdint>

namespace hv::netdrv::e1000 {

// --- registers, by their offset
// --------------------------------------------------------------------------------------------
inline constexpr std::size_t CTRL = 0x0000;
inline constexpr std::size_t STATUS = 0x0008;
inline constexpr std::size_t EERD = 0x0014;
inline constexpr std::size_t CTRL_EXT = 0x0018;
inline constexpr std::size_t ICR = 0x00c0;
inline constexpr std::size_t ITR = 0x00c4;
inline constexpr std::size_t IMS = 0x00d0;
inline constexpr std::size_t IMC = 0x00d8;
inline constexpr std::size_t RCTL = 0x0100;
inline constexpr std::size_t TCTL = 0x0400;
inline constexpr std::size_t TIPG = 0x0410;
inline constexpr std::size_t RDBAL = 0x2800;
inline constexpr std::size_t RDBAH = 0x2804;
inline constexpr std::size_t RDLEN = 0x2808;
inline constexpr std::size_t RDH = 0x2810;
inline constexpr std::size_t RDT = 0x2818;
inline constexpr std::size_t RDTR = 0x2820;
inline constexpr std::size_t RXDCTL = 0x2828;
inline constexpr std::size_t RADV = 0x282c;
inline constexpr std::size_t TDBAL = 0x3800;
inline constexpr std::size_t TDBAH = 0x3804;
inline constexpr std::size_t TDLEN = 0x3808;
inline constexpr std::size_t TDH = 0x3810;
inline constexpr std::size_t TDT = 0x3818;
inline constexpr std::size_t TIDV = 0x3820;
inline constexpr std::size_t TXDCTL = 0x3828;
inline constexpr std::size_t MPC = 0x4010;
inline constexpr std::size_t RXCSUM = 0x5000;
inline constexpr std::size_t RAL0 = 0x5400;
inline constexpr std::size_t RAH0 = 0x5404;
inline constexpr std::size_t kRegistersSize = 0x20000;

inline constexpr std::uint32_t CTRL_GIO_MASTER_DISABLE = 1u << 2;  ///< 82574
inline constexpr std::uint32_t CTRL_LRST = 1u << 3;
inline constexpr std::uint32_t CTRL_ASDE = 1u << 5;  ///< 8254x
inline constexpr std::uint32_t CTRL_SLU = 1u << 6;
inline constexpr std::uint32_t CTRL_ILOS = 1u << 7;
inline constexpr std::uint32_t CTRL_FRCSPD = 1u << 11;
inline constexpr std::uint32_t CTRL_FRCDPLX = 1u << 12;
inline constexpr std::uint32_t CTRL_RST = 1u << 26;
inline constexpr std::uint32_t CTRL_RFCE = 1u << 27;
inline constexpr std::uint32_t CTRL_TFCE = 1u << 28;
inline constexpr std::uint32_t CTRL_VME = 1u << 30;
inline constexpr std::uint32_t CTRL_PHY_RST = 1u << 31;

inline constexpr std::uint32_t STATUS_FD = 1u << 0;
inline constexpr std::uint32_t STATUS_LU = 1u << 1;
using STATUS_SPEED = Bits<7, 6>;
inline constexpr std::uint32_t STATUS_GIO_MASTER_ENABLE = 1u << 19;  ///< 82574

inline constexpr std::uint32_t EERD_START = 1u << 0;
using EERD_DATA = Bits<31, 16>;

inline constexpr std::uint32_t CTRL_EXT_DRV_LOAD = 1u << 28;  ///< 82574

inline constexpr std::uint32_t ICR_LSC = 1u << 2;
inline constexpr std::uint32_t ICR_RXDMT0 = 1u << 4;
inline constexpr std::uint32_t ICR_RXO = 1u << 6;
inline constexpr std::uint32_t ICR_RXT0 = 1u << 7;

inline constexpr std::uint32_t RCTL_EN = 1u << 1;
inline constexpr std::uint32_t RCTL_UPE = 1u << 3;
inline constexpr std::uint32_t RCTL_MPE = 1u << 4;
inline constexpr std::uint32_t RCTL_BAM = 1u << 15;
inline constexpr std::uint32_t RCTL_SECRC = 1u << 26;

inline constexpr std::uint32_t TCTL_EN = 1u << 1;
inline constexpr std::uint32_t TCTL_PSP = 1u << 3;
using TCTL_CT = Bits<11, 4>;
using TCTL_COLD = Bits<21, 12>;

using TIPG_IPGT = Bits<9, 0>;
using TIPG_IPGR1 = Bits<19, 10>;
using TIPG_IPGR2 = Bits<29, 20>;

using RXDCTL_WTHRESH = Bits<21, 16>;
inline constexpr std::uint32_t XDCTL_GRAN = 1u << 24;         ///< thresholds count descriptors
inline constexpr std::uint32_t TXDCTL_COUNT_DESC = 1u << 22;  ///< 82574: reserved, to be set
inline constexpr std::uint32_t RXCSUM_IPOFLD = 1u << 8;
inline constexpr std::uint32_t RXCSUM_TUOFLD = 1u << 9;

// --- the EEPROM, in words
// --------------------------------------------------------------------------------------------------
inline constexpr unsigned kEepromWords = 0x40;
inline constexpr std::uint16_t kEepromSum = 0xbaba;

// --- descriptors
// -----------------------------------------------------------------------------------------------------------

/// Legacy receive descriptor [8254x 3.2.3 Receive Descriptor Format].
struct ReceiveDescriptor {
    std::uint64_t address;
    std::uint64_t result;  ///< 0 from the driver, all fields below from the device

    using Length = Bits<15, 0>;
    using DD = Bits<32>;
    using EOP = Bits<33>;
    using IXSM = Bits<34>;   ///< what is said of checksums means nothing
    using TCPCS = Bits<37>;  ///< the checksum of TCP or UDP was looked at
    using CE = Bits<40>;
    using SE = Bits<41>;
    using SEQ = Bits<42>;
    using CXE = Bits<44>;
    using TCPE = Bits<45>;  ///< and is wrong
    using IPE = Bits<46>;
    using RXE = Bits<47>;
    /// The frame itself is damaged.
    static constexpr std::uint64_t kDamaged = CE::kMask | SE::kMask | SEQ::kMask | CXE::kMask | RXE::kMask;
};
static_assert(sizeof(ReceiveDescriptor) == 16);

/// TCP/IP context and data descriptors [8254x 3.3.6 TCP/IP Context Descriptor Layout], [8254x 3.3.7 TCP/IP
/// Data Descriptor Format].
struct TransmitDescriptor {
    std::uint64_t low;  ///< of a data descriptor: the address
    std::uint64_t high;

    // Both kinds, `high`.
    using DTYP = Bits<23, 20>;
    static constexpr std::uint64_t kContext = 0;
    static constexpr std::uint64_t kData = 1;
    using TSE = Bits<26>;
    using RS = Bits<27>;
    using DEXT = Bits<29>;
    using DD = Bits<32>;
    // Data, `high`.
    using DTALEN = Bits<19, 0>;
    using EOP = Bits<24>;
    using IFCS = Bits<25>;
    using IXSM = Bits<40>;
    using TXSM = Bits<41>;
    // Context, `low`, then `high`.
    using IPCSS = Bits<7, 0>;
    using IPCSO = Bits<15, 8>;
    using IPCSE = Bits<31, 16>;
    using TUCSS = Bits<39, 32>;
    using TUCSO = Bits<47, 40>;
    using TUCSE = Bits<63, 48>;
    using PAYLEN = Bits<19, 0>;
    using TCP = Bits<24>;
    using IP = Bits<25>;
    using HDRLEN = Bits<47, 40>;
    using MSS = Bits<63, 48>;
};
static_assert(sizeof(TransmitDescriptor) == 16);

}  // namespace hv::netdrv::e1000
