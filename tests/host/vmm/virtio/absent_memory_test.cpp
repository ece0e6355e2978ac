// SPDX-License-Identifier: MIT
// Buffers in memory that the guest gave up and the host has not got back yet: devices wait for it as vCPUs
// do.
#include "catch.hpp"
#include "fakes/virtio_driver.hpp"
#include "vmm/net/switch.hpp"
#include "vmm/virtio/blk_fixture.hpp"
#include "vmm/virtio/idle_backends.hpp"
#include "vmm/virtio/virtio_console.hpp"
#include "vmm/virtio/virtio_net.hpp"
#include "vmm/virtio/virtio_rng.hpp"
#include "vmm/virtio/virtqueue.hpp"

#include <array>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using namespace hv;
using namespace hv::virtio;

constexpr std::uint64_t kFeatures = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;
constexpr std::uint64_t kGranule = GuestMemory::kGranule;
constexpr Gpa kBuffer{3 * kGranule};
constexpr MacAddress kMac{0x52, 0x54, 0, 0, 0, 1};
constexpr MacAddress kOtherMac{0x52, 0x54, 0, 0, 0, 2};

/// A device of a guest that gave up the memory of a buffer.
struct Machine {
    void attach(VirtioDevice& device) {
        transport = std::make_unique<VirtioPciTransport>(device, board.interrupts, &board.line);
        REQUIRE(board.bridge.attach(1, *transport));
        driver = std::make_unique<fake::VirtioDriver>(board, 1);
        driver->start(driver->offered() & (kFeatures | VIRTIO_NET_F_MRG_RXBUF), 16);
    }
    /// Offers the buffer while its memory is away, and after it has come back.
    void offer(unsigned queue, const std::vector<fake::DriverBuffer>& chain) {
        std::byte* const where = board.memory.detach(kBuffer);
        REQUIRE(where != nullptr);
        driver->queues.at(queue).add(chain);
        driver->kick(queue);
        CHECK_FALSE(driver->queues.at(queue).take_used());
        board.memory.attach(kBuffer, where);
        CHECK_FALSE(driver->queues.at(queue).take_used());
    }
    /// The buffer's answer, once the device has looked again.
    auto later(unsigned queue) {
        board.clock.advance(Virtqueue::kRetryNs);
        CHECK((driver->status() & DEVICE_NEEDS_RESET) == 0);
        return driver->queues.at(queue).take_used();
    }

    fake::Board board{0, fake::Board::Ram::releasable, 8 * kGranule};
    std::unique_ptr<VirtioPciTransport> transport;
    std::unique_ptr<fake::VirtioDriver> driver;
};

/// A queue without a device.
struct Queue {
    Queue() { REQUIRE(queue.start({16, rings.descriptors, rings.avail, rings.used}, kFeatures)); }
    fake::Board board{0, fake::Board::Ram::releasable, 8 * kGranule};
    fake::DriverQueue rings{board, 16, true};
    Virtqueue queue{board.memory};
};

/// Another station on the guest's switch.
struct Neighbour final : net::Station {
    net::Delivery receive(const Frame&) override {
        ++received;
        return net::Delivery::taken;
    }
    void resume() override {}
    void network_changed() override {}
    unsigned received{0};
};

}  // namespace

TEST_CASE("a chain in memory that is leaving is popped once that is back", "[virtio]") {
    Queue machine;
    auto& [board, rings, queue] = machine;
    std::array<Piece, 8> pieces{};
    Chain chain{};
    const bool indirect = GENERATE(false, true);
    if (indirect) {
        board.put(kBuffer, VirtqDescriptor{kBuffer.raw + 64, 100, VIRTQ_DESC_F_WRITE, 0});
        rings.descriptor(0, {kBuffer.raw, 16, VIRTQ_DESC_F_INDIRECT, 0});
        rings.put_head(0);
    } else {
        rings.add({{kBuffer, 100, true}});
    }
    rings.publish();
    std::byte* const where = board.memory.detach(kBuffer);
    CHECK(queue.pop(pieces, chain) == Virtqueue::Pop::absent);
    CHECK_FALSE(queue.broken());
    board.memory.attach(kBuffer, where);
    CHECK(queue.pop(pieces, chain) == Virtqueue::Pop::ready);
    CHECK(chain.writable_size == 100);
}

TEST_CASE("of much absent memory a chain gets a part at a time", "[virtio]") {
    Queue machine;
    auto& [board, rings, queue] = machine;
    std::array<Piece, 16> pieces{};
    Chain chain{};
    std::vector<fake::DriverBuffer> buffers;
    for (std::uint64_t i = 2; i < 8; ++i) {
        const Gpa granule{i * kGranule};
        board.memory.release(granule, board.memory.detach(granule));
        buffers.push_back({granule, 1, true});
    }
    rings.add(buffers);
    rings.publish();
    CHECK(board.memory.absent_bytes() == 6 * kGranule);
    CHECK(queue.pop(pieces, chain) == Virtqueue::Pop::absent);
    CHECK(board.memory.absent_bytes() == 2 * kGranule);
    CHECK(queue.pop(pieces, chain) == Virtqueue::Pop::ready);
    CHECK(board.memory.absent_bytes() == 0);
    CHECK(chain.writable_size == 6);
}

TEST_CASE("a device that answers chain by chain waits for absent memory", "[virtio]") {
    Machine machine;
    test::NoEntropy source;
    const auto device =
        std::move(VirtioRng::create(source, machine.board.memory, machine.board.clock)).value();
    machine.attach(*device);
    machine.offer(0, {{kBuffer, 32, true}});
    const auto used = machine.later(0);
    REQUIRE(used);
    CHECK(used->length == 32);
}

TEST_CASE("what was typed waits for absent memory", "[virtio]") {
    Machine machine;
    test::NoText sink;
    const auto device =
        std::move(VirtioConsole::create(sink, machine.board.memory, machine.board.clock)).value();
    machine.attach(*device);
    CHECK(device->receive('x'));
    machine.offer(VirtioConsole::kReceiveQueue, {{kBuffer, 32, true}});
    CHECK(machine.later(VirtioConsole::kReceiveQueue));
    CHECK(machine.board.get<char>(kBuffer) == 'x');
}

TEST_CASE("frames wait for absent memory, both ways", "[virtio]") {
    Machine machine;
    const auto lan = std::move(net::Switch::create(machine.board.clock)).value();
    const auto device =
        std::move(VirtioNet::create(machine.board.memory, machine.board.clock, {kMac, 1500, 1, false}))
            .value();
    net::SwitchPort* port = lan->add_port(*device, {net::PortOptions::Kind::access, kMac, 0, 0}).value();
    Neighbour neighbour;
    net::SwitchPort* other =
        lan->add_port(neighbour, {net::PortOptions::Kind::access, kOtherMac, 0, 0}).value();
    device->connect(port);
    machine.attach(*device);
    std::array<std::uint8_t, 12 + 60> packet{};
    std::copy(kOtherMac.begin(), kOtherMac.end(), packet.begin() + 12);
    std::copy(kMac.begin(), kMac.end(), packet.begin() + 18);
    machine.board.put(kBuffer, packet);
    machine.driver->queues.at(1).want_interrupts(false);
    machine.offer(1, {{kBuffer, packet.size(), false}});
    CHECK(machine.later(1));
    CHECK(neighbour.received == 1);

    machine.offer(0, {{kBuffer, 2048, true}});
    std::byte* const where = machine.board.memory.detach(kBuffer);
    std::array<std::byte, 60> bytes{};
    const FrameSegment segment{bytes.data(), bytes.size()};
    Frame frame{};
    frame.segments = std::span{&segment, 1};
    frame.size = bytes.size();
    CHECK(device->receive(frame) == net::Delivery::no_room);
    CHECK((machine.driver->status() & DEVICE_NEEDS_RESET) == 0);
    machine.board.memory.attach(kBuffer, where);
    // Its destination is not the device's.
    std::transform(kMac.begin(), kMac.end(), frame.header.begin(),
                   [](std::uint8_t octet) { return std::byte{octet}; });
    CHECK(device->receive(frame) == net::Delivery::taken);
    device->connect(nullptr);
    lan->remove_port(*port);
    lan->remove_port(*other);
}

TEST_CASE("a disk's request waits for absent memory", "[virtio]") {
    test::BlkMachine machine{
        {2048, 512, false, true}, test::kRing, {1, "serial"}, 256, fake::Board::Ram::releasable};
    const Gpa data = test::BlkMachine::kData;
    std::byte* const where = machine.board.memory.detach(data);
    REQUIRE(where != nullptr);
    const Gpa status = machine.add(test::kIn, 0, {{data, 512, true}});
    machine.driver->kick(0);
    CHECK_FALSE(machine.driver->queues.at(0).take_used());
    machine.board.memory.attach(data, where);
    machine.board.clock.advance(Virtqueue::kRetryNs);
    CHECK((machine.driver->status() & DEVICE_NEEDS_RESET) == 0);
    CHECK(machine.driver->queues.at(0).take_used());
    CHECK(machine.status_at(status) == test::kOk);
}
