// SPDX-License-Identifier: MIT
// Rings and chains made of fuzz bytes: a block device with whatever the driver may write where its rings lie.
#include "fakes/virtio_driver.hpp"
#include "vmm/virtio/virtio_blk.hpp"

#include <algorithm>
#include <cstring>

namespace {

using namespace hv;

/// Touches every byte of a request's segments, so that the sanitizer sees where they lead.
class TouchingDisk final : public BlockDevice {
public:
    [[nodiscard]] BlockGeometry geometry() const override { return {1 << 14, kSectorSize, false, true}; }
    void submit(BlockRequest& request) override {
        for (const BlockSegment& segment : request.segments)
            std::memset(segment.data, 0x5a, segment.size);
        request.complete(request, BlockStatus::ok);
    }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 8)
        return 0;
    fake::Board board;
    TouchingDisk disk;
    auto device = virtio::VirtioBlk::create(disk, board.memory, board.clock, {1, "fuzz"});
    virtio::VirtioPciTransport transport{**device, board.interrupts, &board.line};
    board.bridge.attach(1, transport).value();
    fake::VirtioDriver driver{board, 1};
    const bool event_index = (data[0] & 1) != 0;
    driver.start(virtio::VIRTIO_F_VERSION_1 | ((data[0] & 2) != 0 ? virtio::VIRTIO_F_INDIRECT_DESC : 0) |
                     (event_index ? virtio::VIRTIO_F_EVENT_IDX : 0),
                 8);
    fake::DriverQueue& queue = driver.queues.at(0);
    const std::span<const std::uint8_t> input{data + 4, size - 4};

    // The first bytes become descriptors that point below 64 KiB unless they say otherwise, the rest is what
    // lies there.
    for (std::size_t i = 0; i < 8 && (i + 1) * 16 <= input.size(); ++i) {
        virtio::VirtqDescriptor descriptor{};
        std::memcpy(&descriptor, input.data() + i * 16, 16);
        if ((descriptor.flags & 0x100) == 0) {
            descriptor.addr &= 0xffff;
            descriptor.len &= 0x1fff;
        }
        queue.descriptor(static_cast<std::uint16_t>(i), descriptor);
    }
    const std::size_t rest = std::min<std::size_t>(input.size(), 128);
    const auto body = std::as_bytes(input.subspan(rest));
    board.memory.write(Gpa{0}, body.first(std::min<std::size_t>(body.size(), 0x1000))).value();
    for (unsigned i = 0; i < 8; ++i) {
        queue.put_head(static_cast<std::uint16_t>(data[1] >> i & 7));
        if ((data[2] >> i & 1) != 0)
            queue.publish();
        driver.notify(0);
    }
    queue.next_avail = static_cast<std::uint16_t>(queue.next_avail + (data[3] & 15));
    queue.publish();
    driver.notify(0);
    board.clock.run();
    driver.set_status(0);
    return 0;
}
