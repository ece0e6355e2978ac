// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/monitor/disk_command.hpp"
#include "vmm/storage/disk_fixture.hpp"

#include <string>

using namespace hv;

namespace {

class Text final : public Output {
public:
    void write(std::string_view more) override { text += more; }
    std::string text;
};

class LostDisk final : public BlockDevice {
public:
    [[nodiscard]] BlockGeometry geometry() const override { return {2048, 4096, false, false}; }
    [[nodiscard]] bool gone() const override { return true; }
    [[nodiscard]] Troubles troubles() const override { return {3, 12}; }
    void submit(BlockRequest& request) override { request.complete(request, BlockStatus::io_error); }
};

}  // namespace

TEST_CASE("disk shows disks, their partitions and their users", "[monitor]") {
    test::TestDisk plain{204'800};
    LostDisk lost;
    DiskDirectory directory;
    DiskDirectory::Disk first;
    first.name.append("nvme0");
    first.model.append("Model A");
    first.serial.append("S1");
    first.device = &plain;
    DiskDirectory::Partition partition{3, {}, 2048, 102'400};
    partition.label.append("data");
    first.partitions.push(partition).value();
    directory.add(std::move(first)).value();
    DiskDirectory::Disk second;
    second.name.append("ahci0");
    second.device = &lost;
    directory.add(std::move(second)).value();
    const auto reader =
        directory.open({config::DiskSource::partition, "data", 0, config::DiskMode::copy_on_write}, "web");
    const auto writer =
        directory.open({config::DiskSource::disk, "ahci0", 0, config::DiskMode::read_write}, "db");
    REQUIRE(reader);
    REQUIRE(writer);

    DiskCommand command{directory};
    Text out;
    CHECK(command.run({}, out) == MonitorCommand::Result::done);
    CHECK(out.text == "nvme0: 100 MiB, blocks of 512, Model A, serial S1, read-only\n"
                      "  nvme0p3: 50 MiB, \"data\", read by web\n"
                      "ahci0: 1 MiB, blocks of 4096, , serial , GONE, reset 3 times, 12 stray completions, "
                      "written by db\n");
    const std::string_view word = "x";
    CHECK(command.run({&word, 1}, out) == MonitorCommand::Result::wrong_arguments);
}

TEST_CASE("disk shows the partitions that there are after somebody wrote the whole disk", "[monitor]") {
    class NewTable final : public PartitionSource {
        Expected<Vec<DiskDirectory::Partition>> read(const DiskDirectory::Disk&) override {
            Vec<DiskDirectory::Partition> partitions;
            partitions.push({1, {}, 2048, 2048}).value();
            return partitions;
        }
    } table;
    test::TestDisk plain{204'800};
    DiskDirectory directory{table};
    DiskDirectory::Disk disk;
    disk.name.append("nvme0");
    disk.device = &plain;
    disk.table = DiskDirectory::Disk::Table::unreadable;
    directory.add(std::move(disk)).value();
    DiskCommand command{directory};
    Text out;
    CHECK(command.run({}, out) == MonitorCommand::Result::done);
    CHECK(out.text.ends_with("\n  nvme0p1: 1 MiB, \"\"\n"));
}

TEST_CASE("disk says when there is none", "[monitor]") {
    DiskDirectory directory;
    DiskCommand command{directory};
    Text out;
    CHECK(command.run({}, out) == MonitorCommand::Result::done);
    CHECK(out.text == "There is no disk that this host can drive.\n");
}
