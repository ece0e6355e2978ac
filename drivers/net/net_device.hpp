// SPDX-License-Identifier: MIT
// An Ethernet interface: virtual NICs and physical ones are the two kinds of stations on a virtual switch.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace hv {

using MacAddress = std::array<std::uint8_t, 6>;

/// An address that a station may have: of one station, and not all zeros [ieee802 8.2 Universal addresses].
constexpr bool is_station_address(const MacAddress& mac) {
    return (mac[0] & 1) == 0 && mac != MacAddress{};
}

namespace net {

// Sizes of frames, without FCS.
inline constexpr std::uint32_t kMinFrameSize = 14;
/// As it may be on a wire, with a VLAN tag.
inline constexpr std::uint32_t kMaxWireFrameSize = 1518;
/// The largest one, unsegmented: 64 KiB of IP behind an Ethernet header with a VLAN tag.
inline constexpr std::uint32_t kMaxFrameSize = 65535 + 18;

/// Values of FrameOffload::gso_type [virtio1.2 5.1.6 Device Operation].
inline constexpr std::uint8_t kGsoNone = 0;
inline constexpr std::uint8_t kGsoTcpV4 = 1;
inline constexpr std::uint8_t kGsoTcpV6 = 4;
inline constexpr std::uint8_t kGsoEcn = 0x80;  ///< beside the others: the first segment has CWR set

}  // namespace net

/// A piece of a frame in host memory.
struct FrameSegment {
    const std::byte* data;
    std::uint32_t size;
};

/// Work on a frame that its sender left to the receiver, in virtio's terms [virtio1.2 5.1.6 Device
/// Operation].
struct FrameOffload {
    bool needs_checksum{};    ///< VIRTIO_NET_HDR_F_NEEDS_CSUM
    bool data_valid{};        ///< VIRTIO_NET_HDR_F_DATA_VALID
    std::uint8_t gso_type{};  ///< net::kGso*
    std::uint16_t header_length{};
    std::uint16_t gso_size{};
    std::uint16_t checksum_start{};
    std::uint16_t checksum_offset{};
};

/// What a receiver of frames finishes itself: what it lacks is done in software before.
struct OffloadSupport {
    bool checksum{};  ///< takes frames with needs_checksum
    bool tcp4{};      ///< takes unsegmented TCP over IPv4
    bool tcp6{};
    bool ecn{};  ///< also with CWR set
    /// The largest offset of anything that it works on, from the frame's begin to the end of TCP's header.
    std::uint16_t max_offset{0xffff};
};

/// An Ethernet frame without FCS. The memory may belong to a guest that changes it meanwhile: decisions are
/// made on the copied header, and every receiver copies each byte once.
struct Frame {
    /// Ethernet with a VLAN tag, IPv6, and a Neighbor Discovery message with one option, in whole words.
    static constexpr std::size_t kHeaderSize = 96;
    std::array<std::byte, kHeaderSize> header;  ///< the first bytes, copied out of the segments; zeros behind
    /// The whole frame. Where guests can write to what it was copied from, it begins with `header` itself:
    /// what was decided on is what is sent.
    std::span<const FrameSegment> segments;
    std::uint32_t size;  ///< bytes in all segments, at least net::kMinFrameSize
    FrameOffload offload;
    /// Of a sender that keeps what there is no room for, and sends it again: how many bytes of the payload of
    /// unsegmented TCP have been taken already. nullptr: what has no room is lost.
    std::uint32_t* progress{nullptr};
};

/// What takes frames: a switch takes them from a station, a station from its switch.
class FrameSink {
public:
    /// Copies what it needs before it returns. False: dropped, for lack of room or because it may not pass.
    virtual bool transmit(const Frame& frame) = 0;

protected:
    ~FrameSink() = default;
};

/// Whom a physical interface serves: it takes what that receives.
class NetUser : public FrameSink {
public:
    /// The link is there again: who is behind it may know nothing of who is here. Any CPU, no lock held.
    virtual void link_restored() = 0;

protected:
    ~NetUser() = default;
};

/// A physical interface. It is a sink for what is to be sent, any CPU at any time; what has no place in its
/// ring is dropped. What it receives goes to the user given to start(), whole, though perhaps with its
/// checksum left to the receiver, on the CPU that its interrupt comes to, without a lock held.
class NetDevice : public FrameSink {
public:
    struct Counters {
        std::uint64_t frames_sent, bytes_sent, frames_received, bytes_received;
        std::uint64_t no_room;  ///< to be sent, and dropped because the ring was full
        std::uint64_t missed;   ///< on the wire, without a buffer for them
        std::uint64_t errors;   ///< frames that arrived damaged or too long
        std::uint64_t resets;   ///< after the device hung
    };
    virtual ~NetDevice() = default;
    [[nodiscard]] virtual std::string_view model() const = 0;
    [[nodiscard]] virtual MacAddress mac() const = 0;
    /// What transmit() takes unfinished.
    [[nodiscard]] virtual OffloadSupport offloads() const = 0;
    /// Any time; the log says when it changes.
    [[nodiscard]] virtual bool link_up() const = 0;
    [[nodiscard]] virtual Counters counters() const = 0;
    /// Receives from now on, in promiscuous mode, for as long as the host runs. `user` outlives the device.
    virtual void start(NetUser& user) = 0;
    /// Its interrupt came, or may have been lost. Any CPU, no lock held.
    virtual void service() = 0;
};

}  // namespace hv
