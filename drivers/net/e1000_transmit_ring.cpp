// SPDX-License-Identifier: MIT
#include "drivers/net/e1000_transmit_ring.hpp"

#include "vmm/base/bytes.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace hv::netdrv {

using Descriptor = e1000::TransmitDescriptor;

namespace {

/// Smaller frames are padded here, the device would pad them with what it finds [8254x 13.4.33 Transmit
/// Control Register, PSP]. Small last segments of larger ones are left to it.
constexpr std::uint32_t kMinWireFrame = 60;

constexpr std::uint16_t kTypeVlan = 0x8100;
constexpr std::uint16_t kTypeServiceVlan = 0x88a8;
constexpr std::uint16_t kTypeIpv4 = 0x0800;
constexpr std::uint16_t kTypeIpv6 = 0x86dd;
constexpr std::uint8_t kProtocolTcp = 6;

// [rfc791 3.1 Internet Header Format], [rfc8200 3 IPv6 Header Format], [rfc9293 3.1 Header Format]
constexpr std::size_t kIpv4Header = 20;
constexpr std::size_t kIpv4Length = 2;
constexpr std::size_t kIpv4Protocol = 9;
constexpr std::size_t kIpv4Checksum = 10;
constexpr std::size_t kIpv4Addresses = 12;
constexpr std::size_t kIpv6Header = 40;
constexpr std::size_t kIpv6Length = 4;
constexpr std::size_t kIpv6Addresses = 8;
constexpr std::size_t kTcpHeader = 20;
constexpr std::size_t kTcpDataOffset = 12;
constexpr std::size_t kTcpChecksum = 16;

std::uint16_t big_at(std::span<const std::byte> bytes, std::size_t offset) {
    return static_cast<std::uint16_t>(std::to_integer<unsigned>(bytes[offset]) << 8 |
                                      std::to_integer<unsigned>(bytes[offset + 1]));
}

std::uint16_t fold(std::uint32_t sum) {
    sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>((sum & 0xffff) + (sum >> 16));
}

/// Where things are in an unsegmented TCP frame.
struct Layout {
    std::size_t ip;
    std::size_t tcp;
    std::size_t payload;
    bool ipv6;
};

constexpr std::size_t kMaxOffset = E1000TransmitRing::kMaxOffset;

std::optional<Layout> parse(std::span<const std::byte> bytes, const FrameOffload& offload) {
    Layout layout{
        .ip = 14, .tcp = offload.checksum_start, .payload = 0, .ipv6 = offload.gso_type == net::kGsoTcpV6};
    std::uint16_t type = big_at(bytes, 12);
    for (unsigned tags = 0; tags < 2 && (type == kTypeVlan || type == kTypeServiceVlan); ++tags) {
        type = big_at(bytes, layout.ip + 2);
        layout.ip += 4;
    }
    if (type != (layout.ipv6 ? kTypeIpv6 : kTypeIpv4) || offload.checksum_offset != kTcpChecksum)
        return std::nullopt;
    if (layout.tcp < layout.ip + (layout.ipv6 ? kIpv6Header : kIpv4Header) ||
        layout.tcp + kTcpHeader > kMaxOffset)
        return std::nullopt;
    if (!layout.ipv6) {
        const auto first = std::to_integer<std::size_t>(bytes[layout.ip]);
        if (first >> 4 != 4 || layout.tcp != layout.ip + (first & 0xf) * 4 ||
            bytes[layout.ip + kIpv4Protocol] != std::byte{kProtocolTcp})
            return std::nullopt;
    }
    const std::size_t header = std::to_integer<std::size_t>(bytes[layout.tcp + kTcpDataOffset] >> 4) * 4;
    layout.payload = layout.tcp + header;
    if (header < kTcpHeader || layout.payload > kMaxOffset)
        return std::nullopt;
    return layout;
}

/// The sum of TCP's pseudo header without the length, which the device adds for each segment [8254x 3.5.5 Use
/// of IP/TCP/UDP prototype headers, Figure 3-7]; most significant byte first.
std::uint16_t partial_pseudo_header(std::span<const std::byte> bytes, const Layout& layout) {
    const std::size_t begin = layout.ip + (layout.ipv6 ? kIpv6Addresses : kIpv4Addresses);
    const std::size_t size = layout.ipv6 ? 32 : 8;
    std::uint32_t sum = kProtocolTcp;
    for (std::size_t at = begin; at < begin + size; at += 2)
        sum += big_at(bytes, at);
    return fold(sum);
}

void put_big(std::span<std::byte> bytes, std::size_t offset, std::uint16_t value) {
    bytes[offset] = std::byte(value >> 8);
    bytes[offset + 1] = std::byte(value & 0xff);
}

}  // namespace

Expected<E1000TransmitRing> E1000TransmitRing::create(DmaPool& pool) {
    DmaBuffer ring = HV_TRY(pool.allocate(kDescriptors * sizeof(Descriptor)));
    DmaBuffer buffers = HV_TRY(pool.allocate(std::size_t{kDescriptors} * kBufferSize));
    return E1000TransmitRing{std::move(ring), std::move(buffers)};
}

void E1000TransmitRing::attach(E1000Chip& chip) {
    head_ = tail_ = 0;
    chip.write64(e1000::TDBAL, ring_.address().raw);
    chip.write(e1000::TDLEN, kDescriptors * sizeof(Descriptor));
    chip.write(e1000::TDH, 0);
    chip.write(e1000::TDT, 0);
}

void E1000TransmitRing::copy(const Frame& frame, unsigned index) {
    std::span<std::byte> to = buffer(index);
    std::uint32_t left = frame.size;
    for (const FrameSegment& segment : frame.segments) {
        std::span from{segment.data, std::min(segment.size, left)};
        left -= static_cast<std::uint32_t>(from.size());
        while (!from.empty()) {
            if (to.empty()) {
                index = (index + 1) % kDescriptors;
                to = buffer(index);
            }
            const std::size_t size = std::min(from.size(), to.size());
            std::memcpy(to.data(), from.data(), size);
            to = to.subspan(size);
            from = from.subspan(size);
        }
    }
    if (frame.size < kMinWireFrame)  // then this is its only buffer
        std::memset(to.data(), 0, kMinWireFrame - frame.size);
    // What is looked at from now on is the copy.
    std::atomic_signal_fence(std::memory_order_seq_cst);
}

std::optional<E1000TransmitRing::Work> E1000TransmitRing::plan_checksum(const Frame& frame) {
    const FrameOffload& offload = frame.offload;
    const std::size_t field = std::size_t{offload.checksum_start} + offload.checksum_offset;
    if (field > kMaxOffset || field + sizeof(std::uint16_t) > frame.size)
        return std::nullopt;
    // The field holds the pseudo header's sum, which the device adds to what it sums up, to the frame's end
    // for TUCSE = 0 [8254x 3.6 IP/TCP/UDP Transmit Checksum Offloading].
    Work work{};
    work.context.low = Descriptor::TUCSS::make(offload.checksum_start) | Descriptor::TUCSO::make(field);
    work.context.high = Descriptor::DTYP::make(Descriptor::kContext) | Descriptor::DEXT::kMask |
                        Descriptor::TCP::make(offload.checksum_offset == kTcpChecksum ? 1 : 0);
    work.flags = Descriptor::TXSM::kMask;
    return work;
}

/// Frames that get padding are summed up here: QEMU's 82574L makes the pseudo header anew, and takes the
/// padding for a part of the packet.
std::optional<E1000TransmitRing::Work> E1000TransmitRing::sum_up(const Frame& frame,
                                                                 std::span<std::byte> start) {
    const std::size_t begin = frame.offload.checksum_start;
    const std::size_t field = begin + frame.offload.checksum_offset;
    if (field + sizeof(std::uint16_t) > frame.size)
        return std::nullopt;
    std::uint32_t sum = 0;
    for (std::size_t at = begin; at < frame.size; at += 2)  // behind an odd last byte lies a 0
        sum += big_at(start, at);
    const std::uint16_t folded = fold(sum);
    // 0 would stand for no checksum in UDP [rfc768 Fields].
    put_big(start, field, folded == 0xffff ? folded : static_cast<std::uint16_t>(~folded));
    return Work{};
}

std::optional<E1000TransmitRing::Work> E1000TransmitRing::plan_segmentation(const Frame& frame,
                                                                            std::span<std::byte> start) {
    const FrameOffload& offload = frame.offload;
    if ((offload.gso_type != net::kGsoTcpV4 && offload.gso_type != net::kGsoTcpV6) || !offload.needs_checksum)
        return std::nullopt;
    const auto layout = parse(start, offload);
    if (!layout || layout->payload >= frame.size || offload.gso_size == 0 ||
        layout->payload + offload.gso_size > net::kMaxWireFrameSize)
        return std::nullopt;
    // Lengths and the checksum of IP are the device's to fill in [8254x 3.5.5].
    put_big(start, layout->ip + (layout->ipv6 ? kIpv6Length : kIpv4Length), 0);
    if (!layout->ipv6)
        put_big(start, layout->ip + kIpv4Checksum, 0);
    put_big(start, layout->tcp + kTcpChecksum, partial_pseudo_header(start, *layout));
    Work work{};
    work.context.low = Descriptor::IPCSS::make(layout->ip) | Descriptor::TUCSS::make(layout->tcp) |
                       Descriptor::TUCSO::make(layout->tcp + kTcpChecksum);
    work.context.high = Descriptor::PAYLEN::make(frame.size - layout->payload) |
                        Descriptor::DTYP::make(Descriptor::kContext) | Descriptor::DEXT::kMask |
                        Descriptor::TSE::kMask | Descriptor::TCP::kMask |
                        Descriptor::HDRLEN::make(layout->payload) | Descriptor::MSS::make(offload.gso_size);
    work.flags = Descriptor::TSE::kMask | Descriptor::TXSM::kMask;
    if (!layout->ipv6) {
        work.context.low |=
            Descriptor::IPCSO::make(layout->ip + kIpv4Checksum) | Descriptor::IPCSE::make(layout->tcp - 1);
        work.context.high |= Descriptor::IP::kMask;
        work.flags |= Descriptor::IXSM::kMask;
    }
    return work;
}

std::optional<E1000TransmitRing::Work> E1000TransmitRing::plan(const Frame& frame,
                                                               std::span<std::byte> start) {
    if (frame.offload.gso_type != 0)
        return plan_segmentation(frame, start);
    if (frame.offload.needs_checksum)
        return frame.size < kMinWireFrame ? sum_up(frame, start) : plan_checksum(frame);
    return Work{};
}

E1000TransmitRing::Put E1000TransmitRing::put(const Frame& frame) {
    const bool unsegmented = frame.offload.gso_type != 0;
    if (frame.size < net::kMinFrameSize ||
        frame.size > (unsegmented ? net::kMaxFrameSize : net::kMaxWireFrameSize))
        return Put::refused;
    const bool offload = unsegmented || (frame.offload.needs_checksum && frame.size >= kMinWireFrame);
    const std::uint32_t size = unsegmented ? frame.size : std::max(frame.size, kMinWireFrame);
    const unsigned pieces = (size + kBufferSize - 1) / kBufferSize;
    if (room() < pieces + (offload ? 1 : 0)) {
        reclaim();
        if (room() < pieces + (offload ? 1 : 0))
            return Put::no_room;
    }
    const unsigned first = (tail_ + (offload ? 1 : 0)) % kDescriptors;
    copy(frame, first);
    const auto work = plan(frame, buffer(first));
    if (!work)
        return Put::refused;
    if (offload)
        descriptor(tail_) = work->context;
    // A status is asked for the last one alone: all before it are done by then.
    for (unsigned i = 0; i < pieces; ++i) {
        const unsigned index = (first + i) % kDescriptors;
        const bool last = i + 1 == pieces;
        descriptor(index) = {buffers_.address().raw + std::uint64_t{index} * kBufferSize,
                             Descriptor::DTALEN::make(std::min(size - i * kBufferSize, kBufferSize)) |
                                 Descriptor::DTYP::make(Descriptor::kData) | Descriptor::DEXT::kMask |
                                 Descriptor::IFCS::kMask | work->flags |
                                 (last ? Descriptor::EOP::kMask | Descriptor::RS::kMask : 0)};
    }
    last_[tail_] = static_cast<std::uint8_t>((first + pieces - 1) % kDescriptors);
    tail_ = (first + pieces) % kDescriptors;
    return Put::queued;
}

void E1000TransmitRing::reclaim() {
    while (head_ != tail_) {
        const unsigned last = last_[head_];
        const std::atomic_ref high{descriptor(last).high};
        if (!Descriptor::DD::test(high.load(std::memory_order_acquire)))
            return;
        head_ = (last + 1) % kDescriptors;
        ++completed_;
    }
}

}  // namespace hv::netdrv
