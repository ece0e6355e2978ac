// SPDX-License-Identifier: MIT
// The memory of rings, which are looked up once and used for long: it stays as long as a queue is in use.
#include "catch.hpp"
#include "fakes/virtio_driver.hpp"
#include "vmm/virtio/idle_backends.hpp"
#include "vmm/virtio/virtio_balloon.hpp"
#include "vmm/virtio/virtio_blk.hpp"
#include "vmm/virtio/virtio_console.hpp"
#include "vmm/virtio/virtio_net.hpp"
#include "vmm/virtio/virtio_pci.hpp"
#include "vmm/virtio/virtio_rng.hpp"
#include "vmm/virtio/virtio_vsock.hpp"
#include "vmm/virtio/virtqueue.hpp"

#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

namespace {

using namespace hv;
using namespace hv::virtio;
using test::NoEntropy;
using test::NoTaker;
using test::NoText;

constexpr std::uint64_t kGranule = GuestMemory::kGranule;
/// Each area in a granule of its own, and one granule without.
constexpr QueueLayout kApart{8, Gpa{0x1000}, Gpa{kGranule + 0x1000}, Gpa{2 * kGranule + 0x1000}};
constexpr Gpa kNone{3 * kGranule};

struct Host {
    /// Whether the granule at `gpa` can be taken away; if so, it is given back at once.
    bool can_take(Gpa gpa) {
        const Gpa granule{align_down(gpa.raw, kGranule)};
        std::byte* const where = board.memory.detach(granule);
        if (where != nullptr)
            board.memory.attach(granule, where);
        return where != nullptr;
    }
    bool can_take_all() {
        unsigned free = 0;
        for (std::uint64_t at = 0; at < fake::Board::kRam; at += kGranule)
            free += can_take(Gpa{at}) ? 1 : 0;
        return free == fake::Board::kRam / kGranule;
    }

    fake::Board board{0, fake::Board::Ram::releasable};
    std::optional<Virtqueue> queue{std::in_place, board.memory};
};

/// Has one request at a time, which it keeps.
class LateDisk final : public BlockDevice {
public:
    [[nodiscard]] BlockGeometry geometry() const override { return {64, 512, false, false}; }
    void submit(BlockRequest& request) override { waiting = &request; }
    BlockRequest* waiting{nullptr};
};

/// Whether a device keeps its rings' memory until it is reset, twice, and no longer.
void check_reset(Host& host, VirtioDevice& device) {
    VirtioPciTransport transport{device, host.board.interrupts, &host.board.line};
    REQUIRE(host.board.bridge.attach(1, transport));
    fake::VirtioDriver driver{host.board, 1};
    const std::uint64_t features = driver.offered();
    for (unsigned i = 0; i < 2; ++i) {
        driver.start(features, 16);
        REQUIRE(driver.queues.size() == device.queue_count());
        CHECK_FALSE(host.can_take(driver.queues.at(0).used));
        driver.set_status(0);
        CHECK(driver.status() == 0);
        CHECK(host.can_take_all());
    }
}

}  // namespace

TEST_CASE("the memory of each of a queue's areas stays while the queue is in use", "[virtio]") {
    Host host;
    CHECK(host.can_take_all());
    REQUIRE(host.queue->start(kApart, 0));
    CHECK_FALSE(host.can_take(kApart.descriptors));
    CHECK_FALSE(host.can_take(kApart.driver));
    CHECK_FALSE(host.can_take(kApart.device));
    CHECK(host.can_take(kNone));
    SECTION("until it begins elsewhere") {
        REQUIRE(host.queue->start({8, kNone, kNone + 0x1000, kNone + 0x2000}, 0));
        CHECK(host.can_take(kApart.descriptors));
        CHECK(host.can_take(kApart.driver));
        CHECK(host.can_take(kApart.device));
        CHECK_FALSE(host.can_take(kNone));
    }
    SECTION("also if it is broken") {
        host.queue->set_broken();
        CHECK_FALSE(host.can_take(kApart.device));
    }
    SECTION("until it stops") {
        host.queue->stop();
        CHECK(host.can_take_all());
        CHECK(host.queue->broken());
        REQUIRE(host.queue->start(kApart, 0));
        CHECK_FALSE(host.can_take(kApart.device));
    }
    SECTION("or is gone") {
        host.queue.reset();
        CHECK(host.can_take_all());
    }
}

TEST_CASE("an area over several granules keeps all of them", "[virtio]") {
    Host host;
    constexpr QueueLayout kAcross{8, Gpa{kGranule - 16}, Gpa{2 * kGranule - 2}, Gpa{3 * kGranule - 4}};
    SECTION("descriptors") {
        REQUIRE(host.queue->start({8, kAcross.descriptors, kNone, kNone + 0x1000}, 0));
        CHECK_FALSE(host.can_take(Gpa{0}));
        CHECK_FALSE(host.can_take(Gpa{kGranule}));
    }
    SECTION("the available ring") {
        REQUIRE(host.queue->start({8, Gpa{0}, kAcross.driver, Gpa{0x1000}}, 0));
        CHECK_FALSE(host.can_take(Gpa{kGranule}));
        CHECK_FALSE(host.can_take(Gpa{2 * kGranule}));
    }
    SECTION("the used ring") {
        REQUIRE(host.queue->start({8, Gpa{0}, Gpa{0x1000}, kAcross.device}, 0));
        CHECK_FALSE(host.can_take(Gpa{2 * kGranule}));
        CHECK_FALSE(host.can_take(Gpa{3 * kGranule}));
    }
    host.queue.reset();
    CHECK(host.can_take_all());
}

TEST_CASE("two queues in one granule keep it each", "[virtio]") {
    Host host;
    std::optional<Virtqueue> other{std::in_place, host.board.memory};
    REQUIRE(host.queue->start(kApart, 0));
    REQUIRE(other->start({8, kApart.descriptors + 0x1000, kNone, kNone + 0x1000}, 0));
    host.queue.reset();
    CHECK_FALSE(host.can_take(kApart.descriptors));
    CHECK(host.can_take(kApart.driver));
    other.reset();
    CHECK(host.can_take_all());
}

TEST_CASE("a ring in memory that is leaving is refused, in memory that has left is made of zeroes",
          "[virtio]") {
    Host host;
    const Gpa granule{kGranule};
    host.board.put<std::uint16_t>(kApart.driver + 2, 7);  // the available index
    std::byte* const where = host.board.memory.detach(granule);
    REQUIRE(where != nullptr);
    CHECK(host.queue->start(kApart, 0).error() == Error::out_of_range);
    CHECK(host.queue->broken());
    host.board.memory.release(granule, where);
    REQUIRE(host.queue->start(kApart, 0));
    CHECK(host.board.memory.absent_bytes() == 0);
    CHECK_FALSE(host.can_take(kApart.driver));
    CHECK_FALSE(host.queue->has_work());
    host.queue.reset();
    CHECK(host.can_take_all());
}

TEST_CASE("a device that is reset gives up the memory of all its rings", "[virtio]") {
    Host host;
    fake::Board& board = host.board;
    SECTION("disk") {
        LateDisk disk;
        check_reset(host, **VirtioBlk::create(disk, board.memory, board.clock, {2, ""}));
    }
    SECTION("network device") {
        check_reset(host, **VirtioNet::create(board.memory, board.clock, {{2, 0, 0, 0, 0, 1}, 1500, 2}));
    }
    SECTION("balloon") {
        NoTaker taker;
        check_reset(host, **VirtioBalloon::create(taker, board.memory, board.clock));
    }
    SECTION("console") {
        NoText text;
        check_reset(host, **VirtioConsole::create(text, board.memory, board.clock));
    }
    SECTION("entropy device") {
        NoEntropy entropy;
        check_reset(host, **VirtioRng::create(entropy, board.memory, board.clock));
    }
    SECTION("vsock") {
        check_reset(host, **VirtioVsock::create(board.memory, board.clock, {3, {}}));
    }
}

TEST_CASE("a disk's late completion needs no ring", "[virtio]") {
    Host host;
    fake::Board& board = host.board;
    LateDisk disk;
    const auto device = std::move(VirtioBlk::create(disk, board.memory, board.clock, {1, ""})).value();
    VirtioPciTransport transport{*device, board.interrupts, &board.line};
    REQUIRE(board.bridge.attach(1, transport));
    fake::VirtioDriver driver{board, 1};
    board.next = kGranule;  // away from where an address of 0 leads
    driver.start(VIRTIO_F_VERSION_1, 16);
    driver.queues.at(0).add({{kNone, 16, false}, {kNone + 0x200, 512, true}, {kNone + 0x100, 1, true}});
    driver.kick(0);
    REQUIRE(disk.waiting != nullptr);
    driver.set_status(0);
    CHECK(host.can_take_all());
    CHECK(driver.status() != 0);  // the data is still the disk's
    disk.waiting->complete(*disk.waiting, BlockStatus::ok);
    CHECK(driver.status() == 0);
    CHECK(board.memory.load<std::uint64_t>(Gpa{0}).value() == 0);
}
