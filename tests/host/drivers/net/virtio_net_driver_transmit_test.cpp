// SPDX-License-Identifier: MIT
#include "drivers/net/virtio_net_driver_fixture.hpp"

#include <algorithm>

using namespace hv;
using namespace hv::netdrv;
using namespace hv::test;
using namespace hv::virtio;

namespace {

FrameOffload tcp(std::uint8_t type) {
    FrameOffload offload{};
    offload.needs_checksum = true;
    offload.gso_type = type;
    offload.header_length = 54;
    offload.gso_size = 1460;
    offload.checksum_start = 34;
    offload.checksum_offset = 16;
    return offload;
}

}  // namespace

TEST_CASE("a frame is sent as it is, in one piece behind its header", "[net]") {
    VirtioNetBench bench;
    VirtioNetDriver& nic = bench.start();
    for (const std::vector<std::uint32_t>& cuts :
         {std::vector<std::uint32_t>{}, {14}, {5, 9, 0, 4}, {18, 1}, {100, 1000, 300}}) {
        const TestFrame frame{1514, cuts};
        CHECK(nic.transmit(frame.frame()));
        CHECK((bench.last_frame() == frame.bytes));
        CHECK(bench.header_of_last().flags == 0);
        CHECK(bench.header_of_last().gso_type == 0);
    }
    const TestFrame shortest{14};
    CHECK(nic.transmit(shortest.frame()));
    CHECK((bench.last_frame() == shortest.bytes));
    CHECK(nic.counters().frames_sent == 6);
    CHECK(nic.counters().bytes_sent == 5 * 1514 + 14);
    CHECK(bench.device.interrupts[VIRTIO_MSI_NO_VECTOR] == 0);
}

TEST_CASE("what was decided on is what is sent, whatever the memory holds by then", "[net]") {
    VirtioNetBench bench;
    VirtioNetDriver& nic = bench.start();
    TestFrame test{200};
    const Frame frame = test.frame();
    std::fill_n(test.bytes.begin(), 150, std::byte{0xee});
    CHECK(nic.transmit(frame));
    const auto sent = bench.last_frame();
    CHECK(std::equal(frame.header.begin(), frame.header.end(), sent.begin()));
    CHECK(sent[Frame::kHeaderSize] == std::byte{0xee});
    CHECK(sent.size() == 200);
}

TEST_CASE("checksums and segmentation are left to the device", "[net]") {
    VirtioNetBench bench;
    VirtioNetDriver& nic = bench.start();
    TestFrame test{65535 + 18, {54, 4000, 20'000}};
    for (const std::uint8_t type : {std::uint8_t{1}, std::uint8_t{4}, std::uint8_t{0x81}}) {
        test.offload = tcp(type);
        REQUIRE(nic.transmit(test.frame()));
        CHECK((bench.last_frame() == test.bytes));
        const NetHeader header = bench.header_of_last();
        CHECK(header.flags == VIRTIO_NET_HDR_F_NEEDS_CSUM);
        CHECK(header.gso_type == type);
        CHECK(header.hdr_len == 54);
        CHECK(header.gso_size == 1460);
        CHECK(header.csum_start == 34);
        CHECK(header.csum_offset == 16);
    }
}

TEST_CASE("what the device cannot send is not given to it", "[net]") {
    VirtioNetBench bench{kPlain | VIRTIO_NET_F_CSUM | VIRTIO_NET_F_HOST_TSO4};
    VirtioNetDriver& nic = bench.start();
    TestFrame huge{40'000};
    CHECK_FALSE(nic.transmit(huge.frame()));
    huge.offload = tcp(4);
    CHECK_FALSE(nic.transmit(huge.frame()));
    huge.offload = tcp(0x81);
    CHECK_FALSE(nic.transmit(huge.frame()));
    huge.offload = tcp(1);
    huge.offload.needs_checksum = false;
    CHECK_FALSE(nic.transmit(huge.frame()));
    huge.offload.needs_checksum = true;
    CHECK(nic.transmit(huge.frame()));
    TestFrame plain{100};
    plain.offload.needs_checksum = true;
    plain.offload.checksum_start = 98;
    CHECK(nic.transmit(plain.frame()));
    plain.offload.checksum_start = 99;
    CHECK_FALSE(nic.transmit(plain.frame()));
    CHECK_FALSE(nic.transmit(TestFrame{1519}.frame()));
    CHECK_FALSE(nic.transmit(TestFrame{13}.frame()));
    CHECK(bench.sent.size() == 2);
    CHECK(nic.counters().no_room == 0);
    TestFrame too_large{65535 + 19};
    too_large.offload = tcp(1);
    CHECK_FALSE(nic.transmit(too_large.frame()));
}

TEST_CASE("what finds no room is dropped and counted, and room comes back by itself", "[net]") {
    VirtioNetBench bench;
    VirtioNetDriver& nic = bench.start();
    bench.hangs = true;
    const TestFrame test{60};
    for (unsigned i = 0; i < 256; ++i)
        REQUIRE(nic.transmit(test.frame()));
    CHECK_FALSE(nic.transmit(test.frame()));
    CHECK(nic.counters().no_room == 1);
    CHECK(nic.counters().frames_sent == 256);
    const auto chain = bench.device.pop(kTransmit);
    bench.device.push(kTransmit, chain->head, 0);
    CHECK(nic.transmit(test.frame()));
    CHECK_FALSE(nic.transmit(test.frame()));
}

TEST_CASE("large frames have few buffers, which small ones do not take", "[net]") {
    VirtioNetBench bench;
    VirtioNetDriver& nic = bench.start();
    bench.hangs = true;
    TestFrame large{30'000};
    large.offload = tcp(1);
    unsigned taken = 0;
    while (nic.transmit(large.frame()))
        ++taken;
    CHECK(taken == 15);
    CHECK(nic.transmit(TestFrame{60}.frame()));
    bench.hangs = false;
    bench.device.on_notify(kTransmit);
    CHECK(nic.transmit(large.frame()));
    CHECK((bench.last_frame() == large.bytes));
}
