// SPDX-License-Identifier: MIT
// Where things are on every guest's board: one list for device models, loaders and ACPI tables.
// docs/guest-platform.md shows it to guests' authors.
#pragma once

#include "vmm/base/address.hpp"

#include <cstdint>

namespace hv::guest_map {

// --- guest-physical memory
// ---------------------------------------------------------------------------------------------
inline constexpr std::uint64_t kEbda = 0x9'fc00;  ///< end of usable conventional memory
inline constexpr std::uint64_t kFirmwareStart =
    0xe'0000;                                        ///< RSDP, ACPI tables (RAM, reserved in the memory map)
inline constexpr std::uint64_t kMpTable = 0xf'0000;  ///< where systems look for it; the ACPI tables end here
inline constexpr std::uint64_t kFirmwareEnd = 0x10'0000;
inline constexpr std::uint64_t kPciWindow = 0xc000'0000;  ///< 32-bit BARs
inline constexpr std::uint64_t kPciWindowEnd = 0xe000'0000;
inline constexpr std::uint64_t kEcam = 0xe000'0000;  ///< bus 0 alone
inline constexpr std::uint64_t kEcamSize = kMiB;
inline constexpr std::uint64_t kIoApic = 0xfec0'0000;
inline constexpr std::uint64_t kHpet = 0xfed0'0000;
inline constexpr std::uint64_t kLocalApic = 0xfee0'0000;
inline constexpr std::uint64_t kTestMemory = 0xff00'0000;

// --- ports
// -------------------------------------------------------------------------------------------------------------
inline constexpr std::uint16_t kPicMaster = 0x20;
inline constexpr std::uint16_t kPit = 0x40;
inline constexpr std::uint16_t kKeyboard = 0x60;  ///< 0x60 data, 0x64 command (reset by 0xfe)
inline constexpr std::uint16_t kPort61 = 0x61;
inline constexpr std::uint16_t kRtc = 0x70;
inline constexpr std::uint16_t kPicSlave = 0xa0;
inline constexpr std::uint16_t kTestRegister =
    0xe0;  ///< this and the others kTest...: if debug_exit is configured
inline constexpr std::uint16_t kTestFlush = 0xe4;
inline constexpr std::uint16_t kDebugConsole = 0xe9;
inline constexpr std::uint16_t kDebugExit = 0xf4;
inline constexpr std::uint16_t kCom1 = 0x3f8;
inline constexpr std::uint16_t kElcr = 0x4d0;
inline constexpr std::uint16_t kFwCfg = 0x510;
inline constexpr std::uint16_t kPm1aEvent = 0x600;  ///< status, enable: 2 bytes each
inline constexpr std::uint16_t kPm1aControl = 0x604;
inline constexpr std::uint16_t kPmTimer = 0x608;
inline constexpr std::uint16_t kPciAddress = 0xcf8;
inline constexpr std::uint16_t kPciData = 0xcfc;
inline constexpr std::uint16_t kReset = 0xcf9;  ///< inside kPciAddress' dword: byte accesses only
inline constexpr std::uint8_t kResetValue = 0x06;
inline constexpr std::uint16_t kTestLines = 0x2000;
inline constexpr std::uint8_t kSleepTypeS5 = 5;  ///< SLP_TYP of \_S5

// --- interrupts (GSIs)
// -------------------------------------------------------------------------------------------------
inline constexpr std::uint32_t kGsiCount = 24;
inline constexpr std::uint32_t kGsiPit = 2;  ///< ISA IRQ 0 by a MADT override
inline constexpr std::uint32_t kGsiCom1 = 4;
inline constexpr std::uint32_t kGsiRtc = 8;
inline constexpr std::uint32_t kGsiSci = 9;  ///< level, active high
inline constexpr std::uint32_t kGsiPciFirst =
    16;  ///< INTx of device d, pin p: 16 + (d + p) % 8, level, active low
/// `pin`: 0 for INTA to 3 for INTD.
constexpr std::uint32_t gsi_of_pci(unsigned device, unsigned pin) {
    return kGsiPciFirst + (device + pin) % (kGsiCount - kGsiPciFirst);
}

}  // namespace hv::guest_map
