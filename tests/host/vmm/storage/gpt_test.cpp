// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/gpt_builder.hpp"
#include "fakes/log_capture.hpp"

#include <string>

namespace {

using namespace hv;
using fake::GptDisk;
using Health = PartitionTable::Health;

struct Result {
    explicit Result(GptDisk& disk)
        : table{read_partition_table(disk, disk.block_size, disk.count(), report)} {}
    [[nodiscard]] Error error() const { return table ? Error{} : table.error(); }
    [[nodiscard]] bool has(Health health) const { return table && table->health == health; }
    [[nodiscard]] bool says(std::string_view text) const {
        for (const auto& line : report.lines())
            if (line.view().find(text) != std::string_view::npos)
                return true;
        return false;
    }
    [[nodiscard]] std::vector<unsigned> numbers() const {
        std::vector<unsigned> all;
        for (const PartitionEntry& entry : table->entries)
            all.push_back(entry.number);
        return all;
    }
    PartitionReport report;
    Expected<PartitionTable> table;
};

std::string name_of(std::u16string_view name) {
    GptDisk disk;
    disk.add(1, 100, 199, name);
    disk.write();
    const Result result{disk};
    return std::string{result.table->entries[0].name.view()};
}

}  // namespace

TEST_CASE("a table is read from disks with either size of block", "[storage]") {
    for (const std::uint32_t size : {512u, 4096u}) {
        GptDisk disk{size};
        disk.add(1, disk.primary.first_usable, 99, u"boot", 4);
        disk.add(7, 100, 100, u"root");
        disk.add(128, 101, disk.primary.last_usable, u"home");
        disk.write();
        const Result result{disk};
        REQUIRE(result.has(Health::healthy));
        CHECK(result.report.lines().empty());
        CHECK(result.table->disk == disk.primary.disk);
        CHECK(result.numbers() == std::vector{1u, 7u, 128u});
        const PartitionEntry& first = result.table->entries[0];
        CHECK(first.first == disk.primary.first_usable);
        CHECK(first.first + first.count == 100);
        CHECK(first.attributes == 4);
        CHECK(first.name.view() == "boot");
        CHECK(first.type.bytes[15] == 0xaf);
        CHECK(first.unique.bytes[0] == 1);
        CHECK(result.table->entries[1].count == 1);
        CHECK(disk.largest_read <= 16384);
    }
}

TEST_CASE("entries may be larger, and more or fewer than usual", "[storage]") {
    for (const auto& [entries, size] :
         {std::pair{1u, 128u}, {5u, 128u}, {4u, 4096u}, {133u, 256u}, {1024u, 128u}}) {
        GptDisk disk;
        disk.reshape(entries, size);
        disk.add(entries, disk.primary.first_usable, disk.primary.last_usable, u"last");
        disk.write();
        const Result result{disk};
        REQUIRE(result.has(Health::healthy));
        CHECK(result.numbers() == std::vector{entries});
    }
    for (const auto& [entries, size] :
         {std::pair{0u, 128u}, {1025u, 128u}, {4u, 64u}, {4u, 8192u}, {4u, 384u}}) {
        GptDisk disk{512, 4000};
        disk.reshape(entries, size);
        disk.write();
        CHECK(Result{disk}.error() == Error::corrupted);
    }
}

TEST_CASE("a table without a protective MBR is not used, but said", "[storage]") {
    GptDisk disk;
    disk.add(1, 100, 199, u"root");
    disk.write();
    const fake::LogCapture log;
    const auto says = [&](std::string_view copies) {
        const Result result{disk};
        const bool readable = disk.unreadable.empty();
        CHECK(result.error() == (readable ? Error::not_found : Error::io_error));
        result.report.say("nvme0");
        return result.report.lines().size() == 1 &&
               log.mentions(
                   "nvme0: it has a GUID table (" + std::string{copies} +
                   ") but no protective MBR, so its partitions are not used; if they are wanted, have "
                   "a partitioning program write that MBR anew");
    };
    SECTION("block 0 cannot be read") {
        disk.unreadable = {0};
        CHECK(says("primary and backup"));
    }
    SECTION("block 0 is empty") {
        std::fill_n(disk.at(0), 512, std::byte{0});
        CHECK(says("primary and backup"));
        GptDisk moved = disk;
        disk.at(1)[20] ^= std::byte{1};
        CHECK(says("backup"));
        std::swap(disk, moved);
        disk.at(disk.backup.array_block)[20] ^= std::byte{1};
        CHECK(says("primary"));
    }
    SECTION("but neither copy is valid, or something else is there") {
        const bool empty = GENERATE(true, false);
        if (empty) {
            std::fill_n(disk.at(0), 512, std::byte{0});
            disk.at(2)[20] ^= std::byte{1};
            disk.at(disk.count() - 1)[20] ^= std::byte{1};
        } else {
            std::memcpy(disk.at(0), "XFSB", 4);
            disk.at(0)[510] = std::byte{0};
        }
        const Result result{disk};
        CHECK(result.error() == Error::not_found);
        CHECK(result.report.lines().empty());
    }
}

TEST_CASE("a disk without a table is told from one with an MBR's", "[storage]") {
    GptDisk disk;
    disk.write();
    std::byte* record = disk.at(0) + 446;
    record[4] = std::byte{0x83};
    CHECK(Result{disk}.error() == Error::unsupported);
    record[0] = std::byte{0x80};
    CHECK(Result{disk}.error() == Error::unsupported);
    record[0] = std::byte{0xeb};  // code of a file system's boot sector
    CHECK(Result{disk}.error() == Error::not_found);
    record[0] = record[4] = std::byte{0};
    CHECK(Result{disk}.error() == Error::not_found);
    record[3 * 16 + 4] = std::byte{0xee};
    CHECK(Result{disk}.has(Health::healthy));
    disk.at(0)[511] = std::byte{0};
    CHECK(Result{disk}.error() == Error::not_found);
    disk.unreadable = {0};
    CHECK(Result{disk}.error() == Error::io_error);

    PartitionReport report;
    CHECK(read_partition_table(disk, 1024, 500, report).error() == Error::invalid_argument);
    CHECK(read_partition_table(disk, 512, 1, report).error() == Error::not_found);
}

TEST_CASE("each fault of a header is found, and the other copy is used", "[storage]") {
    using Header = GptDisk::Header;
    struct Fault {
        const char* text;
        std::function<void(Header&)> make;
    };
    const Fault faults[] = {
        {"no signature", [](Header& h) { ++h.signature; }},
        {"unknown revision", [](Header& h) { h.revision = 0x20000; }},
        {"header size", [](Header& h) { h.size = 91; }},
        {"header size", [](Header& h) { h.size = 513; }},
        {"MyLBA", [](Header& h) { ++h.my_block; }},
        {"AlternateLBA", [](Header& h) { h.alternate_block = h.alternate_block == 1 ? 2 : 1000; }},
        {"usable range", [](Header& h) { h.first_usable = 1; }},
        {"usable range", [](Header& h) { h.first_usable = h.last_usable + 1; }},
        {"usable range", [](Header& h) { h.last_usable = 1000; }},
        {"AlternateLBA", [](Header& h) { h.alternate_block = h.last_usable; }},
        {"array", [](Header& h) { h.array_block = 1; }},
        {"array", [](Header& h) { h.array_block = 1000; }},
        {"array", [](Header& h) { h.array_block = 1000 - 31; }},
        {"array", [](Header& h) { h.array_block = ~0ull; }},
        {"array overlaps", [](Header& h) { h.array_block = h.my_block == 1 ? 3 : 1000 - 32; }},
        {"array overlaps", [](Header& h) { h.array_block = 500; }},
        {"size of an entry", [](Header& h) { h.entry_size = 192; }},
        {"number of entries", [](Header& h) { h.entries = 0; }},
    };
    for (const Fault& fault : faults) {
        INFO(fault.text);
        for (const bool in_primary : {true, false}) {
            GptDisk disk;
            disk.add(1, 100, 199, u"data");
            disk.write();
            Header header = in_primary ? disk.primary : disk.backup;
            header.array_crc = Crc32{}.add(disk.array).value();
            fault.make(header);
            disk.write_header(header, in_primary ? 1 : disk.count() - 1);
            const Result result{disk};
            REQUIRE(result.has(in_primary ? Health::primary_bad : Health::backup_bad));
            CHECK(result.numbers() == std::vector{1u});
            CHECK(result.says(in_primary ? "primary header: " : "backup header: "));
            CHECK(result.says(fault.text));
            CHECK(result.report.lines().size() == 1);
        }
    }
}

TEST_CASE("a backup header does not lie where partitions may be", "[storage]") {
    GptDisk disk;
    disk.write();
    auto header = disk.backup;
    header.last_usable = disk.count() - 1;
    header.array_block = 2;
    disk.write_header(header);
    const Result result{disk};
    CHECK(result.has(Health::backup_bad));
    CHECK(result.says("backup header: it lies in the usable range"));
}

TEST_CASE("checksums are verified, and told as they are and should be", "[storage]") {
    GptDisk disk;
    disk.add(1, 100, 199, u"data");
    disk.write();
    const auto right = load<std::uint32_t>(disk.at(1) + 16);
    SECTION("of a header") {
        disk.at(1)[56] ^= std::byte{1};
        const Result result{disk};
        CHECK(result.has(Health::primary_bad));
        CHECK(result.table->disk == disk.primary.disk);
        TextBuffer<40> stored;
        stored.append("%08x is stored", right);
        CHECK(result.says("primary header: its checksum is "));
        CHECK(result.says(stored.view()));
    }
    SECTION("of the primary's entries") {
        disk.at(2)[40] ^= std::byte{1};
        const Result result{disk};
        CHECK(result.has(Health::primary_bad));
        CHECK(result.says("primary entry array: its checksum is "));
        CHECK(result.table->entries.size() == 1);
        CHECK(result.table->entries[0].count == 100);
    }
    SECTION("of the backup's entries") {
        disk.at(disk.backup.array_block)[16383] ^= std::byte{1};
        const Result result{disk};
        CHECK(result.has(Health::backup_bad));
        CHECK(result.says("backup entry array: its checksum is "));
    }
    SECTION("of both") {
        disk.at(2)[40] ^= std::byte{1};
        disk.at(disk.count() - 1)[88] ^= std::byte{1};
        const Result result{disk};
        CHECK(result.error() == Error::corrupted);
        CHECK(result.report.lines().size() == 2);
    }
    SECTION("the rest of the block is not covered, but what the header's size says is") {
        disk.at(1)[92] ^= std::byte{1};
        CHECK(Result{disk}.has(Health::healthy));
        disk.primary.size = disk.backup.size = 512;
        disk.write();
        CHECK(Result{disk}.has(Health::healthy));
        disk.at(1)[511] ^= std::byte{1};
        CHECK(Result{disk}.has(Health::primary_bad));
    }
}

TEST_CASE("a copy that cannot be read is a bad one", "[storage]") {
    GptDisk disk;
    disk.write();
    disk.unreadable = {1};
    CHECK(Result{disk}.says("primary header: block 1 cannot be read"));
    CHECK(Result{disk}.has(Health::primary_bad));
    disk.unreadable = {33};
    CHECK(Result{disk}.has(Health::primary_bad));
    disk.unreadable = {disk.count() - 2};
    CHECK(Result{disk}.has(Health::backup_bad));
    disk.unreadable = {1, disk.count() - 1};
    CHECK(Result{disk}.error() == Error::corrupted);
}

TEST_CASE("on a disk that has grown the backup is where the primary says", "[storage]") {
    GptDisk disk;
    disk.add(1, 100, 199, u"data");
    disk.write();
    disk.bytes.resize(disk.bytes.size() + 512 * 1000);
    CHECK(Result{disk}.has(Health::healthy));
    disk.at(2)[0] ^= std::byte{1};  // the header still says it
    CHECK(Result{disk}.has(Health::primary_bad));
    disk.at(1)[0] ^= std::byte{1};
    CHECK(Result{disk}.error() == Error::corrupted);
}

TEST_CASE("a backup of another table is none", "[storage]") {
    GptDisk disk;
    disk.add(1, 100, 199, u"new");
    disk.write();
    disk.add(1, 100, 299, u"old");
    disk.write(disk.backup);
    const Result result{disk};
    CHECK(result.has(Health::backup_bad));
    CHECK(result.says("another table"));
    CHECK(result.table->entries[0].name.view() == "new");
}

TEST_CASE("entries that are impossible or overlap are left out, with the reason", "[storage]") {
    GptDisk disk;
    disk.add(1, 100, 199, u"good");
    disk.add(2, 33, 50, u"before");
    disk.add(3, 900, 967, u"behind");
    disk.add(4, 150, 120, u"inverted");
    disk.add(5, 400, 499, u"a");
    disk.add(6, 499, 599, u"b");
    disk.add(7, 600, 600, u"neighbour");
    disk.add(8, 0, ~0ull, u"all");
    disk.add(9, 150, ~0ull, u"far");
    disk.add(10, 1000, 1001, u"outside");
    disk.add(11, 700, 799, u"outer");
    disk.add(12, 710, 720, u"inner");
    disk.add(13, 2, 150, u"into the good one");
    disk.write();
    const Result result{disk};
    REQUIRE(result.has(Health::healthy));
    CHECK(result.numbers() == std::vector{1u, 7u});
    CHECK(result.says("partition 2 is left out: it begins outside"));
    CHECK(result.says("partition 3 is left out: it ends outside"));
    CHECK(result.says("partition 4 is left out: it ends before it begins"));
    CHECK(result.says("partition 5 is left out: it overlaps partition 6"));
    CHECK(result.says("partition 6 is left out: it overlaps partition 5"));
    CHECK(result.says("partition 8 is left out: it begins outside"));
    CHECK(result.says("partition 9 is left out: it ends outside"));
    CHECK(result.says("partition 10 is left out: it begins outside"));
    CHECK(result.says("partition 12 is left out: it overlaps partition 11"));
}

TEST_CASE("a report of a thousand faults stays short", "[storage]") {
    GptDisk disk;
    for (unsigned i = 1; i <= 128; ++i)
        disk.add(i, 0, 0, u"x");
    disk.write();
    const Result result{disk};
    CHECK(result.table->entries.empty());
    CHECK(result.report.lines().size() == PartitionReport::kMaxLines);
    CHECK(result.report.lost() == 128 - PartitionReport::kMaxLines);
    const fake::LogCapture log;
    result.report.say("nvme0");
    REQUIRE(log.lines.size() == PartitionReport::kMaxLines + 1);
    CHECK(log.mentions("nvme0: its partition table has 112 more faults"));
}

TEST_CASE("names become UTF-8, and nothing in them disturbs who prints them", "[storage]") {
    CHECK(name_of(u"").empty());
    CHECK(name_of(u"EFI system") == "EFI system");
    CHECK(name_of(u"\u00e4\u20ac\U0001f600.") == "\u00e4\u20ac\U0001f600.");
    CHECK(name_of(u"\U0010ffff") == "\U0010ffff");
    CHECK(name_of(std::u16string{0xd83d}) == "\ufffd");
    CHECK(name_of(std::u16string{0xd83d, 'x'}) == "\ufffdx");
    CHECK(name_of(std::u16string{0xde00, 0xd83d, 0xde00}) == "\ufffd\U0001f600");
    CHECK(name_of(u"a\x1b[2Jb\x7f\x9b\n") == "a\ufffd[2Jb\ufffd\ufffd\ufffd");
    std::string expected;
    for (unsigned i = 0; i < 36; ++i)
        expected += "\u20ac";
    CHECK(name_of(std::u16string(36, u'\u20ac')) == expected);
    CHECK(name_of(std::u16string(35, u'\u20ac') + char16_t{0xd83d}) == expected.substr(3) + "\ufffd");
}

TEST_CASE("a GUID is written as usual", "[storage]") {
    const Guid efi_system{
        {0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b}};
    CHECK(efi_system.text().view() == "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
}
