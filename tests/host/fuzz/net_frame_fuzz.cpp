// SPDX-License-Identifier: MIT
// Frames of fuzz bytes through a switch to stations and an uplink that want everything done in software, from
// a port that is a trunk and has addresses, or not, and into a capture; and to a network device whose driver
// sends fuzz bytes as commands and frames.
#include "fakes/net_device.hpp"
#include "fakes/virtio_driver.hpp"
#include "vmm/net/capture.hpp"
#include "vmm/net/frame_segments.hpp"
#include "vmm/net/switch.hpp"
#include "vmm/net/uplink.hpp"
#include "vmm/virtio/virtio_net.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

using namespace hv;

/// Reads each byte of a frame, which must have as many as it says.
void read_all(const Frame& frame) {
    std::vector<std::byte> bytes(frame.size);
    if (net::copy_from(frame.segments, 0, bytes) != frame.size)
        std::abort();
}

class Reader final : public net::Station {
public:
    net::Delivery receive(const Frame& frame) override {
        read_all(frame);
        return net::Delivery::taken;
    }
    void resume() override {}
    void network_changed() override {}
};

class ReaderNic final : public fake::IdleNic {
public:
    bool transmit(const Frame& frame) override {
        read_all(frame);
        return true;
    }
};

/// A device with several pairs whose driver takes all that it is offered.
class Nic {
public:
    explicit Nic(const MacAddress& mac)
        : device_{std::move(virtio::VirtioNet::create(board_.memory, board_.clock, {mac, 1500, kPairs}))
                      .value()},
          transport_{*device_, board_.interrupts, &board_.line} {
        board_.bridge.attach(1, transport_).value();
        driver_ = std::make_unique<fake::VirtioDriver>(board_, 1);
        driver_->start(driver_->offered(), kEntries);
        for (unsigned pair = 0; pair < kPairs; ++pair)
            for (unsigned i = 0; i < kBufferCount; ++i)
                driver_->queues.at(2 * pair).add({{kBuffers + 0x1000 * i, 0x1000, true}});
        for (unsigned pair = 0; pair < kPairs; ++pair)
            driver_->kick(2 * pair);
    }
    virtio::VirtioNet& device() { return *device_; }
    void command(std::span<const std::uint8_t> bytes, unsigned piece) { put(2 * kPairs, bytes, piece, true); }
    void send(std::span<const std::uint8_t> bytes, unsigned piece) {
        put(1 + 2 * (piece % kPairs), bytes, piece, false);
    }

private:
    static constexpr unsigned kPairs = 3;
    static constexpr std::uint16_t kEntries = 256;
    static constexpr unsigned kBufferCount = 64;
    static constexpr Gpa kBuffers{0x18'0000};
    static constexpr Gpa kSent{0x10'0000};

    void put(unsigned queue, std::span<const std::uint8_t> bytes, unsigned piece, bool answered) {
        std::vector<fake::DriverBuffer> chain;
        bytes = bytes.first(std::min<std::size_t>(bytes.size(), 0x8000));
        const auto size = static_cast<std::uint32_t>(bytes.size());
        board_.memory.write(kSent, std::as_bytes(bytes)).value();
        const std::uint32_t step = std::max(piece + 1, size / 32 + 1);
        for (std::uint32_t at = 0; at < size; at += step)
            chain.push_back({kSent + at, std::min(step, size - at), false});
        if (answered)
            chain.push_back({kSent + size, 1, true});
        driver_->queues.at(queue).add(chain);
        driver_->kick(queue);
        driver_->queues.at(queue).take_used();
    }

    fake::Board board_{0, fake::Board::Ram::contiguous, kPage2M};
    std::unique_ptr<virtio::VirtioNet> device_;
    virtio::VirtioPciTransport transport_;
    std::unique_ptr<fake::VirtioDriver> driver_;
};

/// Commands that say how long they are in the input, of classes that exist mostly.
void command_nic(Nic& nic, std::span<const std::uint8_t> bytes) {
    for (unsigned i = 0; i < 8 && bytes.size() > 4; ++i) {
        const std::size_t size = std::min<std::size_t>(bytes[0] + 256u * (bytes[1] & 3), bytes.size());
        std::vector<std::uint8_t> command{bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size)};
        if (command.size() > 2)
            command.erase(command.begin(), command.begin() + 2);
        if (!command.empty())
            command[0] &= 7;
        nic.command(command, bytes[2]);
        bytes = bytes.subspan(std::max<std::size_t>(size, 1));
    }
}

/// A device's whole life: it sends before and after the commands, and gets `frame`, of a valid offload.
void use_nic(net::Switch& lan, std::span<const std::uint8_t> bytes, const Frame* frame) {
    constexpr MacAddress kMac{2, 0, 0, 0, 0, 1};
    constexpr std::uint16_t kVlan = 100;
    Nic nic{kMac};
    net::SwitchPort* port =
        lan.add_port(nic.device(), {net::PortOptions::Kind::access, kMac, kVlan, 0}).value();
    nic.device().connect(port);
    nic.send(bytes, bytes[1]);
    command_nic(nic, bytes);
    nic.send(bytes, bytes[3]);
    if (frame != nullptr)
        nic.device().receive(*frame);
    nic.device().connect(nullptr);
    lan.remove_port(*port);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 12 + net::kMinFrameSize)
        return 0;
    fake::ManualClock clock;
    auto lan = net::Switch::create(clock);
    Reader plain;
    ReaderNic nic;
    net::Uplink uplink{nic};
    const std::uint8_t* bytes = data + 12;
    const auto length = static_cast<std::uint32_t>(std::min<std::size_t>(size - 12, net::kMaxFrameSize));
    MacAddress source{};
    std::copy_n(bytes + 6, 6, source.begin());
    net::PortOptions options{net::PortOptions::Kind::access, source,
                             static_cast<std::uint16_t>(data[0] & 0xf), 0};
    if ((data[10] & 1) != 0)
        options.vlans.add(static_cast<std::uint16_t>(16 + data[11]));
    if ((data[10] & 2) != 0)
        options.addresses = {{net::IpPrefix{net::IpPrefix::Family::ipv4, 8, {10}},
                              net::IpPrefix{net::IpPrefix::Family::ipv6, 16, {0x20, 0x01}}},
                             2};
    auto capture = net::Capture::create(clock, 0);
    (*capture)->start({});
    (*lan)->set_tap(capture->get());
    auto access = (*lan)->add_port(plain, options);
    uplink.connect((*lan)->add_port(uplink, {net::PortOptions::Kind::uplink, {}, 0, 0}).value());

    FrameOffload offload{};
    offload.needs_checksum = (data[1] & 1) != 0;
    offload.gso_type = data[2];
    std::memcpy(&offload.gso_size, data + 4, 2);
    std::memcpy(&offload.checksum_start, data + 6, 2);
    std::memcpy(&offload.checksum_offset, data + 8, 2);
    const bool valid = net::is_valid(offload, length);
    std::vector<FrameSegment> segments;
    const std::uint32_t piece = std::max<std::uint32_t>(data[3], length / 60 + 1);
    for (std::uint32_t at = 0; at < length; at += piece)
        segments.push_back({reinterpret_cast<const std::byte*>(bytes) + at, std::min(piece, length - at)});
    Frame frame{{}, segments, length, offload};
    net::copy_from(frame.segments, 0, frame.header);
    if ((data[0] & 0x10) != 0)
        use_nic(**lan, {data, size}, valid ? &frame : nullptr);
    if (!valid)
        return 0;
    std::uint64_t retry_at = 0;
    if (access)
        (*access)->send(frame, retry_at);
    uplink.transmit(frame);
    std::array<std::byte, 1000> stream;
    while ((*capture)->read(stream) != 0) {
    }
    net::deliver(frame, {}, plain);
    net::deliver(frame, {true, false, false, false}, plain);
    return 0;
}
