// SPDX-License-Identifier: MIT
// What the NVMe specification lays out: controller properties, queue entries, commands and their answers, as
// far as the driver and the device of its tests use them.
// [nvme2 3.1.3 Controller Properties] [nvme2 3.3.3 Queueing Data Structures]
#pragma once

#include "vmm/base/bits.hpp"

#include <array>
#include <cstddef>
#include <cstdint>

namespace hv::block::nvme {

// --- properties, by their offset
// ---------------------------------------------------------------------------------------
inline constexpr std::size_t kCapabilities = 0x00;  ///< CAP, 64 bits
inline constexpr std::size_t kVersion = 0x08;
inline constexpr std::size_t kConfiguration = 0x14;         ///< CC
inline constexpr std::size_t kStatus = 0x1c;                ///< CSTS
inline constexpr std::size_t kAdminQueueAttributes = 0x24;  ///< AQA
inline constexpr std::size_t kAdminSubmissions = 0x28;      ///< ASQ, 64 bits
inline constexpr std::size_t kAdminCompletions = 0x30;      ///< ACQ, 64 bits
inline constexpr std::size_t kReadyTimeouts = 0x68;         ///< CRTO
/// [nvme-pcie1 3.1.2 PCI Express Specific Property Definitions]
inline constexpr std::size_t kDoorbells = 0x1000;

/// [nvme2 3.1.3.1 Offset 0h: CAP – Controller Capabilities]
struct Capabilities {
    using LargestQueue = Bits<15, 0>;     ///< MQES: entries but one
    using Timeout = Bits<31, 24>;         ///< TO: units of 500 ms
    using DoorbellStride = Bits<35, 32>;  ///< DSTRD: 4 << it bytes
    using NvmCommandSet = Bits<37>;
    using SmallestPage = Bits<51, 48>;  ///< MPSMIN: 4 KiB << it
    /// CRMS.CRWMS: CRTO says how long it takes until the media are ready
    using ReadyWithMedia = Bits<59>;
};
/// CRTO.CRWMT: units of 500 ms
using ReadyWithMediaTimeout = Bits<15, 0>;
inline constexpr std::uint32_t kVersion11 = 0x1'0100;
inline constexpr std::uint32_t kVersion20 = 0x2'0000;

/// [nvme2 3.1.3.5 Offset 14h: CC – Controller Configuration]
struct Configuration {
    using Enable = Bits<0>;
    using Shutdown = Bits<15, 14>;             ///< SHN: 1 is a normal one
    using SubmissionEntrySize = Bits<19, 16>;  ///< as a power of two
    using CompletionEntrySize = Bits<23, 20>;
};
/// [nvme2 3.1.3.6 Offset 1Ch: CSTS – Controller Status]
struct Status {
    using Ready = Bits<0>;
    using Fatal = Bits<1>;        ///< CFS
    using Shutdown = Bits<3, 2>;  ///< SHST
    static constexpr std::uint32_t kShutdownComplete = 2;
};
/// What registers answer that are not there any more.
inline constexpr std::uint32_t kAllOnes = 0xffff'ffff;

// --- queue entries
// -----------------------------------------------------------------------------------------------------
/// [nvme2 3.3.3.1 Submission Queue Entry]
struct Submission {
    std::uint8_t opcode;
    std::uint8_t flags;  ///< 0: not fused, data by PRPs
    std::uint16_t command;
    std::uint32_t namespace_id;
    std::array<std::uint32_t, 2> cdw2;
    std::uint64_t metadata;
    std::uint64_t prp1, prp2;
    std::uint32_t cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
};
static_assert(sizeof(Submission) == 64 && offsetof(Submission, prp1) == 24 &&
              offsetof(Submission, cdw10) == 40);

/// [nvme2 3.3.3.2 Common Completion Queue Entry]
struct Completion {
    std::uint32_t result;
    std::uint32_t reserved;
    std::uint32_t queue;  ///< SQID 31:16, SQHD 15:0
    std::uint32_t state;  ///< status 31:17, phase tag 16, command identifier 15:0

    using SubmissionQueue = Bits<31, 16>;
    using Command = Bits<15, 0>;
    using Phase = Bits<16>;
    using StatusCode = Bits<24, 17>;
    using StatusCodeType = Bits<27, 25>;
    /// 0: success
    using StatusCodeAndType = Bits<27, 17>;
    using DoNotRetry = Bits<31>;  ///< the command would fail again
    using StatusField = Bits<31, 17>;
};
static_assert(sizeof(Completion) == 16);

/// SCT << 8 | SC [nvme2 3.3.3.2.1 Status Field Definition]
enum StatusCode : std::uint16_t {
    kSuccess = 0x000,
    kInvalidOpcode = 0x001,
    kInvalidField = 0x002,
    kAbortRequested = 0x007,
    kInvalidNamespace = 0x00b,
    kCommandInterrupted = 0x021,
    kTransientTransportError = 0x022,
    kOutOfRange = 0x080,
    kNamespaceNotReady = 0x082,
    kUnrecoveredReadError = 0x281,
};

// --- commands
// ----------------------------------------------------------------------------------------------------------
/// [nvme2 5 Admin Command Set]
enum AdminOpcode : std::uint8_t {
    kCreateSubmissionQueue = 0x01,
    kGetLogPage = 0x02,
    kCreateCompletionQueue = 0x05,
    kIdentify = 0x06,
    kSetFeatures = 0x09,
    kAsynchronousEventRequest = 0x0c,
};
// Features, CDW10.
inline constexpr std::uint32_t kNumberOfQueues = 0x07;
inline constexpr std::uint32_t kAsynchronousEvents = 0x0b;
/// In CDW11 of that feature, and in OAES of the controller: changes of namespaces are told.
using NamespaceNotices = Bits<8>;
/// CDW10 of Get Log Page for a whole list: 1024 dwords, less one, of log 04h.
inline constexpr std::uint32_t kChangedNamespaces = 1023 << 16 | 0x04;
inline constexpr std::uint32_t kAllNamespaces = 0xffff'ffff;
/// What an asynchronous event answers [nvme2 5.2.1 Command Completion].
struct Event {
    using Type = Bits<2, 0>;
    using Information = Bits<15, 8>;
    static constexpr std::uint32_t kNotice = 2;
    static constexpr std::uint32_t kNamespacesChanged = 0;  ///< information of a notice
};
/// CDW11 of the commands that create queues.
inline constexpr std::uint32_t kContiguous = 1;
inline constexpr std::uint32_t kInterruptsEnabled = 2;

/// CDW10 of Identify [nvme2 5.17.1 Identify Data Structures]
enum IdentifyStructure : std::uint8_t {
    kIdentifyNamespace = 0x00,
    kIdentifyController = 0x01,
    kActiveNamespaces = 0x02,
    kIdentifyCommandSet = 0x06,  ///< of the controller, for the NVM command set: CDW11 31:24 is 0
};
inline constexpr std::size_t kIdentifySize = 4096;

/// [nvmcmd1 3.2 NVM Command Set Commands]
enum Opcode : std::uint8_t {
    kFlush = 0x00,
    kWrite = 0x01,
    kRead = 0x02,
    kWriteZeroes = 0x08,
    kDatasetManagement = 0x09,
};
inline constexpr std::uint32_t kDeallocate = 4;        ///< CDW11 of Dataset Management
inline constexpr std::uint32_t kMaxBlocks = 0x1'0000;  ///< of a command whose CDW12 has the number, less one

/// CDW12 of Write Zeroes: the blocks may be deallocated [nvmcmd1 3.2.8 Write Zeroes command].
inline constexpr std::uint32_t kMayDeallocate = 1U << 25;

/// Of Identify Namespace [nvmcmd1 4.1.5.1 Identify Namespace data structure (CNS 00h)].
struct NamespaceFeatures {
    using AtomicSizes = Bits<1>;     ///< NSABP: NAWUPF says something
    using PreferredSizes = Bits<4>;  ///< OPTPERF: NPWG does
};
struct DeallocateFeatures {
    using ReadBack = Bits<2, 0>;  ///< what deallocated blocks hold
    static constexpr std::uint8_t kZeroes = 1;
    using ByWriteZeroes = Bits<3>;  ///< Write Zeroes takes kMayDeallocate
};

/// [nvmcmd1 3.2.3 Dataset Management command]
struct Range {
    std::uint32_t attributes;
    std::uint32_t blocks;
    std::uint64_t first;
};
static_assert(sizeof(Range) == 16);

}  // namespace hv::block::nvme
