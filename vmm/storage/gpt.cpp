// SPDX-License-Identifier: MIT
#include "vmm/storage/gpt.hpp"

#include "vmm/base/bytes.hpp"
#include "vmm/base/crc32.hpp"
#include "vmm/base/log.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <optional>

namespace hv {
namespace {

// [uefi 5.2.1 Legacy Master Boot Record (MBR), 5.2.3 Protective MBR]
constexpr std::size_t kMbrPartitions = 446;
constexpr std::size_t kMbrPartitionSize = 16;
constexpr std::size_t kMbrType = 4;  // in a partition's record; its first byte is the boot indicator
constexpr std::uint8_t kMbrBootable = 0x80;
constexpr std::uint8_t kMbrProtective = 0xee;
constexpr std::size_t kMbrSignature = 510;
constexpr std::uint16_t kMbrSignatureValue = 0xaa55;

// [uefi 5.3.2 GPT Header]
constexpr std::uint64_t kPrimaryBlock = 1;
constexpr std::uint64_t kSignature = 0x5452'4150'2049'4645;  // "EFI PART"
constexpr std::uint32_t kRevision = 0x0001'0000;
constexpr std::uint32_t kMinHeaderSize = 92;
struct Header {
    std::uint64_t signature;
    std::uint32_t revision, size, crc, reserved;
    std::uint64_t my_block, alternate_block, first_usable, last_usable;
    Guid disk;
    std::uint64_t array_block;
    std::uint32_t entries, entry_size, array_crc;
};
static_assert(offsetof(Header, disk) == 56 && offsetof(Header, array_crc) + 4 == kMinHeaderSize);

// [uefi 5.3.3 GPT Partition Entry Array]
struct Entry {
    Guid type, unique;
    std::uint64_t first, last, attributes;
    std::array<std::uint16_t, 36> name;
};
static_assert(sizeof(Entry) == 128);
constexpr std::uint32_t kMaxEntrySize = 4096;
/// Eight times what partitioning tools make room for, and more than operating systems give numbers to; with
/// the largest entries so many are 4 MiB to read.
constexpr std::uint32_t kMaxEntries = 1024;

/// Read at a time: the whole of a usual array. Holds whole blocks and whole entries of any size.
constexpr std::size_t kPieceSize = 16 * 1024;
static_assert(kPieceSize % kMaxEntrySize == 0);

// --- names
// -------------------------------------------------------------------------------------------------------------

constexpr char32_t kReplacement = 0xfffd;

/// The next character of a name, taken off `units`, which is not empty.
char32_t take_character(std::span<const std::uint16_t>& units) {
    const char32_t unit = units[0];
    units = units.subspan(1);
    if (unit < 0x20 || (unit >= 0x7f && unit < 0xa0))
        return kReplacement;  // a control character
    if (unit < 0xd800 || unit > 0xdfff)
        return unit;
    // A high surrogate and a low one are a character beyond the first 65536; alone they are none.
    if (unit > 0xdbff || units.empty() || units[0] < 0xdc00 || units[0] > 0xdfff)
        return kReplacement;
    const char32_t low = units[0];
    units = units.subspan(1);
    return 0x1'0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
}

template <std::size_t N>
void append_utf8(TextBuffer<N>& out, char32_t c) {
    const auto tail = [&](unsigned shift) { return static_cast<int>(0x80 | ((c >> shift) & 0x3f)); };
    if (c < 0x80)
        out.append("%c", static_cast<int>(c));
    else if (c < 0x800)
        out.append("%c%c", static_cast<int>(0xc0 | (c >> 6)), tail(0));
    else if (c < 0x1'0000)
        out.append("%c%c%c", static_cast<int>(0xe0 | (c >> 12)), tail(6), tail(0));
    else
        out.append("%c%c%c%c", static_cast<int>(0xf0 | (c >> 18)), tail(12), tail(6), tail(0));
}

/// Its count is 0 if it ends before it begins.
PartitionEntry decode(const Entry& entry, std::uint32_t number) {
    PartitionEntry made{};
    made.number = number;
    made.type = entry.type;
    made.unique = entry.unique;
    made.first = entry.first;
    made.count = entry.first > entry.last ? 0 : entry.last - entry.first + 1;
    made.attributes = entry.attributes;
    for (std::span<const std::uint16_t> units{entry.name}; !units.empty() && units[0] != 0;)
        append_utf8(made.name, take_character(units));
    return made;
}

// --- the reader
// --------------------------------------------------------------------------------------------------------

class GptReader {
public:
    using Piece = std::array<std::byte, kPieceSize>;
    GptReader(SectorReader& disk, std::uint32_t block_size, std::uint64_t blocks, PartitionReport& report,
              Piece& piece)
        : disk_{disk}, block_size_{block_size}, blocks_{blocks}, report_{report}, piece_{piece} {}

    Expected<PartitionTable> run();
    /// Which copies of a table are valid, whatever block 0 holds, or nullptr. Reports why the others are not.
    const char* valid_copies();

private:
    Expected<void> read_mbr();
    /// Block 0 is empty, or unreadable. Whoever emptied it may have put a file system over the whole disk, so
    /// what is left of a table is not used, but it is reported.
    void report_remains();
    /// The header in `block`, if it is valid; else it was reported.
    std::optional<Header> read_header(const char* which, std::uint64_t block);
    /// What is wrong with a header whose checksum is right, or nullptr.
    [[nodiscard]] const char* fault_of(const Header& header, std::uint64_t block) const;
    [[nodiscard]] std::uint64_t array_blocks(const Header& header) const {
        return (std::uint64_t{header.entries} * header.entry_size + block_size_ - 1) / block_size_;
    }
    /// Reads a header's array into `entries` (nullptr: it is only checked). False: it is not valid, which was
    /// reported.
    Expected<bool> read_array(const char* which, const Header& header, Vec<PartitionEntry>* entries);
    Expected<void> take_entries(const Header& header, std::span<const std::byte> bytes, std::uint32_t first,
                                Vec<PartitionEntry>& entries);
    Expected<bool> is_backup_of(const Header& primary);
    static const char* fault_of(const Header& header, const PartitionEntry& entry);
    /// The table, of those entries that are possible and of which none overlaps another.
    Expected<PartitionTable> finish(PartitionTable::Health health, const Header& header,
                                    const Vec<PartitionEntry>& entries);

    SectorReader& disk_;
    const std::uint32_t block_size_;
    const std::uint64_t blocks_;
    PartitionReport& report_;
    Piece& piece_;
};

const char* GptReader::valid_copies() {
    const auto is_valid = [&](const char* which, const std::optional<Header>& header) {
        if (!header)
            return false;
        const auto array = read_array(which, *header, nullptr);
        return array && *array;
    };
    const auto header = read_header("primary", kPrimaryBlock);
    const bool primary = is_valid("primary", header);
    const bool backup =
        is_valid("backup", read_header("backup", header ? header->alternate_block : blocks_ - 1));
    if (primary)
        return backup ? "primary and backup" : "primary";
    return backup ? "backup" : nullptr;
}

void GptReader::report_remains() {
    PartitionReport unsaid;
    if (const char* copies = GptReader{disk_, block_size_, blocks_, unsaid, piece_}.valid_copies())
        report_.add(
            "it has a GUID table (%s) but no protective MBR, so its partitions are not used; if they are "
            "wanted, have a partitioning program write that MBR anew",
            copies);
}

Expected<PartitionTable> GptReader::run() {
    HV_TRY(read_mbr());
    Vec<PartitionEntry> entries;
    std::uint64_t backup = blocks_ - 1;
    if (const auto header = read_header("primary", kPrimaryBlock)) {
        if (HV_TRY(read_array("primary", *header, &entries))) {
            const bool backed_up = HV_TRY(is_backup_of(*header));
            return finish(backed_up ? PartitionTable::Health::healthy : PartitionTable::Health::backup_bad,
                          *header, entries);
        }
        backup = header->alternate_block;
    }
    entries.clear();
    const auto header = read_header("backup", backup);
    if (!header || !HV_TRY(read_array("backup", *header, &entries)))
        return Unexpected{Error::corrupted};
    return finish(PartitionTable::Health::primary_bad, *header, entries);
}

Expected<void> GptReader::read_mbr() {
    const auto block = std::span{piece_}.first(block_size_);
    const auto done = disk_.read(0, block);
    const auto is_zero = [](std::byte byte) { return byte == std::byte{0}; };
    if (!done || std::all_of(block.begin(), block.end(), is_zero)) {
        report_remains();
        return done ? Unexpected{Error::not_found} : done;
    }
    if (load<std::uint16_t>(&block[kMbrSignature]) != kMbrSignatureValue)
        return Unexpected{Error::not_found};
    bool used = false;
    bool records = true;  // else it is the boot sector of a file system, with code in their place
    for (std::size_t i = 0; i < 4; ++i) {
        const auto record = block.subspan(kMbrPartitions + i * kMbrPartitionSize, kMbrPartitionSize);
        const auto type = std::to_integer<std::uint8_t>(record[kMbrType]);
        if (type == kMbrProtective)
            return {};
        used = used || type != 0;
        records = records && (record[0] == std::byte{0} || record[0] == std::byte{kMbrBootable});
    }
    return Unexpected{used && records ? Error::unsupported : Error::not_found};
}

std::optional<Header> GptReader::read_header(const char* which, std::uint64_t block) {
    const auto bytes = std::span{piece_}.first(block_size_);
    if (block >= blocks_ || !disk_.read(block, bytes)) {
        report_.add("%s header: block %lu cannot be read", which, block);
        return std::nullopt;
    }
    const auto header = load<Header>(bytes.data());
    if (header.signature != kSignature || header.size < kMinHeaderSize || header.size > block_size_) {
        report_.add("%s header: %s", which,
                    header.signature != kSignature ? "no signature" : "impossible header size");
        return std::nullopt;
    }
    store(&bytes[offsetof(Header, crc)], std::uint32_t{0});  // as when it was computed
    if (const std::uint32_t crc = Crc32{}.add(bytes.first(header.size)).value(); crc != header.crc) {
        report_.add("%s header: its checksum is %08x, %08x is stored", which, crc, header.crc);
        return std::nullopt;
    }
    if (const char* fault = fault_of(header, block)) {
        report_.add("%s header: %s", which, fault);
        return std::nullopt;
    }
    return header;
}

const char* GptReader::fault_of(const Header& header, std::uint64_t block) const {
    if (header.revision != kRevision)
        return "unknown revision";
    if (header.my_block != block)
        return "it belongs into another block (MyLBA)";
    if (header.first_usable <= kPrimaryBlock || header.first_usable > header.last_usable ||
        header.last_usable >= blocks_)
        return "impossible usable range";
    if (block == kPrimaryBlock
            ? header.alternate_block <= header.last_usable || header.alternate_block >= blocks_
            : header.alternate_block != kPrimaryBlock)
        return "impossible place of the other header (AlternateLBA)";
    if (block >= header.first_usable && block <= header.last_usable)
        return "it lies in the usable range";
    if (!std::has_single_bit(header.entry_size) || header.entry_size < sizeof(Entry) ||
        header.entry_size > kMaxEntrySize)
        return "impossible size of an entry";
    if (header.entries == 0 || header.entries > kMaxEntries)
        return "impossible number of entries";
    const std::uint64_t size = array_blocks(header);
    if (header.array_block <= kPrimaryBlock || header.array_block >= blocks_ ||
        size > blocks_ - header.array_block)
        return "the entry array lies outside the disk";
    const std::uint64_t end = header.array_block + size;
    if ((header.array_block <= header.last_usable && end > header.first_usable) ||
        (header.array_block <= block && end > block))
        return "the entry array overlaps the usable range or the header";
    return nullptr;
}

Expected<bool> GptReader::read_array(const char* which, const Header& header, Vec<PartitionEntry>* entries) {
    std::uint64_t left = std::uint64_t{header.entries} * header.entry_size;
    std::uint64_t block = header.array_block;
    std::uint32_t first = 0;
    Crc32 crc;
    while (left != 0) {
        const std::uint64_t size = std::min<std::uint64_t>(left, kPieceSize);
        const std::uint64_t blocks = (size + block_size_ - 1) / block_size_;
        const auto whole = std::span{piece_}.first(blocks * block_size_);
        if (!disk_.read(block, whole)) {
            report_.add("%s entry array: block %lu cannot be read", which, block);
            return false;
        }
        const auto bytes = whole.first(size);
        crc.add(bytes);
        if (entries != nullptr)
            HV_TRY(take_entries(header, bytes, first, *entries));
        first += static_cast<std::uint32_t>(size / header.entry_size);
        block += blocks;
        left -= size;
    }
    if (crc.value() != header.array_crc)
        report_.add("%s entry array: its checksum is %08x, %08x is stored", which, crc.value(),
                    header.array_crc);
    return crc.value() == header.array_crc;
}

Expected<void> GptReader::take_entries(const Header& header, std::span<const std::byte> bytes,
                                       std::uint32_t first, Vec<PartitionEntry>& entries) {
    for (std::size_t at = 0; at < bytes.size(); at += header.entry_size) {
        const auto entry = load<Entry>(&bytes[at]);
        if (entry.type != Guid{})
            HV_TRY(
                entries.push(decode(entry, first + static_cast<std::uint32_t>(at / header.entry_size) + 1)));
    }
    return {};
}

Expected<bool> GptReader::is_backup_of(const Header& primary) {
    const auto backup = read_header("backup", primary.alternate_block);
    if (!backup || !HV_TRY(read_array("backup", *backup, nullptr)))
        return false;
    const bool same = backup->disk == primary.disk && backup->first_usable == primary.first_usable &&
                      backup->last_usable == primary.last_usable && backup->entries == primary.entries &&
                      backup->entry_size == primary.entry_size && backup->array_crc == primary.array_crc;
    if (!same)
        report_.add("backup: valid, but another table than the primary");
    return same;
}

const char* GptReader::fault_of(const Header& header, const PartitionEntry& entry) {
    if (entry.first < header.first_usable || entry.first > header.last_usable)
        return "it begins outside the usable range";
    if (entry.count == 0)
        return "it ends before it begins";
    return entry.count > header.last_usable - entry.first + 1 ? "it ends outside the usable range" : nullptr;
}

Expected<PartitionTable> GptReader::finish(PartitionTable::Health health, const Header& header,
                                           const Vec<PartitionEntry>& entries) {
    PartitionTable table;
    table.health = health;
    table.disk = header.disk;
    for (const PartitionEntry& entry : entries) {
        if (const char* fault = fault_of(header, entry)) {
            report_.add("partition %u is left out: %s", entry.number, fault);
            continue;
        }
        const auto* const other = std::find_if(entries.begin(), entries.end(), [&](const auto& each) {
            return &each != &entry && fault_of(header, each) == nullptr &&
                   each.first < entry.first + entry.count && entry.first < each.first + each.count;
        });
        if (other == entries.end())
            HV_TRY(table.entries.push(entry));
        else
            report_.add("partition %u is left out: it overlaps partition %u", entry.number, other->number);
    }
    return table;
}

}  // namespace

void PartitionReport::add(const char* format, ...) {
    char buffer[sizeof(Line)];
    std::va_list arguments;
    va_start(arguments, format);
    const std::string_view text = format_into(buffer, format, arguments);
    va_end(arguments);
    Line line;
    line.append("%.*s", static_cast<int>(text.size()), text.data());
    if (lines_.size() == kMaxLines || !lines_.push(line))
        ++lost_;
}

void PartitionReport::say(std::string_view disk) const {
    for (const Line& line : lines())
        log::warning(log::Topic::block, "%.*s: %.*s", width(disk), disk.data(), width(line.view()),
                     line.view().data());
    if (lost_ != 0)
        log::warning(log::Topic::block, "%.*s: its partition table has %zu more faults", width(disk),
                     disk.data(), lost_);
}

Expected<PartitionTable> read_partition_table(SectorReader& disk, std::uint32_t block_size,
                                              std::uint64_t block_count, PartitionReport& report) {
    if (block_size != 512 && block_size != 4096)
        return Unexpected{Error::invalid_argument};
    if (block_count <= kPrimaryBlock)
        return Unexpected{Error::not_found};
    auto piece = HV_TRY(make<GptReader::Piece>());
    return GptReader{disk, block_size, block_count, report, *piece}.run();
}

}  // namespace hv
