// SPDX-License-Identifier: MIT
// Rings and chains made of fuzz bytes: a block device with whatever the driver may write where its rings lie.
#include "fakes/virtio_driver.hpp"
#include "vmm/virtio/virtio_blk.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>

namespace {

using namespace hv;

/// The features that a byte stands for: without FLUSH each write is followed by one.
std::uint64_t features_of(std::uint8_t bits) {
    constexpr std::uint64_t kFeatures[] = {virtio::VIRTIO_F_EVENT_IDX,   virtio::VIRTIO_F_INDIRECT_DESC,
                                           virtio::VIRTIO_BLK_F_FLUSH,   virtio::VIRTIO_BLK_F_CONFIG_WCE,
                                           virtio::VIRTIO_BLK_F_DISCARD, virtio::VIRTIO_BLK_F_WRITE_ZEROES,
                                           virtio::VIRTIO_BLK_F_BLK_SIZE};
    std::uint64_t features = 0;
    for (unsigned i = 0; i < std::size(kFeatures); ++i)
        features |= (bits >> i & 1) != 0 ? kFeatures[i] : 0;
    return features;
}

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
    fake::Board board{0, fake::Board::Ram::contiguous, kPage2M};  // clearing RAM is most of the work
    TouchingDisk disk;
    auto device = virtio::VirtioBlk::create(disk, board.memory, board.clock, {1, "fuzz"});
    virtio::VirtioPciTransport transport{**device, board.interrupts, &board.line};
    board.bridge.attach(1, transport).value();
    fake::VirtioDriver driver{board, 1};
    driver.start(virtio::VIRTIO_F_VERSION_1 | features_of(data[0]), 8);
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
        // Any byte of the configuration, of which the driver may change writeback.
        if ((data[0] & 0x80) != 0)
            driver.set_device_config(data[3] + i, 1u << (data[2] & 3), data[1]);
    }
    queue.next_avail = static_cast<std::uint16_t>(queue.next_avail + (data[3] & 15));
    queue.publish();
    driver.notify(0);
    board.clock.run();
    driver.set_status(0);
    return 0;
}
