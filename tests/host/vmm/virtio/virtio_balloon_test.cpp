// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/virtio_driver.hpp"
#include "vmm/virtio/virtio_balloon.hpp"

#include <set>

namespace {

using namespace hv;
using namespace hv::virtio;

constexpr std::uint64_t kRing = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;
constexpr std::uint64_t kFull =
    kRing | VIRTIO_BALLOON_F_MUST_TELL_HOST | VIRTIO_BALLOON_F_STATS_VQ | VIRTIO_BALLOON_F_PAGE_REPORTING;
constexpr Gpa kBuffer{0x10'0000};
constexpr unsigned kPages = GuestMemory::kGranule / kPageSize;

/// Keeps book of granules that are out.
class Host final : public BalloonMemory {
public:
    Release release(Gpa granule) override {
        CHECK(granule.raw % GuestMemory::kGranule == 0);
        ++calls;
        if (answer == Release::done)
            released.insert(granule.raw);
        return answer;
    }
    bool reclaim(Gpa granule) override {
        if (poor)
            return false;
        CHECK(released.erase(granule.raw) == 1);
        return true;
    }
    void cancel() override { ++cancelled; }
    std::set<std::uint64_t> released;
    unsigned calls{0};
    unsigned cancelled{0};
    Release answer{Release::done};
    bool poor{false};
};

struct Guest {
    explicit Guest(std::uint64_t features = kFull) {
        REQUIRE(board.bridge.attach(1, transport));
        driver = std::make_unique<fake::VirtioDriver>(board, 1);
        driver->start(features, 64);
    }
    /// A chain of page frame numbers on `queue`, in pieces of `piece` bytes.
    void put(unsigned queue, const std::vector<std::uint32_t>& frames, std::uint32_t piece = 4096) {
        board.memory.write(kBuffer, std::as_bytes(std::span{frames})).value();
        std::vector<fake::DriverBuffer> chain;
        const auto size = static_cast<std::uint32_t>(frames.size() * 4);
        for (std::uint32_t done = 0; done < size; done += piece)
            chain.push_back({kBuffer + done, std::min(piece, size - done), false});
        driver->queues.at(queue).add(chain);
        driver->kick(queue);
    }
    void report(unsigned queue, const std::vector<fake::DriverBuffer>& ranges) {
        driver->queues.at(queue).add(ranges);
        driver->kick(queue);
    }
    unsigned take(unsigned queue) {
        unsigned count = 0;
        while (driver->queues.at(queue).take_used())
            ++count;
        return count;
    }
    bool needs_reset() { return (driver->status() & DEVICE_NEEDS_RESET) != 0; }

    fake::Board board;
    Host host;
    std::unique_ptr<VirtioBalloon> device{
        std::move(VirtioBalloon::create(host, board.memory, board.clock)).value()};
    VirtioPciTransport transport{*device, board.interrupts, &board.line};
    std::unique_ptr<fake::VirtioDriver> driver;
};

/// The frames of a granule but for the last `without`.
std::vector<std::uint32_t> granule(unsigned index, unsigned without = 0) {
    std::vector<std::uint32_t> frames(kPages - without);
    for (unsigned i = 0; i < frames.size(); ++i)
        frames[i] = index * kPages + i;
    return frames;
}

void put_stat(Guest& guest, unsigned index, std::uint16_t tag, std::uint64_t value) {
    guest.board.put(kBuffer + 10u * index, BalloonStat{tag, value});
}

}  // namespace

TEST_CASE("the driver learns of a target and tells how far it got", "[virtio]") {
    Guest guest;
    CHECK(guest.driver->read_config(2, 2) == 0x1045);
    CHECK(guest.driver->device_config(0, 4) == 0);
    guest.device->set_target(1234);
    CHECK(guest.driver->config_interrupts() == 1);
    CHECK(guest.driver->device_config(0, 4) == 1234);
    guest.device->write_config(4, 4, 17);
    CHECK(guest.device->actual() == 17);
    CHECK(guest.driver->device_config(4, 4) == 17);
    guest.device->write_config(0, 4, 99);  // the host's to say
    guest.device->write_config(4, 2, 99);
    CHECK(guest.driver->device_config(0, 8) == (17ull << 32 | 1234));
}

TEST_CASE("a granule is released once all its pages are in the balloon", "[virtio]") {
    Guest guest;
    auto frames = granule(2);
    std::reverse(frames.begin(), frames.end());
    const std::uint32_t last = frames.back();
    frames.pop_back();
    guest.put(0, frames, 509);  // numbers lie across pieces
    CHECK(guest.take(0) == 1);
    CHECK(guest.driver->interrupts(0) == 1);
    guest.put(0, frames);  // again, which changes nothing
    CHECK(guest.host.calls == 0);
    guest.put(0, {last});
    CHECK(guest.host.released == std::set<std::uint64_t>{2 * GuestMemory::kGranule});
    CHECK(guest.device->released_bytes() == GuestMemory::kGranule);

    SECTION("and is the guest's again with the first page that leaves it") {
        guest.put(1, {last});
        CHECK(guest.take(1) == 1);
        CHECK(guest.host.released.empty());
        guest.put(1, {last, last + 1});
        guest.put(0, {last});
        CHECK(guest.host.released.empty());
        guest.put(0, {last + 1});
        CHECK(guest.host.released.size() == 1);
    }
    SECTION("and after a reset of the device") {
        guest.put(0, granule(3, 5));
        guest.driver->set_status(0);
        CHECK(guest.host.cancelled != 0);
        CHECK(guest.device->released_bytes() == 0);
        guest.driver->start(kFull);
        const unsigned calls = guest.host.calls;
        guest.put(0, {3 * kPages + kPages - 1});
        CHECK(guest.host.calls == calls);
        guest.put(0, granule(2));
        CHECK(guest.host.calls == calls + 1);
    }
}

TEST_CASE("the driver gets an answer once a granule is gone", "[virtio]") {
    Guest guest;
    guest.host.answer = BalloonMemory::Release::pending;
    SECTION("that its balloon took") {
        auto frames = granule(2);
        const std::uint32_t next = 3 * kPages;
        frames.push_back(next);
        guest.put(0, frames);
        CHECK(guest.take(0) == 0);
        guest.device->resume();
        CHECK(guest.take(0) == 0);
        CHECK(guest.device->released_bytes() == 0);
        guest.host.answer = BalloonMemory::Release::done;
        guest.device->resume();
        CHECK(guest.take(0) == 1);
        CHECK(guest.host.released == std::set<std::uint64_t>{2 * GuestMemory::kGranule});
        CHECK(guest.device->released_bytes() == GuestMemory::kGranule);
        auto rest = granule(3);
        rest.erase(rest.begin());
        guest.put(0, rest);  // with the one that came behind the pending one
        CHECK(guest.host.released.size() == 2);
    }
    SECTION("that it reported") {
        const auto size = static_cast<std::uint32_t>(GuestMemory::kGranule);
        guest.report(4, {{Gpa{0}, 2 * size, true}});
        CHECK(guest.host.calls == 2);
        CHECK(guest.take(4) == 0);
        CHECK(guest.device->counters().reported_bytes == 0);
        guest.host.answer = BalloonMemory::Release::done;
        guest.device->resume();
        CHECK(guest.take(4) == 1);
        CHECK(guest.device->counters().reported_bytes == 2 * size);
    }
    CHECK_FALSE(guest.needs_reset());
}

TEST_CASE("a page leaves the balloon once there is memory for it", "[virtio]") {
    Guest guest;
    guest.put(0, granule(2));
    guest.host.poor = true;
    guest.put(1, {2 * kPages, 2 * kPages + 1});
    CHECK(guest.take(1) == 0);
    guest.board.clock.advance(VirtioBalloon::kRetryNs);
    CHECK(guest.take(1) == 0);
    guest.host.poor = false;
    guest.board.clock.advance(VirtioBalloon::kRetryNs);
    CHECK(guest.take(1) == 1);
    CHECK(guest.host.released.empty());
    CHECK(guest.device->released_bytes() == 0);
}

TEST_CASE("a granule that the host does not take is not given back either", "[virtio]") {
    Guest guest;
    guest.host.answer = BalloonMemory::Release::refused;
    guest.put(0, granule(1));
    CHECK(guest.host.calls == 1);
    guest.put(1, granule(1));
    CHECK(guest.device->released_bytes() == 0);
}

TEST_CASE("pages of a driver that does not tell before it uses them are not taken", "[virtio]") {
    Guest guest{kRing};
    guest.put(0, granule(1));
    CHECK(guest.take(0) == 1);
    CHECK(guest.host.calls == 0);
}

TEST_CASE("page frames that are not RAM are counted and passed over", "[virtio]") {
    Guest guest;
    auto frames = granule(1);
    frames.insert(frames.begin(), {0xffff'ffffu, fake::Board::kRam / kPageSize, 0xc0000});
    guest.put(0, frames);
    CHECK(guest.host.released.size() == 1);
    guest.put(1, {0xffff'ffffu});
    CHECK(guest.device->counters().wrong_pages == 4);
    CHECK_FALSE(guest.needs_reset());
}

TEST_CASE("a long list of pages is worked off in turns", "[virtio]") {
    Guest guest;
    std::vector<std::uint32_t> frames;
    for (unsigned i = 0; i < 3 * VirtioBalloon::kTurnPages / kPages; ++i)
        for (const std::uint32_t frame : granule(1))
            frames.push_back(frame);
    frames.back() = 3 * kPages;
    guest.put(0, frames, 65536);
    CHECK(guest.take(0) == 0);
    guest.board.clock.run();
    CHECK(guest.take(0) == 0);
    guest.board.clock.run();
    CHECK(guest.take(0) == 1);
    guest.board.clock.run();
    CHECK(guest.board.clock.armed() == 0);
    CHECK(guest.host.calls == 1);
    guest.put(1, {3 * kPages});  // the last one of the list is in it
    CHECK(guest.take(1) == 1);
    guest.put(0, granule(3));
    CHECK(guest.take(0) == 1);
    CHECK(guest.host.calls == 2);
}

TEST_CASE("whole granules of reported memory are released, however the driver counts the queues",
          "[virtio]") {
    for (const unsigned queue : {4u, 3u, 2u}) {
        Guest guest;
        REQUIRE(guest.driver->negotiate(queue == 2 ? kFull & ~VIRTIO_BALLOON_F_STATS_VQ : kFull));
        guest.driver->queues.clear();
        guest.driver->enable_msix();
        for (unsigned i = 0; i <= queue; ++i)
            guest.driver->add_queue(i, 64);
        guest.driver->driver_ok();
        const auto size = static_cast<std::uint32_t>(GuestMemory::kGranule);
        guest.report(queue, {{Gpa{size}, size, true}, {Gpa{2 * size + 4096}, 2 * size - 4096, true}});
        CHECK(guest.host.released == std::set<std::uint64_t>{size, 3 * size});
        CHECK(guest.take(queue) == 1);
        CHECK(guest.device->counters().reported_bytes == 2 * size);
        guest.report(queue, {{Gpa{size + 4096}, size, true}});
        CHECK(guest.host.calls == 2);  // no whole one
        CHECK_FALSE(guest.needs_reset());
    }
}

TEST_CASE("a long report is worked off in turns, and one beyond RAM breaks the queue", "[virtio]") {
    Guest guest;
    const auto size = static_cast<std::uint32_t>(fake::Board::kRam);
    std::vector<fake::DriverBuffer> ranges(20, {Gpa{0}, size, true});
    guest.report(4, ranges);
    CHECK(guest.host.calls == VirtioBalloon::kTurnBytes / GuestMemory::kGranule);
    CHECK(guest.take(4) == 0);
    while (guest.board.clock.run() != 0) {
    }
    CHECK(guest.host.calls == 20 * size / GuestMemory::kGranule);
    CHECK(guest.take(4) == 1);
    CHECK_FALSE(guest.needs_reset());
    guest.report(4, {{Gpa{0x1000}, size, true}});
    CHECK(guest.needs_reset());
}

TEST_CASE("statistics are what the driver said last", "[virtio]") {
    Guest guest;
    fake::DriverQueue& queue = guest.driver->queues.at(2);
    guest.device->request_statistics();  // there is no buffer yet
    put_stat(guest, 0, VIRTIO_BALLOON_S_MEMFREE, 1000);
    put_stat(guest, 1, VIRTIO_BALLOON_S_MEMTOT, ~std::uint64_t{0});
    put_stat(guest, 2, 0x8000, 7);                                 // a tag of a later edition
    queue.add({{kBuffer, 11, false}, {kBuffer + 11, 22, false}});  // 3 bytes of a fourth
    guest.driver->kick(2);
    CHECK_FALSE(queue.take_used());
    auto values = guest.device->statistics();
    CHECK(values[VIRTIO_BALLOON_S_MEMFREE] == 1000);
    CHECK(values[VIRTIO_BALLOON_S_MEMTOT] == ~std::uint64_t{0});
    CHECK_FALSE(values[VIRTIO_BALLOON_S_SWAP_IN]);

    guest.device->request_statistics();
    CHECK(queue.take_used());
    CHECK(guest.driver->interrupts(2) == 1);
    guest.device->request_statistics();
    CHECK_FALSE(queue.take_used());
    put_stat(guest, 0, VIRTIO_BALLOON_S_MEMFREE, 900);
    queue.add({{kBuffer, 10, false}});
    guest.driver->kick(2);
    CHECK(guest.device->statistics()[VIRTIO_BALLOON_S_MEMFREE] == 900);
    // Of several buffers the first ones come back at once.
    queue.add({{kBuffer, 10, false}});
    guest.driver->kick(2);
    CHECK(queue.take_used());

    guest.driver->set_status(0);
    guest.device->request_statistics();
    guest.driver->start(kFull);
    CHECK_FALSE(guest.device->statistics()[VIRTIO_BALLOON_S_MEMFREE]);
    guest.driver->queues.at(2).put_head(99);
    guest.driver->kick(2);
    CHECK(guest.needs_reset());
}
