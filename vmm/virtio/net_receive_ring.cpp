// SPDX-License-Identifier: MIT
#include "vmm/virtio/net_receive_ring.hpp"

#include "vmm/base/bytes.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace hv::virtio {
namespace {

NetHeader header_of(const Frame& frame, bool checksum) {
    const FrameOffload& offload = frame.offload;
    NetHeader header{};
    header.num_buffers = 1;
    if (offload.needs_checksum) {
        header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        header.csum_start = offload.checksum_start;
        header.csum_offset = offload.checksum_offset;
    } else if (offload.data_valid && checksum) {
        header.flags = VIRTIO_NET_HDR_F_DATA_VALID;
    }
    if (offload.gso_type != net::kGsoNone) {
        header.gso_type = offload.gso_type;
        header.gso_size = offload.gso_size;
        header.hdr_len = offload.header_length;
    }
    return header;
}

}  // namespace

/// Fills chains with a stream of bytes. The header's num_buffers is written in the end, wherever its bytes
/// came to lie.
class NetReceiveRing::Writer {
public:
    explicit Writer(NetReceiveRing& owner) : owner_{owner}, ring_{owner.ring_} {}

    enum class Next : std::uint8_t { ok, empty, unusable };
    /// Makes room for at least one more byte. It may be called again when there was none.
    Next make_room() {
        while (at_ == end_) {
            if (chains_ != 0) {
                if (!owner_.mergeable_ || chains_ == ring_.size())
                    return Next::unusable;  // no waiting makes it fit
                if (pushed_ != chains_)
                    finish_chain();
            }
            Chain chain{};
            switch (ring_.pop(owner_.pieces_, chain)) {
            case Virtqueue::Pop::empty:
            case Virtqueue::Pop::absent: return Next::empty;
            case Virtqueue::Pop::broken: return Next::unusable;
            case Virtqueue::Pop::ready: break;
            }
            ++chains_;
            head_ = chain.head;
            written_ = 0;
            at_ = chain.writable.data();
            end_ = at_ + chain.writable.size();
            if (at_ == end_) {
                ring_.set_broken();  // a receive buffer without room
                return Next::unusable;
            }
        }
        return Next::ok;
    }
    /// The common case: copies all of it into the room at hand, where nothing was written yet. False: that is
    /// too small.
    bool write_whole(const NetHeader& header, const Frame& frame) {
        if (at_->size < sizeof header + frame.size)
            return false;
        std::byte* to = at_->data;
        for (std::size_t i = 0; i < num_buffers_.size(); ++i)
            num_buffers_[i] = to + offsetof(NetHeader, num_buffers) + i;
        std::memcpy(to, &header, sizeof header);
        to += sizeof header;
        for (const FrameSegment& segment : frame.segments) {
            std::memcpy(to, segment.data, segment.size);
            to += segment.size;
        }
        written_ = static_cast<std::uint32_t>(sizeof header + frame.size);
        return true;
    }
    /// Copies what fits into the room at hand; returns how much that was.
    std::size_t write(std::span<const std::byte> bytes) {
        const std::size_t size = std::min<std::size_t>(bytes.size(), at_->size);
        std::memcpy(at_->data, bytes.data(), size);
        if (position_ < sizeof(NetHeader))
            note_num_buffers(size);
        position_ += size;
        written_ += static_cast<std::uint32_t>(size);
        at_->data += size;
        at_->size -= static_cast<std::uint32_t>(size);
        if (at_->size == 0)
            ++at_;
        return size;
    }
    /// Leaves the ring as it was, but for what the buffers hold.
    void undo() {
        ring_.unpush(pushed_);
        ring_.unpop(chains_);
    }
    void finish() {
        finish_chain();
        *num_buffers_[0] = std::byte(chains_ & 0xff);
        *num_buffers_[1] = std::byte(chains_ >> 8);
    }

private:
    /// The next `size` bytes go to the room at hand: whichever byte of num_buffers is among them.
    void note_num_buffers(std::size_t size) {
        for (std::size_t i = 0; i < num_buffers_.size(); ++i) {
            const std::size_t offset = offsetof(NetHeader, num_buffers) + i;
            if (offset >= position_ && offset - position_ < size)
                num_buffers_[i] = at_->data + (offset - position_);
        }
    }
    void finish_chain() {
        ring_.push(head_, written_);
        ++pushed_;
    }

    NetReceiveRing& owner_;
    Virtqueue& ring_;
    Piece* at_{nullptr};
    Piece* end_{nullptr};
    std::uint16_t chains_{0};
    std::uint16_t pushed_{0};
    std::uint16_t head_{0};
    std::uint32_t written_{0};
    std::size_t position_{0};
    std::array<std::byte*, 2> num_buffers_{};
};

Expected<void> NetReceiveRing::start(const QueueLayout& layout, std::uint64_t features,
                                     std::uint32_t max_frame) {
    const auto has = [&](std::uint64_t wanted) { return (features & wanted) != 0; };
    mergeable_ = has(VIRTIO_NET_F_MRG_RXBUF);
    max_frame_ = max_frame;
    support_ = {has(VIRTIO_NET_F_GUEST_CSUM), has(VIRTIO_NET_F_GUEST_TSO4), has(VIRTIO_NET_F_GUEST_TSO6),
                has(VIRTIO_NET_F_GUEST_ECN)};
    if (layout.size == 0)
        return {};
    HV_TRY(ring_.start(layout, features));
    live_ = true;
    awaits_buffers_ = false;
    return {};
}

NetReceiveRing::Result NetReceiveRing::put(const Frame& frame) {
    if (!live_ || ring_.broken())
        return {net::Delivery::dropped, false, false};
    const net::Delivery delivery = deliver(frame, support_, *this);
    return {delivery, ring_.publish(), ring_.broken()};
}

net::Delivery NetReceiveRing::receive(const Frame& frame) {
    // [virtio1.2 5.1.4.1 Device Requirements: Device configuration layout]
    if (frame.size > max_frame_ && frame.offload.gso_type == net::kGsoNone)
        return net::Delivery::dropped;
    const NetHeader header = header_of(frame, support_.checksum);
    Writer writer{*this};
    if (!awaits_buffers_)
        ring_.suppress_notifications();
    const auto make_room = [&] {
        const auto room = writer.make_room();
        // All buffers are in use: ask for a notification, and look again in case that came too late.
        return room == Writer::Next::empty && ring_.request_notifications() ? writer.make_room() : room;
    };
    const auto write = [&](const FrameSegment& segment) {
        auto room = Writer::Next::ok;
        for (std::size_t done = 0; done < segment.size && (room = make_room()) == Writer::Next::ok;)
            done += writer.write(std::span{segment.data, segment.size}.subspan(done));
        return room;
    };
    auto result = make_room();
    if (result == Writer::Next::ok && !writer.write_whole(header, frame)) {
        result = write({reinterpret_cast<const std::byte*>(&header), sizeof header});
        for (const FrameSegment& segment : frame.segments) {
            if (result != Writer::Next::ok)
                break;
            result = write(segment);
        }
    }
    if (result == Writer::Next::ok) {
        writer.finish();
        return net::Delivery::taken;
    }
    writer.undo();
    awaits_buffers_ = awaits_buffers_ || result == Writer::Next::empty;
    return result == Writer::Next::empty ? net::Delivery::no_room : net::Delivery::dropped;
}

}  // namespace hv::virtio
