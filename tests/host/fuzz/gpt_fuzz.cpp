// SPDX-License-Identifier: MIT
// GUID partition tables: a valid one that the input overwrites here and there, with right checksums or wrong
// ones.
#include "fakes/gpt_builder.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace {

using namespace hv;

void check(const PartitionTable& table, std::uint64_t blocks) {
    const auto entries = table.entries.span();
    for (std::size_t i = 0; i < entries.size(); ++i) {
        const auto& each = entries[i];
        if (each.count == 0 || each.first < 2 || each.first >= blocks || each.count > blocks - each.first)
            __builtin_trap();
        for (std::size_t j = 0; j < i; ++j)
            if (entries[j].first < each.first + each.count &&
                each.first < entries[j].first + entries[j].count)
                __builtin_trap();
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0)
        return 0;
    fake::GptDisk disk{(data[0] & 1) != 0 ? 4096u : 512u, 100};
    disk.add(1, 40, 49, u"one");
    disk.add(2, 50, 59, u"two");
    const bool checksums = (data[0] & 2) != 0;
    if (!checksums)
        disk.write();
    // Records of a target, an offset, a length and so many bytes.
    for (std::size_t at = 1; at + 4 <= size;) {
        const std::span<std::byte> targets[] = {std::as_writable_bytes(std::span{&disk.primary, 1}),
                                                std::as_writable_bytes(std::span{&disk.backup, 1}),
                                                std::span{disk.array},
                                                std::span{disk.bytes}.first(disk.block_size * 3),
                                                std::span{disk.bytes}.last(disk.block_size * 2)};
        const auto target = targets[data[at] % std::size(targets)];
        const std::size_t offset = load<std::uint16_t>(data + at + 1) % target.size();
        const std::size_t length =
            std::min<std::size_t>({data[at + 3], size - at - 4, target.size() - offset});
        std::memcpy(target.data() + offset, data + at + 4, length);
        at += 4 + length;
    }
    if (checksums) {
        for (auto* header : {&disk.primary, &disk.backup})
            header->size = std::min(header->size, disk.block_size);
        disk.primary.alternate_block |= disk.primary.alternate_block == 1 ? 2 : 0;
        disk.backup.alternate_block = 1;
        disk.write();
    }
    PartitionReport report;
    if (const auto table = read_partition_table(disk, disk.block_size, disk.count(), report))
        check(*table, disk.count());
    return 0;
}
