// SPDX-License-Identifier: MIT
// Frames that wait for a receiver's buffers, while drivers do what they like.
#include "vmm/virtio/net_fixture.hpp"

#include <atomic>
#include <thread>

namespace {

using namespace hv;
using namespace hv::virtio;
using namespace hv::test;

}  // namespace

TEST_CASE("a driver that adds small buffers while a frame comes in gets each of them back once", "[virtio]") {
    Network network;
    Guest a{*network.lan, 1};
    Guest b{*network.lan, 2};
    const Bytes bytes = plain(2, 1, 900);
    std::atomic<bool> done{false};
    std::thread sender{[&] {
        fake::set_cpu(1);
        while (!done) {
            a.send(bytes);
            while (!done && a.reclaim() == 0) {
                a.driver->notify(1);
                fake::advance_tsc(1'000);
            }
        }
    }};
    unsigned received = 0;
    bool intact = true;
    for (unsigned i = 0; i < 200'000 && received < 1'000 && intact; ++i) {
        // Too few at a time for a frame: it is put in part, and taken back, again and again.
        if (b.rx().free_descriptors() > 24)
            b.fill(1, 32);
        while (const auto packet = b.take()) {
            ++received;
            intact = intact && packet->bytes == bytes;
        }
    }
    done = true;
    sender.join();
    CHECK(received > 0);
    CHECK(intact);
    CHECK_FALSE(b.needs_reset());
}

TEST_CASE("a frame that takes the place of one that waits is sent whole", "[virtio]") {
    Network network;
    Guest a{*network.lan, 1};
    Guest b{*network.lan, 2, kRing};
    Guest c{*network.lan, 3, kRing};
    std::mt19937 random{4};
    const test::TcpFrame tcp{.payload = 10'000};
    const Bytes first = addressed(tcp.build(random), 2, 1);
    b.fill(3, 1526);
    c.fill(10, 1526);
    a.send(first, header_for(tcp.offload(1448)));
    CHECK((b.take() && b.take() && b.take()));
    CHECK(a.reclaim() == 0);
    const Bytes second = addressed(first, 3, 1);
    a.board.memory.write(Guest::kTransmit + 12, std::as_bytes(std::span{second})).value();
    a.driver->notify(1);
    CHECK(a.reclaim() == 1);
    Bytes payload;
    while (const auto packet = c.take())
        payload.insert(payload.end(), packet->bytes.begin() + static_cast<long>(tcp.data()),
                       packet->bytes.end());
    CHECK(std::equal(payload.begin(), payload.end(), second.begin() + static_cast<long>(tcp.data()),
                     second.end()));
}

TEST_CASE("a driver without the event index is asked for buffers until it adds some", "[virtio]") {
    Network network;
    Guest a{*network.lan, 1};
    Guest b{*network.lan, 2, kFull & ~VIRTIO_F_EVENT_IDX};
    Guest c{*network.lan, 3};
    std::mt19937 random{5};
    const test::TcpFrame tcp{.payload = 6000};
    const Bytes large = addressed(tcp.build(random), 2, 1);
    b.fill(2, 1526);
    a.send(large, header_for(tcp.offload(1448)));
    CHECK_FALSE(b.take());
    c.send(plain(2, 3));
    CHECK(b.take());
    b.fill(4, 1526);
    const auto packet = b.take();
    REQUIRE(packet);
    CHECK(packet->bytes == large);
    // Nobody waits any more: doorbells are of no use.
    c.send(plain(2, 3));
    CHECK(b.take());
    CHECK(b.board.get<std::uint16_t>(b.rx().used) == VIRTQ_USED_F_NO_NOTIFY);
}

TEST_CASE("a checksum that would change what the switch decides on is not sent", "[virtio]") {
    Network network;
    Guest a{*network.lan, 1};
    Guest b{*network.lan, 2, kRing};
    std::mt19937 random{6};
    const test::TcpFrame tcp{.payload = 100};
    const Bytes bytes = addressed(tcp.build(random), 2, 1);
    b.fill(8, 1526);
    const auto passes = [&](const Bytes& frame, std::uint16_t start, std::uint16_t offset) {
        NetHeader header{};
        header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        header.csum_start = start;
        header.csum_offset = offset;
        a.send(frame, header);
        CHECK(a.reclaim() == 1);
        return b.take().has_value();
    };
    CHECK(passes(bytes, 34, 16));
    CHECK(passes(bytes, 34, 0));
    CHECK_FALSE(passes(bytes, 0, 6));    // the source address
    CHECK_FALSE(passes(bytes, 12, 0));   // the EtherType
    CHECK_FALSE(passes(bytes, 14, 12));  // IP's source address
    CHECK_FALSE(passes(bytes, 33, 1));
    CHECK_FALSE(passes(plain(2, 1), 34, 0));  // no IP
    CHECK(a.device->counters().malformed == 5);
}
