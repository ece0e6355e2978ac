// SPDX-License-Identifier: MIT
// What is said to an ATA disk on a SATA link: commands, and the frame that carries one. Names and values as
// in the standards.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hv::block::ata {

/// [acs3 7 Command descriptions]
enum class Command : std::uint8_t {
    DATA_SET_MANAGEMENT = 0x06,
    READ_DMA_EXT = 0x25,
    READ_LOG_EXT = 0x2f,
    WRITE_DMA_EXT = 0x35,
    READ_FPDMA_QUEUED = 0x60,
    WRITE_FPDMA_QUEUED = 0x61,
    STANDBY_IMMEDIATE = 0xe0,
    FLUSH_CACHE = 0xe7,
    FLUSH_CACHE_EXT = 0xea,
    IDENTIFY_DEVICE = 0xec,
};

// [acs3 6.2 Status field], [acs3 6.3 ERROR field]
inline constexpr std::uint8_t ERR = 0x01, DRQ = 0x08, DF = 0x20, BSY = 0x80;
inline constexpr std::uint8_t ICRC = 0x80;  ///< a transfer over the link was damaged

/// Of the data of IDENTIFY DEVICE, a log's page and what DATA SET MANAGEMENT is given, whatever the size of
/// the disk's own blocks.
inline constexpr std::size_t kDataBlock = 512;

/// DATA SET MANAGEMENT's feature, and how many ranges a block of it has, each with 48 bits of LBA and 16 bits
/// of length [acs3 7.5 DATA SET MANAGEMENT].
inline constexpr std::uint16_t TRIM = 0x01;
inline constexpr std::size_t kRangesPerBlock = kDataBlock / sizeof(std::uint64_t);
inline constexpr std::uint64_t kMaxRangeBlocks = 0xffff;

/// What READ LOG EXT is asked for after a queued command has failed, and what its first byte says [acs3 A.14
/// NCQ Command Error log].
inline constexpr std::uint8_t kNcqErrorLog = 0x10;
inline constexpr std::uint8_t NQ = 0x80, kTagMask = 0x1f;
inline constexpr std::size_t kLogErrorByte = 3;

/// Register Host to Device FIS [sata3 10.5.5 Register Host to Device FIS].
struct RegisterFis {
    std::uint8_t type;   ///< kRegisterHostToDevice
    std::uint8_t flags;  ///< kIsCommand
    Command command;
    std::uint8_t features_low;
    std::uint8_t lba0, lba1, lba2;
    std::uint8_t device;
    std::uint8_t lba3, lba4, lba5;
    std::uint8_t features_high;
    std::uint8_t count_low, count_high;
    std::uint8_t icc;
    std::uint8_t control;
    std::uint32_t auxiliary;
};
static_assert(sizeof(RegisterFis) == 20);
inline constexpr std::uint8_t kRegisterHostToDevice = 0x27, kIsCommand = 0x80;
inline constexpr std::uint8_t kDeviceLba = 0x40;

/// `count` and `features` as the command defines them.
constexpr RegisterFis make_fis(Command command, std::uint64_t lba = 0, std::uint16_t count = 0,
                               std::uint16_t features = 0) {
    const auto byte = [](std::uint64_t value, unsigned index) {
        return static_cast<std::uint8_t>(value >> (8 * index));
    };
    return {kRegisterHostToDevice,
            kIsCommand,
            command,
            byte(features, 0),
            byte(lba, 0),
            byte(lba, 1),
            byte(lba, 2),
            kDeviceLba,
            byte(lba, 3),
            byte(lba, 4),
            byte(lba, 5),
            byte(features, 1),
            byte(count, 0),
            byte(count, 1),
            0,
            0,
            0};
}

}  // namespace hv::block::ata
