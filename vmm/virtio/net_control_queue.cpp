// SPDX-License-Identifier: MIT
#include "vmm/virtio/net_control_queue.hpp"

#include "vmm/virtio/piece_list.hpp"
#include "vmm/virtio/virtio_net.hpp"

#include <cstddef>
#include <optional>
#include <span>

namespace hv::virtio {

/// What a command consists of, taken off once and in order.
class NetControlQueue::Data {
public:
    explicit Data(const Chain& chain) : pieces_{chain.readable}, left_{chain.readable_size} {}

    /// Nothing: fewer bytes are left.
    template <class T>
    std::optional<T> take() {
        T value{};
        if (left_ < sizeof value)
            return std::nullopt;
        take_front(pieces_, std::as_writable_bytes(std::span{&value, 1}));
        left_ -= sizeof value;
        return value;
    }
    /// A byte that says off or on.
    std::optional<bool> take_switch() {
        const auto value = take<std::uint8_t>();
        if (!value || *value > 1)
            return std::nullopt;
        return *value == 1;
    }
    /// struct virtio_net_ctrl_mac. False: it says that it is longer than it is.
    bool take_list(NetReceiveFilter::AddressList& list) {
        const auto entries = take<std::uint32_t>();
        if (!entries || std::uint64_t{*entries} * sizeof(MacAddress) > left_)
            return false;
        if (*entries > NetReceiveFilter::kMaxAddresses) {
            list.add_all();
            const std::uint64_t size = std::uint64_t{*entries} * sizeof(MacAddress);
            skip_front(pieces_, size);
            left_ -= size;
            return true;
        }
        for (std::uint32_t i = 0; i < *entries; ++i)
            list.add(*take<MacAddress>());
        return true;
    }

private:
    std::span<Piece> pieces_;
    std::uint64_t left_;
};

Expected<void> NetControlQueue::start(unsigned queue, const QueueLayout& layout, std::uint64_t features,
                                      VirtioTransport& transport) {
    negotiated_ = features;
    return worker_.start(queue, layout, features, transport);
}

QueueClient::Step NetControlQueue::next(unsigned, Virtqueue& ring, Effort& effort) {
    Chain chain{};
    if (const auto popped = ring.pop(pieces_, chain); popped != Virtqueue::Pop::ready)
        return step_without(popped);
    if (chain.oversized || chain.writable_size == 0)
        return Step::broken;
    const std::uint8_t answer = execute(chain) ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
    copy_to(chain.writable, std::as_bytes(std::span{&answer, 1}));
    ring.push(chain.head, sizeof answer);
    ++effort.spent;
    return Step::handled;
}

bool NetControlQueue::execute(const Chain& chain) {
    Data data{chain};
    const auto header = data.take<NetControlHeader>();
    if (!header)
        return false;
    switch (header->command_class) {
    case VIRTIO_NET_CTRL_RX: return set_receive_mode(header->command, data);
    case VIRTIO_NET_CTRL_MAC: return set_addresses(header->command, data);
    case VIRTIO_NET_CTRL_VLAN: return set_vlan(header->command, data);
    case VIRTIO_NET_CTRL_ANNOUNCE: return acknowledge_announcement(header->command);
    case VIRTIO_NET_CTRL_MQ: return set_pairs(header->command, data);
    default: return false;
    }
}

bool NetControlQueue::set_receive_mode(std::uint8_t command, Data& data) {
    const bool extra = command > VIRTIO_NET_CTRL_RX_ALLMULTI;
    if (command > VIRTIO_NET_CTRL_RX_NOBCAST ||
        !has(extra ? VIRTIO_NET_F_CTRL_RX_EXTRA : VIRTIO_NET_F_CTRL_RX))
        return false;
    const auto on = data.take_switch();
    if (!on)
        return false;
    device_.filter_.set_mode(command, *on);
    return true;
}

bool NetControlQueue::set_addresses(std::uint8_t command, Data& data) {
    if (command == VIRTIO_NET_CTRL_MAC_TABLE_SET && has(VIRTIO_NET_F_CTRL_RX)) {
        NetReceiveFilter::AddressList unicast;
        NetReceiveFilter::AddressList multicast;
        if (!data.take_list(unicast) || !data.take_list(multicast))
            return false;
        device_.filter_.set_addresses(unicast, multicast);
        return true;
    }
    if (command != VIRTIO_NET_CTRL_MAC_ADDR_SET || !has(VIRTIO_NET_F_CTRL_MAC_ADDR))
        return false;
    // The switch refuses frames from any address but the configured one, unless it trusts us.
    const auto mac = data.take<MacAddress>();
    if (!mac || (*mac != device_.filter_.own() && !(device_.trusted_ && is_station_address(*mac))))
        return false;
    device_.filter_.set_own(*mac);
    return true;
}

bool NetControlQueue::set_vlan(std::uint8_t command, Data& data) {
    const auto vlan = data.take<std::uint16_t>();
    if (!has(VIRTIO_NET_F_CTRL_VLAN) || command > VIRTIO_NET_CTRL_VLAN_DEL || !vlan ||
        *vlan >= NetReceiveFilter::kVlans)
        return false;
    device_.filter_.set_vlan(*vlan, command == VIRTIO_NET_CTRL_VLAN_ADD);
    return true;
}

bool NetControlQueue::acknowledge_announcement(std::uint8_t command) {
    if (!has(VIRTIO_NET_F_GUEST_ANNOUNCE) || command != VIRTIO_NET_CTRL_ANNOUNCE_ACK)
        return false;
    device_.announce_.store(false);
    return true;
}

bool NetControlQueue::set_pairs(std::uint8_t command, Data& data) {
    const auto pairs = data.take<std::uint16_t>();
    return has(VIRTIO_NET_F_MQ) && command == VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET && pairs &&
           device_.use_pairs(*pairs);
}

}  // namespace hv::virtio
