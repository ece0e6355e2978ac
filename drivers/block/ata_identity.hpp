// SPDX-License-Identifier: MIT
// What an ATA disk says of itself in its IDENTIFY DEVICE data.
#pragma once

#include "drivers/block/ata_defs.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/text.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace hv::block {

struct AtaIdentity {
    TextBuffer<48> model;
    TextBuffer<32> serial;
    std::uint64_t blocks;  ///< logical ones
    std::uint32_t logical_block_size;
    std::uint32_t physical_block_size;
    unsigned queue_depth;  ///< of native command queuing; 0: it has none
    bool can_trim;
    /// What writes its cache down, whether that is in use or not: it may lose that setting with its power.
    /// Nothing: it has no such command.
    std::optional<ata::Command> flush;

    /// Error::corrupted: it makes no sense. Error::unsupported: no 48-bit addresses, or logical blocks of
    /// neither 512 nor 4096 bytes.
    static Expected<AtaIdentity> parse(std::span<const std::byte, ata::kDataBlock> data);

    [[nodiscard]] bool is_same_disk(const AtaIdentity& other) const {
        return model.view() == other.model.view() && serial.view() == other.serial.view() &&
               blocks == other.blocks && logical_block_size == other.logical_block_size &&
               queue_depth == other.queue_depth;
    }
};

}  // namespace hv::block
