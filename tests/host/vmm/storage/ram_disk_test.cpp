// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/arena_frames.hpp"
#include "vmm/storage/disk_fixture.hpp"
#include "vmm/storage/module_disk.hpp"
#include "vmm/storage/partition.hpp"
#include "vmm/storage/ram_disk.hpp"

#include <thread>

namespace {

using namespace hv;
using test::Request;
using Operation = BlockRequest::Operation;

}  // namespace

TEST_CASE("a RAM disk agrees with a model under random requests", "[storage]") {
    fake::ArenaFrames frames;
    {
        constexpr std::uint64_t kSectors = 4096 * 3 + 5;
        auto disk = std::move(RamDisk::create(frames, kSectors * kSectorSize)).value();
        std::vector<std::byte> model(kSectors * kSectorSize);
        std::mt19937 random{1};
        for (unsigned step = 0; step < 3000; ++step) {
            const std::uint64_t count = random() % 40;
            const std::uint64_t sector = random() % 4 == 0 ? kSectors - count : random() % (kSectors - count);
            const auto at = model.begin() + static_cast<std::ptrdiff_t>(sector * kSectorSize);
            switch (random() % 4) {
            case 0: {
                Request request{Operation::write, sector, count,
                                test::random_bytes(random, count * kSectorSize)};
                REQUIRE(request.scatter(random, 3000).run(*disk) == BlockStatus::ok);
                std::copy(request.bytes.begin(), request.bytes.end(), at);
                break;
            }
            case 1: {
                Request request{random() % 2 == 0 ? Operation::discard : Operation::write_zeroes, sector,
                                count};
                REQUIRE(request.run(*disk) == BlockStatus::ok);
                std::fill_n(at, count * kSectorSize, std::byte{0});
                break;
            }
            default: {
                Request request{Operation::read, sector, count};
                REQUIRE(request.scatter(random, 3000).run(*disk) == BlockStatus::ok);
                REQUIRE(std::equal(request.bytes.begin(), request.bytes.end(), at));
            }
            }
        }
        CHECK(Request{Operation::flush, 0, 0}.run(*disk) == BlockStatus::ok);
    }
    CHECK(frames.outstanding() == 0);
}

TEST_CASE("a RAM disk takes memory for what is written only", "[storage]") {
    fake::ArenaFrames frames;
    auto disk = std::move(RamDisk::create(frames, std::uint64_t{1} << 42)).value();
    CHECK(frames.outstanding() == 0);
    const std::uint64_t last = disk->geometry().sectors - 1;
    CHECK(Request{Operation::read, last, 1}.run(*disk) == BlockStatus::ok);
    CHECK(Request{Operation::discard, 0, 100}.run(*disk) == BlockStatus::ok);
    const auto before = frames.outstanding();
    Request write{Operation::write, last, 1, std::vector<std::byte>(512, std::byte{7})};
    CHECK(write.run(*disk) == BlockStatus::ok);
    CHECK(frames.outstanding() == before + 3);
    Request read{Operation::read, last - 1, 2};
    CHECK(read.run(*disk) == BlockStatus::ok);
    CHECK(read.bytes[511] == std::byte{0});
    CHECK(read.bytes[512] == std::byte{7});
}

TEST_CASE("requests that are not of the disk fail", "[storage]") {
    fake::ArenaFrames frames;
    CHECK(RamDisk::create(frames, 0).error() == Error::invalid_argument);
    CHECK(RamDisk::create(frames, 513).error() == Error::invalid_argument);
    auto disk = std::move(RamDisk::create(frames, 8 * kSectorSize)).value();
    CHECK(Request{Operation::read, 8, 1}.run(*disk) == BlockStatus::io_error);
    CHECK(Request{Operation::read, ~0ull, 2}.run(*disk) == BlockStatus::io_error);
    CHECK(Request{Operation::discard, 4, ~0ull}.run(*disk) == BlockStatus::io_error);
    Request odd{Operation::write, 0, 2, std::vector<std::byte>(1023)};
    CHECK(odd.run(*disk) == BlockStatus::io_error);
    Request wrong{Operation::write, 0, 3, std::vector<std::byte>(1024)};
    CHECK(wrong.run(*disk) == BlockStatus::io_error);
}

TEST_CASE("running out of memory fails the write and nothing else", "[storage]") {
    for (std::uint64_t allowed = 0; allowed < 8; ++allowed) {
        fake::ArenaFrames frames;
        {
            auto disk = std::move(RamDisk::create(frames, kMiB)).value();
            frames.limit(allowed);
            std::mt19937 random{2};
            Request write{Operation::write, 0, 40, test::random_bytes(random, 40 * kSectorSize)};
            CHECK((write.run(*disk) == BlockStatus::ok) == (allowed >= 7));
            Request read{Operation::read, 0, 40};
            CHECK(read.run(*disk) == BlockStatus::ok);
            frames.limit(100);
            Request again{Operation::write, 0, 40, write.bytes};
            CHECK(again.run(*disk) == BlockStatus::ok);
            Request check{Operation::read, 0, 40};
            CHECK(check.run(*disk) == BlockStatus::ok);
            CHECK(check.bytes == write.bytes);
        }
        CHECK(frames.outstanding() == 0);
    }
}

TEST_CASE("several CPUs fill one disk without losing sectors", "[storage]") {
    fake::ArenaFrames frames;
    auto disk = std::move(RamDisk::create(frames, 512 * kSectorSize)).value();
    std::vector<std::thread> writers;
    for (unsigned cpu = 0; cpu < 4; ++cpu)
        writers.emplace_back([&, cpu] {
            fake::set_cpu(cpu);
            for (std::uint64_t sector = cpu; sector < 512; sector += 4) {
                Request write{Operation::write, sector, 1,
                              std::vector<std::byte>(512, std::byte(sector & 0xff))};
                if (write.run(*disk) != BlockStatus::ok)
                    std::abort();
            }
        });
    for (std::thread& writer : writers)
        writer.join();
    Request read{Operation::read, 0, 512};
    REQUIRE(read.run(*disk) == BlockStatus::ok);
    bool right = true;
    for (std::size_t i = 0; i < read.bytes.size(); ++i)
        right = right && read.bytes[i] == std::byte((i / 512) & 0xff);
    CHECK(right);
}

TEST_CASE("a module disk shows its image, filled up to a sector, and refuses writes", "[storage]") {
    std::mt19937 random{3};
    const auto image = test::random_bytes(random, 1300);
    ModuleDisk disk{image};
    CHECK(disk.geometry().sectors == 3);
    CHECK(disk.geometry().read_only);
    Request read{Operation::read, 1, 2};
    CHECK(read.scatter(random, 100).run(disk) == BlockStatus::ok);
    CHECK(std::equal(image.begin() + 512, image.end(), read.bytes.begin()));
    CHECK(std::all_of(read.bytes.begin() + 788, read.bytes.end(),
                      [](std::byte byte) { return byte == std::byte{0}; }));
    CHECK(Request{Operation::write, 0, 1, std::vector<std::byte>(512)}.run(disk) == BlockStatus::io_error);
    CHECK(Request{Operation::discard, 0, 1}.run(disk) == BlockStatus::io_error);
    CHECK(Request{Operation::flush, 0, 0}.run(disk) == BlockStatus::ok);
    CHECK(Request{Operation::read, 3, 1}.run(disk) == BlockStatus::io_error);
    ModuleDisk empty{{}};
    CHECK(Request{Operation::read, 0, 0}.run(empty) == BlockStatus::ok);
}

TEST_CASE("a partition's physical blocks are the disk's as far as it begins with one", "[storage]") {
    test::TestDisk disk{100};
    for (const auto& [first, size] : {std::pair{0u, 4096u}, {64u, 4096u}, {4u, 2048u}, {63u, 512u}})
        CHECK((*Partition::create(disk, first, 8))->geometry().physical_block_size == size);
}

TEST_CASE("a partition is its part of the disk and no more", "[storage]") {
    test::TestDisk disk{100};
    CHECK(Partition::create(disk, 50, 51).error() == Error::out_of_range);
    CHECK(Partition::create(disk, 101, 0).error() == Error::out_of_range);
    CHECK(Partition::create(disk, 50, ~0ull).error() == Error::out_of_range);
    auto partition = std::move(Partition::create(disk, 40, 20)).value();
    CHECK(partition->geometry().sectors == 20);
    Request read{Operation::read, 19, 1};
    CHECK(read.run(*partition) == BlockStatus::ok);
    CHECK(std::equal(read.bytes.begin(), read.bytes.end(), disk.contents.begin() + 59 * 512));
    CHECK(Request{Operation::read, 19, 2}.run(*partition) == BlockStatus::io_error);
    CHECK(Request{Operation::read, ~0ull - 38, 1}.run(*partition) == BlockStatus::io_error);
}
