// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/log_capture.hpp"
#include "fakes/machine.hpp"
#include "vmm/storage/disk_directory.hpp"
#include "vmm/storage/disk_fixture.hpp"
#include "vmm/storage/sync_reader.hpp"

#include <map>
#include <set>
#include <string>
#include <vector>

using namespace hv;
using config::DiskConfig;
using config::DiskMode;
using config::DiskSource;
using hv::test::Request;
using Operation = BlockRequest::Operation;

namespace {

/// A disk that takes writes, and notes where.
class NotedDisk final : public BlockDevice {
public:
    explicit NotedDisk(bool read_only) : read_only_{read_only} {}
    [[nodiscard]] BlockGeometry geometry() const override { return {sectors, kSectorSize, read_only_, true}; }
    void submit(BlockRequest& request) override {
        sector = request.sector;
        user = request.user;
        ++submitted;
        request.complete(request, BlockStatus::ok);
    }
    [[nodiscard]] bool gone() const override { return lost; }
    bool lost{false};
    std::uint64_t sectors{1000};
    std::uint64_t sector{0};
    unsigned user{0};
    unsigned submitted{0};

private:
    bool read_only_;
};

/// What tables are on which disk.
class NotedTables final : public PartitionSource {
public:
    Expected<Vec<DiskDirectory::Partition>> read(const DiskDirectory::Disk& disk) override {
        ++reads;
        if (broken)
            return Unexpected{Error::io_error};
        return copy(tables[disk.device]);
    }
    static Vec<DiskDirectory::Partition> copy(const std::vector<DiskDirectory::Partition>& from) {
        Vec<DiskDirectory::Partition> partitions;
        for (const DiskDirectory::Partition& each : from)
            partitions.push(each).value();
        return partitions;
    }
    std::map<const BlockDevice*, std::vector<DiskDirectory::Partition>> tables;
    bool broken{false};
    unsigned reads{0};
};

struct Fixture {
    Fixture() {
        add("nvme0", "S1", first, {{"alpha", 10, 100}, {"beta", 200, 100}});
        add("ahci0", "S2", second, {{"beta", 10, 100}, {"", 200, 100}});
        add("virtio0", "S3", fixed, {{"gamma", 10, 100}});
    }
    struct Part {
        const char* label;
        std::uint64_t first, sectors;
    };
    void add(const char* name, const char* serial, BlockDevice& device, std::initializer_list<Part> parts) {
        DiskDirectory::Disk disk;
        disk.name.append("%s", name);
        disk.serial.append("%s", serial);
        disk.device = &device;
        partition(device, parts);
        disk.partitions = NotedTables::copy(source.tables[&device]);
        directory.add(std::move(disk)).value();
    }
    void partition(const BlockDevice& device, std::initializer_list<Part> parts) {
        auto& table = source.tables[&device];
        table.clear();
        for (const Part& part : parts) {
            table.push_back({static_cast<unsigned>(table.size()) + 1, {}, part.first, part.sectors});
            table.back().label.append("%s", part.label);
        }
    }
    Expected<std::unique_ptr<BlockDevice>> open(DiskSource kind, std::string_view name,
                                                DiskMode mode = DiskMode::read_write,
                                                std::string_view user = "vm") {
        return directory.open({kind, name, 0, mode}, user);
    }

    NotedDisk first{false}, second{false}, fixed{true};
    NotedTables source;
    DiskDirectory directory{source};
};

}  // namespace

TEST_CASE("a disk is found by its name, its serial number, and its partitions by label or number",
          "[storage]") {
    Fixture f;
    CHECK((*f.open(DiskSource::disk, "ahci0"))->geometry().sectors == 1000);
    CHECK((*f.open(DiskSource::disk, "S1"))->geometry().sectors == 1000);
    auto alpha = std::move(*f.open(DiskSource::partition, "alpha"));
    CHECK(alpha->geometry().sectors == 100);
    Request write{Operation::write, 5, 1, std::vector<std::byte>(512)};
    CHECK(write.run(*alpha) == BlockStatus::ok);
    CHECK(f.first.sector == 15);
    auto numbered = std::move(*f.open(DiskSource::disk, "ahci0p2"));
    Request again{Operation::write, 0, 1, std::vector<std::byte>(512)};
    CHECK(again.run(*numbered) == BlockStatus::ok);
    CHECK(f.second.sector == 200);
}

TEST_CASE("what is not there, or there twice, is not opened", "[storage]") {
    Fixture f;
    CHECK(f.open(DiskSource::disk, "nvme7").error() == Error::not_found);
    CHECK(f.open(DiskSource::disk, "ahci0p3").error() == Error::not_found);
    CHECK(f.open(DiskSource::disk, "alpha").error() == Error::not_found);
    CHECK(f.open(DiskSource::partition, "delta").error() == Error::not_found);
    CHECK(f.open(DiskSource::partition, "").error() == Error::not_found);
    CHECK(f.open(DiskSource::partition, "beta").error() == Error::already_exists);
    CHECK(f.directory.claims().empty());
}

TEST_CASE("who names what is not there is told what there is, and how much more", "[storage]") {
    Fixture f;
    const fake::LogCapture log;
    CHECK_FALSE(f.open(DiskSource::disk, "nvme7"));
    CHECK(log.mentions("vm: there is no disk \"nvme7\"; there is nvme0, ahci0, virtio0"));
    CHECK_FALSE(f.open(DiskSource::partition, "beta"));
    CHECK(log.mentions("is on nvme0p2, ahci0p1; allowed"));
    for (unsigned i = 0; i < 40; ++i)
        f.add("nvme8", "", f.first, {{"a partition with some name", 0, 10}});
    CHECK_FALSE(f.open(DiskSource::partition, "delta"));
    CHECK(log.mentions("alpha, beta, beta, gamma, a partition with some name, a partition with some name, a "
                       "partition with some name, a partition with some name, and 36 more"));
    CHECK_FALSE(f.open(DiskSource::partition, "a partition with some name"));
    CHECK(log.lines.back().ends_with(", and 26 more; allowed: disk: and one of these"));
    CHECK_FALSE(f.open(DiskSource::partition, std::string(156, 'x')));
    CHECK(log.lines.back().ends_with("; there is 44 others"));
    DiskDirectory nothing;
    CHECK_FALSE(nothing.open({DiskSource::disk, "nvme0", 0, DiskMode::read_only}, "vm"));
    CHECK(log.lines.back().ends_with("; there is none"));
}

TEST_CASE("a serial number is what its disk says: it stands for no other disk's name, nor for two",
          "[storage]") {
    NotedDisk small{true};
    Fixture f;
    f.add("nvme8", "nvme9", small, {});  // read-only: to be told from what it claims to be
    f.add("nvme9", "S9", f.first, {{"delta", 0, 10}});
    f.add("nvme10", "S9", f.first, {});
    f.add("nvme11", "", f.first, {});
    CHECK(f.open(DiskSource::disk, "nvme9"));
    CHECK(f.open(DiskSource::disk, "S9").error() == Error::already_exists);
    CHECK(f.open(DiskSource::disk, "").error() == Error::not_found);
}

TEST_CASE("a disk that is reached two ways is there once", "[storage]") {
    Fixture f;
    const fake::LogCapture log;
    const auto add = [&](const char* name, std::uint8_t identifier) {
        DiskDirectory::Disk disk;
        disk.name.append("%s", name);
        disk.identifier.eui64[7] = identifier;
        disk.device = &f.first;
        return f.directory.add(std::move(disk));
    };
    CHECK(add("nvme1", 0));
    CHECK(add("nvme2", 0));
    CHECK(add("nvme3", 1));
    CHECK(add("nvme4", 2));
    CHECK(add("nvme5", 1).error() == Error::already_exists);
    CHECK(log.mentions("nvme5 is left out: it is nvme3, reached another way"));
    CHECK(f.open(DiskSource::disk, "nvme5").error() == Error::not_found);
}

TEST_CASE("who writes a range has it alone, until he lets go of it", "[storage]") {
    Fixture f;
    auto writer = std::move(*f.open(DiskSource::partition, "alpha"));
    CHECK(f.open(DiskSource::partition, "alpha").error() == Error::busy);
    CHECK(f.open(DiskSource::partition, "alpha", DiskMode::read_only).error() == Error::busy);
    CHECK(f.open(DiskSource::disk, "nvme0", DiskMode::copy_on_write).error() == Error::busy);
    CHECK(f.open(DiskSource::disk, "nvme0p2"));  // beside it
    writer.reset();
    CHECK(f.open(DiskSource::disk, "nvme0"));
    auto reader = std::move(*f.open(DiskSource::disk, "nvme0", DiskMode::read_only));
    auto other = std::move(*f.open(DiskSource::partition, "alpha", DiskMode::copy_on_write));
    CHECK(f.open(DiskSource::disk, "nvme0p1").error() == Error::busy);
}

TEST_CASE("a whole disk has the size that it has now, a partition its own", "[storage]") {
    Fixture fixture;
    const auto whole = std::move(*fixture.open(DiskSource::disk, "nvme0"));
    const auto part = std::move(*fixture.open(DiskSource::disk, "ahci0p1"));
    fixture.first.sectors = fixture.second.sectors = 5000;
    CHECK(whole->geometry().sectors == 5000);
    CHECK(part->geometry().sectors == 100);
    Request request{Operation::read, 4999, 1};
    request.run(*whole);
    CHECK(request.status == BlockStatus::ok);
    CHECK(fixture.first.sector == 4999);
    CHECK(fixture.open(DiskSource::disk, "nvme0p2").error() == Error::busy);
}

TEST_CASE("who has a whole disk has all that it grows to", "[storage]") {
    Fixture fixture;
    fixture.first.sectors = 0;
    const auto whole = std::move(*fixture.open(DiskSource::disk, "nvme0"));
    fixture.first.sectors = 1000;
    CHECK(fixture.open(DiskSource::disk, "nvme0p2", DiskMode::read_only, "other").error() == Error::busy);
    CHECK(fixture.open(DiskSource::disk, "S1", DiskMode::read_write, "other").error() == Error::busy);
}

TEST_CASE("what is opened to be read takes no writes", "[storage]") {
    Fixture f;
    auto disk = std::move(*f.open(DiskSource::partition, "alpha", DiskMode::read_only));
    CHECK(disk->geometry().read_only);
    for (const auto operation : {Operation::write, Operation::discard, Operation::write_zeroes}) {
        Request request{operation, 0, 1, std::vector<std::byte>(operation == Operation::write ? 512 : 0)};
        CHECK(request.run(*disk) == BlockStatus::io_error);
    }
    CHECK(f.first.submitted == 0);
    CHECK(Request{Operation::read, 0, 1}.run(*disk) == BlockStatus::ok);
}

TEST_CASE("a reader's flush ends at once, a writer's is the disk's", "[storage]") {
    Fixture f;
    auto disk = std::move(*f.open(DiskSource::partition, "alpha", DiskMode::copy_on_write));
    CHECK(Request{Operation::flush, 0, 0}.run(*disk) == BlockStatus::ok);
    CHECK(f.first.submitted == 0);
    disk.reset();
    disk = std::move(*f.open(DiskSource::partition, "alpha"));
    CHECK(Request{Operation::flush, 0, 0}.run(*disk) == BlockStatus::ok);
    CHECK(f.first.submitted == 1);
}

TEST_CASE("a disk that is read-only itself is not opened for writing", "[storage]") {
    Fixture f;
    CHECK(f.open(DiskSource::partition, "gamma").error() == Error::unsupported);
    CHECK(f.open(DiskSource::partition, "gamma", DiskMode::copy_on_write));
}

TEST_CASE("requests bear the number of their VM, which others have only if there are too many", "[storage]") {
    Fixture f;
    const auto number_of = [&](BlockDevice& disk) {
        Request{Operation::read, 0, 1}.run(disk);
        return f.first.user;
    };
    const auto open = [&](DiskSource source, std::string_view name, std::string_view user) {
        return std::move(*f.open(source, name, DiskMode::copy_on_write, user));
    };
    auto web = open(DiskSource::partition, "alpha", "web");
    auto db = open(DiskSource::partition, "alpha", "db");
    const auto again = open(DiskSource::disk, "nvme0p2", "web");
    CHECK(number_of(*web) != number_of(*db));
    CHECK(number_of(*web) == number_of(*again));
    const unsigned free = number_of(*db);
    db.reset();
    std::vector<std::string> names;
    for (unsigned i = 0; i < kBlockUsers; ++i)
        names.push_back("vm" + std::to_string(i));
    std::vector<std::unique_ptr<BlockDevice>> disks;
    std::set<unsigned> numbers;
    for (const std::string& name : names) {
        disks.push_back(open(DiskSource::partition, "alpha", name));
        numbers.insert(number_of(*disks.back()));
    }
    CHECK(numbers.contains(free));
    CHECK(numbers.size() == kBlockUsers - 1);  // web has one, so two have to share
    CHECK(*numbers.rbegin() < kBlockUsers);
}

TEST_CASE("a partition that lies outside its disk is not opened", "[storage]") {
    Fixture f;
    NotedDisk disk{false};
    f.add("nvme1", "S4", disk, {{"beyond", 950, 100}});
    CHECK(f.open(DiskSource::partition, "beyond").error() == Error::out_of_range);
}

TEST_CASE("who had a whole disk to write may have given it other partitions", "[storage]") {
    Fixture f;
    auto whole = std::move(*f.open(DiskSource::disk, "nvme0"));
    f.partition(f.first, {{"beta", 400, 50}, {"new", 600, 60}});
    CHECK(f.open(DiskSource::partition, "alpha").error() == Error::busy);
    f.directory.refresh();
    CHECK(f.source.reads == 0);  // he is not through with it
    whole.reset();
    SECTION("by label") {
        CHECK(f.open(DiskSource::partition, "alpha").error() == Error::not_found);
        const auto made = std::move(*f.open(DiskSource::partition, "new"));
        CHECK(made->geometry().sectors == 60);
        CHECK(Request{Operation::read, 0, 1}.run(*made) == BlockStatus::ok);
        CHECK(f.first.sector == 600);
        CHECK(f.source.reads == 1);  // nobody has changed it since
    }
    SECTION("by number") {
        const auto moved = std::move(*f.open(DiskSource::disk, "nvme0p1"));
        CHECK(moved->geometry().sectors == 50);
        CHECK(f.source.reads == 1);
    }
    SECTION("for the monitor") {
        f.directory.refresh();
        CHECK(f.directory.disks()[0].partitions.size() == 2);
        CHECK(f.directory.disks()[0].partitions[1].label.view() == "new");
        f.directory.refresh();
        CHECK(f.source.reads == 1);
    }
    SECTION("but not while somebody writes it again") {
        whole = std::move(*f.open(DiskSource::disk, "nvme0"));
        CHECK(f.open(DiskSource::partition, "alpha").error() == Error::busy);
        f.directory.refresh();
        CHECK(f.source.reads == 0);
    }
    SECTION("and whole disks, and other disks' partitions, have nobody wait for the table") {
        CHECK(f.open(DiskSource::disk, "nvme0", DiskMode::read_only));
        CHECK(f.open(DiskSource::disk, "ahci0p1", DiskMode::read_only));
        CHECK(f.source.reads == 0);
    }
}

TEST_CASE("without a table that can be read there are no partitions, until it can", "[storage]") {
    Fixture f;
    f.open(DiskSource::disk, "nvme0").value().reset();
    f.source.broken = true;
    CHECK(f.open(DiskSource::partition, "alpha").error() == Error::not_found);
    CHECK(f.directory.disks()[0].partitions.empty());
    CHECK(f.open(DiskSource::disk, "nvme0", DiskMode::read_only));
    CHECK(f.source.reads == 1);
    CHECK(f.open(DiskSource::partition, "alpha").error() == Error::not_found);
    CHECK(f.source.reads == 1);  // who asks for a label need not wait for it again
    CHECK(f.open(DiskSource::disk, "nvme0p1").error() == Error::not_found);
    CHECK(f.source.reads == 2);
    f.first.lost = true;
    f.directory.refresh();
    CHECK(f.source.reads == 2);  // one that is gone is not asked
    f.first.lost = f.source.broken = false;
    f.directory.refresh();
    CHECK(f.open(DiskSource::partition, "alpha"));
}

TEST_CASE("readers, and who writes a partition, leave the table as it is", "[storage]") {
    Fixture f;
    f.open(DiskSource::disk, "nvme0", DiskMode::read_only).value().reset();
    f.open(DiskSource::disk, "nvme0", DiskMode::copy_on_write).value().reset();
    f.open(DiskSource::partition, "alpha").value().reset();
    CHECK(f.open(DiskSource::partition, "alpha"));
    CHECK(f.source.reads == 0);
}

TEST_CASE("a disk is read at once, or says that it cannot", "[storage]") {
    test::TestDisk disk{16};
    std::vector<std::byte> bytes(1024);
    REQUIRE(read_sync(disk, 3, bytes));
    CHECK(std::equal(bytes.begin(), bytes.end(), disk.contents.begin() + 3 * 512));
    disk.answer = BlockStatus::io_error;
    CHECK(read_sync(disk, 3, bytes).error() == Error::io_error);
}

TEST_CASE("who waits for a disk is woken by the CPU that hears of its end", "[storage]") {
    test::TestDisk disk{16};
    std::vector<std::byte> bytes(512);
    const auto read = [&](std::uint32_t from, std::uint32_t to) {
        disk.on_submit = [to] { fake::set_cpu(to); };
        fake::set_cpu(from);
        const std::uint32_t before = fake::kicks(from);
        REQUIRE(read_sync(disk, 3, bytes));
        fake::set_cpu(0);
        return fake::kicks(from) - before;
    };
    CHECK(read(0, 1) == 1);
    CHECK(read(2, 2) == 0);
}
