// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "drivers/virtio/pci_transport.hpp"
#include "fakes/arena_frames.hpp"
#include "fakes/step_clock.hpp"
#include "fakes/virtio_pci_device.hpp"

using namespace hv;
using namespace hv::virtio;

namespace {

constexpr std::uint64_t kOffered = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | feature(3) | feature(40);

struct Device {
    fake::VirtioPciDevice device{{.type = VIRTIO_ID_NET,
                                  .features = kOffered,
                                  .queue_sizes = {256, 128},
                                  .config = {std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4},
                                             std::byte{5}, std::byte{6}, std::byte{7}, std::byte{8}}}};
    using Fake = fake::VirtioPciDevice;
    Error refused() { return PciTransport::create(device, device.function(), device.bars()).error(); }
    void put32(unsigned capability, unsigned field, std::uint32_t value) {
        store(&device.config_space[capability + field], value);
    }
};

}  // namespace

TEST_CASE("functions with a modern interface are told by their identity", "[virtio]") {
    pci::Function function{{}, 0x1af4, 0x1042, 0, 0};
    CHECK(device_type(function) == VIRTIO_ID_BLOCK);
    function.device = 0x1041;
    CHECK(device_type(function) == VIRTIO_ID_NET);
    function.device = 0x1000;
    CHECK(device_type(function) == VIRTIO_ID_NET);
    function.device = 0x1001;
    CHECK(device_type(function) == VIRTIO_ID_BLOCK);
    function.device = 0x1002;
    CHECK(device_type(function) == 0);
    function.device = 0x1080;
    CHECK(device_type(function) == 0);
    function = {{}, 0x8086, 0x1041, 0, 0};
    CHECK(device_type(function) == 0);
}

TEST_CASE("a device whose structures cannot be reached is refused", "[virtio]") {
    Device d;
    SECTION("a BAR that is not mapped") {
        d.device.config_space[Device::Fake::kCommonCap + kCapBar] = 2;
    }
    SECTION("a reserved BAR") {
        d.device.config_space[Device::Fake::kCommonCap + kCapBar] = 6;
    }
    SECTION("misaligned") {
        d.put32(Device::Fake::kCommonCap, kCapOffset, 2);
    }
    SECTION("beyond the BAR") {
        d.put32(Device::Fake::kNotifyCap, kCapOffset, 0x4000);
    }
    SECTION("beyond the BAR by its size") {
        d.put32(Device::Fake::kNotifyCap, kCapLength, 0x1001);
    }
    SECTION("an offset that wraps") {
        d.put32(Device::Fake::kNotifyCap, kCapOffset, 0xffff'fffc);
    }
    SECTION("too small") {
        d.put32(Device::Fake::kCommonCap, kCapLength, 52);
    }
    SECTION("none, in a list that is a ring") {
        d.device.config_space[Device::Fake::kCommonCap + kCapType] = 9;
        d.device.config_space[Device::Fake::kWindowCap + 1] = Device::Fake::kCommonCap;
    }
    CHECK(d.refused() == Error::unsupported);
}

TEST_CASE("the first structure of a kind that can be reached is used", "[virtio]") {
    Device d;
    // The window becomes a second common configuration that lies elsewhere, which is not looked at.
    d.device.config_space[Device::Fake::kWindowCap + kCapType] = 1;
    d.put32(Device::Fake::kWindowCap, kCapOffset, 0x2000);
    d.put32(Device::Fake::kWindowCap, kCapLength, kCommonSize);
    PciTransport transport = d.device.transport();
    CHECK(transport.queue_count() == 2);
    // Only an unreachable one before it makes it count.
    d.device.config_space[Device::Fake::kCommonCap + kCapBar] = 7;
    d.put32(Device::Fake::kWindowCap, kCapOffset, 0);
    transport = d.device.transport();
    CHECK(transport.queue_count() == 2);
}

TEST_CASE("features are what both sides know", "[virtio]") {
    Device d;
    PciTransport transport = d.device.transport();
    CHECK(transport.negotiate(feature(3) | feature(4) | feature(40)).value() ==
          (VIRTIO_F_VERSION_1 | feature(3) | feature(40)));
    CHECK(d.device.driver_features == (VIRTIO_F_VERSION_1 | feature(3) | feature(40)));
    CHECK(d.device.status == (ACKNOWLEDGE | DRIVER | FEATURES_OK));
    transport.set_driver_ok();
    CHECK(d.device.ready());
}

TEST_CASE("a device that refuses, or is of another age, is left failed", "[virtio]") {
    Device d;
    d.device.refuses_features = true;
    CHECK(d.device.transport().negotiate(0).error() == Error::unsupported);
    CHECK(d.device.status == FAILED);
    fake::VirtioPciDevice legacy{
        {.type = VIRTIO_ID_NET, .features = feature(3), .queue_sizes = {8}, .config = {}}};
    CHECK(legacy.transport().negotiate(feature(3)).error() == Error::unsupported);
    CHECK(legacy.status == FAILED);
    Device gone;
    PciTransport transport = gone.device.transport();
    gone.device.vanished = true;
    CHECK(transport.negotiate(0).error() == Error::unsupported);
}

TEST_CASE("a reset is waited for at boot, for a second", "[virtio]") {
    Device d;
    fake::StepClock clock;
    PciTransport transport = d.device.transport();
    d.device.status = DRIVER;
    d.device.on_read = [&](std::size_t) { clock.skip(clock.hz() / 1000); };
    REQUIRE(transport.reset(clock));
    CHECK(d.device.status == 0);
    d.device.status = DRIVER;
    d.device.stuck = true;
    CHECK(transport.reset(clock).error() == Error::timed_out);
    unsigned reads = 0;
    d.device.on_read = [&](std::size_t) {
        clock.skip(clock.hz() / 1000);
        if (++reads == 100)
            d.device.status = 0;
    };
    REQUIRE(transport.reset(clock));
    CHECK(reads == 100);
    d.device.vanished = true;
    CHECK(transport.reset(clock).error() == Error::io_error);
}

TEST_CASE("a reset can be looked after without waiting, and ends with the features from before", "[virtio]") {
    using Reset = PciTransport::Reset;
    Device d;
    PciTransport transport = d.device.transport();
    const std::uint64_t features = transport.negotiate(feature(3)).value();
    d.device.stuck = true;
    transport.begin_reset();
    CHECK(transport.poll_reset(features) == Reset::pending);
    d.device.status = 0;
    CHECK(transport.poll_reset(features) == Reset::done);
    CHECK(d.device.driver_features == features);
    CHECK(d.device.status == (ACKNOWLEDGE | DRIVER | FEATURES_OK));
    CHECK_FALSE(transport.needs_reset());
    d.device.status = ACKNOWLEDGE | DEVICE_NEEDS_RESET;
    CHECK(transport.needs_reset());
    d.device.status = 0;
    CHECK(transport.poll_reset(features | feature(60)) == Reset::failed);  // it offers less than it did
    d.device.status = 0;
    d.device.refuses_features = true;
    CHECK(transport.poll_reset(features) == Reset::failed);
    d.device.vanished = true;
    CHECK(transport.needs_reset());
    CHECK(transport.poll_reset(features) == Reset::failed);
}

TEST_CASE("a reset that does not end has failed after two seconds, each one anew", "[virtio]") {
    using Reset = PciTransport::Reset;
    Device d;
    PciTransport transport = d.device.transport();
    const std::uint64_t features = transport.negotiate(0).value();
    d.device.stuck = true;
    for (unsigned reset = 0; reset < 2; ++reset) {
        transport.begin_reset();
        unsigned milliseconds = 1;
        while (transport.poll_reset(features) == Reset::pending)
            ++milliseconds;
        CHECK(milliseconds == 2000);
    }
}

TEST_CASE("a device that is shut down has no way to memory", "[virtio]") {
    Device d;
    PciTransport transport = d.device.transport();
    CHECK(d.device.masters_bus());
    transport.shut_down();
    CHECK(d.device.resets == 1);
    CHECK_FALSE(d.device.masters_bus());
}

TEST_CASE("a queue is set up with its vector, and rung at its doorbell", "[virtio]") {
    Device d;
    fake::ArenaFrames frames;
    DmaPool pool{frames};
    DriverQueue queue = DriverQueue::create(pool, {64, 1, 0}).value();
    PciTransport transport = d.device.transport();
    REQUIRE(transport.negotiate(0));
    CHECK(transport.max_queue_size(0) == 256);
    CHECK(transport.max_queue_size(1) == 128);
    CHECK(transport.max_queue_size(2) == 0);
    const Doorbell doorbell = transport.enable_queue(1, queue, 3).value();
    const auto& other = d.device.queues[1];
    CHECK(other.enabled);
    CHECK(other.size == 64);
    CHECK(other.vector == 3);
    CHECK(other.descriptors == queue.descriptor_area().raw);
    CHECK(other.driver == queue.driver_area().raw);
    CHECK(other.device == queue.device_area().raw);
    transport.set_driver_ok();
    doorbell.ring();
    CHECK(d.device.doorbells == std::vector<unsigned>{1});
}

TEST_CASE("a queue without a vector or a doorbell is not enabled", "[virtio]") {
    Device d;
    fake::ArenaFrames frames;
    DmaPool pool{frames};
    const DriverQueue queue = DriverQueue::create(pool, {64, 1, 0}).value();
    PciTransport transport = d.device.transport();
    REQUIRE(transport.negotiate(0));
    d.device.vectors_left = 0;
    CHECK(transport.enable_queue(0, queue, 0).error() == Error::no_memory);
    CHECK(transport.enable_queue(0, queue, VIRTIO_MSI_NO_VECTOR));
    d.device.notify_offset = 1;  // behind the structure's end
    CHECK(transport.enable_queue(1, queue, VIRTIO_MSI_NO_VECTOR).error() == Error::unsupported);
    CHECK_FALSE(d.device.queues[1].enabled);
}

TEST_CASE("device configuration is read as a whole, and ends somewhere", "[virtio]") {
    Device d;
    PciTransport transport = d.device.transport();
    CHECK(transport.config8(7) == 8);
    CHECK(transport.config8(8) == 0);
    CHECK(transport.config16(6) == 0x0807);
    CHECK(transport.config16(8) == 0);
    CHECK(transport.config32(4) == 0x0807'0605);
    CHECK(transport.config32(8) == 0);
    CHECK(transport.config64(0) == 0x0807'0605'0403'0201);
    CHECK(transport.config64(4) == 0);
    unsigned reads = 0;
    d.device.unsteady_config = true;
    const auto read = [&] { d.device.unsteady_config = ++reads < 3; };
    REQUIRE(transport.read_config(read));
    CHECK(reads == 4);  // the third came between two that differ
    d.device.unsteady_config = true;
    CHECK(transport.read_config([] {}).error() == Error::io_error);
}
