// SPDX-License-Identifier: MIT
// Frames for tests: made of bytes, with headers of TCP over IP, and the plainest possible checks of what
// comes out.
#pragma once

#include "vmm/net/frame_segments.hpp"
#include "vmm/net/station.hpp"

#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

namespace hv::test {

using Bytes = std::vector<std::uint8_t>;

inline void put16(Bytes& bytes, std::size_t at, unsigned value) {
    bytes.at(at) = static_cast<std::uint8_t>(value >> 8);
    bytes.at(at + 1) = static_cast<std::uint8_t>(value);
}
inline unsigned get16(const Bytes& bytes, std::size_t at) {
    return bytes.at(at) << 8 | bytes.at(at + 1);
}
inline std::uint32_t get32(const Bytes& bytes, std::size_t at) {
    return std::uint32_t{get16(bytes, at)} << 16 | get16(bytes, at + 2);
}

/// The Internet checksum's sum, as rfc1071 defines it: 16-bit numbers, end-around carry.
inline unsigned reference_sum(const std::uint8_t* data, std::size_t size, unsigned sum = 0) {
    for (std::size_t i = 0; i < size; ++i) {
        sum += i % 2 == 0 ? unsigned{data[i]} << 8 : data[i];
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return sum;
}

struct TcpFrame {
    bool ipv6{};
    unsigned tags{};
    unsigned ip_options{};   ///< bytes
    unsigned tcp_options{};  ///< bytes
    std::size_t payload{};
    std::uint8_t flags{0x10};

    [[nodiscard]] std::size_t ip() const { return 14 + 4 * tags; }
    [[nodiscard]] std::size_t tcp() const { return ip() + (ipv6 ? 40 : 20 + ip_options); }
    [[nodiscard]] std::size_t data() const { return tcp() + 20 + tcp_options; }
    /// As a driver leaves it to the device: unsegmented, the checksum field holding the pseudo header's sum.
    [[nodiscard]] Bytes build(std::mt19937& random) const {
        Bytes bytes(data() + payload);
        for (std::uint8_t& byte : bytes)
            byte = static_cast<std::uint8_t>(random());
        for (unsigned i = 0; i < tags; ++i)
            put16(bytes, 12 + 4 * i, 0x8100);
        put16(bytes, 12 + 4 * tags, ipv6 ? 0x86dd : 0x0800);
        if (ipv6) {
            bytes[ip()] = 0x60;
            put16(bytes, ip() + 4, static_cast<unsigned>(bytes.size() - ip() - 40));
            bytes[ip() + 6] = 6;
        } else {
            bytes[ip()] = static_cast<std::uint8_t>(0x45 + ip_options / 4);
            put16(bytes, ip() + 2, static_cast<unsigned>(bytes.size() - ip()));
            put16(bytes, ip() + 6, 0x4000);
            bytes[ip() + 9] = 6;
        }
        bytes[tcp() + 12] = static_cast<std::uint8_t>((20 + tcp_options) / 4 << 4);
        bytes[tcp() + 13] = flags;
        put16(bytes, tcp() + 16, pseudo_sum(bytes));
        return bytes;
    }
    [[nodiscard]] unsigned pseudo_sum(const Bytes& bytes) const {
        const auto length = static_cast<unsigned>(bytes.size() - tcp());
        const unsigned addresses =
            ipv6 ? reference_sum(&bytes[ip() + 8], 32) : reference_sum(&bytes[ip() + 12], 8);
        const std::uint8_t rest[]{0, 6, static_cast<std::uint8_t>(length >> 8),
                                  static_cast<std::uint8_t>(length)};
        return reference_sum(rest, 4, addresses);
    }
    /// Whether all checksums in a finished frame are right.
    [[nodiscard]] bool sums_right(const Bytes& bytes) const {
        if (!ipv6 && reference_sum(&bytes[ip()], tcp() - ip()) != 0xffff)
            return false;
        return reference_sum(&bytes[tcp()], bytes.size() - tcp(), pseudo_sum(bytes)) == 0xffff;
    }
    [[nodiscard]] FrameOffload offload(std::uint16_t gso_size) const {
        FrameOffload offload{};
        offload.needs_checksum = true;
        offload.checksum_start = static_cast<std::uint16_t>(tcp());
        offload.checksum_offset = 16;
        offload.gso_size = gso_size;
        offload.gso_type = gso_size == 0 ? net::kGsoNone : ipv6 ? net::kGsoTcpV6 : net::kGsoTcpV4;
        return offload;
    }
};

/// Bytes as a frame, cut into `pieces` segments of random sizes.
class ScatteredFrame {
public:
    ScatteredFrame(const Bytes& bytes, const FrameOffload& offload, std::mt19937& random,
                   unsigned pieces = 1) {
        std::size_t at = 0;
        for (unsigned i = 0; i < pieces && at < bytes.size(); ++i) {
            const std::size_t left = bytes.size() - at;
            const std::size_t size =
                i + 1 == pieces ? left
                                : std::min<std::size_t>(left, random() % (2 * left / (pieces - i) + 1) + 1);
            segments_.push_back(
                {reinterpret_cast<const std::byte*>(bytes.data()) + at, static_cast<std::uint32_t>(size)});
            at += size;
        }
        frame.segments = segments_;
        frame.size = static_cast<std::uint32_t>(bytes.size());
        frame.offload = offload;
        net::copy_from(frame.segments, 0, frame.header);
    }
    Frame frame{};

private:
    std::vector<FrameSegment> segments_;
};

struct Received {
    Bytes bytes;
    FrameOffload offload;
};

inline Received copy_of(const Frame& frame) {
    Received received{Bytes(frame.size), frame.offload};
    const auto copied = net::copy_from(frame.segments, 0, std::as_writable_bytes(std::span{received.bytes}));
    if (copied != frame.size)
        std::abort();
    return received;
}

/// Keeps what it takes.
class Recorder final : public net::FrameReceiver {
public:
    net::Delivery receive(const Frame& frame) override {
        if (room == 0)
            return net::Delivery::no_room;
        --room;
        frames.push_back(copy_of(frame));
        return net::Delivery::taken;
    }
    std::vector<Received> frames;
    std::size_t room{~std::size_t{0}};
};

}  // namespace hv::test
