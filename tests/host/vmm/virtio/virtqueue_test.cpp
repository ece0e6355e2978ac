// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/virtio_driver.hpp"
#include "vmm/virtio/virtqueue.hpp"

#include <random>
#include <set>

namespace {

using namespace hv;
using namespace hv::virtio;
using Pop = Virtqueue::Pop;

struct Rings {
    explicit Rings(std::uint64_t features = VIRTIO_F_INDIRECT_DESC, std::uint16_t size = 8)
        : driver{board, size, (features & VIRTIO_F_EVENT_IDX) != 0} {
        REQUIRE(queue.start({size, driver.descriptors, driver.avail, driver.used}, features));
    }
    Pop pop() { return queue.pop(storage, chain); }
    Pop pop_after(const VirtqDescriptor& first) {
        driver.descriptor(0, first);
        driver.put_head(0);
        driver.publish();
        return pop();
    }

    fake::Board board;
    fake::DriverQueue driver;
    Virtqueue queue{board.memory};
    std::array<Piece, 16> storage{};
    Chain chain{};
};

constexpr std::uint16_t kNext = VIRTQ_DESC_F_NEXT;
constexpr std::uint16_t kWrite = VIRTQ_DESC_F_WRITE;
constexpr std::uint16_t kIndirect = VIRTQ_DESC_F_INDIRECT;

}  // namespace

TEST_CASE("a chain is what the descriptors name, readable part first", "[virtio]") {
    for (const bool indirect : {false, true}) {
        Rings rings;
        CHECK(rings.pop() == Pop::empty);
        const auto head = rings.driver.add(
            {{Gpa{0x4000}, 100, false}, {Gpa{0x5000}, 28, false}, {Gpa{0x6000}, 512, true}}, indirect);
        CHECK(rings.pop() == Pop::empty);
        rings.driver.publish();
        REQUIRE(rings.pop() == Pop::ready);
        CHECK(rings.chain.head == head);
        CHECK(rings.chain.readable_size == 128);
        CHECK(rings.chain.writable_size == 512);
        REQUIRE(rings.chain.readable.size() == 2);
        REQUIRE(rings.chain.writable.size() == 1);
        CHECK(rings.chain.readable[1].data == rings.board.memory.at(Gpa{0x5000}, 28));
        CHECK(rings.chain.writable[0].size == 512);
        CHECK(rings.pop() == Pop::empty);
        rings.queue.unpop(1);
        CHECK(rings.pop() == Pop::ready);
        CHECK(rings.chain.head == head);
    }
}

TEST_CASE("adjacent pieces merge, but not across the readable part's end", "[virtio]") {
    Rings rings;
    rings.driver.add({{Gpa{0x4000}, 16, false},
                      {Gpa{0x4010}, 16, false},
                      {Gpa{0x4020}, 0, false},
                      {Gpa{0x4020}, 16, true}});
    rings.driver.publish();
    REQUIRE(rings.pop() == Pop::ready);
    CHECK(rings.chain.readable.size() == 1);
    CHECK(rings.chain.readable[0].size == 32);
    CHECK(rings.chain.writable.size() == 1);
}

TEST_CASE("a buffer may cross the pieces that RAM is made of", "[virtio]") {
    Rings rings;
    rings.driver.add({{Gpa{2 * kMiB - 100}, 4 * kMiB, true}});
    rings.driver.publish();
    REQUIRE(rings.pop() == Pop::ready);
    std::uint64_t total = 0;
    for (const Piece& piece : rings.chain.writable)
        total += piece.size;
    CHECK(total == 4 * kMiB);
}

TEST_CASE("a chain of more pieces than there is room for is oversized, not broken", "[virtio]") {
    Rings rings{0, 64};
    std::vector<fake::DriverBuffer> buffers;
    for (unsigned i = 0; i < 20; ++i)
        buffers.push_back({Gpa{0x4000 + 64 * i}, 32, i >= 10});
    rings.driver.add(buffers);
    rings.driver.publish();
    REQUIRE(rings.pop() == Pop::ready);
    CHECK(rings.chain.oversized);
    CHECK(rings.chain.readable.size() == 10);
    CHECK(rings.chain.writable.size() == 6);
    CHECK(rings.chain.writable_size == 320);
    CHECK(rings.chain.readable[0].data == rings.board.memory.at(Gpa{0x4000}, 32));
    CHECK(rings.chain.writable[5].data == rings.board.memory.at(Gpa{0x4000 + 64 * 15}, 32));
}

TEST_CASE("the last piece of an oversized chain is told, the first ones are what they were", "[virtio]") {
    for (const unsigned readable : {15u, 16u, 17u, 19u}) {
        Rings rings{0, 64};
        std::vector<fake::DriverBuffer> buffers;
        for (unsigned i = 0; i < 20; ++i)
            buffers.push_back({Gpa{0x4000 + 64 * i}, 32, i >= readable});
        rings.driver.add(buffers);
        rings.driver.publish();
        REQUIRE(rings.pop() == Pop::ready);
        CHECK(rings.chain.oversized);
        CHECK(rings.chain.readable.size() == std::min(readable, 16u));
        CHECK(rings.chain.readable.back().data ==
              rings.board.memory.at(Gpa{0x4000 + 64 * (std::min(readable, 16u) - 1)}, 32));
        CHECK(rings.chain.writable.size() == 16 - std::min(readable, 16u));
        CHECK(rings.chain.last.data == rings.board.memory.at(Gpa{0x4000 + 64 * 19}, 32));
        CHECK(rings.chain.last.size == 32);
    }
}

TEST_CASE("behind a gap in an oversized chain nothing is joined", "[virtio]") {
    Rings rings{0, 64};
    std::vector<fake::DriverBuffer> buffers;
    for (unsigned i = 0; i < 17; ++i)
        buffers.push_back({Gpa{0x4000 + 64 * i}, 32, true});
    buffers.push_back({Gpa{0x4000 + 64 * 15 + 32}, 16, true});  // where the last one that is kept ends
    rings.driver.add(buffers);
    rings.driver.publish();
    REQUIRE(rings.pop() == Pop::ready);
    CHECK(rings.chain.oversized);
    CHECK(rings.chain.writable.size() == 16);
    CHECK(rings.chain.writable.back().size == 32);
    CHECK(rings.chain.last.size == 16);
}

TEST_CASE("a ring that breaks the rules is broken", "[virtio]") {
    Rings rings;
    const auto broken = [&](Pop result) {
        CHECK(result == Pop::broken);
        CHECK(rings.queue.broken());
        CHECK(rings.pop() == Pop::broken);
        CHECK(rings.queue.has_work());
    };
    const auto chain = [&](const VirtqDescriptor& second) {
        rings.driver.descriptor(1, second);
        return rings.pop_after({0x4000, 16, kNext, 1});
    };
    SECTION("address outside RAM") {
        broken(rings.pop_after({fake::Board::kRam - 8, 16, 0, 0}));
    }
    SECTION("address that wraps around") {
        broken(rings.pop_after({~0ull - 4, 16, 0, 0}));
    }
    SECTION("huge address") {
        broken(rings.pop_after({~0ull << 40, 1, kWrite, 0}));
    }
    SECTION("loop of one") {
        broken(rings.pop_after({0x4000, 16, kNext, 0}));
    }
    SECTION("loop of two") {
        broken(chain({0x4000, 16, kNext, 0}));
    }
    SECTION("next beyond the table") {
        broken(rings.pop_after({0x4000, 16, kNext, 8}));
    }
    SECTION("readable after writable") {
        rings.driver.descriptor(1, {0x4000, 16, 0, 0});
        broken(rings.pop_after({0x4000, 16, kNext | kWrite, 1}));
    }
    SECTION("more than 4 GiB in all") {
        rings.driver.descriptor(1, {0, 0xffff'ffff, 0, 0});
        broken(rings.pop_after({0, 0xffff'ffff, kNext, 1}));
    }
    SECTION("head beyond the table") {
        rings.driver.put_head(8);
        rings.driver.publish();
        broken(rings.pop());
    }
    SECTION("index that jumps") {
        rings.driver.next_avail = 9;
        rings.driver.publish();
        broken(rings.pop());
    }
    SECTION("index that goes back") {
        rings.driver.next_avail = 0xffff;
        rings.driver.publish();
        broken(rings.pop());
    }
    SECTION("indirect with next") {
        broken(rings.pop_after({0x4000, 16, kIndirect | kNext, 1}));
    }
    SECTION("empty indirect table") {
        broken(rings.pop_after({0x4000, 0, kIndirect, 0}));
    }
    SECTION("indirect table of odd length") {
        broken(rings.pop_after({0x4000, 24, kIndirect, 0}));
    }
    SECTION("indirect table outside RAM") {
        broken(rings.pop_after({fake::Board::kRam - 16, 32, kIndirect, 0}));
    }
    SECTION("indirect in indirect") {
        rings.board.put(Gpa{0x4000}, VirtqDescriptor{0x4000, 16, kIndirect, 0});
        broken(rings.pop_after({0x4000, 16, kIndirect, 0}));
    }
    SECTION("loop in an indirect table") {
        rings.board.put(Gpa{0x4000}, VirtqDescriptor{0x5000, 16, kNext, 1});
        rings.board.put(Gpa{0x4010}, VirtqDescriptor{0x5000, 16, kNext, 0});
        broken(rings.pop_after({0x4000, 32, kIndirect, 0}));
    }
    SECTION("next beyond the indirect table") {
        rings.board.put(Gpa{0x4000}, VirtqDescriptor{0x5000, 16, kNext, 1});
        broken(rings.pop_after({0x4000, 16, kIndirect, 0}));
    }
}

TEST_CASE("indirect descriptors need their feature", "[virtio]") {
    Rings rings{0};
    rings.driver.add({{Gpa{0x4000}, 16, false}}, true);
    rings.driver.publish();
    CHECK(rings.pop() == Pop::broken);
}

TEST_CASE("an indirect table may lie at any address, also across pieces of RAM", "[virtio]") {
    Rings rings;
    const Gpa table{2 * kMiB - 25};
    rings.board.put(table, VirtqDescriptor{0x5000, 16, kNext, 1});
    rings.board.put(table + 16, VirtqDescriptor{0x6000, 7, kWrite, 0});
    REQUIRE(rings.pop_after({table.raw, 32, kIndirect, 0}) == Pop::ready);
    CHECK(rings.chain.readable_size == 16);
    CHECK(rings.chain.writable_size == 7);
}

TEST_CASE("rings that cross pieces of RAM work", "[virtio]") {
    fake::Board board;
    board.next = 2 * kMiB - 0x64;
    fake::DriverQueue driver{board, 16, true};
    Virtqueue queue{board.memory};
    REQUIRE(queue.start({16, driver.descriptors, driver.avail, driver.used}, VIRTIO_F_EVENT_IDX));
    std::array<Piece, 4> storage{};
    Chain chain{};
    for (unsigned i = 0; i < 100; ++i) {
        driver.add({{Gpa{0x4000 + i}, i + 1, true}});
        driver.publish();
        REQUIRE(queue.pop(storage, chain) == Pop::ready);
        REQUIRE(chain.writable_size == i + 1);
        queue.push(chain.head, i);
        REQUIRE(queue.publish());
        REQUIRE(driver.take_used()->length == i);
    }
}

TEST_CASE("a layout that cannot be is refused", "[virtio]") {
    fake::Board board;
    Virtqueue queue{board.memory};
    const QueueLayout good{8, Gpa{0x1000}, Gpa{0x2000}, Gpa{0x3000}};
    CHECK(queue.start(good, 0));
    const auto refused = [&](const QueueLayout& layout) {
        CHECK_FALSE(queue.start(layout, 0));
        CHECK(queue.broken());
    };
    refused({0, good.descriptors, good.driver, good.device});
    refused({7, good.descriptors, good.driver, good.device});
    refused({512, good.descriptors, good.driver, good.device});
    refused({8, Gpa{0x1008}, good.driver, good.device});
    refused({8, good.descriptors, Gpa{0x2001}, good.device});
    refused({8, good.descriptors, good.driver, Gpa{0x3002}});
    refused({8, Gpa{fake::Board::kRam - 16}, good.driver, good.device});
    refused({8, good.descriptors, Gpa{~0ull - 1}, good.device});
    refused({8, good.descriptors, good.driver, Gpa{1ull << 63}});
}

TEST_CASE("used buffers show after publish, in order, with their lengths", "[virtio]") {
    Rings rings;
    const auto first = rings.driver.add({{Gpa{0x4000}, 16, true}});
    const auto second = rings.driver.add({{Gpa{0x5000}, 16, true}});
    rings.driver.publish();
    REQUIRE(rings.pop() == Pop::ready);
    REQUIRE(rings.pop() == Pop::ready);
    rings.queue.push(second, 7);
    rings.queue.unpush(1);
    CHECK_FALSE(rings.queue.publish());
    rings.queue.push(second, 5);
    rings.queue.push(first, 0);
    CHECK_FALSE(rings.driver.take_used());
    CHECK(rings.queue.publish());
    auto used = rings.driver.take_used();
    REQUIRE(used);
    CHECK(used->id == second);
    CHECK(used->length == 5);
    used = rings.driver.take_used();
    REQUIRE(used);
    CHECK(used->id == first);
    CHECK_FALSE(rings.driver.take_used());
}

TEST_CASE("notifications are suppressed both ways", "[virtio]") {
    for (const std::uint64_t features : {std::uint64_t{0}, VIRTIO_F_EVENT_IDX}) {
        Rings rings{features};
        const auto add = [&] {
            rings.driver.add({{Gpa{0x4000}, 16, true}});
            return rings.driver.publish();
        };
        CHECK(add());
        rings.queue.suppress_notifications();
        CHECK_FALSE(add());
        CHECK(rings.queue.request_notifications());  // two are there
        REQUIRE(rings.pop() == Pop::ready);
        const auto first = rings.chain.head;
        REQUIRE(rings.pop() == Pop::ready);
        const auto second = rings.chain.head;
        CHECK_FALSE(rings.queue.request_notifications());
        CHECK(add());

        rings.driver.want_interrupts(false);
        rings.queue.push(first, 0);
        CHECK_FALSE(rings.queue.publish());
        rings.driver.want_interrupts(true);
        rings.driver.take_used();
        rings.queue.push(second, 0);
        CHECK(rings.queue.publish());
    }
}

TEST_CASE("indices wrap around at 65536, and the device agrees with a model", "[virtio]") {
    std::mt19937 random{3};
    Rings rings{VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC, 16};
    std::set<std::uint16_t> available, popped;
    for (unsigned step = 0; step < 300'000; ++step) {
        if (random() % 3 == 0 && rings.driver.free_descriptors() >= 3) {
            available.insert(rings.driver.add({{Gpa{0x4000}, 8, false}, {Gpa{0x5000}, 8, true}}, false));
            rings.driver.publish();
        } else if (random() % 2 == 0) {
            const Pop result = rings.pop();
            REQUIRE(result == (available.empty() ? Pop::empty : Pop::ready));
            if (result == Pop::ready) {
                REQUIRE(available.erase(rings.chain.head) == 1);
                popped.insert(rings.chain.head);
            }
        } else if (!popped.empty()) {
            auto any = popped.begin();
            std::advance(any, random() % popped.size());
            rings.queue.push(*any, *any);
            (void)rings.queue.publish();
            const auto used = rings.driver.take_used();
            REQUIRE(used);
            REQUIRE(used->id == *any);
            popped.erase(any);
        }
    }
    CHECK(rings.driver.next_avail != 0);
}
