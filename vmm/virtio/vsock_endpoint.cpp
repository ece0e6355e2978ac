// SPDX-License-Identifier: MIT
#include "vmm/virtio/vsock_endpoint.hpp"

#include "vmm/base/assert.hpp"
#include "vmm/virtio/piece_list.hpp"

#include <algorithm>

namespace hv::virtio {

Expected<VsockEndpoint> VsockEndpoint::create(std::uint64_t guest_cid, std::span<const VsockPort> services) {
    VsockEndpoint endpoint{guest_cid};
    HV_TRY(endpoint.services_.reserve(services.size()));
    for (const VsockPort& service : services)
        HV_TRY(endpoint.services_.push(service));
    HV_TRY(endpoint.all_.reserve(kConnections));
    for (unsigned i = 0; i < kConnections; ++i)
        HV_TRY(endpoint.all_.push(HV_TRY(make<VsockConnection>())));
    return endpoint;
}

VsockConnection* VsockEndpoint::find(const VsockHeader& header) {
    const auto found = std::find_if(all_.begin(), all_.end(), [&](const auto& each) {
        return each->is_between(header.src_port, header.dst_port);
    });
    return found != all_.end() ? found->get() : nullptr;
}

VsockService* VsockEndpoint::service_at(std::uint32_t port) const {
    const auto* const found = std::find_if(services_.begin(), services_.end(),
                                           [&](const VsockPort& each) { return each.port == port; });
    return found != services_.end() ? found->service : nullptr;
}

void VsockEndpoint::receive(const VsockHeader& header, std::span<const Piece> payload) {
    // Nobody else's packets are the guest's to send [virtio1.2 5.10.6.4.1 Driver Requirements: Receive and
    // Transmit].
    if (header.src_cid != guest_cid_)
        return;
    VsockConnection* connection =
        header.dst_cid == kVsockHostCid && header.type == VIRTIO_VSOCK_TYPE_STREAM ? find(header) : nullptr;
    bool expected = false;
    if (connection == nullptr)
        expected = header.op == VIRTIO_VSOCK_OP_REQUEST && accept(header);
    else if (connection->receive(header, payload)) {
        connection->service().ready(*connection);
        expected = true;
    }
    if (expected)
        return;
    if (connection != nullptr)
        close(*connection, connection->is_asking() ? VsockEnd::refused : VsockEnd::over);
    if (header.op != VIRTIO_VSOCK_OP_RST)
        reset(header);
}

bool VsockEndpoint::accept(const VsockHeader& request) {
    if (request.dst_cid != kVsockHostCid || request.type != VIRTIO_VSOCK_TYPE_STREAM)
        return false;
    VsockService* service = service_at(request.dst_port);
    VsockConnection* connection = service != nullptr ? make_room() : nullptr;
    if (connection == nullptr)
        return false;
    connection->open(*service, request);
    if (service->accept(*connection))
        return true;
    connection->free();
    return false;
}

Expected<void> VsockEndpoint::connect(std::uint32_t guest_port, VsockService& service,
                                      std::uint64_t answer_by) {
    VsockConnection* connection = has_room() ? make_room() : nullptr;
    if (connection == nullptr)
        return Unexpected{Error::busy};
    connection->ask(service, guest_port, free_port(), answer_by);
    if (service.accept(*connection))
        return {};
    connection->free();
    return Unexpected{Error::busy};
}

/// One that no connection has, since a late answer to an earlier one must not be taken for the next one's.
std::uint32_t VsockEndpoint::free_port() {
    const auto is_taken = [&](std::uint32_t port) {
        return service_at(port) != nullptr || std::any_of(all_.begin(), all_.end(), [&](const auto& each) {
                   return !each->is_free() && each->host_port() == port;
               });
    };
    std::uint32_t port = 0;
    do {
        port = next_port_;
        next_port_ = port == kLastEphemeral ? kFirstEphemeral : port + 1;
    } while (is_taken(port));
    return port;
}

std::uint64_t VsockEndpoint::expire(std::uint64_t now) {
    std::uint64_t next = kNever;
    for (const auto& each : all_) {
        if (!each->is_asking())
            continue;
        // No reset is due: should the answer come, it is one that nobody waits for.
        if (each->answer_by() <= now)
            close(*each, VsockEnd::unanswered);
        else
            next = std::min(next, each->answer_by());
    }
    return next;
}

void VsockEndpoint::serve(VsockService& service) {
    for (const auto& each : all_)
        if (!each->is_free() && &each->service() == &service)
            service.ready(*each);
}

VsockConnection* VsockEndpoint::make_room() {
    for (const auto& each : all_)
        if (each->is_free())
            return each.get();
    // A guest that does not answer the end of a connection is told that it is over, once its place is needed
    // [virtio1.2 5.10.6.5 Stream Sockets].
    for (const auto& each : all_) {
        if (!each->is_closing())
            continue;
        VsockHeader header{};
        header.src_cid = guest_cid_;
        header.dst_cid = kVsockHostCid;
        header.src_port = each->guest_port();
        header.dst_port = each->host_port();
        header.type = VIRTIO_VSOCK_TYPE_STREAM;
        close(*each, VsockEnd::over);
        reset(header);
        return each.get();
    }
    return nullptr;
}

void VsockEndpoint::close(VsockConnection& connection, VsockEnd end) {
    connection.service().closed(connection, end);
    connection.free();
}

void VsockEndpoint::reset(const VsockHeader& header) {
    HV_ASSERT(resets_ < kResets);
    VsockHeader& reply = waiting_resets_[(first_reset_ + resets_++) % kResets];
    reply = {};
    reply.src_cid = header.dst_cid;
    reply.dst_cid = header.src_cid;
    reply.src_port = header.dst_port;
    reply.dst_port = header.src_port;
    reply.type = header.type;
    reply.op = VIRTIO_VSOCK_OP_RST;
}

bool VsockEndpoint::has_output() const {
    return resets_ != 0 || std::any_of(all_.begin(), all_.end(), [](const auto& each) {
               return !each->is_free() && each->has_output();
           });
}

std::uint32_t VsockEndpoint::send(std::span<Piece> room) {
    VsockHeader header{};
    const auto header_bytes = std::as_bytes(std::span{&header, 1});
    if (resets_ != 0) {
        header = waiting_resets_[first_reset_];
        first_reset_ = (first_reset_ + 1) % kResets;
        --resets_;
        return static_cast<std::uint32_t>(copy_to(room, header_bytes));
    }
    while (all_[turn_]->is_free() || !all_[turn_]->has_output())
        turn_ = (turn_ + 1) % kConnections;
    VsockConnection& connection = *all_[turn_];
    turn_ = (turn_ + 1) % kConnections;

    std::uint64_t size = 0;
    for (const Piece& piece : room)
        size += piece.size;
    header = connection.next_packet(size - sizeof header);
    header.src_cid = kVsockHostCid;
    header.dst_cid = guest_cid_;
    copy_to(room, header_bytes);
    skip_front(room, sizeof header);
    std::uint32_t left = header.len;
    for (const Piece& piece : room)
        left -= static_cast<std::uint32_t>(connection.take_payload({piece.data, std::min(piece.size, left)}));
    if (header.op == VIRTIO_VSOCK_OP_RW)
        connection.service().ready(connection);
    return static_cast<std::uint32_t>(sizeof header) + header.len;
}

void VsockEndpoint::clear() {
    for (const auto& each : all_)
        if (!each->is_free())
            close(*each, VsockEnd::gone);
    resets_ = 0;
}

unsigned VsockEndpoint::connections() const {
    return static_cast<unsigned>(
        std::count_if(all_.begin(), all_.end(), [](const auto& each) { return !each->is_free(); }));
}

}  // namespace hv::virtio
