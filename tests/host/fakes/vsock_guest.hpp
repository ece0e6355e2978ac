// SPDX-License-Identifier: MIT
// A guest with a socket device, whose packets the test sends and takes one by one.
#pragma once

#include "catch.hpp"
#include "fakes/virtio_driver.hpp"
#include "vmm/virtio/virtio_vsock.hpp"
#include "vmm/virtio/vsock_echo.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace hv::fake {

struct VsockGuest {
    static constexpr Gpa kOut{0x20'0000};
    static constexpr Gpa kIn{0x40'0000};
    static constexpr std::uint64_t kRing =
        virtio::VIRTIO_F_VERSION_1 | virtio::VIRTIO_F_INDIRECT_DESC | virtio::VIRTIO_F_EVENT_IDX;
    static constexpr std::uint64_t kCid = 42;
    static constexpr std::uint32_t kHeader = sizeof(virtio::VsockHeader);
    static constexpr std::uint32_t kLocal = 5000;

    explicit VsockGuest(std::span<const virtio::VsockPort> services, std::uint64_t features = kRing,
                        unsigned count = 32)
        : device{
              std::move(virtio::VirtioVsock::create(board.memory, board.clock, {kCid, services})).value()} {
        REQUIRE(board.bridge.attach(1, transport));
        driver = std::make_unique<VirtioDriver>(board, 1);
        driver->start(features, 64);
        fill(count);
    }
    void fill(unsigned count, std::uint32_t size = 4096) {
        add_buffers(count, size);
        driver->kick(0);
    }
    void add_buffers(unsigned count, std::uint32_t size = 4096) {
        for (unsigned i = 0; i < count; ++i) {
            const Gpa at = kIn + std::uint64_t{next_in++ % 64} * 0x1'0000;
            buffers[driver->queues.at(0).add({{at, 10, true}, {at + 10, size - 10, true}})] = at;
        }
    }
    static virtio::VsockHeader header(std::uint16_t op, std::uint32_t local = kLocal,
                                      std::uint32_t port = virtio::VsockEcho::kPort) {
        virtio::VsockHeader made{};
        made.src_cid = kCid;
        made.dst_cid = virtio::kVsockHostCid;
        made.src_port = local;
        made.dst_port = port;
        made.type = virtio::VIRTIO_VSOCK_TYPE_STREAM;
        made.op = op;
        made.buf_alloc = 1 << 20;
        return made;
    }
    void send(const virtio::VsockHeader& header, std::string_view payload = {}) {
        const Gpa at = kOut + std::uint64_t{next_out++ % 64} * 0x4000;
        board.put(at, header);
        board.memory.write(at + kHeader, std::as_bytes(std::span{payload})).value();
        driver->queues.at(1).add({{at, kHeader + static_cast<std::uint32_t>(payload.size()), false}});
        driver->kick(1);
    }
    void send(std::uint16_t op, std::uint32_t local = kLocal, std::uint32_t port = virtio::VsockEcho::kPort) {
        send(header(op, local, port));
    }
    void send_data(std::string_view payload, std::uint32_t fwd_cnt = 0,
                   std::uint32_t port = virtio::VsockEcho::kPort) {
        virtio::VsockHeader made = header(virtio::VIRTIO_VSOCK_OP_RW, kLocal, port);
        made.len = static_cast<std::uint32_t>(payload.size());
        made.fwd_cnt = fwd_cnt;
        send(made, payload);
    }
    struct Packet {
        virtio::VsockHeader header;
        std::string payload;
    };
    std::optional<Packet> take() {
        const auto used = driver->queues.at(0).take_used();
        if (!used)
            return std::nullopt;
        const Gpa at = buffers.at(static_cast<std::uint16_t>(used->id));
        Packet packet{board.get<virtio::VsockHeader>(at), std::string(used->length - kHeader, '\0')};
        board.memory.read(at + kHeader, std::as_writable_bytes(std::span{packet.payload})).value();
        CHECK(packet.header.len == packet.payload.size());
        CHECK((packet.header.dst_cid == kCid &&
               packet.header.buf_alloc <= virtio::VsockConnection::kBufferSize));
        return packet;
    }
    /// Operation of the next packet; 0: there is none.
    unsigned take_op() {
        const auto packet = take();
        return packet ? packet->header.op : 0;
    }
    void connect(std::uint32_t local = kLocal, std::uint32_t port = virtio::VsockEcho::kPort) {
        send(virtio::VIRTIO_VSOCK_OP_REQUEST, local, port);
        REQUIRE(take_op() == virtio::VIRTIO_VSOCK_OP_RESPONSE);
    }
    unsigned sent() {
        unsigned count = 0;
        while (driver->queues.at(1).take_used())
            ++count;
        return count;
    }
    bool needs_reset() { return (driver->status() & virtio::DEVICE_NEEDS_RESET) != 0; }

    Board board;
    std::unique_ptr<virtio::VirtioVsock> device;
    virtio::VirtioPciTransport transport{*device, board.interrupts, &board.line};
    std::unique_ptr<VirtioDriver> driver;
    std::map<std::uint16_t, Gpa> buffers;
    unsigned next_in{0}, next_out{0};
};

}  // namespace hv::fake
