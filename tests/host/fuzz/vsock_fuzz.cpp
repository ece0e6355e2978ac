// SPDX-License-Identifier: MIT
// Packets made of fuzz bytes for the socket device, 24 bytes each; buffers of any size for its answers; and
// connections that the host begins.
#include "fakes/virtio_driver.hpp"
#include "vmm/virtio/virtio_vsock.hpp"
#include "vmm/virtio/vsock_echo.hpp"

#include <array>
#include <cstring>

namespace {

using namespace hv;

constexpr std::uint64_t kCid = 3;
constexpr Gpa kOut{0x10'0000};
constexpr Gpa kIn{0x18'0000};

/// What a packet of the fuzzer's is made of.
struct Recipe {
    std::uint8_t op, ports, wrong, room;
    std::uint32_t flags, len, buf_alloc, fwd_cnt;
    std::uint32_t payload;
};
static_assert(sizeof(Recipe) == 24);

virtio::VsockHeader header_of(const Recipe& recipe) {
    virtio::VsockHeader header{};
    header.src_cid = kCid + (recipe.wrong == 1 ? 1 : 0);
    header.dst_cid = virtio::kVsockHostCid + (recipe.wrong == 2 ? 1 : 0);
    header.src_port = recipe.ports & 31;
    header.dst_port = (recipe.ports & 64) != 0 ? virtio::VsockEndpoint::kFirstEphemeral + (recipe.ports >> 7)
                                               : virtio::VsockEcho::kPort + (recipe.ports >> 7);
    header.len = recipe.len;
    header.type = recipe.wrong == 3 ? 2 : virtio::VIRTIO_VSOCK_TYPE_STREAM;
    header.op = recipe.op & 15;
    header.flags = recipe.flags;
    header.buf_alloc = recipe.buf_alloc;
    header.fwd_cnt = recipe.fwd_cnt;
    return header;
}

void take_all(fake::DriverQueue& queue) {
    while (queue.take_used()) {
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fake::Board board{0, fake::Board::Ram::contiguous, kPage2M};  // clearing RAM is most of the work
    virtio::VsockEcho echo;
    const std::array<virtio::VsockPort, 1> services{{{virtio::VsockEcho::kPort, &echo}}};
    auto device = virtio::VirtioVsock::create(board.memory, board.clock, {kCid, services});
    virtio::VirtioPciTransport transport{**device, board.interrupts, &board.line};
    board.bridge.attach(1, transport).value();
    fake::VirtioDriver driver{board, 1};
    driver.start(virtio::VIRTIO_F_VERSION_1 | virtio::VIRTIO_F_EVENT_IDX, 64);
    fake::DriverQueue& rx = driver.queues.at(0);
    fake::DriverQueue& tx = driver.queues.at(1);
    for (; size >= sizeof(Recipe); data += sizeof(Recipe), size -= sizeof(Recipe)) {
        Recipe recipe{};
        std::memcpy(&recipe, data, sizeof recipe);
        take_all(rx);
        take_all(tx);
        if (recipe.room != 0 && rx.free_descriptors() != 0) {
            rx.add({{kIn, recipe.room == 255 ? 0x2000u : 44u + recipe.room, true}});
            driver.kick(0);
        }
        if ((recipe.op & 0x10) != 0)
            static_cast<void>((*device)->connect(recipe.ports & 31, echo));
        if ((recipe.op & 0x20) != 0)
            board.clock.advance(virtio::VirtioVsock::kAnswerNs / 2);
        if (tx.free_descriptors() == 0)
            continue;
        board.put(kOut, header_of(recipe));
        tx.add({{kOut, 44 + recipe.payload % 0x3000, false}});
        driver.kick(1);
        board.clock.run();
    }
    driver.set_status(0);
    return 0;
}
