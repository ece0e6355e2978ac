// SPDX-License-Identifier: MIT
// Makes disks with a GUID partition table, whose every field a test can bend before the checksums are
// computed, and every byte after it.
#pragma once

#include "vmm/base/bytes.hpp"
#include "vmm/base/crc32.hpp"
#include "vmm/storage/gpt.hpp"

#include <algorithm>
#include <cstring>
#include <functional>
#include <set>
#include <string_view>
#include <vector>

namespace hv::fake {

class GptDisk final : public SectorReader {
public:
    struct Header {
        std::uint64_t signature{0x5452415020494645};
        std::uint32_t revision{0x10000}, size{92}, crc{0}, reserved{0};
        std::uint64_t my_block{}, alternate_block{}, first_usable{}, last_usable{};
        Guid disk{{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};
        std::uint64_t array_block{};
        std::uint32_t entries{128}, entry_size{128}, array_crc{};
        std::uint32_t rest{0};
    };
    static_assert(sizeof(Header) == 96);

    explicit GptDisk(std::uint32_t size = 512, std::uint64_t count = 1000)
        : block_size{size}, bytes(size * count) {
        at(0)[510] = std::byte{0x55};
        at(0)[511] = std::byte{0xaa};
        at(0)[446 + 4] = std::byte{0xee};
        const std::uint64_t array_blocks = 16384 / size;
        primary.my_block = backup.alternate_block = 1;
        backup.my_block = primary.alternate_block = count - 1;
        primary.array_block = 2;
        backup.array_block = count - 1 - array_blocks;
        primary.first_usable = backup.first_usable = 2 + array_blocks;
        primary.last_usable = backup.last_usable = backup.array_block - 1;
        array.resize(16384);
    }

    /// Entry `number` counts from 1.
    void add(std::uint32_t number, std::uint64_t first, std::uint64_t last, std::u16string_view name,
             std::uint64_t attributes = 0) {
        std::byte* entry = array.data() + std::size_t{number - 1} * primary.entry_size;
        std::memset(entry, 0xaf, 16);
        std::memset(entry + 16, static_cast<int>(number), 16);
        store(entry + 32, first);
        store(entry + 40, last);
        store(entry + 48, attributes);
        std::memcpy(entry + 56, name.data(), 2 * std::min<std::size_t>(name.size(), 36));
    }
    /// Another shape of both arrays, which are cleared.
    void reshape(std::uint32_t entries, std::uint32_t entry_size) {
        const std::uint64_t blocks = (std::uint64_t{entries} * entry_size + block_size - 1) / block_size;
        for (Header* header : {&primary, &backup}) {
            header->entries = entries;
            header->entry_size = entry_size;
            header->first_usable = 2 + blocks;
            header->last_usable = count() - 2 - blocks;
        }
        backup.array_block = count() - 1 - blocks;
        array.assign(std::size_t{entries} * entry_size, std::byte{0});
    }
    /// Writes both copies with the right checksums.
    void write() {
        write(primary);
        write(backup);
    }
    void write(Header header) {
        header.array_crc = Crc32{}.add(array).value();
        if (header.array_block < count())
            std::copy_n(array.begin(),
                        std::min<std::size_t>(array.size(), bytes.size() - header.array_block * block_size),
                        at(header.array_block));
        write_header(header);
    }
    void write_header(Header header, std::uint64_t block) {
        std::vector<std::byte> image(std::max<std::size_t>(block_size, header.size));
        std::memcpy(image.data(), &header, sizeof header);
        store(image.data() + 16, Crc32{}.add(std::span{image}.first(header.size)).value());
        std::copy_n(image.begin(), block_size, at(block));
    }
    void write_header(const Header& header) {
        write_header(header, header.alternate_block == 1 ? count() - 1 : 1);
    }
    Expected<void> read(std::uint64_t block, std::span<std::byte> out) override {
        if (out.size() % block_size != 0 || block > count() || out.size() / block_size > count() - block)
            std::abort();
        for (std::uint64_t i = 0; i < out.size() / block_size; ++i)
            if (unreadable.contains(block + i))
                return Unexpected{Error::io_error};
        std::copy_n(at(block), out.size(), out.begin());
        largest_read = std::max(largest_read, out.size());
        return {};
    }
    std::byte* at(std::uint64_t block) { return bytes.data() + block * block_size; }
    [[nodiscard]] std::uint64_t count() const { return bytes.size() / block_size; }

    std::uint32_t block_size;
    Header primary, backup;
    std::vector<std::byte> array;
    std::vector<std::byte> bytes;
    std::set<std::uint64_t> unreadable;
    std::size_t largest_read{0};
};

}  // namespace hv::fake
