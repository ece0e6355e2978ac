// SPDX-License-Identifier: MIT
// From reset to reset: what the driver makes of the device, and what it does when the device fails.
#include "drivers/net/e1000_fixture.hpp"

using namespace hv;
using namespace hv::netdrv;
using namespace hv::test;

TEST_CASE("a controller is reset, silent, and known by the address in its EEPROM", "[net]") {
    E1000Fixture f{each_kind()};
    f.nic = std::move(*f.create());
    REQUIRE(f.nic);
    CHECK(f.device.resets == 1);
    CHECK(f.nic->mac() == MacAddress{0x52, 0x54, 0x00, 0x12, 0x34, 0x56});
    CHECK(f.nic->link_up());
    CHECK(f.nic->model() == (f.kind == E1000Kind::i8254x ? "Intel 82540EM" : "Intel 82574L"));
    CHECK_FALSE(f.device.receive(Bytes(60)));
    f.device.set_link(true);
    CHECK_FALSE(f.device.interrupt());
    f.nic->start(f.sink);
    CHECK(f.device.interrupt());
    CHECK(f.device.peek(e1000::ITR) == 78);  // 50,000 interrupts a second at most
    CHECK((f.device.peek(e1000::CTRL) & e1000::CTRL_SLU) != 0);
}

TEST_CASE("without an address in the EEPROM the receive address register has it", "[net]") {
    E1000Fixture f{each_kind()};
    f.device.poke(e1000::RAL0, 0x44332202);
    f.device.poke(e1000::RAH0, 0x8000'6655);
    const MacAddress expected{0x02, 0x22, 0x33, 0x44, 0x55, 0x66};
    SECTION("no EEPROM") {
        f.device.eeprom_there = false;
    }
    SECTION("an empty one") {
        f.device.set_eeprom_mac({});
    }
    SECTION("an erased one") {
        f.device.eeprom.fill(0xffff);
    }
    f.nic = std::move(*f.create());
    CHECK(f.nic->mac() == expected);
}

TEST_CASE("an EEPROM with a wrong checksum is believed all the same", "[net]") {
    E1000Fixture f{each_kind()};
    f.device.eeprom.back() ^= 1;
    f.nic = std::move(*f.create());
    CHECK(f.nic->mac() == MacAddress{0x52, 0x54, 0x00, 0x12, 0x34, 0x56});
}

TEST_CASE("a controller that cannot be used is refused in bounded time", "[net]") {
    E1000Fixture f{each_kind()};
    const std::uint64_t before = f.steps.now();
    SECTION("its reset does not end") {
        f.device.reset_sticks = true;
        CHECK(f.create().error() == Error::timed_out);
    }
    SECTION("it is not there") {
        f.device.vanished = true;
        CHECK(f.create().error() == Error::io_error);
    }
    SECTION("it has no address") {
        f.device.set_eeprom_mac({0x01, 0, 0, 0, 0, 0});
        CHECK(f.create().error() == Error::corrupted);
    }
    SECTION("its registers are something else's") {
        f.device.registers_size = 0x1000;
        CHECK(f.create().error() == Error::invalid_argument);
    }
    SECTION("there is no memory") {
        for (unsigned i = 0; i < 4; ++i) {
            f.frames.limit(i);
            CHECK(f.create().error() == Error::no_memory);
        }
    }
    CHECK(f.steps.now() - before < f.steps.hz());
}

TEST_CASE("offloads are what the kind has and the caller allows", "[net]") {
    E1000Fixture f{each_kind()};
    f.start();
    CHECK(f.nic->offloads().checksum);
    CHECK(f.nic->offloads().tcp4);
    CHECK(f.nic->offloads().tcp6 == (f.kind == E1000Kind::i82574));
    CHECK_FALSE(f.nic->offloads().ecn);
    f.nic.reset();
    f.steps.skip(2'000'000);
    f.start(kNothing);
    CHECK_FALSE(f.nic->offloads().checksum);
    CHECK_FALSE(f.nic->offloads().tcp4);
    const TcpFrame tcp{.payload = 100};
    const Bytes finished = f.software(tcp.build(f.random), tcp.offload(0))[0].bytes;
    REQUIRE(f.device.receive(finished));
    f.nic->service();
    REQUIRE(f.sink.frames.size() == 1);
    CHECK_FALSE(f.sink.frames[0].offload.data_valid);
}

TEST_CASE("the link's changes are seen", "[net]") {
    E1000Fixture f{each_kind()};
    f.start();
    CHECK(f.nic->link_up());
    f.device.set_link(false);
    CHECK(f.device.interrupt());
    CHECK(f.nic->link_up());
    f.nic->service();
    CHECK_FALSE(f.nic->link_up());
    CHECK(f.sink.links == 0);
    f.device.set_link(true);
    f.nic->service();
    CHECK(f.nic->link_up());
    CHECK(f.sink.links == 1);
    f.nic->service();
    CHECK(f.sink.links == 1);
}

TEST_CASE("a device that sends nothing any more is reset and works again", "[net]") {
    E1000Fixture f{each_kind()};
    f.start();
    const auto ms = [](std::uint64_t milliseconds) { return milliseconds * 1'000'000; };
    f.device.master_sticks = GENERATE(false, true);
    f.device.hung = true;
    REQUIRE(f.send(Bytes(60, 1)));
    f.steps.run_for(ms(3900));
    CHECK(f.device.resets == 1);
    CHECK(f.nic->counters().resets == 0);
    f.steps.run_for(ms(105));  // 4 s and its first step
    CHECK(f.nic->counters().resets == 1);
    CHECK_FALSE(f.send(Bytes(60, 2)));
    CHECK_FALSE(f.device.receive(Bytes(60)));
    f.steps.run_for(ms(150));
    CHECK(f.device.resets == 2);
    CHECK(f.steps.idle());
    CHECK(f.send(Bytes(60, 3)));
    REQUIRE(f.device.sent.size() == 1);
    CHECK(f.device.sent[0] == Bytes(60, 3));
    REQUIRE(f.device.receive(Bytes(60, 4)));
    CHECK(f.device.interrupt());
    f.nic->service();
    CHECK(f.sink.frames.size() == 1);
    CHECK(f.nic->link_up());
    f.steps.run_for(ms(10'000));
    CHECK(f.nic->counters().resets == 1);
    CHECK(f.steps.idle());
}

TEST_CASE("a device that hangs again and again is reset each time", "[net]") {
    E1000Fixture f{each_kind()};
    f.start();
    f.device.reset_cures = false;
    for (unsigned i = 1; i <= 5; ++i) {
        f.device.hung = true;
        REQUIRE(f.send(Bytes(60)));
        f.steps.run_for(4'100'000'000);
        CHECK(f.nic->counters().resets == i);
    }
}

TEST_CASE("slow progress, or a link that is down, is no reason for a reset", "[net]") {
    E1000Fixture f{each_kind()};
    f.start();
    for (unsigned i = 0; i < 5; ++i) {
        f.device.hung = true;
        REQUIRE(f.send(Bytes(60)));
        f.steps.run_for(3'000'000'000);
        f.device.go_on();
    }
    CHECK(f.device.sent.size() == 5);
    f.device.hung = true;
    REQUIRE(f.send(Bytes(60)));
    f.device.set_link(false);
    f.nic->service();
    f.steps.run_seconds(20);
    CHECK(f.nic->counters().resets == 0);
    f.device.set_link(true);
    f.device.go_on();
    f.steps.run_seconds(3);
    CHECK(f.nic->counters().resets == 0);
    CHECK(f.steps.idle());
}

TEST_CASE("a reset waits for the CPU that still receives", "[net]") {
    E1000Fixture f{each_kind()};
    f.start();
    f.device.hung = true;
    REQUIRE(f.send(Bytes(60)));
    REQUIRE(f.device.receive(Bytes(60)));
    f.sink.on_frame = [&] {
        f.steps.run_seconds(6);
        CHECK(f.nic->counters().resets == 1);
        CHECK(f.device.resets == 1);
        CHECK_FALSE(f.send(Bytes(60)));
    };
    f.nic->service();
    CHECK(f.sink.frames.size() == 1);
    f.sink.on_frame = nullptr;
    f.steps.run_for(30'000'000);
    CHECK(f.device.resets == 2);
    CHECK(f.send(Bytes(60)));
}

TEST_CASE("a device that vanished is given up", "[net]") {
    E1000Fixture f{each_kind()};
    f.start();
    f.device.hung = true;
    REQUIRE(f.send(Bytes(60)));
    SECTION("as its interrupt shows") {
        f.device.vanished = true;
        f.nic->service();
    }
    SECTION("as the watch shows") {
        f.device.vanished = true;
        f.steps.run_seconds(3);
    }
    SECTION("during a reset") {
        f.steps.run_for(4'005'000'000);
        f.device.vanished = true;
        f.steps.run_seconds(3);
    }
    SECTION("for its reset does not end") {
        f.device.reset_sticks = true;
        f.steps.run_seconds(10);
    }
    CHECK_FALSE(f.nic->link_up());
    CHECK_FALSE(f.send(Bytes(60)));
    f.nic->service();
    f.steps.run_seconds(10);
    CHECK(f.steps.idle());
    CHECK(f.nic->counters().no_room == 0);
}
