// SPDX-License-Identifier: MIT
// Frames of fuzz bytes through a switch to stations and an uplink that want everything done in software, from
// a port that is a trunk and has addresses, or not, and into a capture.
#include "fakes/board.hpp"
#include "vmm/net/capture.hpp"
#include "vmm/net/frame_segments.hpp"
#include "vmm/net/switch.hpp"
#include "vmm/net/uplink.hpp"

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

class Reader final : public net::Station, public FrameSink {
public:
    net::Delivery receive(const Frame& frame) override {
        read_all(frame);
        return net::Delivery::taken;
    }
    bool transmit(const Frame& frame) override {
        read_all(frame);
        return true;
    }
    void resume() override {}
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 12 + net::kMinFrameSize)
        return 0;
    fake::ManualClock clock;
    auto lan = net::Switch::create(clock);
    Reader plain, nic;
    net::Uplink uplink{nic, {}};
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
    if (!net::is_valid(offload, length))
        return 0;
    std::vector<FrameSegment> segments;
    const std::uint32_t piece = std::max<std::uint32_t>(data[3], length / 60 + 1);
    for (std::uint32_t at = 0; at < length; at += piece)
        segments.push_back({reinterpret_cast<const std::byte*>(bytes) + at, std::min(piece, length - at)});
    Frame frame{{}, segments, length, offload};
    net::copy_from(frame.segments, 0, frame.header);
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
