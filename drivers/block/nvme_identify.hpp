// SPDX-License-Identifier: MIT
// What an NVMe controller tells of itself and of its namespaces. All of it is the device's word: sizes and
// indices are checked here.
#pragma once

#include "drivers/block/command_engine.hpp"
#include "drivers/block/nvme_defs.hpp"
#include "vmm/base/address.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/text.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace hv::block::nvme {

using IdentifyPage = std::span<const std::byte, kIdentifySize>;

struct ControllerIdentity {
    TextBuffer<48> model;
    TextBuffer<32> serial;
    std::uint16_t id;
    std::uint32_t namespaces;    ///< NN: identifiers are 1 to this
    std::uint32_t max_transfer;  ///< bytes of a read or write
    std::uint64_t shutdown_us;   ///< RTD3E: how long it takes at most, 0: not told
    bool has_write_cache;
    bool can_discard;
    bool can_write_zeroes;
    bool tells_of_namespaces;                     ///< that they have changed
    std::uint16_t atomic_blocks;                  ///< AWUPF: written whole or not at all, less one
    std::uint64_t max_zeroes{~std::uint64_t{0}};  ///< bytes of a Write Zeroes
    std::uint64_t max_range_blocks{kMaxBlocks};   ///< of a discard
};

/// Identify, to the page at `to`. [nvme2 5.17 Identify command]
Submission identify(IdentifyStructure structure, std::uint32_t namespace_id, Hpa to);

ControllerIdentity read_controller(IdentifyPage page);
/// Adds the limits that controllers tell since version 2.0.
void read_command_set(IdentifyPage page, ControllerIdentity& controller);

/// The disk that a namespace is. Error::not_found: there is no such namespace; Error::unsupported: one with
/// metadata, or blocks that are not of 512 or 4096 bytes; Error::corrupted.
Expected<DiskDescription> read_namespace(IdentifyPage page, const ControllerIdentity& controller);

}  // namespace hv::block::nvme
