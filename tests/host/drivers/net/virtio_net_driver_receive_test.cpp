// SPDX-License-Identifier: MIT
#include "drivers/net/virtio_net_driver_fixture.hpp"

using namespace hv;
using namespace hv::netdrv;
using namespace hv::test;
using namespace hv::virtio;

TEST_CASE("frames that arrive go to the sink, and their buffers back", "[net]") {
    VirtioNetBench bench;
    VirtioNetDriver& nic = bench.start();
    for (unsigned round = 0; round < 10; ++round) {
        unsigned arrived = 0;
        while (arrived < 50 && bench.arrive(numbered(60 + arrived)))
            ++arrived;
        CHECK(arrived == 50);
        CHECK(bench.device.interrupts[0] == round + 1);  // one for all of them
        nic.service();
    }
    REQUIRE(bench.sink.frames.size() == 500);
    CHECK((bench.sink.frames[499] == numbered(109)));
    CHECK(nic.counters().frames_received == 500);
    CHECK(nic.counters().bytes_received == 10 * (50 * 60 + 49 * 50 / 2));
    CHECK(nic.counters().errors == 0);
}

TEST_CASE("a NIC receives nothing before it is started", "[net]") {
    VirtioNetBench bench;
    bench.driver = std::move(*bench.create());
    CHECK_FALSE(bench.arrive(numbered(60)));
    bench.driver->service();
    CHECK(bench.driver->transmit(TestFrame{60}.frame()));
    bench.driver->start(bench.sink);
    CHECK(bench.arrive(numbered(60)));
    bench.driver->service();
    CHECK(bench.sink.frames.size() == 1);
}

TEST_CASE("a checksum may be left to the receiver, or be right already", "[net]") {
    VirtioNetBench bench;
    VirtioNetDriver& nic = bench.start();
    NetHeader header{};
    header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    header.csum_start = 34;
    header.csum_offset = 16;
    bench.arrive(numbered(60), header);
    header.flags = VIRTIO_NET_HDR_F_DATA_VALID;
    bench.arrive(numbered(60), header);
    nic.service();
    REQUIRE(bench.sink.offloads.size() == 2);
    CHECK(bench.sink.offloads[0].needs_checksum);
    CHECK(bench.sink.offloads[0].checksum_start == 34);
    CHECK(bench.sink.offloads[0].checksum_offset == 16);
    CHECK_FALSE(bench.sink.offloads[0].data_valid);
    CHECK(bench.sink.offloads[1].data_valid);
    CHECK_FALSE(bench.sink.offloads[1].needs_checksum);
}

TEST_CASE("frames that cannot be are counted and dropped, their buffers are used again", "[net]") {
    VirtioNetBench bench;
    VirtioNetDriver& nic = bench.start();
    const auto frame = numbered(60);
    NetHeader header{};
    SECTION("no header") {
        bench.arrive(frame, header, 0);
    }
    SECTION("no whole Ethernet header") {
        bench.arrive(frame, header, 12 + 13);
    }
    SECTION("too long") {
        bench.arrive(frame, header, 12 + 1523);
    }
    SECTION("longer than the buffer") {
        bench.arrive(frame, header, 0xffff'ffff);
    }
    SECTION("unsegmented") {
        header.gso_type = 1;
        bench.arrive(frame, header);
    }
    SECTION("a checksum beyond the end") {
        header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        header.csum_start = 59;
        bench.arrive(frame, header);
    }
    nic.service();
    CHECK(nic.counters().errors == 1);
    CHECK(bench.sink.frames.empty());
    for (unsigned i = 0; i < 64; ++i)
        CHECK(bench.arrive(numbered(1522)));
    nic.service();
    CHECK(bench.sink.frames.size() == 64);
}

TEST_CASE("a checksum that nobody asked to be left out is no frame's", "[net]") {
    VirtioNetBench bench{kPlain};
    VirtioNetDriver& nic = bench.start();
    NetHeader header{};
    header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    bench.arrive(numbered(60), header);
    nic.service();
    CHECK(nic.counters().errors == 1);
    CHECK(bench.sink.frames.empty());
}

TEST_CASE("a flood does not keep a CPU for ever", "[net]") {
    VirtioNetBench bench;
    VirtioNetDriver& nic = bench.start();
    // For each frame that is handed on another one comes.
    std::size_t arrived = 0;
    const auto arrive = [&] { arrived += bench.arrive(numbered(60)) ? 1 : 0; };
    bench.sink.on_frame = arrive;
    for (unsigned i = 0; i < 40; ++i)
        arrive();
    nic.service();
    CHECK(bench.sink.frames.size() == 256);
    bench.sink.on_frame = {};
    bench.clock.run_for(1);  // a timer goes on
    CHECK(arrived > 256);
    CHECK(bench.sink.frames.size() == arrived);
}

TEST_CASE("a call from within the sink is made up for by the one at work", "[net]") {
    VirtioNetBench bench;
    VirtioNetDriver& nic = bench.start();
    bench.arrive(numbered(60));
    bench.sink.on_frame = [&] {
        bench.sink.on_frame = {};
        bench.arrive(numbered(61));
        nic.service();
        CHECK(bench.sink.frames.size() == 1);
        CHECK(nic.transmit(TestFrame{60}.frame()));  // no lock is held
    };
    nic.service();
    CHECK(bench.sink.frames.size() == 2);
}
