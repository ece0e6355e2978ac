// SPDX-License-Identifier: MIT
// A NIC behind a virtio device whose other side is the test, and frames for it.
#pragma once

#include "catch.hpp"
#include "drivers/net/virtio_net_driver.hpp"
#include "drivers/virtio/virtio_net_defs.hpp"
#include "fakes/arena_frames.hpp"
#include "fakes/step_clock.hpp"
#include "fakes/virtio_pci_device.hpp"

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace hv::test {

using namespace hv::netdrv;
using namespace hv::virtio;

inline constexpr std::uint64_t kTso = VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_HOST_TSO6 | VIRTIO_NET_F_HOST_ECN;
inline constexpr std::uint64_t kPlain = VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_NET_F_MAC;
inline constexpr std::uint64_t kAll = kPlain | VIRTIO_NET_F_CSUM | VIRTIO_NET_F_GUEST_CSUM | kTso |
                                      VIRTIO_NET_F_STATUS | VIRTIO_NET_F_CTRL_VQ | VIRTIO_NET_F_CTRL_RX;
// Offered, and not to be taken.
inline constexpr std::uint64_t kUnwanted =
    VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_MRG_RXBUF | VIRTIO_NET_F_MQ | VIRTIO_F_INDIRECT_DESC;

inline constexpr unsigned kReceive = 0, kTransmit = 1, kControl = 2;

inline std::vector<std::byte> numbered(std::size_t size) {
    std::vector<std::byte> bytes(size);
    for (std::size_t i = 0; i < size; ++i)
        bytes[i] = std::byte(i * 7 & 0xff);
    return bytes;
}

/// What a NIC takes and hands on, in memory that stays.
struct TestFrame {
    explicit TestFrame(std::size_t size, const std::vector<std::uint32_t>& cuts = {})
        : bytes{numbered(size)} {
        std::size_t at = 0;
        for (const std::uint32_t cut : cuts) {
            segments.push_back({bytes.data() + at, cut});
            at += cut;
        }
        segments.push_back({bytes.data() + at, static_cast<std::uint32_t>(size - at)});
    }
    [[nodiscard]] Frame frame() const {
        Frame frame{{}, segments, static_cast<std::uint32_t>(bytes.size()), offload};
        std::copy_n(bytes.begin(), std::min(bytes.size(), frame.header.size()), frame.header.begin());
        return frame;
    }
    std::vector<std::byte> bytes;
    std::vector<FrameSegment> segments;
    FrameOffload offload{};
};

struct VirtioNetSink final : NetUser {
    bool transmit(const Frame& frame) override {
        std::vector<std::byte> bytes;
        for (const FrameSegment& segment : frame.segments)
            bytes.insert(bytes.end(), segment.data, segment.data + segment.size);
        REQUIRE(bytes.size() == frame.size);
        const auto shown = std::min(bytes.size(), frame.header.size());
        REQUIRE(std::equal(bytes.begin(), bytes.begin() + static_cast<long>(shown), frame.header.begin()));
        frames.push_back(bytes);
        offloads.push_back(frame.offload);
        if (on_frame)
            on_frame();
        return true;
    }
    void link_restored() override { ++links; }
    std::vector<std::vector<std::byte>> frames;
    unsigned links{0};
    std::vector<FrameOffload> offloads;
    std::function<void()> on_frame;
};

/// A NIC behind a virtio device whose other side is the test.
struct VirtioNetBench {
    explicit VirtioNetBench(std::uint64_t features = kAll | kUnwanted)
        : device{{.type = VIRTIO_ID_NET,
                  .features = features,
                  .queue_sizes = {64, 256, 64},
                  .config = {std::byte{0x52}, std::byte{0x54}, std::byte{0}, std::byte{1}, std::byte{2},
                             std::byte{3}, std::byte{1}, std::byte{0}, std::byte{1}, std::byte{0}}}} {
        device.on_notify = [this](unsigned queue) {
            while (queue == kTransmit && !hangs) {
                auto chain = device.pop(queue);
                if (!chain)
                    return;
                sent.push_back(chain->bytes());
                device.push(queue, chain->head, 0);
            }
            while (queue == kControl) {
                auto chain = device.pop(queue);
                if (!chain)
                    return;
                commands.push_back(chain->bytes());
                chain->write(0, std::as_bytes(std::span{&control_answer, 1}));
                device.push(queue, chain->head, 1);
            }
        };
    }
    auto create(unsigned vectors = 1) {
        return VirtioNetDriver::create(device.transport(), pool, clock, {"net0", vectors});
    }
    VirtioNetDriver& start() {
        driver = std::move(*create());
        driver->start(sink);
        return *driver;
    }
    /// A frame arrives, unless there is no buffer for it.
    bool arrive(std::span<const std::byte> frame, NetHeader header = {},
                std::optional<std::uint32_t> written = {}) {
        const auto chain = device.pop(kReceive);
        if (!chain)
            return false;
        REQUIRE(chain->readable.empty());
        REQUIRE(chain->writable_size() >= sizeof header + 1522);
        chain->write(0, std::as_bytes(std::span{&header, 1}));
        chain->write(sizeof header, frame);
        device.push(kReceive, chain->head,
                    written.value_or(static_cast<std::uint32_t>(sizeof header + frame.size())));
        return true;
    }
    [[nodiscard]] NetHeader header_of_last() const { return load<NetHeader>(sent.back().data()); }
    [[nodiscard]] std::vector<std::byte> last_frame() const {
        return {sent.back().begin() + sizeof(NetHeader), sent.back().end()};
    }

    fake::ArenaFrames frames;
    DmaPool pool{frames};
    fake::StepClock clock;
    fake::VirtioPciDevice device;
    VirtioNetSink sink;
    std::deque<std::vector<std::byte>> sent, commands;
    std::uint8_t control_answer{VIRTIO_NET_OK};
    bool hangs{false};
    std::unique_ptr<VirtioNetDriver> driver;
};

}  // namespace hv::test
