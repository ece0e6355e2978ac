// SPDX-License-Identifier: MIT
#include "drivers/block/nvme_identify.hpp"

#include "drivers/block/nvme_prp.hpp"
#include "vmm/base/bits.hpp"
#include "vmm/base/bytes.hpp"

#include <algorithm>

namespace hv::block::nvme {
namespace {

template <class T>
T get(IdentifyPage page, std::size_t offset) {
    return load<T>(page.subspan(offset, sizeof(T)).data());
}

/// Text is padded with blanks, and is to be ASCII [nvme2 1.4.2 Numerical Descriptions].
template <std::size_t N>
void copy_text(IdentifyPage page, std::size_t offset, std::size_t size, TextBuffer<N>& out) {
    const auto text = page.subspan(offset, size);
    while (size > 0 && (text[size - 1] == std::byte{' '} || text[size - 1] == std::byte{0}))
        --size;
    for (const std::byte byte : text.first(size)) {
        const char c = static_cast<char>(byte);
        out.append("%c", c >= ' ' && c <= '~' ? c : '?');
    }
}

/// 4 KiB << `exponent`, 0: no limit; never more than `most`.
std::uint64_t size_limit(std::uint8_t exponent, std::uint64_t most) {
    return exponent == 0 || exponent >= 64 - kPageShift ? most : std::min(kPageSize << exponent, most);
}

/// Logical blocks that the namespace best gets together (NPWG), as far as a loss of power leaves all of them
/// or none (NAWUPF, or the controller's AWUPF): systems rely on that for a physical block.
std::uint32_t physical_blocks(IdentifyPage page, const ControllerIdentity& controller) {
    const auto features = get<std::uint8_t>(page, 24);
    if (!NamespaceFeatures::PreferredSizes::test(features))
        return 1;
    const auto own =
        NamespaceFeatures::AtomicSizes::test(features) ? get<std::uint16_t>(page, 36) : std::uint16_t{0};
    const std::uint16_t atomic = own != 0 ? own : controller.atomic_blocks;
    return std::uint32_t{std::min(get<std::uint16_t>(page, 64), atomic)} + 1;
}

/// Whether Write Zeroes may deallocate, after which the blocks still are zeroes.
bool can_unmap_zeroes(IdentifyPage page) {
    const auto features = get<std::uint8_t>(page, 33);
    return DeallocateFeatures::ByWriteZeroes::test(features) &&
           DeallocateFeatures::ReadBack::get(features) == DeallocateFeatures::kZeroes;
}

}  // namespace

Submission identify(IdentifyStructure structure, std::uint32_t namespace_id, Hpa to) {
    Submission command{};
    command.opcode = kIdentify;
    command.namespace_id = namespace_id;
    command.prp1 = to.raw;
    command.cdw10 = structure;
    return command;
}

// [nvme2 5.17.2.1 Identify Controller data structure (CNS 01h)]
ControllerIdentity read_controller(IdentifyPage page) {
    ControllerIdentity controller{};
    copy_text(page, 4, 20, controller.serial);
    copy_text(page, 24, 40, controller.model);
    controller.max_transfer =
        static_cast<std::uint32_t>(size_limit(get<std::uint8_t>(page, 77), kMaxTransfer));
    controller.id = get<std::uint16_t>(page, 78);
    controller.shutdown_us = get<std::uint32_t>(page, 88);
    controller.tells_of_namespaces = NamespaceNotices::test(get<std::uint32_t>(page, 92));
    controller.namespaces = get<std::uint32_t>(page, 516);
    const auto optional_commands = get<std::uint16_t>(page, 520);
    controller.can_discard = Bits<2>::test(optional_commands);
    controller.can_write_zeroes = Bits<3>::test(optional_commands);
    controller.has_write_cache = Bits<0>::test(get<std::uint8_t>(page, 525));
    controller.atomic_blocks = get<std::uint16_t>(page, 528);
    return controller;
}

// [nvmcmd1 4.1.5.4 I/O Command Set Specific Identify Controller data structure (CNS 06h, CSI 00h)]
void read_command_set(IdentifyPage page, ControllerIdentity& controller) {
    controller.max_zeroes = size_limit(get<std::uint8_t>(page, 1), controller.max_zeroes);
    if (const auto limit = get<std::uint32_t>(page, 4); limit != 0)
        controller.max_range_blocks = std::min<std::uint64_t>(controller.max_range_blocks, limit);
}

// [nvmcmd1 4.1.5.1 Identify Namespace data structure (CNS 00h)]
Expected<DiskDescription> read_namespace(IdentifyPage page, const ControllerIdentity& controller) {
    DiskDescription disk{};
    disk.blocks = get<std::uint64_t>(page, 0);
    if (disk.blocks == 0)
        return Unexpected{Error::not_found};

    // FLBAS: which of the NLBAF + 1 formats; its upper bits count if there are more than 16.
    const unsigned last_format = get<std::uint8_t>(page, 25);
    const auto format_bits = get<std::uint8_t>(page, 26);
    const auto format = static_cast<unsigned>(Bits<3, 0>::get(format_bits) |
                                              (last_format < 16 ? 0 : Bits<6, 5>::get(format_bits) << 4));
    if (format > last_format)
        return Unexpected{Error::corrupted};
    const auto lba_format = get<std::uint32_t>(page, 128 + 4 * format);
    const auto metadata_size = Bits<15, 0>::get(lba_format);
    const auto block_shift = Bits<23, 16>::get(lba_format);
    if (metadata_size != 0 || (block_shift != 9 && block_shift != 12))
        return Unexpected{Error::unsupported};
    if (disk.blocks > ~std::uint64_t{0} >> block_shift)
        return Unexpected{Error::corrupted};

    disk.model = controller.model;
    disk.serial = controller.serial;
    disk.identifier = {get<decltype(DiskIdentifier::nguid)>(page, 104),
                       get<decltype(DiskIdentifier::eui64)>(page, 120)};
    disk.logical_block_size = 1U << block_shift;
    disk.physical_block_size = physical_blocks(page, controller) << block_shift;
    disk.read_only = Bits<0>::test(get<std::uint8_t>(page, 99));
    CommandLimits& limits = disk.limits;
    limits.max_blocks = controller.max_transfer >> block_shift;
    limits.max_range_blocks = std::min(controller.max_range_blocks, controller.max_zeroes >> block_shift);
    limits.max_runs = kPrpListEntries;
    limits.max_run_bytes = kMaxTransfer;
    limits.run_alignment = 4;
    limits.run_boundary = kPageSize;
    limits.can_flush = controller.has_write_cache;
    limits.can_discard = controller.can_discard;
    limits.can_write_zeroes = controller.can_write_zeroes;
    limits.can_unmap_zeroes = controller.can_write_zeroes && can_unmap_zeroes(page);
    return disk;
}

}  // namespace hv::block::nvme
