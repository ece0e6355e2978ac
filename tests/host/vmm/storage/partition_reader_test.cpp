// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/arena_frames.hpp"
#include "fakes/gpt_builder.hpp"
#include "fakes/log_capture.hpp"
#include "vmm/storage/disk_fixture.hpp"
#include "vmm/storage/partition_reader.hpp"

using namespace hv;
using fake::GptDisk;

namespace {

/// A disk with two partitions, in memory.
struct Fixture {
    explicit Fixture(std::uint32_t block_size = 512) : table{block_size}, disk{table.bytes.size() / 512} {
        disk.block_size = block_size;
        table.add(1, 100, 199, u"boot");
        table.add(3, 200, 299, u"data");
        table.write();
        described.name.append("nvme0");
        described.device = &disk;
    }
    Expected<Vec<DiskDirectory::Partition>> read() {
        disk.contents = table.bytes;
        return reader.read(described);
    }

    GptDisk table;
    test::TestDisk disk;
    fake::ArenaFrames frames;
    DmaPool pool{frames};
    PartitionReader reader{pool};
    DiskDirectory::Disk described;
};

}  // namespace

TEST_CASE("partitions are read in units of 512 bytes, with their labels", "[storage]") {
    const std::uint32_t block_size = GENERATE(512u, 4096u);
    Fixture f{block_size};
    const auto partitions = f.read();
    REQUIRE(partitions);
    REQUIRE(partitions->size() == 2);
    const DiskDirectory::Partition& data = (*partitions)[1];
    CHECK(data.number == 3);
    CHECK(data.label.view() == "data");
    CHECK(data.first == 200 * (block_size / 512));
    CHECK(data.sectors == 100 * (block_size / 512));
    CHECK(f.frames.outstanding() == 0);
}

TEST_CASE("a damaged table is said, and one that is of no use means no partitions", "[storage]") {
    Fixture f;
    const fake::LogCapture log;
    f.table.at(1)[100] ^= std::byte{1};
    f.table.at(1)[20] ^= std::byte{1};
    CHECK(f.read()->size() == 2);
    CHECK(log.mentions("nvme0: its primary partition table is damaged, the backup is used"));
    f.table.at(f.table.count() - 1)[20] ^= std::byte{1};
    CHECK(f.read()->empty());
    CHECK(log.mentions("nvme0: its partitions cannot be used"));
    f.table.at(0)[446 + 4] = std::byte{0x83};
    CHECK(f.read()->empty());
    CHECK(log.mentions("nvme0: its table is an MBR's"));
}

TEST_CASE("a disk that cannot be read may have partitions all the same", "[storage]") {
    Fixture f;
    const fake::LogCapture log;
    f.disk.answer = BlockStatus::io_error;
    CHECK(f.read().error() == Error::io_error);
    CHECK(log.mentions("nvme0: its partitions cannot be used: "));
    CHECK(log.mentions("; the command disk looks again"));
    CHECK(f.frames.outstanding() == 0);
}
