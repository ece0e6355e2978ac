// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "drivers/net/virtio_net_driver.hpp"
#include "drivers/virtio/virtio_net_defs.hpp"
#include "fakes/arena_frames.hpp"
#include "fakes/step_clock.hpp"
#include "fakes/virtio_pci_device.hpp"

#include <algorithm>
#include <deque>
#include <functional>
#include <numeric>

using namespace hv;
using namespace hv::netdrv;
using namespace hv::virtio;

namespace {

constexpr std::uint64_t kTso = VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_HOST_TSO6 | VIRTIO_NET_F_HOST_ECN;
constexpr std::uint64_t kPlain = VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_NET_F_MAC;
constexpr std::uint64_t kAll = kPlain | VIRTIO_NET_F_CSUM | VIRTIO_NET_F_GUEST_CSUM | kTso |
                               VIRTIO_NET_F_STATUS | VIRTIO_NET_F_CTRL_VQ | VIRTIO_NET_F_CTRL_RX;
// Offered, and not to be taken.
constexpr std::uint64_t kUnwanted =
    VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_MRG_RXBUF | VIRTIO_NET_F_MQ | VIRTIO_F_INDIRECT_DESC;

constexpr unsigned kReceive = 0, kTransmit = 1, kControl = 2;

std::vector<std::byte> numbered(std::size_t size) {
    std::vector<std::byte> bytes(size);
    for (std::size_t i = 0; i < size; ++i)
        bytes[i] = std::byte(i * 7 & 0xff);
    return bytes;
}

/// What a NIC takes and hands on, in memory that stays.
struct TestFrame {
    explicit TestFrame(std::size_t size, const std::vector<std::uint32_t>& cuts = {})
        : bytes{numbered(size)} {
        std::size_t at = 0;
        for (const std::uint32_t cut : cuts) {
            segments.push_back({bytes.data() + at, cut});
            at += cut;
        }
        segments.push_back({bytes.data() + at, static_cast<std::uint32_t>(size - at)});
    }
    [[nodiscard]] Frame frame() const {
        Frame frame{{}, segments, static_cast<std::uint32_t>(bytes.size()), offload};
        std::copy_n(bytes.begin(), std::min(bytes.size(), frame.header.size()), frame.header.begin());
        return frame;
    }
    std::vector<std::byte> bytes;
    std::vector<FrameSegment> segments;
    FrameOffload offload{};
};

struct Received final : FrameSink {
    bool transmit(const Frame& frame) override {
        std::vector<std::byte> bytes;
        for (const FrameSegment& segment : frame.segments)
            bytes.insert(bytes.end(), segment.data, segment.data + segment.size);
        REQUIRE(bytes.size() == frame.size);
        const auto shown = std::min(bytes.size(), frame.header.size());
        REQUIRE(std::equal(bytes.begin(), bytes.begin() + static_cast<long>(shown), frame.header.begin()));
        frames.push_back(bytes);
        offloads.push_back(frame.offload);
        if (on_frame)
            on_frame();
        return true;
    }
    std::vector<std::vector<std::byte>> frames;
    std::vector<FrameOffload> offloads;
    std::function<void()> on_frame;
};

/// A NIC behind a virtio device whose other side is the test.
struct Bench {
    explicit Bench(std::uint64_t features = kAll | kUnwanted)
        : device{{.type = VIRTIO_ID_NET,
                  .features = features,
                  .queue_sizes = {64, 256, 64},
                  .config = {std::byte{0x52}, std::byte{0x54}, std::byte{0}, std::byte{1}, std::byte{2},
                             std::byte{3}, std::byte{1}, std::byte{0}, std::byte{1}, std::byte{0}}}} {
        device.on_notify = [this](unsigned queue) {
            while (queue == kTransmit && !hangs) {
                auto chain = device.pop(queue);
                if (!chain)
                    return;
                sent.push_back(chain->bytes());
                device.push(queue, chain->head, 0);
            }
            while (queue == kControl) {
                auto chain = device.pop(queue);
                if (!chain)
                    return;
                commands.push_back(chain->bytes());
                chain->write(0, std::as_bytes(std::span{&control_answer, 1}));
                device.push(queue, chain->head, 1);
            }
        };
    }
    auto create(unsigned vectors = 1) {
        return VirtioNetDriver::create(device.transport(), pool, clock, {"net0", vectors});
    }
    VirtioNetDriver& start() {
        driver = std::move(*create());
        driver->start(sink);
        return *driver;
    }
    /// A frame arrives, unless there is no buffer for it.
    bool arrive(std::span<const std::byte> frame, NetHeader header = {},
                std::optional<std::uint32_t> written = {}) {
        const auto chain = device.pop(kReceive);
        if (!chain)
            return false;
        REQUIRE(chain->readable.empty());
        REQUIRE(chain->writable_size() >= sizeof header + 1522);
        chain->write(0, std::as_bytes(std::span{&header, 1}));
        chain->write(sizeof header, frame);
        device.push(kReceive, chain->head,
                    written.value_or(static_cast<std::uint32_t>(sizeof header + frame.size())));
        return true;
    }
    [[nodiscard]] NetHeader header_of_last() const { return load<NetHeader>(sent.back().data()); }
    [[nodiscard]] std::vector<std::byte> last_frame() const {
        return {sent.back().begin() + sizeof(NetHeader), sent.back().end()};
    }

    fake::ArenaFrames frames;
    DmaPool pool{frames};
    fake::StepClock clock;
    fake::VirtioPciDevice device;
    Received sink;
    std::deque<std::vector<std::byte>> sent, commands;
    std::uint8_t control_answer{VIRTIO_NET_OK};
    bool hangs{false};
    std::unique_ptr<VirtioNetDriver> driver;
};

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

TEST_CASE("of what a NIC offers the driver takes what it can use", "[net]") {
    Bench bench;
    VirtioNetDriver& nic = bench.start();
    CHECK(bench.device.driver_features == kAll);
    CHECK(nic.model() == "virtio-net");
    CHECK(nic.mac() == MacAddress{0x52, 0x54, 0, 1, 2, 3});
    CHECK(nic.link_up());
    const OffloadSupport support = nic.offloads();
    CHECK((support.checksum && support.tcp4 && support.tcp6 && support.ecn));
    CHECK(bench.device.queues[kReceive].vector == 0);
    CHECK(bench.device.queues[kTransmit].vector == VIRTIO_MSI_NO_VECTOR);
    const std::vector<std::byte> promiscuous{std::byte{0}, std::byte{0}, std::byte{1}};
    REQUIRE(bench.commands.size() == 1);
    CHECK(bench.commands[0] == promiscuous);
}

TEST_CASE("a plain NIC is always up, and does nothing by itself", "[net]") {
    Bench bench{VIRTIO_F_VERSION_1};
    VirtioNetDriver& nic = bench.start();
    CHECK(nic.link_up());
    const OffloadSupport support = nic.offloads();
    CHECK_FALSE((support.checksum || support.tcp4 || support.tcp6 || support.ecn));
    CHECK_FALSE(bench.device.queues[kControl].enabled);
    CHECK((nic.mac()[0] & 3) == 2);
    Bench other{VIRTIO_F_VERSION_1};
    other.clock.skip(1);
    CHECK(other.start().mac() != nic.mac());
}

TEST_CASE("an address that no station has is replaced", "[net]") {
    Bench bench;
    bench.device.config[0] = std::byte{0x01};
    CHECK((bench.start().mac()[0] & 3) == 2);
}

TEST_CASE("a frame is sent as it is, in one piece behind its header", "[net]") {
    Bench bench;
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
    Bench bench;
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
    Bench bench;
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
    Bench bench{kPlain | VIRTIO_NET_F_CSUM | VIRTIO_NET_F_HOST_TSO4};
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
    Bench bench;
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
    Bench bench;
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

TEST_CASE("frames that arrive go to the sink, and their buffers back", "[net]") {
    Bench bench;
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
    Bench bench;
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
    Bench bench;
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
    Bench bench;
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
    Bench bench{kPlain};
    VirtioNetDriver& nic = bench.start();
    NetHeader header{};
    header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    bench.arrive(numbered(60), header);
    nic.service();
    CHECK(nic.counters().errors == 1);
    CHECK(bench.sink.frames.empty());
}

TEST_CASE("a flood does not keep a CPU for ever", "[net]") {
    Bench bench;
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
    Bench bench;
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

TEST_CASE("the link is looked at each second", "[net]") {
    Bench bench;
    VirtioNetDriver& nic = bench.start();
    bench.device.config[6] = std::byte{0};
    bench.clock.run_for(bench.clock.hz() + 1);
    CHECK_FALSE(nic.link_up());
    bench.device.config[6] = std::byte{1};
    bench.clock.run_for(bench.clock.hz());
    CHECK(nic.link_up());
}

TEST_CASE("a device that hangs, stops or lies is reset, and works again", "[net]") {
    Bench bench;
    VirtioNetDriver& nic = bench.start();
    const TestFrame test{60};
    std::uint64_t seconds = 3;
    SECTION("its ring is full and stays so") {
        bench.hangs = true;
        while (nic.transmit(test.frame())) {
        }
        seconds = 9;
    }
    SECTION("it asks for it") {
        bench.device.status |= DEVICE_NEEDS_RESET;
    }
    SECTION("a chain of the transmit queue that it does not have") {
        bench.device.push(kTransmit, 9, 0);
    }
    SECTION("a chain of the receive queue that it does not have") {
        bench.device.push(kReceive, 300, 0);
    }
    for (std::uint64_t i = 0; i < seconds; ++i) {
        bench.clock.run_seconds(1);
        if (bench.hangs && nic.counters().resets == 0)
            CHECK_FALSE(nic.transmit(test.frame()));
    }
    CHECK(nic.counters().resets == 1);
    bench.hangs = false;
    CHECK(bench.device.ready());
    CHECK(bench.commands.size() == 2);  // promiscuous again
    CHECK(nic.transmit(test.frame()));
    CHECK((bench.last_frame() == test.bytes));
    bench.device.interrupts.clear();
    CHECK(bench.arrive(numbered(70)));
    CHECK(bench.device.interrupts[0] == 1);
    nic.service();
    REQUIRE(bench.sink.frames.size() == 1);
    CHECK((bench.sink.frames[0] == numbered(70)));
}

TEST_CASE("a full ring that moves, or an idle one, is no reason for a reset", "[net]") {
    Bench bench;
    VirtioNetDriver& nic = bench.start();
    bench.hangs = true;
    const TestFrame test{60};
    for (unsigned second = 0; second < 20; ++second) {
        while (nic.transmit(test.frame())) {
        }
        bench.device.push(kTransmit, bench.device.pop(kTransmit)->head, 0);
        bench.clock.run_seconds(1);
    }
    bench.clock.run_seconds(20);
    CHECK(nic.counters().resets == 0);
}

TEST_CASE("during a reset nothing is sent, and nobody waits", "[net]") {
    Bench bench;
    VirtioNetDriver& nic = bench.start();
    bench.device.status |= DEVICE_NEEDS_RESET;
    bench.device.stuck = true;
    bench.clock.run_for(bench.clock.hz() + 1);
    CHECK(nic.counters().resets == 1);
    CHECK_FALSE(nic.transmit(TestFrame{60}.frame()));
    CHECK(nic.counters().no_room == 1);
    SECTION("it comes back") {
        bench.device.status = 0;
        for (auto& queue : bench.device.queues)
            queue = {.size = queue.max_size, .max_size = queue.max_size};
        bench.clock.run_for(bench.clock.hz() / 500);
        CHECK(nic.transmit(TestFrame{60}.frame()));
        CHECK(nic.link_up());
    }
    SECTION("it does not") {
        bench.clock.run_seconds(5);
        CHECK_FALSE(nic.link_up());
        CHECK_FALSE(nic.transmit(TestFrame{60}.frame()));
        CHECK_FALSE(bench.device.masters_bus());
        CHECK(bench.clock.idle());
    }
}

TEST_CASE("a NIC that was pulled is given up", "[net]") {
    Bench bench;
    VirtioNetDriver& nic = bench.start();
    bench.device.vanished = true;
    bench.clock.run_seconds(3);
    CHECK_FALSE(nic.link_up());
    CHECK_FALSE(nic.transmit(TestFrame{60}.frame()));
    nic.service();
    CHECK(bench.clock.idle());
}

TEST_CASE("a NIC that cannot be used is refused, and has no way to memory", "[net]") {
    Bench bench;
    Error expected = Error::unsupported;
    SECTION("no receive queue") {
        bench.device.queues[kReceive] = {};
    }
    SECTION("no transmit queue") {
        bench.device.queues[kTransmit] = {};
    }
    SECTION("no room for a command") {
        bench.device.queues[kControl] = {.size = 1, .max_size = 1};
    }
    SECTION("it refuses") {
        bench.device.refuses_features = true;
    }
    SECTION("no vector left") {
        bench.device.vectors_left = 0;
        expected = Error::no_memory;
    }
    SECTION("an address that does not stop changing") {
        bench.device.unsteady_config = true;
        expected = Error::io_error;
    }
    CHECK(bench.create().error() == expected);
    CHECK_FALSE(bench.device.masters_bus());
    CHECK(bench.frames.outstanding() == 0);
}

TEST_CASE("a refused command does not matter", "[net]") {
    Bench bench;
    bench.control_answer = VIRTIO_NET_ERR;
    VirtioNetDriver& nic = bench.start();
    bench.clock.run_seconds(2);
    CHECK(nic.counters().resets == 0);
    CHECK(nic.transmit(TestFrame{60}.frame()));
}

TEST_CASE("without memory there is no NIC, and nothing is lost", "[net]") {
    for (std::uint64_t allowed = 0; allowed < 7; ++allowed) {
        Bench bench;
        bench.frames.limit(allowed);
        CHECK(bench.create().error() == Error::no_memory);
        CHECK(bench.frames.outstanding() == 0);
        CHECK_FALSE(bench.device.masters_bus());
    }
}
