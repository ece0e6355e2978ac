// SPDX-License-Identifier: MIT
// Page frames, reports and statistics made of fuzz bytes; the host checks that it gets back what it gave.
#include "fakes/virtio_driver.hpp"
#include "vmm/virtio/virtio_balloon.hpp"

#include <algorithm>
#include <cstdlib>
#include <set>

namespace {

using namespace hv;

constexpr Gpa kBuffer{0x10'0000};

class Host final : public virtio::BalloonMemory {
public:
    Release release(Gpa granule) override {
        if (granule.raw % GuestMemory::kGranule != 0 || granule.raw >= fake::Board::kRam)
            std::abort();
        if (++calls % 3 == 0)
            return Release::pending;
        released.insert(granule.raw);
        return Release::done;
    }
    bool reclaim(Gpa granule) override {
        if (released.count(granule.raw) == 0)
            std::abort();
        return ++calls % 5 != 0;
    }
    void cancel() override {}
    std::set<std::uint64_t> released;
    unsigned calls{0};
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fake::Board board;
    Host host;
    auto device = virtio::VirtioBalloon::create(host, board.memory, board.clock);
    virtio::VirtioPciTransport transport{**device, board.interrupts, &board.line};
    board.bridge.attach(1, transport).value();
    fake::VirtioDriver driver{board, 1};
    driver.start(virtio::VIRTIO_F_VERSION_1 | (*device)->features(), 64);
    while (size >= 8) {
        const unsigned queue = data[0] % 5;
        const unsigned first = data[1] % 4;  // granule
        const std::size_t length = std::min<std::size_t>(data[2] * 16, size - 8);
        const std::uint32_t span = data[3] * 0x1'0000u + data[4];
        data += 8;
        size -= 8;
        if (queue == 3)
            continue;
        fake::DriverQueue& ring = driver.queues.at(queue);
        while (ring.take_used()) {
        }
        if (ring.free_descriptors() == 0)
            continue;
        // Either the fuzzer's bytes or, without any, the pages of a whole granule.
        board.memory.write(kBuffer, std::as_bytes(std::span{data, length})).value();
        for (std::uint32_t i = 0; length == 0 && i < 512; ++i)
            board.put(kBuffer + 4 * i, first * 512 + i);
        const auto bytes = static_cast<std::uint32_t>(length == 0 ? 2048 : length);
        if (queue == 4)
            ring.add({{Gpa{first * GuestMemory::kGranule + bytes}, span, true}});
        else
            ring.add({{kBuffer, bytes, false}});
        driver.kick(queue);
        board.clock.run();
        (*device)->resume();
        (*device)->request_statistics();
        data += length;
        size -= length;
    }
    driver.set_status(0);
    return 0;
}
