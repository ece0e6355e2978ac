// SPDX-License-Identifier: MIT
#include "vmm/virtio/net_receive_filter.hpp"

#include <algorithm>
#include <cstring>

namespace hv::virtio {

std::uint64_t NetReceiveFilter::key_of(const MacAddress& mac) {
    std::uint64_t key = 0;
    std::memcpy(&key, mac.data(), mac.size());
    return key;
}

void NetReceiveFilter::AddressList::add(const MacAddress& mac) {
    if (count_ == keys_.size())
        return add_all();
    keys_[count_++] = key_of(mac);
}

bool NetReceiveFilter::AddressList::has(std::uint64_t key) const {
    const auto* end = keys_.begin() + count_;
    return std::find(keys_.begin(), end, key) != end;
}

MacAddress NetReceiveFilter::own() const {
    const std::uint64_t key = own_.load(std::memory_order_relaxed);
    MacAddress mac{};
    std::memcpy(mac.data(), &key, mac.size());
    return mac;
}

void NetReceiveFilter::reset(std::uint64_t features) {
    own_.store(configured_);
    lists_.with([](Lists& lists) { lists = Lists{}; });
    for (auto& word : vlans_)
        word.store(0, std::memory_order_relaxed);
    std::uint32_t rules = 0;
    if ((features & VIRTIO_NET_F_CTRL_RX) == 0)
        rules |= kAnyMulticast | kAnyUnicast;
    if ((features & VIRTIO_NET_F_CTRL_VLAN) != 0)
        rules |= kVlanTable;
    rules_.store(rules);
}

void NetReceiveFilter::set_mode(std::uint8_t mode, bool on) {
    const std::uint32_t rule = 1u << mode;
    if (on)
        rules_.fetch_or(rule);
    else
        rules_.fetch_and(~rule);
}

void NetReceiveFilter::set_addresses(const AddressList& unicast, const AddressList& multicast) {
    lists_.with([&](Lists& lists) { lists = Lists{unicast, multicast}; });
    const std::uint32_t any = (unicast.all() ? kAnyUnicast : 0) | (multicast.all() ? kAnyMulticast : 0);
    rules_.store((rules_.load() & ~(kAnyUnicast | kAnyMulticast)) | any);
}

void NetReceiveFilter::set_vlan(std::uint16_t vlan, bool wanted) {
    const std::uint64_t bit = std::uint64_t{1} << vlan % 64;
    if (wanted)
        vlans_[vlan / 64].fetch_or(bit);
    else
        vlans_[vlan / 64].fetch_and(~bit);
}

bool NetReceiveFilter::passes_vlan(const Frame& frame) const {
    const auto vlan = static_cast<std::uint16_t>((std::to_integer<unsigned>(frame.header[14]) & 0xf) << 8 |
                                                 std::to_integer<unsigned>(frame.header[15]));
    // VLAN 0 is none: the tag is there for its priority [ieee802.1q 9.6 VLAN Tag Control Information].
    return vlan == 0 || (vlans_[vlan / 64].load(std::memory_order_relaxed) >> vlan % 64 & 1) != 0;
}

bool NetReceiveFilter::passes_rules(const Frame& frame, std::uint64_t destination,
                                    std::uint32_t rules) const {
    const auto has = [&](std::uint32_t any_of) { return (rules & any_of) != 0; };
    if (has(kVlanTable) && is_tagged(frame) && !passes_vlan(frame))
        return false;
    if (destination == kBroadcast)
        return !has(kNoBroadcast);
    if ((destination & kGroup) != 0)
        return !has(kNoMulticast) &&
               (has(kAllMulticast | kAnyMulticast) ||
                lists_.with([&](const Lists& lists) { return lists.multicast.has(destination); }));
    return !has(kNoUnicast) &&
           (destination == own_.load(std::memory_order_relaxed) || has(kAllUnicast | kAnyUnicast) ||
            lists_.with([&](const Lists& lists) { return lists.unicast.has(destination); }));
}

}  // namespace hv::virtio
