// SPDX-License-Identifier: MIT
#include "vmm/virtio/vsock_connection.hpp"

#include <algorithm>

namespace hv::virtio {

void VsockConnection::open(VsockService& service, const VsockHeader& request) {
    begin(service, request.src_port, request.dst_port);
    open_ = true;
    peer_read_ = request.fwd_cnt;
    peer_buffer_ = request.buf_alloc;
}

void VsockConnection::ask(VsockService& service, std::uint32_t guest_port, std::uint32_t host_port,
                          std::uint64_t answer_by) {
    begin(service, guest_port, host_port);
    open_ = false;
    answer_by_ = answer_by;
}

void VsockConnection::begin(VsockService& service, std::uint32_t guest_port, std::uint32_t host_port) {
    service_ = &service;
    guest_port_ = guest_port;
    host_port_ = host_port;
    greeting_due_ = true;
    credit_due_ = closing_ = shutdown_sent_ = false;
    peer_shutdown_ = 0;
    read_ = told_ = sent_ = 0;
    received_.clear();
    outgoing_.clear();
}

std::size_t VsockConnection::read(std::span<std::byte> out) {
    const std::size_t size = received_.take(out);
    read_ += static_cast<std::uint32_t>(size);
    // Before the guest runs out of credit, and not for each byte.
    if (read_ - told_ >= kBufferSize / 2)
        credit_due_ = true;
    return size;
}

std::uint32_t VsockConnection::credit() const {
    const std::uint32_t under_way = sent_ - peer_read_;
    return peer_buffer_ > under_way ? peer_buffer_ - under_way : 0;
}

bool VsockConnection::receive(const VsockHeader& header, std::span<const Piece> payload) {
    peer_buffer_ = header.buf_alloc;
    peer_read_ = header.fwd_cnt;
    if (!open_)
        return header.op == VIRTIO_VSOCK_OP_RESPONSE && receive_response();
    switch (header.op) {
    case VIRTIO_VSOCK_OP_RW: return receive_payload(header, payload);
    case VIRTIO_VSOCK_OP_CREDIT_UPDATE: return true;
    case VIRTIO_VSOCK_OP_CREDIT_REQUEST: credit_due_ = true; return true;
    case VIRTIO_VSOCK_OP_SHUTDOWN: {
        constexpr std::uint32_t kBoth = VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE | VIRTIO_VSOCK_SHUTDOWN_F_SEND;
        peer_shutdown_ |= header.flags & kBoth;
        if ((peer_shutdown_ & VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE) != 0)
            outgoing_.clear();
        // A reset is the answer to an orderly end [virtio1.2 5.10.6.5 Stream Sockets].
        return peer_shutdown_ != kBoth;
    }
    default: return false;
    }
}

/// Only what was asked is answered.
bool VsockConnection::receive_response() {
    open_ = !greeting_due_;
    return open_;
}

bool VsockConnection::receive_payload(const VsockHeader& header, std::span<const Piece> payload) {
    if ((peer_shutdown_ & VIRTIO_VSOCK_SHUTDOWN_F_SEND) != 0 || header.len > received_.room())
        return false;
    std::uint32_t left = header.len;
    for (const Piece& piece : payload) {
        const std::uint32_t size = std::min(piece.size, left);
        received_.put({piece.data, size});
        left -= size;
    }
    return left == 0;
}

bool VsockConnection::has_output() const {
    if (greeting_due_ || !open_)
        return greeting_due_;
    return credit_due_ || (!outgoing_.empty() && credit() != 0) ||
           (closing_ && outgoing_.empty() && !shutdown_sent_);
}

VsockHeader VsockConnection::next_packet(std::size_t room) {
    VsockHeader header{};
    header.src_port = host_port_;
    header.dst_port = guest_port_;
    header.type = VIRTIO_VSOCK_TYPE_STREAM;
    header.buf_alloc = kBufferSize;
    header.fwd_cnt = told_ = read_;
    if (greeting_due_) {
        greeting_due_ = false;
        header.op = open_ ? VIRTIO_VSOCK_OP_RESPONSE : VIRTIO_VSOCK_OP_REQUEST;
    } else if (!outgoing_.empty() && credit() != 0) {
        header.op = VIRTIO_VSOCK_OP_RW;
        header.len = static_cast<std::uint32_t>(std::min({outgoing_.size(), std::size_t{credit()}, room}));
        sent_ += header.len;
    } else if (closing_ && outgoing_.empty() && !shutdown_sent_) {
        shutdown_sent_ = true;
        header.op = VIRTIO_VSOCK_OP_SHUTDOWN;
        header.flags = VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE | VIRTIO_VSOCK_SHUTDOWN_F_SEND;
    } else {
        header.op = VIRTIO_VSOCK_OP_CREDIT_UPDATE;
    }
    credit_due_ = false;
    return header;
}

}  // namespace hv::virtio
