// SPDX-License-Identifier: MIT
#include "vmm/net/vlan.hpp"

#include <algorithm>

namespace hv::net {
namespace {

constexpr std::size_t kIdentifierMask = 0xfff;

}  // namespace

bool is_tagged(const Frame& frame, std::size_t offset) {
    return is_tag(number_at(frame, kTypeField + offset));
}

std::uint16_t vlan_of(const Frame& frame) {
    return number_at(frame, kTypeField + 2) & kIdentifierMask;
}

void Retagged::take_offload(const Frame& frame, int bytes) {
    offload_ = frame.offload;
    progress_ = frame.progress;
    const auto shift = [&](std::uint16_t& offset) {
        const int moved = offset + bytes;
        offset = static_cast<std::uint16_t>(std::clamp(moved, 0, 0xffff));
    };
    if (offload_.needs_checksum)
        shift(offload_.checksum_start);
    if (offload_.header_length != 0)
        shift(offload_.header_length);
}

bool Retagged::strip(const Frame& frame) {
    std::copy_n(frame.header.begin(), kTypeField, start_.begin());
    builder_.append(std::span{start_}.first(kTypeField));
    builder_.append(frame.segments, kTypeField + kTagSize);
    take_offload(frame, -static_cast<int>(kTagSize));
    return builder_.complete();
}

bool Retagged::insert(const Frame& frame, std::uint16_t vlan) {
    std::copy_n(frame.header.begin(), kTypeField, start_.begin());
    start_[kTypeField] = std::byte{kTypeVlan >> 8};
    start_[kTypeField + 1] = std::byte{kTypeVlan & 0xff};
    start_[kTypeField + 2] = std::byte(vlan >> 8);
    start_[kTypeField + 3] = std::byte(vlan & 0xff);
    builder_.append(start_);
    builder_.append(frame.segments, kTypeField);
    take_offload(frame, static_cast<int>(kTagSize));
    return builder_.complete();
}

}  // namespace hv::net
