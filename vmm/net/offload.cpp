// SPDX-License-Identifier: MIT
#include "vmm/net/offload.hpp"

#include "vmm/base/bytes.hpp"
#include "vmm/net/checksum.hpp"
#include "vmm/net/ethernet.hpp"
#include "vmm/net/frame_segments.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <optional>
#include <span>

namespace hv::net {
namespace {

/// All headers of a frame that is worked on fit in this: Ethernet, VLAN tags, IP with options or extension
/// headers, TCP with options.
constexpr std::size_t kMaxHeaders = 512;
/// Smaller segments make no sense and would cost the host a lot; it is what Linux' TCP sends at least.
constexpr std::uint16_t kMinGsoSize = 48;

constexpr std::uint8_t kProtocolTcp = 6;
constexpr std::uint8_t kProtocolIcmpv6 = 58;

// [rfc9293 3.1 Header Format]
constexpr std::size_t kTcpSequence = 4;
constexpr std::size_t kTcpDataOffset = 12;
constexpr std::size_t kTcpFlags = 13;
constexpr std::size_t kTcpChecksum = 16;
constexpr std::size_t kTcpHeader = 20;
constexpr std::uint8_t kTcpFin = 0x01;
constexpr std::uint8_t kTcpPush = 0x08;
constexpr std::uint8_t kTcpCwr = 0x80;

// [rfc791 3.1 Internet Header Format], [rfc8200 3 IPv6 Header Format]
constexpr std::size_t kIpv4Header = 20;
constexpr std::size_t kIpv4Length = 2;
constexpr std::size_t kIpv4Id = 4;
constexpr std::size_t kIpv4Checksum = 10;
constexpr std::size_t kIpv4Addresses = 12;
constexpr std::size_t kIpv6Header = 40;
constexpr std::size_t kIpv6Length = 4;
constexpr std::size_t kIpv6Next = 6;
constexpr std::size_t kIpv6Addresses = 8;

template <class T>
T load_big(const std::byte* at) {
    T value = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i)
        value = static_cast<T>(value << 8 | std::to_integer<T>(at[i]));
    return value;
}
template <class T>
void store_big(std::byte* at, T value) {
    for (std::size_t i = sizeof(T); i-- > 0; value = static_cast<T>(value >> 8))
        at[i] = std::byte(value & 0xff);
}

using Headers = std::array<std::byte, kMaxHeaders>;

/// Where things are in an unsegmented TCP frame.
struct TcpLayout {
    std::size_t ip;
    std::size_t tcp;
    std::size_t payload;
    bool ipv6;
};

std::optional<TcpLayout> parse(const Headers& headers, std::size_t available, const FrameOffload& offload) {
    TcpLayout layout{};
    std::size_t type_at = 12;
    std::uint16_t type = load_big<std::uint16_t>(&headers[type_at]);
    for (unsigned tags = 0; tags < 2 && is_tag(type); ++tags) {
        type_at += 4;
        type = load_big<std::uint16_t>(&headers[type_at]);
    }
    layout.ip = type_at + 2;
    layout.tcp = offload.checksum_start;
    layout.ipv6 = (offload.gso_type & ~kGsoEcn) == kGsoTcpV6;
    if (layout.tcp < layout.ip + (layout.ipv6 ? kIpv6Header : kIpv4Header) ||
        layout.tcp + kTcpHeader > available)
        return std::nullopt;
    if (type != (layout.ipv6 ? kTypeIpv6 : kTypeIpv4) || offload.checksum_offset != kTcpChecksum)
        return std::nullopt;
    if (!layout.ipv6) {
        const auto first = std::to_integer<std::uint8_t>(headers[layout.ip]);
        if (first >> 4 != 4 || layout.tcp != layout.ip + (first & 0xfu) * 4 ||
            headers[layout.ip + 9] != std::byte{kProtocolTcp})
            return std::nullopt;
    }
    const std::size_t length = std::to_integer<std::size_t>(headers[layout.tcp + kTcpDataOffset] >> 4) * 4;
    layout.payload = layout.tcp + length;
    if (length < kTcpHeader || layout.payload > available)
        return std::nullopt;
    return layout;
}

/// The sum of TCP's pseudo header for `length` bytes of TCP.
Checksum pseudo_header(const Headers& headers, const TcpLayout& layout, std::size_t length) {
    Checksum sum;
    const std::size_t addresses = layout.ip + (layout.ipv6 ? kIpv6Addresses : kIpv4Addresses);
    sum.add(std::span{headers}.subspan(addresses, layout.ipv6 ? 32 : 8));
    sum.add_number(kProtocolTcp);
    sum.add_number(static_cast<std::uint16_t>(length));
    return sum;
}

/// Cuts one unsegmented TCP frame into segments, one at a time.
class Segmenter {
public:
    /// Begins behind the first `done` bytes of payload.
    Segmenter(const Frame& frame, const Headers& headers, const TcpLayout& layout, bool fill_checksum,
              std::uint32_t done)
        : frame_{frame},
          original_{headers},
          layout_{layout},
          fill_checksum_{fill_checksum},
          next_{layout.payload + done},
          index_{static_cast<std::uint16_t>(done / frame.offload.gso_size)} {}

    /// Bytes of payload in the segments so far.
    [[nodiscard]] std::uint32_t progress() const {
        return static_cast<std::uint32_t>(next_ - layout_.payload);
    }
    [[nodiscard]] bool done() const { return next_ >= frame_.size && next_ != layout_.payload; }

    /// Builds the next segment in `builder`; its headers stay valid until the next call.
    FrameOffload next(FrameBuilder& builder) {
        const std::size_t size = std::min<std::size_t>(frame_.offload.gso_size, frame_.size - next_);
        const bool first = next_ == layout_.payload;
        const bool last = next_ + size == frame_.size;
        headers_ = original_;
        edit_ip(layout_.payload - layout_.ip + size);
        std::byte* tcp = &headers_[layout_.tcp];
        const auto sequence =
            load_big<std::uint32_t>(tcp + kTcpSequence) + static_cast<std::uint32_t>(next_ - layout_.payload);
        store_big(tcp + kTcpSequence, sequence);
        if (!last)
            tcp[kTcpFlags] &= ~std::byte{kTcpFin | kTcpPush};
        if (!first)
            tcp[kTcpFlags] &= ~std::byte{kTcpCwr};
        const FrameOffload offload = sum_tcp(size);
        builder.clear();
        builder.append(std::span{headers_}.first(layout_.payload));
        builder.append(frame_.segments, next_, size);
        next_ += std::max<std::size_t>(size, 1);
        ++index_;
        return offload;
    }

private:
    void edit_ip(std::size_t length) {
        std::byte* ip = &headers_[layout_.ip];
        if (layout_.ipv6)
            return store_big(ip + kIpv6Length, static_cast<std::uint16_t>(length - kIpv6Header));
        store_big(ip + kIpv4Length, static_cast<std::uint16_t>(length));
        store_big(ip + kIpv4Id, static_cast<std::uint16_t>(load_big<std::uint16_t>(ip + kIpv4Id) + index_));
        store<std::uint16_t>(ip + kIpv4Checksum, 0);
        Checksum sum;
        sum.add(std::span{headers_}.subspan(layout_.ip, layout_.tcp - layout_.ip));
        store(ip + kIpv4Checksum, sum.complement());
    }
    FrameOffload sum_tcp(std::size_t size) {
        std::byte* field = &headers_[layout_.tcp + kTcpChecksum];
        Checksum sum = pseudo_header(headers_, layout_, layout_.payload - layout_.tcp + size);
        FrameOffload offload{};
        if (fill_checksum_) {
            store<std::uint16_t>(field, 0);
            sum.add(std::span{headers_}.subspan(layout_.tcp, layout_.payload - layout_.tcp));
            for_each_piece(frame_.segments, next_, size,
                           [&](std::span<const std::byte> piece) { sum.add(piece); });
            store(field, sum.complement());
            offload.data_valid = true;
        } else {
            store(field, sum.sum());
            offload.needs_checksum = true;
            offload.checksum_start = frame_.offload.checksum_start;
            offload.checksum_offset = frame_.offload.checksum_offset;
        }
        return offload;
    }

    const Frame& frame_;
    const Headers& original_;
    const TcpLayout layout_;
    const bool fill_checksum_;
    std::size_t next_;
    std::uint16_t index_;
    Headers headers_{};
};

Delivery segment(const Frame& frame, bool fill_checksum, FrameReceiver& to) {
    Headers headers{};
    const std::size_t available = copy_from(frame.segments, 0, headers);
    const auto layout = parse(headers, available, frame.offload);
    if (!layout)
        return Delivery::dropped;
    const std::uint32_t begin = frame.progress != nullptr ? *frame.progress : 0;
    Segmenter segmenter{frame, headers, *layout, fill_checksum, begin};
    FrameBuilder builder;
    bool lost = false;
    while (!segmenter.done()) {
        const std::uint32_t before = segmenter.progress();
        const FrameOffload offload = segmenter.next(builder);
        const Delivery delivery = builder.complete() ? to.receive(builder.frame(offload)) : Delivery::dropped;
        if (delivery == Delivery::no_room) {
            if (before == begin)
                return Delivery::no_room;
            if (frame.progress == nullptr)
                return Delivery::dropped;
            *frame.progress = before;
            return Delivery::partly;
        }
        lost = lost || delivery != Delivery::taken;
    }
    return lost ? Delivery::dropped : Delivery::taken;
}

Delivery fill_checksum(const Frame& frame, FrameReceiver& to) {
    Headers headers;
    const std::size_t field = std::size_t{frame.offload.checksum_start} + frame.offload.checksum_offset;
    const std::size_t end = field + sizeof(std::uint16_t);
    if (end > headers.size() || copy_from(frame.segments, 0, std::span{headers}.first(end)) != end)
        return Delivery::dropped;
    // The field holds the pseudo header's sum [virtio1.2 5.1.6.2 Packet Transmission].
    Checksum sum;
    sum.add(std::span{headers}.subspan(frame.offload.checksum_start, end - frame.offload.checksum_start));
    for_each_piece(frame.segments, end, frame.size,
                   [&](std::span<const std::byte> piece) { sum.add(piece); });
    // 0 would mean that there is no checksum [rfc768]; its other representation is right for every protocol.
    const std::uint16_t value = sum.complement();
    store<std::uint16_t>(&headers[field], value == 0 ? std::uint16_t{0xffff} : value);
    FrameBuilder builder;
    builder.append(std::span{headers}.first(end));
    builder.append(frame.segments, end);
    FrameOffload offload{};
    offload.data_valid = true;
    return builder.complete() ? to.receive(builder.frame(offload)) : Delivery::dropped;
}

}  // namespace

bool is_valid(const FrameOffload& offload, std::uint32_t size) {
    if (offload.needs_checksum && std::uint32_t{offload.checksum_start} + offload.checksum_offset + 2 > size)
        return false;
    if (offload.gso_type == kGsoNone)
        return true;
    const std::uint8_t type = offload.gso_type & static_cast<std::uint8_t>(~kGsoEcn);
    return (type == kGsoTcpV4 || type == kGsoTcpV6) && offload.needs_checksum &&
           offload.gso_size >= kMinGsoSize;
}

bool leaves_headers(const Frame& frame) {
    if (!frame.offload.needs_checksum)
        return true;
    std::size_t type_at = kTypeField;
    for (unsigned tags = 0; tags < 2 && is_tag(number_at(frame, type_at)); ++tags)
        type_at += kTagSize;
    const std::size_t ip = type_at + 2;
    static_assert(kTypeField + 2 * kTagSize + 2 + kIpv6Header <= Frame::kHeaderSize);
    switch (number_at(frame, type_at)) {
    case kTypeIpv4: {
        const std::size_t length = std::to_integer<std::size_t>(frame.header[ip] & std::byte{0xf}) * 4;
        return length >= kIpv4Header && frame.offload.checksum_start >= ip + length;
    }
    case kTypeIpv6:
        return frame.header[ip + kIpv6Next] != std::byte{kProtocolIcmpv6} &&
               frame.offload.checksum_start >= ip + kIpv6Header;
    default: return false;
    }
}

Delivery deliver(const Frame& frame, const OffloadSupport& support, FrameReceiver& to) {
    if (frame.offload.gso_type != kGsoNone) {
        const bool ipv6 = (frame.offload.gso_type & ~kGsoEcn) == kGsoTcpV6;
        const bool ecn = (frame.offload.gso_type & kGsoEcn) != 0;
        if (!(ipv6 ? support.tcp6 : support.tcp4) || (ecn && !support.ecn) || !support.checksum)
            return segment(frame, !support.checksum, to);
    } else if (frame.offload.needs_checksum && !support.checksum) {
        return fill_checksum(frame, to);
    }
    return to.receive(frame);
}

}  // namespace hv::net
