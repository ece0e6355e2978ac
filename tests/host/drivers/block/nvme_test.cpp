// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "drivers/block/nvme_controller.hpp"
#include "drivers/block/nvme_prp.hpp"
#include "fakes/arena_frames.hpp"
#include "fakes/nvme_controller.hpp"
#include "fakes/step_clock.hpp"
#include "vmm/storage/disk_fixture.hpp"

#include <deque>
#include <random>

using namespace hv;
using namespace hv::block;
using hv::test::Request;
using Operation = BlockRequest::Operation;
using Progress = CommandHardware::ResetProgress;
using Completions = std::vector<CommandHardware::Completion>;

namespace {

/// A millisecond goes by with each look at it.
class PassingClock final : public Clock {
public:
    [[nodiscard]] std::uint64_t now() const override { return now_ += 1'000'000; }
    [[nodiscard]] std::uint64_t hz() const override { return 1'000'000'000; }
    void arm(Timer&, std::uint64_t) override {}
    void disarm(Timer&) override {}
    [[nodiscard]] std::uint64_t seconds() const { return now_ / hz(); }

private:
    mutable std::uint64_t now_{0};
};

struct Bench {
    Bench() = default;
    ~Bench() {
        controller.reset();
        CHECK(device.violations == std::vector<std::string>{});
        CHECK(frames.outstanding() == outside);
    }
    Expected<void> start(unsigned channels = 1, unsigned vectors = 1) {
        auto created = NvmeController::create(device, pool, clock, {"nvme0", channels, vectors});
        if (!created)
            return Unexpected{created.error()};
        controller = std::move(*created);
        return {};
    }
    /// Memory of a test's own.
    Hpa memory(std::uint64_t pages) {
        const Hpa at = *frames.allocate(static_cast<unsigned>(std::bit_width(pages - 1)));
        ++outside;
        return at;
    }
    void issue(unsigned channel, unsigned slot, Operation operation, std::uint64_t block,
               std::uint64_t blocks, std::vector<DmaRun> runs = {}, unsigned unit = 0) {
        controller->issue(channel, slot, {operation, unit, block, blocks, runs});
    }
    Completions reap(unsigned channel = 0, std::size_t most = 64) {
        Completions out(most);
        out.resize(controller->reap(channel, out));
        return out;
    }
    /// One command, from the first to the last step.
    BlockStatus run(Operation operation, std::uint64_t block, std::uint64_t blocks,
                    std::vector<DmaRun> runs = {}, unsigned unit = 0) {
        issue(0, 3, operation, block, blocks, std::move(runs), unit);
        controller->commit(0);
        const Completions ended = reap();
        REQUIRE(ended.size() == 1);
        CHECK(ended[0].slot == 3);
        return ended[0].status;
    }
    /// Polls until the reset is over, and counts how often.
    Progress reset(unsigned most = 100'000) {
        controller->begin_reset();
        for (polls = 1; polls < most; ++polls)
            if (const Progress progress = controller->poll_reset(); progress != Progress::pending)
                return progress;
        return Progress::pending;
    }

    fake::ArenaFrames frames;
    DmaPool pool{frames};
    PassingClock clock;
    fake::NvmeController device;
    std::unique_ptr<NvmeController> controller;
    std::uint64_t outside{0};
    unsigned polls{0};
};

void fill(std::vector<DmaRun> runs, std::mt19937& random, std::vector<std::byte>& all) {
    for (const DmaRun& run : runs) {
        const auto bytes = test::random_bytes(random, run.size);
        std::copy(bytes.begin(), bytes.end(), machine::hva(run.address));
        all.insert(all.end(), bytes.begin(), bytes.end());
    }
}

}  // namespace

// --- boot
// --------------------------------------------------------------------------------------------------------------

TEST_CASE("a controller is brought up, and tells its disks", "[block]") {
    Bench bench;
    bench.device.add_namespace(4, 100, 12);
    REQUIRE(bench.start());
    CHECK(bench.controller->channels() == 1);
    CHECK(bench.controller->slots() == 63);
    CHECK(bench.controller->name() == "nvme0");
    CHECK(bench.device.entries(1) == 64);
    const auto disks = bench.controller->disks();
    REQUIRE(disks.size() == 2);
    CHECK(disks[0].model.view() == "Model?of 7");
    CHECK(disks[0].serial.view() == "S-0815");
    CHECK(disks[0].blocks == 4096);
    CHECK(disks[0].logical_block_size == 512);
    CHECK_FALSE(disks[0].read_only);
    CHECK(disks[0].limits.max_blocks == 4096);  // a full list of pages
    CHECK(disks[0].limits.max_range_blocks == 65536);
    CHECK(disks[0].limits.can_flush);
    CHECK(disks[0].limits.can_discard);
    CHECK(disks[0].limits.can_write_zeroes);
    CHECK(disks[1].blocks == 100);
    CHECK(disks[1].logical_block_size == 4096);
    CHECK(disks[1].limits.max_blocks == 512);
}

TEST_CASE("what a controller cannot do, its disks do not offer", "[block]") {
    Bench bench;
    bench.device.write_cache = 0;
    bench.device.optional_commands = 0;
    bench.device.max_transfer = 3;
    bench.device.namespaces[1].write_protected = true;
    REQUIRE(bench.start());
    const DiskDescription& disk = bench.controller->disks()[0];
    CHECK_FALSE(disk.limits.can_flush);
    CHECK_FALSE(disk.limits.can_discard);
    CHECK_FALSE(disk.limits.can_write_zeroes);
    CHECK(disk.limits.max_blocks == 64);
    CHECK(disk.read_only);
}

TEST_CASE("the largest transfer is what one list describes, whatever the controller takes", "[block]") {
    Bench bench;
    bench.device.max_transfer =
        GENERATE(std::uint8_t{9}, std::uint8_t{10}, std::uint8_t{52}, std::uint8_t{255});
    REQUIRE(bench.start());
    CHECK(bench.controller->disks()[0].limits.max_blocks == 4096);
}

TEST_CASE("controllers of version 2.0 tell how much they discard and zero", "[block]") {
    Bench bench;
    bench.device.version = 0x2'0000;
    bench.device.zeroes_limit = 5;  // 128 KiB
    SECTION("zeroes are less") {
        bench.device.discard_limit = 300;
        REQUIRE(bench.start());
        CHECK(bench.controller->disks()[0].limits.max_range_blocks == 256);
    }
    SECTION("discards are less") {
        bench.device.discard_limit = 100;
        REQUIRE(bench.start());
        CHECK(bench.controller->disks()[0].limits.max_range_blocks == 100);
    }
    SECTION("it does not tell") {
        bench.device.verdict = [](const fake::NvmeController::Command& command) {
            return command.entry.opcode == nvme::kIdentify && command.entry.cdw10 == nvme::kIdentifyCommandSet
                       ? std::optional<std::uint16_t>{nvme::kInvalidField}
                       : std::nullopt;
        };
        REQUIRE(bench.start());
        CHECK(bench.controller->disks()[0].limits.max_range_blocks == 65536);
    }
}

TEST_CASE("namespaces are found one by one where there is no list of them", "[block]") {
    Bench bench;
    bench.device.add_namespace(3, 100);
    SECTION("before version 1.1") {
        bench.device.version = 0x1'0000;
    }
    SECTION("because the list fails") {
        bench.device.verdict = [](const fake::NvmeController::Command& command) {
            return command.entry.opcode == nvme::kIdentify && command.entry.cdw10 == nvme::kActiveNamespaces
                       ? std::optional<std::uint16_t>{nvme::kInvalidField}
                       : std::nullopt;
        };
    }
    REQUIRE(bench.start());
    REQUIRE(bench.controller->disks().size() == 2);
    CHECK(bench.controller->disks()[1].blocks == 100);
}

TEST_CASE("namespaces of no use are left out, the others keep their order", "[block]") {
    Bench bench;
    bench.device.namespaces[1].metadata_size = 8;
    bench.device.add_namespace(2, 64);
    bench.device.add_namespace(3, 64, 11);
    bench.device.add_namespace(5, 64).format = 1;  // beyond the last
    bench.device.add_namespace(6, 65).format = 0x21;
    bench.device.namespaces[6].last_format = 17;  // format 17
    bench.device.add_namespace(8, 0);
    bench.device.add_namespace(9, 66);
    bench.device.verdict = [](const fake::NvmeController::Command& command) {
        return command.entry.opcode == nvme::kIdentify && command.entry.namespace_id == 9
                   ? std::optional<std::uint16_t>{nvme::kInvalidNamespace}
                   : std::nullopt;
    };
    REQUIRE(bench.start());
    REQUIRE(bench.controller->disks().size() == 2);
    CHECK(bench.controller->disks()[0].blocks == 64);
    CHECK(bench.controller->disks()[1].blocks == 65);
    // Units are those of the disks, not the namespaces'.
    const Hpa memory = bench.memory(1);
    CHECK(bench.run(Operation::read, 64, 1, {{memory, 512}}, 1) == BlockStatus::ok);
    CHECK(bench.device.io(nvme::kRead).back().namespace_id == 6);
}

TEST_CASE("a controller with very many namespaces shows the first ones", "[block]") {
    Bench bench;
    bench.device.version = GENERATE(0x1'0000u, 0x1'0400u);
    for (std::uint32_t id = 1; id <= 200; ++id)
        bench.device.add_namespace(id, 8);
    REQUIRE(bench.start());
    CHECK(bench.controller->disks().size() == NvmeController::kMaxDisks);
}

TEST_CASE("what firmware left enabled is disabled first", "[block]") {
    Bench bench;
    bench.device.polls_until_ready = 3;
    bench.device.write32(nvme::kConfiguration, 0x0046'0001);
    SECTION("when it is ready") {
        for (int i = 0; i < 5; ++i)
            static_cast<void>(bench.device.read32(nvme::kStatus));
    }
    SECTION("not before it is ready") {}
    SECTION("although it never gets ready") {
        bench.device.never_ready = true;
        CHECK(bench.start().error() == Error::timed_out);
        CHECK(bench.clock.seconds() >= 2);  // two times the time-out, of which each is 1.5 s
        CHECK(bench.clock.seconds() < 5);
        return;
    }
    CHECK(bench.start());
    CHECK(bench.device.enabled_times == 2);
}

TEST_CASE("devices that the driver cannot use are refused before they are touched", "[block]") {
    Bench bench;
    SECTION("no NVM command set") {
        bench.device.capabilities &= ~(std::uint64_t{1} << 37);
    }
    SECTION("pages of 8 KiB at least") {
        bench.device.capabilities |= std::uint64_t{1} << 48;
    }
    SECTION("queues of one entry") {
        bench.device.capabilities &= ~std::uint64_t{0xffff};
    }
    SECTION("registers without doorbells") {
        bench.device.window = 0x1000;
    }
    SECTION("no doorbells but the administrative ones") {
        bench.device.window = 0x1008;
    }
    SECTION("nothing there") {
        bench.device.gone = true;
    }
    CHECK(bench.start().error() == Error::unsupported);
    CHECK(bench.device.enabled_times == 0);
}

TEST_CASE("a controller that does not come up is given up in bounded time", "[block]") {
    Bench bench;
    SECTION("never ready") {
        bench.device.never_ready = true;
    }
    SECTION("always ready") {
        bench.device.always_ready = true;
    }
    SECTION("a fatal error") {
        bench.device.fatal_when_enabled = true;
    }
    SECTION("commands are not answered") {
        bench.device.holds_admin = true;
    }
    CHECK(bench.start().error() == Error::timed_out);
    CHECK(bench.clock.seconds() < 20);
    CHECK_FALSE(nvme::Configuration::Enable::test(bench.device.configuration()));
}

TEST_CASE("the time to get ready is the controller's own", "[block]") {
    Bench bench;
    bench.device.never_ready = true;
    SECTION("CAP.TO") {
        bench.device.capabilities |= std::uint64_t{9} << 24;  // 11: the fake has 2
        CHECK(bench.start().error() == Error::timed_out);
        CHECK(bench.clock.seconds() >= 5);
        CHECK(bench.clock.seconds() <= 8);
    }
    SECTION("CRTO") {
        bench.device.capabilities |= std::uint64_t{1} << 59;
        bench.device.ready_timeouts = 80;
        CHECK(bench.start().error() == Error::timed_out);
        CHECK(bench.clock.seconds() >= 40);
        CHECK(bench.clock.seconds() <= 43);
    }
}

TEST_CASE("a failed administrative command ends the start", "[block]") {
    Bench bench;
    const std::uint8_t opcode =
        GENERATE(std::uint8_t{nvme::kSetFeatures}, std::uint8_t{nvme::kCreateCompletionQueue},
                 std::uint8_t{nvme::kCreateSubmissionQueue}, std::uint8_t{nvme::kIdentify});
    bench.device.verdict = [opcode](const fake::NvmeController::Command& command) {
        return command.entry.opcode == opcode ? std::optional<std::uint16_t>{0x106} : std::nullopt;
    };
    CHECK(bench.start().error() == Error::io_error);
    CHECK_FALSE(nvme::Configuration::Enable::test(bench.device.configuration()));
}

TEST_CASE("without memory nothing starts, and nothing is kept", "[block]") {
    for (std::uint64_t allocations = 0; allocations < 6; ++allocations) {
        Bench bench;
        bench.frames.limit(allocations);
        CHECK(bench.start(2).error() == Error::no_memory);
    }
}

TEST_CASE("strange answers to administrative commands are not taken", "[block]") {
    Bench bench;
    bench.device.verdict = [&](const fake::NvmeController::Command& command) {
        if (command.queue == 0) {
            bench.device.post(0, 0, static_cast<std::uint16_t>(command.entry.command + 1), 0x281);
            bench.device.post(0, 1, command.entry.command, 0x281);
        }
        return std::optional<std::uint16_t>{};
    };
    CHECK(bench.start());
}

// --- queues
// ------------------------------------------------------------------------------------------------------------

TEST_CASE("there are as many channels as are wanted, granted and have doorbells", "[block]") {
    Bench bench;
    unsigned wanted = 8;
    unsigned expected = 8;
    SECTION("wanted") {}
    SECTION("granted") {
        bench.device.queues = 3;
        expected = 3;
    }
    SECTION("have doorbells") {
        bench.device.window = 0x1000 + 8 * 5;
        expected = 4;
    }
    SECTION("the engine's most") {
        wanted = 1000;
        bench.device.queues = 500;
        expected = 64;
    }
    REQUIRE(bench.start(wanted, 4));
    CHECK(bench.controller->channels() == expected);
    CHECK(bench.device.knows_queue(static_cast<std::uint16_t>(expected)));
    CHECK_FALSE(bench.device.knows_queue(static_cast<std::uint16_t>(expected + 1)));
    for (std::uint16_t id = 1; id <= expected; ++id)
        CHECK(bench.device.vector(id) == (id - 1u) % 4);
}

TEST_CASE("queues are no longer than the controller takes", "[block]") {
    Bench bench;
    bench.device.capabilities = (bench.device.capabilities & ~std::uint64_t{0xffff}) | 4;
    REQUIRE(bench.start());
    CHECK(bench.controller->slots() == 4);
    CHECK(bench.device.entries(1) == 5);
}

TEST_CASE("channels have their own doorbells, as far apart as the controller says", "[block]") {
    Bench bench;
    bench.device.capabilities |= std::uint64_t{3} << 32;
    REQUIRE(bench.start(3, 3));
    bench.device.doorbells.clear();
    const Hpa memory = bench.memory(1);
    for (unsigned channel = 0; channel < 3; ++channel) {
        bench.issue(channel, channel, Operation::read, 0, 1, {{memory, 512}});
        bench.controller->commit(channel);
        CHECK(bench.reap((channel + 1) % 3).empty());
        const Completions ended = bench.reap(channel);
        REQUIRE(ended.size() == 1);
        CHECK(ended[0].slot == channel);
        CHECK(bench.device.doorbells[2 * channel + 2] == 1);
        CHECK(bench.device.doorbells[2 * channel + 3] == 1);
        CHECK(bench.device.interrupts[channel] > 0);
    }
}

TEST_CASE("doorbells are rung once for many commands, and not for none", "[block]") {
    Bench bench;
    REQUIRE(bench.start());
    bench.device.doorbells.clear();
    bench.device.holds_io = true;
    for (unsigned slot = 0; slot < 10; ++slot)
        bench.issue(0, slot, Operation::flush, 0, 0);
    CHECK(bench.device.waiting.empty());
    bench.controller->commit(0);
    bench.controller->commit(0);
    CHECK(bench.device.doorbells[2] == 1);
    CHECK(bench.reap().empty());
    CHECK(bench.device.doorbells[3] == 0);
    bench.device.finish_all();
    CHECK(bench.reap().size() == 10);
    CHECK(bench.device.doorbells[3] == 1);
}

TEST_CASE("queues and their phase wrap round, full and in any order", "[block]") {
    Bench bench;
    bench.device.capabilities = (bench.device.capabilities & ~std::uint64_t{0xffff}) | 6;
    REQUIRE(bench.start());
    bench.device.holds_io = true;
    std::mt19937 random{3};
    std::vector<bool> busy(bench.controller->slots());
    unsigned ended = 0;
    for (unsigned round = 0; round < 500; ++round) {
        for (unsigned slot = 0; slot < busy.size(); ++slot)
            if (!busy[slot] && (round % 7 == 0 || random() % 2 == 0)) {
                bench.issue(0, slot, Operation::flush, 0, 0);
                busy[slot] = true;
            }
        bench.controller->commit(0);
        for (std::size_t left = random() % 4; left > 0 && !bench.device.waiting.empty(); --left)
            bench.device.finish(random() % bench.device.waiting.size());
        for (const auto& completion : bench.reap(0, random() % 3 + 1)) {
            REQUIRE(busy[completion.slot]);
            REQUIRE(completion.status == BlockStatus::ok);
            busy[completion.slot] = false;
            ++ended;
        }
    }
    CHECK(ended > 300);
    CHECK(bench.controller->stray_completions() == 0);
}

// --- commands
// ----------------------------------------------------------------------------------------------------------

TEST_CASE("data of any shape goes to the disk and back", "[block]") {
    Bench bench;
    bench.device.add_namespace(2, 1024, 12);
    REQUIRE(bench.start());
    const Hpa memory = bench.memory(1024);
    const auto page = [&](std::uint64_t number) { return memory + number * kPageSize; };
    std::vector<DmaRun> runs;
    bool listed = false;
    SECTION("one page") {
        runs = {{page(0), 4096}};
    }
    SECTION("within a page") {
        runs = {{page(0) + 516, 1024}};
    }
    SECTION("an offset and two pages") {
        runs = {{page(0) + 512, 4096}};
    }
    SECTION("two pages") {
        runs = {{page(0), 8192}};
    }
    SECTION("two pages apart") {
        runs = {{page(9), 4096}, {page(2), 512}};
    }
    SECTION("three pages: a list") {
        runs = {{page(0), 12288}};
        listed = true;
    }
    SECTION("an offset and a list of pages apart") {
        runs = {{page(5) + 1024, 3072}, {page(1), 8192}, {page(7), 4096}, {page(20), 1024}};
        listed = true;
    }
    SECTION("as much as a list holds") {
        runs = {{page(0), 2 << 20}};
        listed = true;
    }
    SECTION("as much as a list holds, with an offset") {
        runs = {{page(0) + 4092, 2 << 20}};
        listed = true;
    }
    std::uint64_t bytes = 0;
    for (const DmaRun& run : runs)
        bytes += run.size;
    std::mt19937 random{5};
    for (unsigned unit = 0; unit < 2; ++unit) {
        const std::uint64_t block = unit == 0 ? 512 : 4096;
        if (bytes % block != 0)
            continue;
        std::vector<std::byte> written;
        fill(runs, random, written);
        REQUIRE(bench.run(Operation::write, 0, bytes / block, runs, unit) == BlockStatus::ok);
        const auto& contents = bench.device.namespaces[unit + 1].contents;
        CHECK(std::equal(written.begin(), written.end(), contents.begin()));
        CHECK(std::all_of(contents.begin() + static_cast<std::ptrdiff_t>(bytes), contents.end(),
                          [](std::byte byte) { return byte == std::byte{0}; }));
        std::memset(machine::hva(memory), 0xee, 1024 * kPageSize);
        REQUIRE(bench.run(Operation::read, 0, bytes / block, runs, unit) == BlockStatus::ok);
        auto expected = written.begin();
        for (const DmaRun& run : runs) {
            CHECK(std::equal(machine::hva(run.address), machine::hva(run.address) + run.size, expected));
            expected += run.size;
        }
    }
    const std::uint64_t prp2 = bench.device.seen.back().entry.prp2;
    CHECK((prp2 != 0 && (prp2 < page(0).raw || prp2 >= page(1024).raw)) == listed);
}

TEST_CASE("blocks beyond 32 bits are named in full", "[block]") {
    Bench bench;
    REQUIRE(bench.start());
    const Hpa memory = bench.memory(1);
    CHECK(bench.run(Operation::read, 0x12'3456'789a, 8, {{memory, 4096}}) == BlockStatus::io_error);
    const nvme::Submission seen = bench.device.io(nvme::kRead).back();
    CHECK(seen.cdw10 == 0x3456'789a);
    CHECK(seen.cdw11 == 0x12);
    CHECK(seen.cdw12 == 7);
}

TEST_CASE("flush, discard and write zeroes are the controller's commands for them", "[block]") {
    Bench bench;
    REQUIRE(bench.start());
    auto& contents = bench.device.namespaces[1].contents;
    std::fill(contents.begin(), contents.end(), std::byte{0x77});
    const auto filled = [&](std::uint64_t block, std::uint64_t blocks, int with) {
        return std::all_of(contents.begin() + static_cast<std::ptrdiff_t>(block * 512),
                           contents.begin() + static_cast<std::ptrdiff_t>((block + blocks) * 512),
                           [&](std::byte byte) { return byte == std::byte(with); });
    };
    CHECK(bench.run(Operation::flush, 0, 0) == BlockStatus::ok);
    CHECK(bench.device.io(nvme::kFlush).back().namespace_id == 1);
    CHECK(bench.run(Operation::discard, 100, 50) == BlockStatus::ok);
    CHECK(bench.run(Operation::write_zeroes, 200, 60) == BlockStatus::ok);
    CHECK(filled(0, 100, 0x77));
    CHECK(filled(100, 50, 0xdd));
    CHECK(filled(150, 50, 0x77));
    CHECK(filled(200, 60, 0));
    CHECK(filled(260, 4096 - 260, 0x77));
    CHECK(bench.run(Operation::write_zeroes, 0, 65536) == BlockStatus::io_error);
    CHECK(bench.device.io(nvme::kWriteZeroes).back().cdw12 == 0xffff);  // with no hint to deallocate
}

TEST_CASE("failures are the command's own", "[block]") {
    Bench bench;
    REQUIRE(bench.start());
    const Hpa memory = bench.memory(1);
    std::uint16_t status = 0;
    bench.device.verdict = [&](const fake::NvmeController::Command&) { return status; };
    for (const std::uint16_t failure : {0x281, 0x280, 0x006, 0x00b, 0x080, 0x302, 0x7ff}) {
        status = failure;
        CHECK(bench.run(Operation::read, 0, 1, {{memory, 512}}) == BlockStatus::io_error);
    }
    status = nvme::kInvalidOpcode;
    CHECK(bench.run(Operation::write_zeroes, 0, 1) == BlockStatus::unsupported);
    status = nvme::kSuccess;
    CHECK(bench.run(Operation::read, 0, 1, {{memory, 512}}) == BlockStatus::ok);
}

TEST_CASE("a namespace that vanished fails what it is asked for", "[block]") {
    Bench bench;
    bench.device.add_namespace(2, 64);
    REQUIRE(bench.start());
    bench.device.namespaces.erase(1);
    const Hpa memory = bench.memory(1);
    CHECK(bench.run(Operation::read, 0, 1, {{memory, 512}}, 0) == BlockStatus::io_error);
    CHECK(bench.run(Operation::read, 0, 1, {{memory, 512}}, 1) == BlockStatus::ok);
    CHECK_FALSE(bench.controller->needs_reset(CommandHardware::Look::device));
}

TEST_CASE("completions that belong to no command are ignored", "[block]") {
    Bench bench;
    REQUIRE(bench.start(2));
    bench.device.holds_io = true;
    bench.issue(0, 5, Operation::flush, 0, 0);
    bench.controller->commit(0);
    const std::uint16_t command = bench.device.waiting.front().entry.command;
    SECTION("of a slot that is free") {
        bench.device.post(1, 1, static_cast<std::uint16_t>(command + 1));
        bench.device.post(1, 1, 0);
    }
    SECTION("of a slot that is none") {
        bench.device.post(1, 1, static_cast<std::uint16_t>(command | 63));
        bench.device.post(1, 1, 0xffff);
    }
    SECTION("of an earlier or later use of the slot") {
        bench.device.post(1, 1, static_cast<std::uint16_t>(command - 64));
        bench.device.post(1, 1, static_cast<std::uint16_t>(command + 64));
    }
    SECTION("of another queue") {
        bench.device.post(1, 2, command);
        bench.device.post(2, 1, command);
        CHECK(bench.reap(1).empty());
    }
    CHECK(bench.reap().empty());
    CHECK(bench.controller->stray_completions() == 2);
    bench.device.finish_all();
    REQUIRE(bench.reap().size() == 1);
    CHECK(bench.controller->stray_completions() == 2);
}

TEST_CASE("a completion that comes again does not end the slot's next command", "[block]") {
    Bench bench;
    REQUIRE(bench.start());
    bench.device.holds_io = true;
    bench.issue(0, 5, Operation::flush, 0, 0);
    bench.controller->commit(0);
    const std::uint16_t first = bench.device.waiting.front().entry.command;
    bench.device.finish_all();
    bench.device.post(1, 1, first);
    CHECK(bench.reap().size() == 1);
    bench.issue(0, 5, Operation::flush, 0, 0);
    bench.controller->commit(0);
    bench.device.post(1, 1, first);
    CHECK(bench.reap().empty());
    bench.device.finish_all();
    CHECK(bench.reap().size() == 1);
}

TEST_CASE("one look at a queue ends, however much a device puts in it", "[block]") {
    Bench bench;
    REQUIRE(bench.start());
    for (unsigned i = 0; i < 63; ++i)
        bench.device.post(1, 1, 0);
    CHECK(bench.reap().empty());
    CHECK(bench.controller->stray_completions() == 63);
    CHECK(bench.run(Operation::flush, 0, 0) == BlockStatus::ok);
}

// --- resets
// ------------------------------------------------------------------------------------------------------------

TEST_CASE("a reset forgets all commands, and queues begin anew", "[block]") {
    Bench bench;
    bench.device.polls_until_ready = 4;
    REQUIRE(bench.start(3, 3));
    const Hpa memory = bench.memory(1);
    for (unsigned i = 0; i < 70; ++i)
        bench.run(Operation::flush, 0, 0);
    bench.device.holds_io = true;
    for (unsigned slot = 0; slot < 63; ++slot)
        bench.issue(0, slot, Operation::flush, 0, 0);
    bench.controller->commit(0);
    bench.device.finish(0);
    const std::uint16_t lost = bench.device.waiting.front().entry.command;
    const unsigned reads = bench.device.status_reads;
    bench.controller->begin_reset();
    CHECK(bench.device.status_reads - reads <= 1);
    CHECK(bench.device.waiting.empty());
    CHECK(bench.reset() == Progress::done);
    CHECK(bench.device.entries(3) == 64);
    CHECK(bench.device.vector(3) == 2);
    CHECK(bench.reap().empty());
    bench.device.post(1, 1, lost);
    CHECK(bench.reap().empty());
    bench.device.holds_io = false;
    for (unsigned i = 0; i < 70; ++i)
        CHECK(bench.run(Operation::read, 0, 1, {{memory, 512}}) == BlockStatus::ok);
}

TEST_CASE("each step of a reset looks once and waits for nothing", "[block]") {
    Bench bench;
    REQUIRE(bench.start(2));
    bench.device.polls_until_ready = 50;
    bench.controller->begin_reset();
    unsigned polls = 0;
    for (Progress progress = Progress::pending; progress == Progress::pending; ++polls) {
        const unsigned reads = bench.device.status_reads;
        progress = bench.controller->poll_reset();
        REQUIRE(progress != Progress::gone);
        CHECK(bench.device.status_reads - reads <= 1);
    }
    CHECK(polls > 100);
    CHECK(polls < 115);
}

TEST_CASE("a fatal status and registers that are gone call for a reset", "[block]") {
    Bench bench;
    REQUIRE(bench.start());
    CHECK_FALSE(bench.controller->needs_reset(CommandHardware::Look::device));
    bench.device.fatal = true;
    CHECK(bench.controller->needs_reset(CommandHardware::Look::device));
    CHECK(bench.reset() == Progress::done);
    CHECK_FALSE(bench.controller->needs_reset(CommandHardware::Look::device));
    bench.device.gone = true;
    CHECK(bench.controller->needs_reset(CommandHardware::Look::device));
    CHECK(bench.reset() == Progress::gone);
    CHECK(bench.polls < 3);
}

TEST_CASE("a controller that does not come back is gone, in bounded time", "[block]") {
    Bench bench;
    REQUIRE(bench.start(2));
    const std::uint64_t begin = bench.clock.seconds();
    SECTION("it stays ready") {
        bench.device.always_ready = true;
    }
    SECTION("it does not become ready") {
        bench.device.never_ready = true;
    }
    SECTION("it has another fatal error") {
        bench.device.fatal_when_enabled = true;
    }
    SECTION("it does not answer") {
        bench.device.holds_admin = true;
    }
    SECTION("it grants less than before") {
        bench.device.queues = 1;
    }
    SECTION("it refuses a queue") {
        bench.device.verdict = [](const fake::NvmeController::Command& command) {
            return command.entry.opcode == nvme::kCreateSubmissionQueue ? std::optional<std::uint16_t>{0x101}
                                                                        : std::nullopt;
        };
    }
    SECTION("it vanishes on the way") {
        bench.device.verdict = [&](const fake::NvmeController::Command&) {
            bench.device.gone = true;
            return std::optional<std::uint16_t>{};
        };
    }
    SECTION("it vanishes without an answer") {
        bench.device.holds_admin = true;
        bench.controller->begin_reset();
        while (bench.device.waiting.empty())
            REQUIRE(bench.controller->poll_reset() == Progress::pending);
        bench.device.gone = true;
        CHECK(bench.controller->poll_reset() == Progress::gone);
        return;
    }
    CHECK(bench.reset() == Progress::gone);
    CHECK(bench.clock.seconds() - begin < 15);
    CHECK((bench.device.gone || !nvme::Configuration::Enable::test(bench.device.configuration())));
}

TEST_CASE("a reset during a reset begins anew", "[block]") {
    Bench bench;
    bench.device.polls_until_ready = 3;
    REQUIRE(bench.start());
    for (unsigned polls = 0; polls < 12; ++polls) {
        bench.controller->begin_reset();
        for (unsigned i = 0; i < polls; ++i)
            static_cast<void>(bench.controller->poll_reset());
        REQUIRE(bench.reset() == Progress::done);
        REQUIRE(bench.run(Operation::flush, 0, 0) == BlockStatus::ok);
    }
}

TEST_CASE("the controller is told before power goes off, and waited for", "[block]") {
    Bench bench;
    bench.device.shutdown_latency_us = GENERATE(0u, 20'000'000u, 0xffff'ffffu);
    const std::uint64_t longest = bench.device.shutdown_latency_us == 0            ? 5
                                  : bench.device.shutdown_latency_us == 20'000'000 ? 20
                                                                                   : 60;
    REQUIRE(bench.start());
    const std::uint64_t begin = bench.clock.seconds();
    SECTION("it says when it is done") {
        bench.controller->shut_down();
        CHECK(nvme::Configuration::Shutdown::get(bench.device.configuration()) == 1);
        CHECK(bench.clock.seconds() - begin <= 1);
    }
    SECTION("it does not") {
        bench.device.ignores_shutdown = true;
        bench.controller->shut_down();
        CHECK(bench.clock.seconds() - begin >= longest);
        CHECK(bench.clock.seconds() - begin <= longest + 1);
    }
    SECTION("it is not there any more") {
        bench.device.gone = true;
        bench.controller->shut_down();
        CHECK(bench.clock.seconds() - begin <= 1);
    }
    SECTION("it has been given up") {
        bench.device.never_ready = true;
        REQUIRE(bench.reset() == Progress::gone);
        const std::uint64_t then = bench.clock.seconds();
        bench.controller->shut_down();
        CHECK(bench.clock.seconds() - then <= 1);
    }
}

// --- under the engine
// --------------------------------------------------------------------------------------------------

namespace {

struct EngineBench : Bench {
    explicit EngineBench(unsigned channels = 1) {
        REQUIRE(start(channels));
        engine = std::move(
            *CommandEngine::create(*controller, timers, pool,
                                   {controller->name(), controller->channels(), controller->slots(), true}));
        for (const DiskDescription& description : controller->disks())
            disks.push_back(*engine->add_disk(description));
    }
    ~EngineBench() {
        fake::set_cpu(0);
        engine.reset();
    }
    /// The device ends all that it has and interrupts, until there is nothing more.
    void finish_all() {
        for (unsigned handled = 0; handled != device.interrupts[0];) {
            device.finish_all();
            handled = device.interrupts[0];
            engine->service();
        }
    }
    fake::StepClock timers;
    std::unique_ptr<CommandEngine> engine;
    std::vector<HardwareDisk*> disks;
};

}  // namespace

TEST_CASE("requests of any shape arrive at the controller's disks", "[block]") {
    EngineBench bench{2};
    std::mt19937 random{11};
    auto model = bench.device.namespaces[1].contents;
    for (unsigned step = 0; step < 100; ++step) {
        fake::set_cpu(step % 3);
        const std::uint64_t count = random() % 300 + 1;
        const std::uint64_t sector = random() % (4096 - count);
        const auto at = model.begin() + static_cast<std::ptrdiff_t>(sector * kSectorSize);
        const bool writes = random() % 2 == 0;
        Request request{writes ? Operation::write : Operation::read, sector, count,
                        writes ? test::random_bytes(random, count * kSectorSize) : std::vector<std::byte>{}};
        request.scatter(random, 20'000).run(*bench.disks[0]);
        bench.finish_all();
        REQUIRE(request.status == BlockStatus::ok);
        if (writes)
            std::copy(request.bytes.begin(), request.bytes.end(), at);
        else
            REQUIRE(std::equal(request.bytes.begin(), request.bytes.end(), at));
    }
    CHECK(bench.device.namespaces[1].contents == model);
}

TEST_CASE("a controller that stops is reset, and does what was asked of it", "[block]") {
    EngineBench bench;
    bench.device.holds_io = true;
    std::deque<Request> requests;
    for (std::uint64_t i = 0; i < 100; ++i) {
        requests.emplace_back(Operation::read, i * 8, 8);
        requests.back().run(*bench.disks[0]);
    }
    SECTION("by a fatal error") {
        bench.device.fatal = true;
        bench.engine->service();
    }
    SECTION("by saying nothing") {
        bench.timers.run_seconds(12);
    }
    CHECK(bench.engine->resets() == 1);
    bench.device.holds_io = false;
    bench.timers.run_seconds(1);
    bench.finish_all();
    for (const Request& request : requests)
        CHECK(request.status == BlockStatus::ok);
}

TEST_CASE("a controller that vanishes fails what was asked of it", "[block]") {
    EngineBench bench;
    bench.device.holds_io = true;
    Request before{Operation::read, 0, 8};
    before.run(*bench.disks[0]);
    bench.device.gone = true;
    bench.engine->service();
    bench.timers.run_seconds(1);
    CHECK(bench.engine->gone());
    CHECK(before.status == BlockStatus::io_error);
    Request after{Operation::read, 0, 8};
    CHECK(after.run(*bench.disks[0]) == BlockStatus::io_error);
}
