// SPDX-License-Identifier: MIT
#include "drivers/block/virtio_blk_fixture.hpp"

using namespace hv;
using namespace hv::test;

TEST_CASE("a disk is described as its device's configuration says", "[block]") {
    VirtioDisk d;
    const auto driver = std::move(*d.create());
    const DiskDescription& disk = driver->disk();
    CHECK(disk.model.view() == "virtio-blk");
    CHECK(disk.serial.view() == "AB_1_");
    CHECK(disk.blocks == kSectors);
    CHECK(disk.logical_block_size == 512);
    CHECK_FALSE(disk.read_only);
    CHECK(disk.limits.max_runs == 16);
    CHECK(disk.limits.max_run_bytes == 64 * 1024);
    CHECK(disk.limits.can_flush);
    CHECK(disk.limits.can_discard);
    CHECK(disk.limits.can_write_zeroes);
    CHECK(disk.limits.max_range_blocks == 500);
    CHECK(driver->channels() == 2);
    CHECK(driver->slots() == 64);
    CHECK_FALSE(driver->shared_interrupt());
    CHECK(d.device.ready());
    CHECK(d.device.queues[0].size == 64);
    CHECK(d.device.queues[0].vector == 0);
    CHECK(d.device.queues[1].vector == 1);
    CHECK_FALSE(d.device.queues[2].enabled);
    CHECK(d.device.interrupts.empty());
}

TEST_CASE("a plain device has one queue, and does what the features say", "[block]") {
    BlkConfig config = usual_config();
    config.blk_size = 4096;
    VirtioDisk d{VIRTIO_F_VERSION_1 | VIRTIO_BLK_F_RO | VIRTIO_BLK_F_BLK_SIZE, config};
    d.id_status = VIRTIO_BLK_S_UNSUPP;
    const auto driver = std::move(*d.create(4, 0));
    CHECK(driver->disk().serial.view().empty());
    CHECK(driver->disk().read_only);
    CHECK(driver->disk().blocks == kSectors / 8);
    CHECK(driver->disk().logical_block_size == 4096);
    CHECK(driver->disk().limits.max_runs == 1);
    CHECK_FALSE(driver->disk().limits.can_flush);
    CHECK_FALSE(driver->disk().limits.can_discard);
    CHECK(driver->channels() == 1);
    CHECK(driver->slots() == 128 / 3);
    CHECK(d.device.queues[0].vector == VIRTIO_MSI_NO_VECTOR);
    CHECK(driver->shared_interrupt());
}

TEST_CASE("too few vectors are shared by all queues", "[block]") {
    VirtioDisk d;
    const auto driver = std::move(*d.create(4, 3));
    CHECK(driver->channels() == 4);
    CHECK(driver->shared_interrupt());
    for (const auto& queue : d.device.queues)
        CHECK(queue.vector == 0);
}

TEST_CASE("a device that makes no sense is refused, and has no way to memory", "[block]") {
    BlkConfig config = usual_config();
    Error expected = Error::corrupted;
    SECTION("blocks of no power of two") {
        config.blk_size = 1000;
    }
    SECTION("blocks larger than a page") {
        config.blk_size = 8192;
    }
    SECTION("blocks of nothing") {
        config.blk_size = 0;
    }
    SECTION("segments smaller than a page") {
        config.size_max = 512;
        expected = Error::unsupported;
    }
    SECTION("no queue") {
        config.num_queues = 0;
        expected = Error::unsupported;
    }
    SECTION("more queues than there are") {
        config.num_queues = 8;
        expected = Error::unsupported;
    }
    VirtioDisk d{kAll, config};
    CHECK(d.create(8).error() == expected);
    CHECK(d.device.status == 0);
    CHECK_FALSE(d.device.masters_bus());
    CHECK(d.frames.outstanding() == 0);
}

TEST_CASE("a device that does not answer at boot is given up", "[block]") {
    VirtioDisk d;
    SECTION("stuck in a reset") {
        d.device.status = DRIVER;
        d.device.stuck = true;
    }
    SECTION("silent") {
        d.silent = true;
        d.clock.skip(1);
        // Time goes on while nothing is read: each look at the clock is a microsecond later.
        struct Ticking final : Clock {
            mutable std::uint64_t at{0};
            [[nodiscard]] std::uint64_t now() const override { return at += 1000; }
            [[nodiscard]] std::uint64_t hz() const override { return 1'000'000; }
            void arm(Timer&, std::uint64_t) override {}
            void disarm(Timer&) override {}
        } clock;
        CHECK(VirtioBlkDriver::create(d.device.transport(), d.pool, clock, {"vd0", 1, 1}).error() ==
              Error::timed_out);
        CHECK_FALSE(d.device.masters_bus());
        return;
    }
    CHECK(d.create().error() == Error::timed_out);
    CHECK_FALSE(d.device.masters_bus());
}

TEST_CASE("a device that ends at boot what it was not asked for is given up at once", "[block]") {
    VirtioDisk d;
    d.device.on_notify = [&](unsigned queue) { d.device.push(queue, 99, 1); };
    CHECK(d.create().error() == Error::io_error);
    CHECK_FALSE(d.device.masters_bus());
    CHECK(d.frames.outstanding() == 0);
}

TEST_CASE("without memory there is no driver, and nothing is lost", "[block]") {
    for (std::uint64_t allowed = 0; allowed < 6; ++allowed) {
        VirtioDisk d;
        d.frames.limit(allowed);
        CHECK(d.create().error() == Error::no_memory);
        CHECK(d.frames.outstanding() == 0);
    }
}

TEST_CASE("data goes to a virtio disk and back", "[block]") {
    for (const std::uint64_t without : {std::uint64_t{0}, VIRTIO_F_INDIRECT_DESC, VIRTIO_F_EVENT_IDX}) {
        VirtioDiskBench bench{kAll & ~without};
        for (unsigned round = 0; round < 40; ++round) {
            const std::uint64_t sector = bench.random() % (kSectors - 800);
            const std::uint64_t count = 1 + bench.random() % 800;
            Request write{Operation::write, sector, count, test::random_bytes(bench.random, count * 512)};
            bench.run(write.scatter(bench.random, 9000));
            CHECK(write.status == BlockStatus::ok);
            CHECK(std::memcmp(write.bytes.data(), &bench.sectors[sector * 512], count * 512) == 0);
            Request read{Operation::read, sector, count};
            bench.run(read.scatter(bench.random, 9000));
            CHECK(read.status == BlockStatus::ok);
            CHECK((read.bytes == write.bytes));
        }
    }
}

TEST_CASE("sectors are 512 bytes to a virtio disk, whatever its blocks are", "[block]") {
    BlkConfig config = usual_config();
    config.blk_size = 4096;
    VirtioDiskBench bench{kAll, config};
    Request write{Operation::write, 64, 8, test::random_bytes(bench.random, 4096)};
    write.run(*bench.disk);
    REQUIRE(bench.waiting.size() == 1);
    CHECK(VirtioDisk::header(bench.waiting[0]).sector == 64);
    bench.finish_all();
    CHECK(write.status == BlockStatus::ok);
    Request zero{Operation::write_zeroes, 64, 8};
    bench.run(zero);
    CHECK(zero.status == BlockStatus::ok);
    CHECK(bench.sectors[64 * 512 + 4095] == std::byte{0});
    CHECK(bench.largest_range == 8);
}

TEST_CASE("flush, discard and zeroes reach the device as such, in ranges that it takes", "[block]") {
    VirtioDiskBench bench;
    std::fill(bench.sectors.begin(), bench.sectors.end(), std::byte{7});
    Request flush{Operation::flush, 0, 0};
    flush.run(*bench.disk);
    REQUIRE(bench.waiting.size() == 1);
    CHECK(VirtioDisk::header(bench.waiting[0]).type == VIRTIO_BLK_T_FLUSH);
    CHECK(bench.waiting[0].chain.bytes().size() == sizeof(BlkHeader));
    bench.finish_all();
    CHECK(flush.status == BlockStatus::ok);
    Request discard{Operation::discard, 10, 1200};
    discard.run(*bench.disk);
    REQUIRE(bench.waiting.size() == 3);
    CHECK(VirtioDisk::header(bench.waiting[0]).type == VIRTIO_BLK_T_DISCARD);
    bench.finish_all();
    CHECK(discard.status == BlockStatus::ok);
    CHECK(bench.largest_range == 500);
    CHECK(bench.sectors[10 * 512 - 1] == std::byte{7});
    CHECK(bench.sectors[10 * 512] == std::byte{0});
    CHECK(bench.sectors[1210 * 512 - 1] == std::byte{0});
    CHECK(bench.sectors[1210 * 512] == std::byte{7});
    Request zero{Operation::write_zeroes, 2000, 16};
    zero.run(*bench.disk);
    REQUIRE(bench.waiting.size() == 1);
    CHECK(VirtioDisk::header(bench.waiting[0]).type == VIRTIO_BLK_T_WRITE_ZEROES);
    bench.finish_all();
    CHECK(bench.sectors[2015 * 512] == std::byte{0});
}

TEST_CASE("zeroes are unmapped if they may be, by a device that does that", "[block]") {
    for (const bool can : {false, true}) {
        BlkConfig config = usual_config();
        config.write_zeroes_may_unmap = can ? 1 : 0;
        VirtioDiskBench bench{kAll, config};
        for (const bool may : {false, true}) {
            Request zero{Operation::write_zeroes, 2000, 16};
            zero.request.may_unmap = may;
            bench.run(zero);
            CHECK(zero.status == BlockStatus::ok);
            CHECK(bench.unmapped == (can && may));
        }
        Request discard{Operation::discard, 10, 8};
        discard.request.may_unmap = true;
        bench.run(discard);
        CHECK_FALSE(bench.unmapped);
    }
}

TEST_CASE("a device's topology says how large its physical blocks are", "[block]") {
    BlkConfig config = usual_config();
    config.physical_block_exp = 3;
    CHECK((*VirtioDisk{kAll, config}.create())->disk().physical_block_size == 0);
    VirtioDisk d{kAll | VIRTIO_BLK_F_TOPOLOGY, config};
    CHECK((*d.create())->disk().physical_block_size == 4096);
    config.physical_block_exp = GENERATE(std::uint8_t{23}, std::uint8_t{40}, std::uint8_t{255});
    CHECK((*VirtioDisk{kAll | VIRTIO_BLK_F_TOPOLOGY, config}.create())->disk().physical_block_size == 0);
}

TEST_CASE("what the device says of a request becomes its status", "[block]") {
    VirtioDiskBench bench;
    const std::array<std::pair<std::uint8_t, BlockStatus>, 4> all{
        {{VIRTIO_BLK_S_OK, BlockStatus::ok},
         {VIRTIO_BLK_S_IOERR, BlockStatus::io_error},
         {VIRTIO_BLK_S_UNSUPP, BlockStatus::unsupported},
         {77, BlockStatus::io_error}}};
    for (const auto& [said, status] : all) {
        Request flush{Operation::flush, 0, 0};
        flush.run(*bench.disk);
        bench.answer(0, said);
        bench.engine->service();
        CHECK(flush.status == status);
    }
    // Used, but nothing was written.
    Request flush{Operation::flush, 0, 0};
    flush.run(*bench.disk);
    bench.device.push(0, bench.waiting[0].chain.head, 1);
    bench.waiting.clear();
    bench.engine->service();
    CHECK(flush.status == BlockStatus::io_error);
}

TEST_CASE("each CPU has a queue and its interrupt", "[block]") {
    VirtioDiskBench bench;
    fake::set_cpu(1);
    Request read{Operation::read, 0, 8};
    read.run(*bench.disk);
    REQUIRE(bench.waiting.size() == 1);
    CHECK(bench.waiting[0].queue == 1);
    CHECK(bench.device.doorbells.back() == 1);
    bench.answer(0);
    CHECK(bench.device.interrupts == std::map<std::uint16_t, unsigned>{{1, 1}});
    bench.engine->service();
    CHECK(read.status == BlockStatus::ok);
    // Asked for again after the queue was found empty.
    Request again{Operation::read, 0, 8};
    again.run(*bench.disk);
    bench.answer(0);
    CHECK(bench.device.interrupts[1] == 2);
    bench.engine->service();
}

TEST_CASE("more requests than the queue holds wait for their turn", "[block]") {
    VirtioDiskBench bench;
    std::deque<Request> requests;
    for (unsigned i = 0; i < 200; ++i) {
        requests.emplace_back(Operation::read, i * 8, 8);
        requests.back().run(*bench.disk);
    }
    CHECK(bench.waiting.size() == 64);
    bench.finish_all();
    for (const Request& request : requests)
        CHECK(request.status == BlockStatus::ok);
}

TEST_CASE("a device that needs a reset gets one, and what it had begun is asked for again", "[block]") {
    VirtioDiskBench bench;
    std::mt19937 random{9};
    Request write{Operation::write, 40, 8, test::random_bytes(random, 8 * 512)};
    write.run(*bench.disk);
    REQUIRE(bench.waiting.size() == 1);
    bench.waiting.clear();
    SECTION("by its status") {
        bench.device.status |= DEVICE_NEEDS_RESET;
    }
    SECTION("by a chain that it does not have") {
        bench.device.push(0, 50, 0);
    }
    SECTION("by silence") {
        bench.clock.run_seconds(12);
    }
    bench.clock.run_for(bench.clock.hz() / 50);
    bench.engine->service();
    CHECK(bench.device.resets >= 2);
    bench.clock.run_for(bench.clock.hz() / 100);
    CHECK(bench.engine->resets() == 1);
    CHECK(bench.device.ready());
    CHECK(bench.device.queues[0].vector == 0);
    bench.finish_all();
    CHECK(write.status == BlockStatus::ok);
    CHECK(std::memcmp(write.bytes.data(), &bench.sectors[40 * 512], 8 * 512) == 0);
}

TEST_CASE("a reset is not waited for, but not for ever either", "[block]") {
    VirtioDiskBench bench;
    Request read{Operation::read, 0, 8};
    read.run(*bench.disk);
    bench.waiting.clear();
    bench.device.stuck = true;
    bench.device.on_read = {};
    bench.driver->begin_reset();
    CHECK(bench.driver->poll_reset() == CommandHardware::ResetProgress::pending);
    SECTION("it comes back") {
        bench.device.status = 0;
        for (auto& queue : bench.device.queues)
            queue = {.size = queue.max_size, .max_size = queue.max_size};
        CHECK(bench.driver->poll_reset() == CommandHardware::ResetProgress::done);
        CHECK(bench.device.masters_bus());
    }
    SECTION("it never does") {
        unsigned polls = 1;
        while (bench.driver->poll_reset() == CommandHardware::ResetProgress::pending)
            ++polls;
        CHECK(polls < 5000);
        CHECK_FALSE(bench.device.masters_bus());
    }
    SECTION("it comes back as another") {
        bench.device.status = 0;
        bench.device.refuses_features = true;
        CHECK(bench.driver->poll_reset() == CommandHardware::ResetProgress::gone);
        CHECK_FALSE(bench.device.masters_bus());
    }
}

TEST_CASE("a device that was pulled is gone, and its requests fail", "[block]") {
    VirtioDiskBench bench;
    Request read{Operation::read, 0, 8};
    read.run(*bench.disk);
    bench.waiting.clear();
    bench.device.vanished = true;
    bench.clock.run_seconds(2);
    CHECK(bench.engine->gone());
    CHECK(read.status == BlockStatus::io_error);
    Request late{Operation::read, 0, 8};
    late.run(*bench.disk);
    CHECK(late.status == BlockStatus::io_error);
}
