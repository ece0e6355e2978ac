// SPDX-License-Identifier: MIT
// Which of the frames that its port gets a network device passes on to its driver, as the driver told it
// through the control queue: modes, addresses, VLANs. Asked for every frame, on any CPU; frames for the own
// address and broadcasts, which are nearly all, take no lock. [virtio1.2 5.1.6.5.1 Packet Receive Filtering,
// 5.1.6.5.2 Setting MAC Address Filtering, 5.1.6.5.3 VLAN Filtering]
#pragma once

#include "drivers/net/net_device.hpp"
#include "drivers/virtio/virtio_net_defs.hpp"
#include "vmm/base/bytes.hpp"
#include "vmm/base/guarded.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace hv::virtio {

class NetReceiveFilter {
public:
    static constexpr std::size_t kMaxAddresses = 64;  ///< in each of the two lists
    static constexpr std::uint16_t kVlans = 4096;

    /// Addresses that the driver wants to receive for.
    class AddressList {
    public:
        void add(const MacAddress& mac);
        /// There are more than are kept: all pass.
        void add_all() { all_ = true; }
        [[nodiscard]] bool all() const { return all_; }
        [[nodiscard]] bool has(std::uint64_t key) const;

    private:
        std::array<std::uint64_t, kMaxAddresses> keys_{};
        std::size_t count_{0};
        bool all_{false};
    };

    explicit NetReceiveFilter(const MacAddress& own) : configured_{key_of(own)} { reset(0); }

    /// As a driver that negotiated `features` finds it after a reset: what it can change passes only frames
    /// for the configured address, broadcasts, and none with a VLAN tag.
    void reset(std::uint64_t features);

    [[nodiscard]] bool passes(const Frame& frame) const {
        const std::uint32_t rules = rules_.load(std::memory_order_relaxed);
        if ((rules & kPromiscuous) != 0)
            return true;
        const std::uint64_t destination = load<std::uint64_t>(frame.header.data()) & kAddressMask;
        if ((destination == own_.load(std::memory_order_relaxed) || destination == kBroadcast) &&
            (rules & (kNoUnicast | kNoBroadcast)) == 0 && !is_tagged(frame)) [[likely]]
            return true;
        return passes_rules(frame, destination, rules);
    }

    /// The own address now.
    [[nodiscard]] MacAddress own() const;

    // --- commands, of one CPU at a time
    // -------------------------------------------------------------------------------
    /// Switches the mode of command `mode` (VIRTIO_NET_CTRL_RX_*) on or off.
    void set_mode(std::uint8_t mode, bool on);
    void set_addresses(const AddressList& unicast, const AddressList& multicast);
    void set_own(const MacAddress& mac) { own_.store(key_of(mac)); }
    /// `vlan` < kVlans.
    void set_vlan(std::uint16_t vlan, bool wanted);

private:
    static constexpr std::uint32_t kPromiscuous = 1u << VIRTIO_NET_CTRL_RX_PROMISC;
    static constexpr std::uint32_t kAllMulticast = 1u << VIRTIO_NET_CTRL_RX_ALLMULTI;
    static constexpr std::uint32_t kAllUnicast = 1u << VIRTIO_NET_CTRL_RX_ALLUNI;
    static constexpr std::uint32_t kNoMulticast = 1u << VIRTIO_NET_CTRL_RX_NOMULTI;
    static constexpr std::uint32_t kNoUnicast = 1u << VIRTIO_NET_CTRL_RX_NOUNI;
    static constexpr std::uint32_t kNoBroadcast = 1u << VIRTIO_NET_CTRL_RX_NOBCAST;
    /// The lists do not matter: the driver cannot set them, or they would be too long.
    static constexpr std::uint32_t kAnyMulticast = 1u << 8;
    static constexpr std::uint32_t kAnyUnicast = 1u << 9;
    static constexpr std::uint32_t kVlanTable = 1u << 10;

    /// Addresses are compared as numbers of their six bytes in memory.
    static constexpr std::uint64_t kAddressMask = 0xffff'ffff'ffff;
    static constexpr std::uint64_t kBroadcast = kAddressMask;
    static constexpr std::uint64_t kGroup = 1;
    static std::uint64_t key_of(const MacAddress& mac);

    /// A customer's tag [ieee802.1q 9.5 Tag Protocol identification]; others are no VLANs of the
    /// driver's.
    static bool is_tagged(const Frame& frame) {
        return frame.header[12] == std::byte{0x81} && frame.header[13] == std::byte{0x00};
    }
    [[nodiscard]] bool passes_rules(const Frame& frame, std::uint64_t destination, std::uint32_t rules) const;
    [[nodiscard]] bool passes_vlan(const Frame& frame) const;

    struct Lists {
        AddressList unicast;
        AddressList multicast;
    };

    const std::uint64_t configured_;
    std::atomic<std::uint64_t> own_{0};
    std::atomic<std::uint32_t> rules_{0};
    std::array<std::atomic<std::uint64_t>, kVlans / 64> vlans_{};
    Guarded<Lists, Rank::leaf> lists_{};
};

}  // namespace hv::virtio
