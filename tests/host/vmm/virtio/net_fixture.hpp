// SPDX-License-Identifier: MIT
// Guests with a NIC on a switch, as the tests of the network device use them.
#pragma once

#include "catch.hpp"
#include "fakes/virtio_driver.hpp"
#include "vmm/net/frame_fixture.hpp"
#include "vmm/net/switch.hpp"
#include "vmm/virtio/virtio_net.hpp"
#include "vmm/virtio/virtio_pci.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <optional>
#include <vector>

namespace hv::test {

using namespace hv::virtio;

inline constexpr std::uint64_t kRing = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;
inline constexpr std::uint64_t kOffloads = VIRTIO_NET_F_CSUM | VIRTIO_NET_F_GUEST_CSUM |
                                           VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_TSO6 |
                                           VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_HOST_TSO6;
inline constexpr std::uint64_t kControls = VIRTIO_NET_F_CTRL_VQ | VIRTIO_NET_F_CTRL_RX |
                                           VIRTIO_NET_F_CTRL_RX_EXTRA | VIRTIO_NET_F_CTRL_VLAN |
                                           VIRTIO_NET_F_CTRL_MAC_ADDR | VIRTIO_NET_F_GUEST_ANNOUNCE;
inline constexpr std::uint64_t kFull = kRing | kOffloads | VIRTIO_NET_F_MRG_RXBUF;

inline MacAddress mac(unsigned index) {
    return {0x52, 0x54, 0, 0, 0, static_cast<std::uint8_t>(index)};
}

/// A VM with one NIC, on a switch that it shares with others.
struct Guest {
    static constexpr Gpa kTransmit{0x20'0000};
    static constexpr Gpa kControl{0x4a'0000};
    static constexpr Gpa kReceive{0x50'0000};

    Guest(net::Switch& lan, unsigned index, std::uint64_t features = kFull, std::uint16_t queue_size = 64,
          std::uint16_t mtu = 1500, unsigned pairs = 1,
          net::PortOptions::Kind kind = net::PortOptions::Kind::access)
        : board{index},
          own_mac{mac(index)},
          device{std::move(VirtioNet::create(board.memory, board.clock,
                                             {own_mac, mtu, pairs, kind == net::PortOptions::Kind::trusted}))
                     .value()},
          transport{*device, board.interrupts, &board.line},
          lan_{lan} {
        REQUIRE(board.bridge.attach(1, transport));
        port = lan.add_port(*device, {kind, own_mac, 0, 0}).value();
        device->connect(port);
        driver = std::make_unique<fake::VirtioDriver>(board, 1);
        driver->start(features, queue_size);
        for (auto& [queue, rings] : driver->queues)
            if (queue % 2 != 0)
                rings.want_interrupts(false);  // of what is sent: a test looks by itself
    }
    ~Guest() {
        device->connect(nullptr);
        lan_.remove_port(*port);
    }
    fake::DriverQueue& rx(unsigned pair = 0) { return driver->queues.at(2 * pair); }
    fake::DriverQueue& tx(unsigned pair = 0) { return driver->queues.at(2 * pair + 1); }
    /// Gives the device `count` buffers of `size` bytes; of several pairs' up to 4 KiB do not overlap.
    void fill(unsigned count, std::uint32_t size, unsigned pair = 0) {
        for (unsigned i = 0; i < count; ++i) {
            const Gpa at = kReceive + std::uint64_t{next_buffer[pair]++ % 44} * 0x1'1000 + pair * 0x1000;
            buffers[{pair, rx(pair).add({{at, size, true}})}] = at;
        }
        driver->kick(2 * pair);
    }
    /// Puts a frame in the transmit ring, in `pieces` descriptors.
    void queue(const Bytes& bytes, const NetHeader& header = {}, unsigned pieces = 2, unsigned pair = 0) {
        const Gpa at = kTransmit + std::uint64_t{next_frame++ % 36} * 0x1'1000;
        board.put(at, header);
        board.memory.write(at + 12, std::as_bytes(std::span{bytes})).value();
        std::vector<fake::DriverBuffer> chain;
        const auto size = static_cast<std::uint32_t>(bytes.size() + 12);
        for (std::uint32_t done = 0, i = 0; done < size; ++i) {
            const std::uint32_t piece =
                i + 1 >= pieces ? size - done : std::min(size - done, i == 0 ? 7u : size / pieces);
            chain.push_back({at + done, piece, false});
            done += piece;
        }
        tx(pair).add(chain);
    }
    void send(const Bytes& bytes, const NetHeader& header = {}, unsigned pieces = 2, unsigned pair = 0) {
        queue(bytes, header, pieces, pair);
        driver->kick(2 * pair + 1);
    }
    struct Packet {
        NetHeader header;
        Bytes bytes;
    };
    std::optional<Packet> take(unsigned pair = 0) {
        auto used = rx(pair).take_used();
        if (!used)
            return std::nullopt;
        Packet packet{};
        Bytes all;
        for (unsigned count = 1;; ++count) {
            Bytes part(used->length);
            board.memory
                .read(buffers.at({pair, static_cast<std::uint16_t>(used->id)}),
                      std::as_writable_bytes(std::span{part}))
                .value();
            all.insert(all.end(), part.begin(), part.end());
            std::memcpy(&packet.header, all.data(), 12);
            if (count >= packet.header.num_buffers)
                break;
            used = rx(pair).take_used();
            REQUIRE(used);
        }
        packet.bytes.assign(all.begin() + 12, all.end());
        return packet;
    }
    /// Sends a command in descriptors of `piece` bytes; returns the answer, if there is one.
    std::optional<std::uint8_t> control(const Bytes& command, std::uint32_t piece = 2) {
        const unsigned index = control_queue();
        board.memory.write(kControl, std::as_bytes(std::span{command})).value();
        std::vector<fake::DriverBuffer> chain;
        const auto size = static_cast<std::uint32_t>(command.size());
        for (std::uint32_t done = 0; done < size; done += piece)
            chain.push_back({kControl + done, std::min(piece, size - done), false});
        const Gpa answer = kControl + 0x8000;
        board.put<std::uint8_t>(answer, 0xff);
        chain.push_back({answer, 1, true});
        driver->queues.at(index).add(chain, chain.size() > 8);
        driver->kick(index);
        const auto used = driver->queues.at(index).take_used();
        if (!used)
            return std::nullopt;
        CHECK(used->length == 1);
        return board.get<std::uint8_t>(answer);
    }
    bool accepts(const Bytes& command, std::uint32_t piece = 2) {
        return control(command, piece) == VIRTIO_NET_OK;
    }
    bool refuses(const Bytes& command) { return control(command) == VIRTIO_NET_ERR; }
    [[nodiscard]] unsigned control_queue() const {
        return (driver->features & VIRTIO_NET_F_MQ) != 0 ? device->queue_count() - 1 : 2;
    }
    /// Whether the device takes a frame that the switch would perhaps not bring.
    bool takes(const Bytes& bytes) {
        std::mt19937 random{1};
        const ScatteredFrame scattered{bytes, {}, random, 3};
        return device->receive(scattered.frame) == net::Delivery::taken;
    }
    unsigned reclaim(unsigned pair = 0) {
        unsigned count = 0;
        while (tx(pair).take_used())
            ++count;
        return count;
    }
    bool needs_reset() { return (driver->status() & DEVICE_NEEDS_RESET) != 0; }

    fake::Board board;
    MacAddress own_mac;
    std::unique_ptr<VirtioNet> device;
    VirtioPciTransport transport;
    net::SwitchPort* port{nullptr};
    std::unique_ptr<fake::VirtioDriver> driver;
    std::map<std::pair<unsigned, std::uint16_t>, Gpa> buffers;  ///< by pair and descriptor

private:
    net::Switch& lan_;
    std::array<unsigned, VirtioNet::kMaxPairs> next_buffer{};
    unsigned next_frame{0};
};

struct Network {
    fake::ManualClock clock;
    std::unique_ptr<net::Switch> lan{std::move(net::Switch::create(clock)).value()};
};

inline Bytes addressed(Bytes bytes, unsigned to, unsigned from) {
    const MacAddress target = mac(to);
    const MacAddress source = mac(from);
    std::copy(target.begin(), target.end(), bytes.begin());
    std::copy(source.begin(), source.end(), bytes.begin() + 6);
    return bytes;
}

inline Bytes plain(unsigned to, unsigned from, std::size_t size = 60) {
    Bytes bytes(size);
    for (std::size_t i = 0; i < size; ++i)
        bytes[i] = static_cast<std::uint8_t>(i * 3);
    test::put16(bytes, 12, 0x88b5);
    return addressed(bytes, to, from);
}

inline Bytes addressed(Bytes bytes, const MacAddress& to) {
    std::copy(to.begin(), to.end(), bytes.begin());
    return bytes;
}

inline NetHeader header_for(const FrameOffload& offload) {
    return {VIRTIO_NET_HDR_F_NEEDS_CSUM, offload.gso_type,        0, offload.gso_size,
            offload.checksum_start,      offload.checksum_offset, 0};
}

}  // namespace hv::test
