// SPDX-License-Identifier: MIT
// Registers and memory structures of a SATA host bus adapter [ahci 3 HBA Memory Registers], [ahci 4 System
// Memory Structures], spelled as there.
#pragma once

#include "drivers/block/ata_defs.hpp"
#include "vmm/base/bits.hpp"

#include <array>
#include <cstddef>
#include <cstdint>

namespace hv::block::ahci {

// --- the HBA's own [ahci 3.1 Generic Host Control] -------------------------------------------------------
enum class HbaRegister : std::uint16_t {
    CAP = 0x00,
    GHC = 0x04,
    IS = 0x08,
    PI = 0x0c,
    CAP2 = 0x24,
    BOHC = 0x28,
};
using CAP_NCS = Bits<12, 8>;  ///< slots, minus one
using CAP_SCLO = Bits<24>;    ///< PxCMD.CLO works
using CAP_SNCQ = Bits<30>;
using CAP_S64A = Bits<31>;
inline constexpr std::uint32_t GHC_HR = 1u << 0, GHC_IE = 1u << 1, GHC_AE = 1u << 31;
inline constexpr std::uint32_t CAP2_BOH = 1u << 0;
inline constexpr std::uint32_t BOHC_BOS = 1u << 0, BOHC_OOS = 1u << 1, BOHC_BB = 1u << 4;

// --- a port's [ahci 3.3 Port Registers (one set per port)] -----------------------------------------------
inline constexpr std::size_t kPortRegisters = 0x100, kPortStride = 0x80;
inline constexpr unsigned kMaxPorts = 32, kMaxSlots = 32;
enum class PortRegister : std::uint16_t {
    PxCLB = 0x00,
    PxFB = 0x08,
    PxIS = 0x10,
    PxIE = 0x14,
    PxCMD = 0x18,
    PxTFD = 0x20,
    PxSIG = 0x24,
    PxSSTS = 0x28,
    PxSCTL = 0x2c,
    PxSERR = 0x30,
    PxSACT = 0x34,
    PxCI = 0x38,
};
/// PxIS and PxIE.
inline constexpr std::uint32_t DHRS = 1u << 0, SDBS = 1u << 3, PCS = 1u << 6, PRCS = 1u << 22, OFS = 1u << 24,
                               IFS = 1u << 27, HBDS = 1u << 28, HBFS = 1u << 29, TFES = 1u << 30;
/// The port does nothing more for the commands that it has [ahci 6.1 Error Types].
inline constexpr std::uint32_t kErrors = OFS | IFS | HBDS | HBFS | TFES;
inline constexpr std::uint32_t CMD_ST = 1u << 0, CMD_SUD = 1u << 1, CMD_POD = 1u << 2, CMD_CLO = 1u << 3,
                               CMD_FRE = 1u << 4, CMD_FR = 1u << 14, CMD_CR = 1u << 15,
                               CMD_ICC_ACTIVE = 1u << 28;
using TFD_STS = Bits<7, 0>;
using TFD_ERR = Bits<15, 8>;
inline constexpr std::uint32_t SIG_ATA = 0x0000'0101, SIG_ATAPI = 0xeb14'0101, SIG_PM = 0x9669'0101;
using SSTS_DET = Bits<3, 0>;
using SCTL_DET = Bits<3, 0>;
using SCTL_IPM = Bits<11, 8>;
inline constexpr std::uint32_t DET_NONE = 0, DET_ESTABLISHED = 3;  ///< SSTS_DET
inline constexpr std::uint32_t DET_COMRESET = 1;                   ///< SCTL_DET
inline constexpr std::uint32_t IPM_NO_SLEEP = 3;                   ///< SCTL_IPM: neither Partial nor Slumber
/// PCS and PRCS show these, and end with them.
inline constexpr std::uint32_t SERR_DIAG_N = 1u << 16, SERR_DIAG_X = 1u << 26;

// --- in memory [ahci 4.2 Port Memory Usage] --------------------------------------------------------------
struct CommandHeader {
    std::uint16_t flags;
    std::uint16_t prdtl;  ///< entries of the table's PRDT
    std::uint32_t prdbc;
    std::uint64_t ctba;
    std::array<std::uint32_t, 4> reserved;
};
static_assert(sizeof(CommandHeader) == 32);
inline constexpr std::uint16_t kHeaderWrite = 1u << 6;
inline constexpr std::uint16_t kHeaderFisWords = sizeof(ata::RegisterFis) / 4;  ///< CFL

struct PrdtEntry {
    std::uint64_t dba;
    std::uint32_t reserved;
    std::uint32_t dbc;  ///< bytes, minus one
};
static_assert(sizeof(PrdtEntry) == 16);
inline constexpr std::uint32_t kMaxPrdtBytes = 4u << 20;

/// As large as a page, and what is behind the PRDT is ours: the data of commands that move no request's.
inline constexpr unsigned kPrdtEntries = 216;
struct CommandTable {
    ata::RegisterFis cfis;
    std::array<std::uint8_t, 128 - sizeof(ata::RegisterFis)> reserved;
    std::array<PrdtEntry, kPrdtEntries> prdt;
    std::array<std::byte, ata::kDataBlock> data;
};
static_assert(offsetof(CommandTable, prdt) == 128 && sizeof(CommandTable) == 4096);

/// A page of each port: its command list, and where received frames are put, aligned to their sizes.
struct PortPage {
    std::array<CommandHeader, kMaxSlots> list;
    std::array<std::byte, 256> received;
};
static_assert(offsetof(PortPage, received) == 1024);

}  // namespace hv::block::ahci
