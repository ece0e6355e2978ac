// SPDX-License-Identifier: MIT
#include "vmm/virtio/net_transmit_queue.hpp"

#include "vmm/net/frame_segments.hpp"
#include "vmm/net/offload.hpp"
#include "vmm/virtio/piece_list.hpp"
#include "vmm/virtio/virtio_net.hpp"

#include <cstddef>
#include <span>

namespace hv::virtio {
namespace {

/// What a driver with these features may leave to us.
bool may_ask(const FrameOffload& offload, std::uint64_t features) {
    const auto has = [&](std::uint64_t wanted) { return (features & wanted) != 0; };
    if (offload.needs_checksum && !has(VIRTIO_NET_F_CSUM))
        return false;
    if (offload.gso_type == net::kGsoNone)
        return true;
    const bool ipv6 = (offload.gso_type & ~net::kGsoEcn) == net::kGsoTcpV6;
    const bool ecn = (offload.gso_type & net::kGsoEcn) != 0;
    return has(ipv6 ? VIRTIO_NET_F_HOST_TSO6 : VIRTIO_NET_F_HOST_TSO4) &&
           (!ecn || has(VIRTIO_NET_F_HOST_ECN));
}

FrameOffload offload_of(const NetHeader& header) {
    FrameOffload offload{};
    offload.needs_checksum = (header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0;
    offload.gso_type = header.gso_type;
    offload.header_length = header.hdr_len;
    offload.gso_size = header.gso_size;
    offload.checksum_start = header.csum_start;
    offload.checksum_offset = header.csum_offset;
    return offload;
}

}  // namespace

Expected<void> NetTransmitQueue::start(const QueueLayout& layout, std::uint64_t features) {
    if (layout.size == 0)
        return {};  // not enabled
    HV_TRY(ring_.start(layout, features));
    negotiated_ = features;
    progress_ = 0;
    due_soon_.store(false, std::memory_order_relaxed);
    turn_.open();
    return {};
}

void NetTransmitQueue::stop() {
    turn_.close();
    clock_.disarm(*this);
    ring_.stop();
}

void NetTransmitQueue::process() {
    if (!turn_.enter() || (!ring_.needs_turn() && ring_.unpublished() == 0 && !turn_.leave()))
        return;
    const Stint stint{clock_};
    for (unsigned round = 0; round < kRounds; ++round) {
        std::uint64_t retry_at = 0;
        publish();  // what an earlier turn kept
        const Progress progress = process_ring(retry_at);
        if (progress != Progress::done || !keep_completions())
            publish();
        if (progress == Progress::more)
            break;
        if (progress == Progress::waits) {
            due_soon_.store(false, std::memory_order_relaxed);
            clock_.arm(*this, retry_at);
        }
        // A note may say that there is room now for what waits.
        if (!turn_.leave())
            return;
    }
    clock_.arm(*this, stint.next());
    turn_.abandon();
}

void NetTransmitQueue::fire() {
    due_soon_.store(false, std::memory_order_relaxed);
    process();
}

void NetTransmitQueue::publish() {
    if (ring_.publish())
        device_.interrupt(VirtioNet::transmit_queue(pair_));
}

bool NetTransmitQueue::keep_completions() {
    if (ring_.unpublished() > ring_.size() / 4 || !ring_.would_interrupt())
        return false;
    if (!due_soon_.exchange(true, std::memory_order_relaxed))
        clock_.arm(*this, clock_.now() + clock_.from_nanoseconds(kKeepNs));
    return true;
}

NetTransmitQueue::Progress NetTransmitQueue::process_ring(std::uint64_t& retry_at) {
    Chain chain{};
    ring_.suppress_notifications();
    std::uint64_t bytes = 0;
    for (unsigned frames = 0; frames < kFrameBudget && bytes < kByteBudget; ++frames) {
        if (ring_.caught_up()) {
            if (!ring_.request_notifications())
                return Progress::done;
            ring_.suppress_notifications();
        }
        const auto popped = ring_.pop(pieces_, chain);
        if (popped == Virtqueue::Pop::absent) [[unlikely]] {
            retry_at = clock_.now() + clock_.from_nanoseconds(Virtqueue::kRetryNs);
            return Progress::waits;
        }
        if (popped != Virtqueue::Pop::ready || chain.readable_size < sizeof(NetHeader)) {
            ring_.set_broken();
            device_.report_broken();
            return Progress::done;
        }
        bytes += chain.readable_size;
        if (send(chain, retry_at) == net::Delivery::no_room) {
            ring_.unpop(1);
            return Progress::waits;
        }
        progress_ = 0;
        ring_.push(chain.head, 0);
    }
    return Progress::more;
}

net::Delivery NetTransmitQueue::send(Chain& chain, std::uint64_t& retry_at) {
    NetHeader header{};
    const auto malformed = [&] {
        device_.counters_.malformed.fetch_add(1, std::memory_order_relaxed);
        return net::Delivery::dropped;
    };
    const std::uint64_t size = chain.readable_size - sizeof header;
    if (chain.oversized || size < net::kMinFrameSize || size > net::kMaxFrameSize)
        return malformed();
    take_front(chain.readable, std::as_writable_bytes(std::span{&header, 1}));
    const FrameOffload offload = offload_of(header);
    if (!net::is_valid(offload, static_cast<std::uint32_t>(size)) || !may_ask(offload, negotiated_) ||
        (offload.gso_type == net::kGsoNone && size > device_.max_frame_size()))
        return malformed();
    net::SwitchPort* port = device_.port_.load();
    if (port == nullptr)
        return net::Delivery::dropped;

    // The switch decides on the beginning of the frame: what it sees is what the receiver gets.
    Frame frame;
    const std::size_t start_size = take_front(chain.readable, frame.header);
    net::FrameBuilder builder;
    builder.append(std::span{frame.header}.first(start_size));
    for (const Piece& piece : chain.readable)
        builder.append(std::span<const std::byte>{piece.data, piece.size});
    builder.finish(frame, start_size, offload);
    if (!net::leaves_headers(frame))
        return malformed();
    // A driver that puts another frame in the place of one that waits has it sent, and charged, as a whole.
    if (progress_ != 0 && (waiting_ != frame.header || waiting_size_ != frame.size))
        progress_ = 0;
    frame.progress = &progress_;
    device_.steering_.note_sent(frame, pair_);
    const net::Delivery delivery = port->send(frame, retry_at);
    if (progress_ != 0 && delivery == net::Delivery::no_room) {
        waiting_ = frame.header;
        waiting_size_ = frame.size;
    }
    return delivery;
}

}  // namespace hv::virtio
