// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/virtio_driver.hpp"
#include "vmm/virtio/virtio_rng.hpp"

namespace {

using namespace hv;
using namespace hv::virtio;

constexpr std::uint64_t kRing = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;
constexpr Gpa kBuffer{0x20'0000};

/// Counts up, so that tests see where each byte came to lie.
class CountingSource final : public EntropySource {
public:
    void fill(std::span<std::byte> out) override {
        for (std::byte& byte : out)
            byte = static_cast<std::byte>(++given);
    }
    std::uint64_t given{0};
};

struct Guest {
    explicit Guest(std::uint64_t features = kRing, std::uint16_t queue_size = 64) {
        REQUIRE(board.bridge.attach(1, transport));
        driver = std::make_unique<fake::VirtioDriver>(board, 1);
        driver->start(features, queue_size);
    }
    fake::DriverQueue& queue() { return driver->queues.at(0); }
    bool needs_reset() { return (driver->status() & DEVICE_NEEDS_RESET) != 0; }
    /// Bytes in all answers so far.
    std::uint64_t take_all() {
        std::uint64_t bytes = 0;
        while (const auto used = queue().take_used())
            bytes += used->length;
        return bytes;
    }

    fake::Board board;
    CountingSource source;
    std::unique_ptr<VirtioRng> device{
        std::move(VirtioRng::create(source, board.memory, board.clock)).value()};
    VirtioPciTransport transport{*device, board.interrupts, &board.line};
    std::unique_ptr<fake::VirtioDriver> driver;
};

}  // namespace

TEST_CASE("buffers are filled with random bytes, over all their pieces", "[virtio]") {
    for (const std::uint64_t features : {VIRTIO_F_VERSION_1, kRing}) {
        Guest guest{features};
        CHECK(guest.driver->read_config(2, 2) == 0x1044);
        guest.queue().add({{kBuffer, 10, true}, {kBuffer + 100, 1, true}, {kBuffer + 200, 20, true}});
        guest.driver->kick(0);
        const auto used = guest.queue().take_used();
        REQUIRE(used);
        CHECK(used->length == 31);
        CHECK(guest.board.get<std::uint8_t>(kBuffer + 9) == 10);
        CHECK(guest.board.get<std::uint8_t>(kBuffer + 10) == 0);
        CHECK(guest.board.get<std::uint8_t>(kBuffer + 100) == 11);
        CHECK(guest.board.get<std::uint8_t>(kBuffer + 219) == 31);
        CHECK(guest.driver->interrupts(0) == 1);
    }
}

TEST_CASE("a large buffer gets a part of what it has room for", "[virtio]") {
    Guest guest;
    guest.queue().add({{kBuffer, 100, true}, {kBuffer + 0x1000, 0x10'0000, true}});
    guest.driver->kick(0);
    const auto used = guest.queue().take_used();
    REQUIRE(used);
    CHECK(used->length == VirtioRng::kMaxAnswer);
    CHECK(guest.board.get<std::uint8_t>(kBuffer + 0x1000 + VirtioRng::kMaxAnswer - 100) == 0);
}

TEST_CASE("a turn ends after some KiB, and a timer goes on", "[virtio]") {
    Guest guest;
    for (unsigned i = 0; i < 6; ++i)
        guest.queue().add({{kBuffer, 4096, true}});
    guest.driver->kick(0);
    CHECK(guest.take_all() == VirtioRng::kTurnBytes);
    guest.board.clock.run();
    CHECK(guest.take_all() == VirtioRng::kTurnBytes);
    guest.board.clock.run();
    CHECK(guest.take_all() == VirtioRng::kTurnBytes);
    guest.board.clock.run();
    CHECK(guest.board.clock.armed() == 0);
    CHECK_FALSE(guest.needs_reset());
}

TEST_CASE("a guest gets random bytes at a limited rate", "[virtio]") {
    Guest guest;
    std::uint64_t total = 0;
    std::uint64_t idle = 0;
    for (unsigned millisecond = 0; millisecond < 1000; ++millisecond) {
        while (guest.queue().free_descriptors() != 0)
            guest.queue().add({{kBuffer, 4096, true}});
        guest.driver->kick(0);
        while (guest.board.clock.run() != 0) {
        }
        const std::uint64_t got = guest.take_all();
        idle += got == 0 ? 1 : 0;
        total += got;
        guest.board.clock.advance(1'000'000);
    }
    CHECK(total >= VirtioRng::kRate);
    CHECK(total <= VirtioRng::kRate + VirtioRng::kBurst + VirtioRng::kMaxAnswer);
    CHECK(idle > 500);  // and is not asked in vain meanwhile
}

TEST_CASE("a buffer that cannot be filled breaks the queue", "[virtio]") {
    for (const bool readable : {true, false}) {
        Guest guest;
        guest.queue().add({{kBuffer, readable ? 16u : 0u, !readable}});
        guest.driver->kick(0);
        CHECK(guest.needs_reset());
        CHECK(guest.source.given == 0);
        // As good as new after a reset.
        guest.driver->start(kRing);
        guest.queue().add({{kBuffer, 16, true}});
        guest.driver->kick(0);
        CHECK(guest.take_all() == 16);
    }
}

TEST_CASE("a reset ends what waits", "[virtio]") {
    Guest guest;
    for (unsigned i = 0; i < 64; ++i)
        guest.queue().add({{kBuffer, 4096, true}});
    guest.driver->kick(0);
    CHECK(guest.board.clock.armed() == 1);
    guest.driver->set_status(0);
    CHECK(guest.board.clock.armed() == 0);
    const std::uint64_t given = guest.source.given;
    guest.driver->notify(0);
    CHECK(guest.source.given == given);
}
