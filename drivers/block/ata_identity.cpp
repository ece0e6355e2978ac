// SPDX-License-Identifier: MIT
#include "drivers/block/ata_identity.hpp"

#include "vmm/base/bits.hpp"
#include "vmm/base/bytes.hpp"

namespace hv::block {
namespace {

/// The words of the data [acs3 7.12.7 IDENTIFY DEVICE data].
class Words {
public:
    explicit Words(std::span<const std::byte, ata::kDataBlock> data) : data_{data} {}

    std::uint16_t operator[](std::size_t index) const {
        return load<std::uint16_t>(data_.subspan(index * 2, 2).data());
    }
    [[nodiscard]] std::uint64_t number(std::size_t index, std::size_t count) const {
        std::uint64_t value = 0;
        for (std::size_t i = count; i-- > 0;)
            value = value << 16 | (*this)[index + i];
        return value;
    }
    /// Characters, the first of a word in its upper half, padded with spaces on either side.
    template <std::size_t N>
    void text(std::size_t index, std::size_t count, TextBuffer<N>& out) const {
        std::size_t begin = 0, end = count * 2;
        const auto at = [&](std::size_t i) {
            const auto c = static_cast<std::uint8_t>((*this)[index + i / 2] >> (i % 2 == 0 ? 8 : 0));
            return static_cast<char>(c < 0x20 || c > 0x7e ? ' ' : c);
        };
        while (begin < end && at(begin) == ' ')
            ++begin;
        while (end > begin && at(end - 1) == ' ')
            --end;
        for (std::size_t i = begin; i < end; ++i)
            out.append("%c", at(i));
    }

private:
    std::span<const std::byte, ata::kDataBlock> data_;
};

/// Words 82 to 87, 106 and 119 hold something if bits 15:14 of one of them are 01b.
bool is_valid(std::uint16_t word) {
    return word >> 14 == 1;
}

/// The last word holds a sum over all bytes, if it bears the signature.
bool has_wrong_sum(std::span<const std::byte, ata::kDataBlock> data) {
    constexpr std::uint8_t kSignature = 0xa5;
    if (std::to_integer<std::uint8_t>(data[510]) != kSignature)
        return false;
    std::uint8_t sum = 0;
    for (const std::byte b : data)
        sum = static_cast<std::uint8_t>(sum + std::to_integer<std::uint8_t>(b));
    return sum != 0;
}

void set_block_sizes(const Words& words, AtaIdentity& identity) {
    const std::uint16_t sizes = words[106];
    using ManyPerPhysical = Bits<13>;
    using LargeLogical = Bits<12>;
    using PhysicalExponent = Bits<3, 0>;
    identity.logical_block_size = 512;
    if (is_valid(sizes) && LargeLogical::test(sizes))
        identity.logical_block_size = static_cast<std::uint32_t>(words.number(117, 2) * 2);
    identity.physical_block_size = identity.logical_block_size;
    if (is_valid(sizes) && ManyPerPhysical::test(sizes))
        identity.physical_block_size <<= PhysicalExponent::get(sizes);
}

}  // namespace

Expected<AtaIdentity> AtaIdentity::parse(std::span<const std::byte, ata::kDataBlock> data) {
    const Words words{data};
    using NotAta = Bits<15>;
    using FlushExt = Bits<13>;      // word 83
    using Flush = Bits<12>;         // word 83
    using Lba48 = Bits<10>;         // word 83
    using WriteCache = Bits<5>;     // word 85
    using ExtendedSize = Bits<3>;   // word 69
    using Ncq = Bits<8>;            // word 76
    using QueueDepth = Bits<4, 0>;  // word 75, minus one
    using Trim = Bits<0>;           // word 169
    if (NotAta::test(words[0]) || has_wrong_sum(data))
        return Unexpected{Error::corrupted};
    if (!is_valid(words[83]) || !Lba48::test(words[83]))
        return Unexpected{Error::unsupported};
    AtaIdentity identity{};
    words.text(27, 20, identity.model);
    words.text(10, 10, identity.serial);
    set_block_sizes(words, identity);
    if (identity.logical_block_size != 512 && identity.logical_block_size != 4096)
        return Unexpected{Error::unsupported};
    identity.blocks = words.number(100, 4);
    if (ExtendedSize::test(words[69]))
        identity.blocks = words.number(230, 4);
    if (identity.blocks == 0 || identity.blocks > bit(48))
        return Unexpected{Error::corrupted};
    // Word 76 is all zeroes or all ones where it says nothing.
    if (words[76] != 0xffff && Ncq::test(words[76]))
        identity.queue_depth = static_cast<unsigned>(QueueDepth::get(words[75])) + 1;
    identity.can_trim = Trim::test(words[169]);
    // One that names neither, and does not say that its cache is off, must have what 48-bit addresses come
    // with.
    if (FlushExt::test(words[83]))
        identity.flush = ata::Command::FLUSH_CACHE_EXT;
    else if (Flush::test(words[83]))
        identity.flush = ata::Command::FLUSH_CACHE;
    else if (!is_valid(words[87]) || WriteCache::test(words[85]))
        identity.flush = ata::Command::FLUSH_CACHE_EXT;
    return identity;
}

}  // namespace hv::block
