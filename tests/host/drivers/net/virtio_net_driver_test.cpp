// SPDX-License-Identifier: MIT
// From reset to reset: what the driver makes of the device, and what it does when the device fails.
#include "drivers/net/virtio_net_driver_fixture.hpp"

using namespace hv;
using namespace hv::netdrv;
using namespace hv::test;
using namespace hv::virtio;

TEST_CASE("of what a NIC offers the driver takes what it can use", "[net]") {
    VirtioNetBench bench;
    VirtioNetDriver& nic = bench.start();
    CHECK(bench.device.driver_features == kAll);
    CHECK(nic.model() == "virtio-net");
    CHECK(nic.mac() == MacAddress{0x52, 0x54, 0, 1, 2, 3});
    CHECK(nic.link_up());
    const OffloadSupport support = nic.offloads();
    CHECK((support.checksum && support.tcp4 && support.tcp6 && support.ecn));
    CHECK(bench.device.queues[kReceive].vector == 0);
    CHECK(bench.device.queues[kTransmit].vector == VIRTIO_MSI_NO_VECTOR);
    const std::vector<std::byte> promiscuous{std::byte{0}, std::byte{0}, std::byte{1}};
    REQUIRE(bench.commands.size() == 1);
    CHECK(bench.commands[0] == promiscuous);
}

TEST_CASE("a plain NIC is always up, and does nothing by itself", "[net]") {
    VirtioNetBench bench{VIRTIO_F_VERSION_1};
    VirtioNetDriver& nic = bench.start();
    CHECK(nic.link_up());
    const OffloadSupport support = nic.offloads();
    CHECK_FALSE((support.checksum || support.tcp4 || support.tcp6 || support.ecn));
    CHECK_FALSE(bench.device.queues[kControl].enabled);
    CHECK((nic.mac()[0] & 3) == 2);
    VirtioNetBench other{VIRTIO_F_VERSION_1};
    other.clock.skip(1);
    CHECK(other.start().mac() != nic.mac());
}

TEST_CASE("an address that no station has is replaced", "[net]") {
    VirtioNetBench bench;
    bench.device.config[0] = std::byte{0x01};
    CHECK((bench.start().mac()[0] & 3) == 2);
}

TEST_CASE("the link is looked at each second", "[net]") {
    VirtioNetBench bench;
    VirtioNetDriver& nic = bench.start();
    bench.device.config[6] = std::byte{0};
    bench.clock.run_for(bench.clock.hz() + 1);
    CHECK_FALSE(nic.link_up());
    CHECK(bench.sink.links == 0);
    bench.device.config[6] = std::byte{1};
    bench.clock.run_for(bench.clock.hz());
    CHECK(nic.link_up());
    CHECK(bench.sink.links == 1);
}

TEST_CASE("a device that hangs, stops or lies is reset, and works again", "[net]") {
    VirtioNetBench bench;
    VirtioNetDriver& nic = bench.start();
    const TestFrame test{60};
    std::uint64_t seconds = 3;
    SECTION("its ring is full and stays so") {
        bench.hangs = true;
        while (nic.transmit(test.frame())) {
        }
        seconds = 9;
    }
    SECTION("it asks for it") {
        bench.device.status |= DEVICE_NEEDS_RESET;
    }
    SECTION("a chain of the transmit queue that it does not have") {
        bench.device.push(kTransmit, 9, 0);
    }
    SECTION("a chain of the receive queue that it does not have") {
        bench.device.push(kReceive, 300, 0);
    }
    for (std::uint64_t i = 0; i < seconds; ++i) {
        bench.clock.run_seconds(1);
        if (bench.hangs && nic.counters().resets == 0)
            CHECK_FALSE(nic.transmit(test.frame()));
    }
    CHECK(nic.counters().resets == 1);
    bench.hangs = false;
    CHECK(bench.device.ready());
    CHECK(bench.commands.size() == 2);  // promiscuous again
    CHECK(nic.transmit(test.frame()));
    CHECK((bench.last_frame() == test.bytes));
    bench.device.interrupts.clear();
    CHECK(bench.arrive(numbered(70)));
    CHECK(bench.device.interrupts[0] == 1);
    nic.service();
    REQUIRE(bench.sink.frames.size() == 1);
    CHECK((bench.sink.frames[0] == numbered(70)));
}

TEST_CASE("a full ring that moves, or an idle one, is no reason for a reset", "[net]") {
    VirtioNetBench bench;
    VirtioNetDriver& nic = bench.start();
    bench.hangs = true;
    const TestFrame test{60};
    for (unsigned second = 0; second < 20; ++second) {
        while (nic.transmit(test.frame())) {
        }
        bench.device.push(kTransmit, bench.device.pop(kTransmit)->head, 0);
        bench.clock.run_seconds(1);
    }
    bench.clock.run_seconds(20);
    CHECK(nic.counters().resets == 0);
}

TEST_CASE("during a reset nothing is sent, and nobody waits", "[net]") {
    VirtioNetBench bench;
    VirtioNetDriver& nic = bench.start();
    bench.device.status |= DEVICE_NEEDS_RESET;
    bench.device.stuck = true;
    bench.clock.run_for(bench.clock.hz() + 1);
    CHECK(nic.counters().resets == 1);
    CHECK_FALSE(nic.transmit(TestFrame{60}.frame()));
    CHECK(nic.counters().no_room == 1);
    SECTION("it comes back") {
        bench.device.status = 0;
        for (auto& queue : bench.device.queues)
            queue = {.size = queue.max_size, .max_size = queue.max_size};
        bench.clock.run_for(bench.clock.hz() / 500);
        CHECK(nic.transmit(TestFrame{60}.frame()));
        CHECK(nic.link_up());
    }
    SECTION("it does not") {
        bench.clock.run_seconds(5);
        CHECK_FALSE(nic.link_up());
        CHECK_FALSE(nic.transmit(TestFrame{60}.frame()));
        CHECK_FALSE(bench.device.masters_bus());
        CHECK(bench.clock.idle());
    }
}

TEST_CASE("a NIC that was pulled is given up", "[net]") {
    VirtioNetBench bench;
    VirtioNetDriver& nic = bench.start();
    bench.device.vanished = true;
    bench.clock.run_seconds(3);
    CHECK_FALSE(nic.link_up());
    CHECK_FALSE(nic.transmit(TestFrame{60}.frame()));
    nic.service();
    CHECK(bench.clock.idle());
}

TEST_CASE("a NIC that cannot be used is refused, and has no way to memory", "[net]") {
    VirtioNetBench bench;
    Error expected = Error::unsupported;
    SECTION("no receive queue") {
        bench.device.queues[kReceive] = {};
    }
    SECTION("no transmit queue") {
        bench.device.queues[kTransmit] = {};
    }
    SECTION("no room for a command") {
        bench.device.queues[kControl] = {.size = 1, .max_size = 1};
    }
    SECTION("it refuses") {
        bench.device.refuses_features = true;
    }
    SECTION("no vector left") {
        bench.device.vectors_left = 0;
        expected = Error::no_memory;
    }
    SECTION("an address that does not stop changing") {
        bench.device.unsteady_config = true;
        expected = Error::io_error;
    }
    CHECK(bench.create().error() == expected);
    CHECK_FALSE(bench.device.masters_bus());
    CHECK(bench.frames.outstanding() == 0);
}

TEST_CASE("a refused command does not matter", "[net]") {
    VirtioNetBench bench;
    bench.control_answer = VIRTIO_NET_ERR;
    VirtioNetDriver& nic = bench.start();
    bench.clock.run_seconds(2);
    CHECK(nic.counters().resets == 0);
    CHECK(nic.transmit(TestFrame{60}.frame()));
}

TEST_CASE("without memory there is no NIC, and nothing is lost", "[net]") {
    for (std::uint64_t allowed = 0; allowed < 7; ++allowed) {
        VirtioNetBench bench;
        bench.frames.limit(allowed);
        CHECK(bench.create().error() == Error::no_memory);
        CHECK(bench.frames.outstanding() == 0);
        CHECK_FALSE(bench.device.masters_bus());
    }
}
