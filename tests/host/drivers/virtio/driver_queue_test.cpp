// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "drivers/virtio/driver_queue.hpp"
#include "fakes/arena_frames.hpp"
#include "fakes/virtio_pci_device.hpp"

#include <algorithm>
#include <deque>
#include <random>
#include <set>

using namespace hv;
using namespace hv::virtio;

namespace {

constexpr std::uint64_t kAll = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;

/// A queue between a driver and a device that has got it.
struct Rings {
    explicit Rings(std::uint64_t features = kAll, std::uint16_t size = 8, std::uint16_t max_chain = 4)
        : device{{.type = VIRTIO_ID_BLOCK, .features = kAll, .queue_sizes = {64}, .config = {}}},
          queue{DriverQueue::create(pool, {size, max_chain, features}).value()} {
        hand_over(features);
    }
    void hand_over(std::uint64_t features) {
        transport.begin_reset();
        REQUIRE(transport.negotiate(features).value() == (features | VIRTIO_F_VERSION_1));
        REQUIRE(transport.enable_queue(0, queue, 0));
        transport.set_driver_ok();
    }
    bool add(std::size_t buffers, std::size_t readable, std::uint16_t token) {
        std::vector<QueueBuffer> all;
        for (std::size_t i = 0; i < buffers; ++i)
            all.push_back({Hpa{kMiB + 64 * i}, static_cast<std::uint32_t>(16 + i)});
        return queue.add(all, readable, token);
    }
    fake::VirtioPciDevice::Chain take() { return device.pop(0).value(); }

    fake::ArenaFrames frames;
    DmaPool pool{frames};
    fake::VirtioPciDevice device;
    PciTransport transport{device.transport()};
    DriverQueue queue;
};

}  // namespace

TEST_CASE("a chain reaches the device once it is published, and comes back with its token", "[virtio]") {
    for (const std::uint64_t features : {std::uint64_t{0}, kAll}) {
        Rings rings{features};
        REQUIRE(rings.add(3, 1, 0x1234));
        CHECK_FALSE(rings.device.pop(0));
        CHECK(rings.queue.publish());
        CHECK_FALSE(rings.queue.publish());
        const auto chain = rings.take();
        CHECK(chain.indirect == (features != 0));
        REQUIRE(chain.readable.size() == 1);
        REQUIRE(chain.writable.size() == 2);
        CHECK(chain.readable[0].data() == machine::hva(Hpa{kMiB}));
        CHECK(chain.readable[0].size() == 16);
        CHECK(chain.writable[1].data() == machine::hva(Hpa{kMiB + 128}));
        CHECK(chain.writable[1].size() == 18);
        CHECK_FALSE(rings.queue.reap());
        CHECK(rings.queue.in_flight() == 1);
        rings.device.push(0, chain.head, 35);
        const auto used = rings.queue.reap();
        REQUIRE(used);
        CHECK(used->token == 0x1234);
        CHECK(used->written == 35);
        CHECK(rings.queue.in_flight() == 0);
        CHECK_FALSE(rings.queue.reap());
    }
}

TEST_CASE("a single buffer needs no table of its own", "[virtio]") {
    Rings rings;
    REQUIRE(rings.add(1, 1, 1));
    (void)rings.queue.publish();
    CHECK_FALSE(rings.take().indirect);
}

TEST_CASE("chains have room as far as the queue's capacity goes", "[virtio]") {
    Rings direct{0};
    CHECK(direct.queue.capacity() == 2);
    CHECK(direct.add(4, 2, 0));
    CHECK(direct.add(3, 2, 1));
    CHECK_FALSE(direct.add(2, 1, 2));
    CHECK(direct.add(1, 1, 2));
    CHECK_FALSE(direct.add(1, 1, 3));
    Rings indirect;
    CHECK(indirect.queue.capacity() == 8);
    for (std::uint16_t i = 0; i < 8; ++i)
        CHECK(indirect.add(4, 2, i));
    CHECK_FALSE(indirect.add(1, 1, 8));
}

TEST_CASE("chains of any length come back in any order, for ever", "[virtio]") {
    std::mt19937 random{7};
    for (const std::uint64_t features : {std::uint64_t{0}, kAll}) {
        Rings rings{features, 16};
        std::map<std::uint16_t, std::uint16_t> token_of;  // by head
        std::set<std::uint16_t> tokens;
        std::deque<std::uint16_t> added;
        std::uint16_t next_token = 0;
        for (unsigned step = 0; step < 200'000; ++step) {
            if (random() % 2 == 0) {
                const std::size_t buffers = 1 + random() % 4;
                if (!rings.add(buffers, random() % (buffers + 1), next_token))
                    continue;
                added.push_back(next_token++);
                if (random() % 4 != 0)
                    continue;
                (void)rings.queue.publish();
                while (const auto chain = rings.device.pop(0)) {
                    REQUIRE_FALSE(token_of.contains(chain->head));
                    token_of[chain->head] = added.front();
                    added.pop_front();
                }
            } else if (!token_of.empty()) {
                const auto chosen =
                    std::next(token_of.begin(), static_cast<long>(random() % token_of.size()));
                rings.device.push(0, chosen->first, 0);
                const auto used = rings.queue.reap();
                REQUIRE(used);
                REQUIRE(used->token == chosen->second);
                token_of.erase(chosen);
            }
        }
        CHECK_FALSE(rings.queue.broken());
    }
}

TEST_CASE("the device is notified only when it asks for it", "[virtio]") {
    for (const std::uint64_t features : {std::uint64_t{0}, kAll}) {
        Rings rings{features};
        rings.device.want_notifications(0, false);
        REQUIRE(rings.add(1, 1, 0));
        CHECK_FALSE(rings.queue.publish());
        (void)rings.take();
        rings.device.want_notifications(0, true);
        REQUIRE(rings.add(1, 1, 1));
        REQUIRE(rings.add(1, 1, 2));
        CHECK(rings.queue.publish());
    }
}

TEST_CASE("interrupts come when they are asked for, and what came before is not missed", "[virtio]") {
    for (const std::uint64_t features : {std::uint64_t{0}, kAll}) {
        Rings rings{features};
        for (std::uint16_t i = 0; i < 5; ++i)
            REQUIRE(rings.add(1, 0, i));
        (void)rings.queue.publish();
        rings.queue.suppress_interrupts();
        rings.device.push(0, rings.take().head, 0);
        CHECK(rings.device.interrupts[0] == 0);
        CHECK(rings.queue.request_interrupts());
        REQUIRE(rings.queue.reap());
        CHECK_FALSE(rings.queue.request_interrupts());
        rings.device.push(0, rings.take().head, 0);
        CHECK(rings.device.interrupts[0] == 1);
        REQUIRE(rings.queue.reap());
        rings.queue.suppress_interrupts();
        rings.device.push(0, rings.take().head, 0);
        CHECK(rings.device.interrupts[0] == 1);
    }
}

TEST_CASE("a device that uses what it does not have breaks the queue", "[virtio]") {
    Rings rings;
    REQUIRE(rings.add(4, 2, 5));
    REQUIRE(rings.add(4, 2, 6));
    (void)rings.queue.publish();
    const std::uint16_t head = rings.take().head;
    SECTION("a number that no descriptor has") {
        rings.device.push(0, 8, 0);
    }
    SECTION("a number far out") {
        rings.device.push(0, 0xffff'ffff, 0);
    }
    SECTION("a descriptor that heads no chain") {
        rings.device.push(0, 7, 0);
    }
    SECTION("the same chain twice") {
        rings.device.push(0, head, 0);
        REQUIRE(rings.queue.reap());
        CHECK_FALSE(rings.queue.broken());
        rings.device.push(0, head, 0);
    }
    SECTION("an index that is too far ahead") {
        rings.device.set_used_index(0, 3);
    }
    SECTION("an index that goes back") {
        rings.device.set_used_index(0, 0xffff);
    }
    CHECK_FALSE(rings.queue.reap());
    CHECK(rings.queue.broken());
    rings.device.push(0, head, 0);
    CHECK_FALSE(rings.queue.reap());
}

TEST_CASE("a broken queue works again after a new start", "[virtio]") {
    Rings rings;
    REQUIRE(rings.add(4, 2, 5));
    (void)rings.queue.publish();
    rings.device.push(0, 7, 0);
    CHECK_FALSE(rings.queue.reap());
    rings.transport.begin_reset();
    rings.queue.start();
    rings.hand_over(kAll);
    CHECK_FALSE(rings.queue.broken());
    CHECK(rings.queue.in_flight() == 0);
    for (std::uint16_t i = 0; i < 8; ++i)
        REQUIRE(rings.add(4, 2, i));
    (void)rings.queue.publish();
    rings.device.push(0, rings.take().head, 9);
    CHECK(rings.queue.reap()->token == 0);
}

TEST_CASE("without memory there is no queue, and nothing is lost", "[virtio]") {
    fake::ArenaFrames frames;
    DmaPool pool{frames};
    for (const std::uint64_t allowed : {0, 1}) {
        frames.limit(allowed);
        CHECK(DriverQueue::create(pool, {256, 64, kAll}).error() == Error::no_memory);
        CHECK(frames.outstanding() == 0);
    }
}
