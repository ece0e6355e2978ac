// SPDX-License-Identifier: MIT
#include "vmm/virtio/net_steering.hpp"

#include "vmm/base/bytes.hpp"

#include <bit>
#include <tuple>

namespace hv::virtio {
namespace {

constexpr unsigned kTypeIpv4 = 0x0800;
constexpr unsigned kTypeIpv6 = 0x86dd;
constexpr unsigned kTypeVlan = 0x8100;
constexpr unsigned kTypeServiceVlan = 0x88a8;
constexpr std::size_t kTypeAt = 12;
constexpr std::size_t kTag = 4;
constexpr unsigned kMaxTags = 2;

// [rfc791 3.1 Internet Header Format], [rfc8200 3 IPv6 Header Format]
constexpr std::size_t kIpv4Fragment = 6;
constexpr unsigned kIpv4FragmentMask = 0x3fff;  ///< more fragments, or an offset
constexpr std::size_t kIpv4Protocol = 9;
constexpr std::size_t kIpv4Addresses = 12;
constexpr std::size_t kIpv4MaxHeader = 60;
constexpr std::size_t kIpv6Protocol = 6;
constexpr std::size_t kIpv6Addresses = 8;
constexpr std::size_t kIpv6Header = 40;
constexpr auto kTcp = std::byte{6};
constexpr auto kUdp = std::byte{17};
constexpr std::size_t kPorts = 4;

/// What a frame lacks of it is 0.
using Start = decltype(Frame::header);
static_assert(std::tuple_size_v<Start> >= kTypeAt + kMaxTags * kTag + 2 + kIpv4MaxHeader + kPorts);

unsigned big16(const Start& start, std::size_t at) {
    return std::to_integer<unsigned>(start[at]) << 8 | std::to_integer<unsigned>(start[at + 1]);
}
/// What two fields of type T that follow each other have in common whichever comes first.
template <class T>
std::uint64_t both(const Start& start, std::size_t at) {
    return static_cast<T>(load<T>(&start[at]) ^ load<T>(&start[at + sizeof(T)]));
}
std::uint64_t ports(const Start& start, std::byte protocol, std::size_t at) {
    return protocol == kTcp || protocol == kUdp ? both<std::uint16_t>(start, at) << 32 : 0;
}

std::uint64_t ipv4_flow(const Start& start, std::size_t ip) {
    const std::uint64_t addresses = both<std::uint32_t>(start, ip + kIpv4Addresses);
    // Only a first fragment has ports: all of them go by their addresses.
    if ((big16(start, ip + kIpv4Fragment) & kIpv4FragmentMask) != 0)
        return addresses;
    const std::size_t header = std::to_integer<std::size_t>(start[ip] & std::byte{0xf}) * 4;
    return addresses ^ ports(start, start[ip + kIpv4Protocol], ip + header);
}

std::uint64_t ipv6_flow(const Start& start, std::size_t ip) {
    const std::byte* source = &start[ip + kIpv6Addresses];
    const std::byte* destination = source + 16;
    std::uint64_t addresses = 0;
    for (std::size_t i = 0; i < 16; i += 4)
        addresses =
            std::rotl(addresses, 16) ^ load<std::uint32_t>(source + i) ^ load<std::uint32_t>(destination + i);
    return addresses ^ ports(start, start[ip + kIpv6Protocol], ip + kIpv6Header);
}

/// Of stations' addresses, the halves in which they differ.
std::uint64_t station_flow(const Start& start) {
    return load<std::uint32_t>(&start[2]) ^ load<std::uint32_t>(&start[8]);
}

}  // namespace

void NetSteering::reset() {
    pairs_.store(1);
    for (auto& flow : flows_)
        flow.store(kUnknown, std::memory_order_relaxed);
}

std::size_t NetSteering::flow_of(const Frame& frame) {
    const Start& start = frame.header;
    std::size_t at = kTypeAt;
    for (unsigned tags = 0; tags < kMaxTags; ++tags, at += kTag)
        if (const unsigned type = big16(start, at); type != kTypeVlan && type != kTypeServiceVlan)
            break;
    const unsigned type = big16(start, at);
    const std::size_t ip = at + 2;
    std::uint64_t flow = 0;
    if (type == kTypeIpv4)
        flow = ipv4_flow(start, ip);
    else if (type == kTypeIpv6)
        flow = ipv6_flow(start, ip);
    else
        flow = station_flow(start);
    constexpr std::uint64_t kGoldenRatio = 0x9e37'79b9'7f4a'7c15;
    return flow * kGoldenRatio >> 56;
}

void NetSteering::remember(const Frame& frame, unsigned pair) {
    flows_[flow_of(frame)].store(static_cast<std::uint8_t>(pair), std::memory_order_relaxed);
}

unsigned NetSteering::find(const Frame& frame, unsigned count) const {
    const std::size_t flow = flow_of(frame);
    const unsigned pair = flows_[flow].load(std::memory_order_relaxed);
    return pair < count ? pair : static_cast<unsigned>(flow % count);
}

}  // namespace hv::virtio
