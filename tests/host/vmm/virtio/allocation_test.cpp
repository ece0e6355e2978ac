// SPDX-License-Identifier: MIT
// Devices that find no memory while they are made: each allocation fails once.
#include "catch.hpp"
#include "fakes/virtio_driver.hpp"
#include "vmm/net/switch.hpp"
#include "vmm/virtio/idle_backends.hpp"
#include "vmm/virtio/virtio_balloon.hpp"
#include "vmm/virtio/virtio_blk.hpp"
#include "vmm/virtio/virtio_console.hpp"
#include "vmm/virtio/virtio_net.hpp"
#include "vmm/virtio/virtio_rng.hpp"
#include "vmm/virtio/virtio_vsock.hpp"

#include <new>

namespace {

thread_local unsigned allocations_left = ~0u;

}  // namespace

/// What project code allocates with; the test frame uses the other one.
void* operator new(std::size_t size, const std::nothrow_t& /*tag*/) noexcept {
    if (allocations_left == 0)
        return nullptr;
    --allocations_left;
    return ::operator new(size);
}

namespace {

using namespace hv;
using namespace hv::virtio;
using test::NoEntropy;
using test::NoTaker;
using test::NoText;

class NoDisk final : public BlockDevice {
public:
    [[nodiscard]] BlockGeometry geometry() const override { return {64, 512, false, false}; }
    void submit(BlockRequest& request) override { request.complete(request, BlockStatus::ok); }
};

/// Calls `create` with more and more memory; returns how many allocations it takes.
template <class Create>
unsigned sweep(Create&& create) {
    for (unsigned allowed = 0;; ++allowed) {
        REQUIRE(allowed < 100);
        allocations_left = allowed;
        auto created = create();
        allocations_left = ~0u;
        if (created)
            return allowed;
        REQUIRE(created.error() == Error::no_memory);
    }
}

}  // namespace

TEST_CASE("without memory no device is made, and nothing is left behind", "[virtio]") {
    fake::Board board;
    NoDisk disk;
    CHECK(sweep([&] { return VirtioBlk::create(disk, board.memory, board.clock, {4, ""}); }) >= 6);
    CHECK(sweep([&] {
              return VirtioNet::create(board.memory, board.clock, {{2, 0, 0, 0, 0, 1}, 1500});
          }) == 3);
    CHECK(sweep([&] { return net::Switch::create(board.clock); }) == 1);
    NoEntropy entropy;
    CHECK(sweep([&] { return VirtioRng::create(entropy, board.memory, board.clock); }) == 1);
    NoTaker taker;
    CHECK(sweep([&] { return VirtioBalloon::create(taker, board.memory, board.clock); }) == 2);
    NoText text;
    CHECK(sweep([&] { return VirtioConsole::create(text, board.memory, board.clock); }) == 1);
    CHECK(sweep([&] {
              return VirtioVsock::create(board.memory, board.clock, {3, {}});
          }) == VsockEndpoint::kConnections + 2);
    auto lan = std::move(net::Switch::create(board.clock)).value();
    auto nic = std::move(VirtioNet::create(board.memory, board.clock, {{2, 0, 0, 0, 0, 1}, 1500})).value();
    CHECK(sweep([&] {
              return lan->add_port(*nic, {net::PortOptions::Kind::access, {2, 0, 0, 0, 0, 1}, 0, 0});
          }) >= 1);
}
