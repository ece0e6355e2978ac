// SPDX-License-Identifier: MIT
#include "vmm/net/vlan.hpp"

#include <algorithm>

namespace hv::net {
namespace {

constexpr std::size_t kAddresses = 12;
constexpr std::size_t kTag = 4;
constexpr std::size_t kIdentifierMask = 0xfff;

std::uint16_t big_at(const Frame& frame, std::size_t offset) {
    return static_cast<std::uint16_t>(std::to_integer<unsigned>(frame.header[offset]) << 8 |
                                      std::to_integer<unsigned>(frame.header[offset + 1]));
}

}  // namespace

bool is_tagged(const Frame& frame) {
    const std::uint16_t type = big_at(frame, kAddresses);
    return type == 0x8100 || type == 0x88a8;
}

std::uint16_t vlan_of(const Frame& frame) {
    return big_at(frame, kAddresses + 2) & kIdentifierMask;
}

void Retagged::shift_offload(const Frame& frame, int bytes) {
    offload_ = frame.offload;
    const auto shift = [&](std::uint16_t& offset) {
        const int moved = offset + bytes;
        offset = static_cast<std::uint16_t>(std::max(moved, 0));
    };
    if (offload_.needs_checksum)
        shift(offload_.checksum_start);
    if (offload_.header_length != 0)
        shift(offload_.header_length);
}

bool Retagged::strip(const Frame& frame) {
    std::copy_n(frame.header.begin(), kAddresses, start_.begin());
    builder_.append(std::span{start_}.first(kAddresses));
    builder_.append(frame.segments, kAddresses + kTag);
    shift_offload(frame, -static_cast<int>(kTag));
    return builder_.complete();
}

bool Retagged::insert(const Frame& frame, std::uint16_t vlan) {
    std::copy_n(frame.header.begin(), kAddresses, start_.begin());
    start_[kAddresses] = std::byte{0x81};
    start_[kAddresses + 1] = std::byte{0x00};
    start_[kAddresses + 2] = std::byte(vlan >> 8);
    start_[kAddresses + 3] = std::byte(vlan & 0xff);
    builder_.append(start_);
    builder_.append(frame.segments, kAddresses);
    shift_offload(frame, static_cast<int>(kTag));
    return builder_.complete();
}

}  // namespace hv::net
