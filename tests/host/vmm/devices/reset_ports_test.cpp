// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/power.hpp"
#include "vmm/devices/reset_ports.hpp"

using namespace hv;

TEST_CASE("0xcf9 resets as RST_CPU rises", "[devices]") {
    fake::RecordingPower power;
    ResetControl control{power};
    control.write(0, 1, 0x02);
    CHECK(power.resets == 0);
    CHECK(control.read(0, 1) == 0x02);
    control.write(0, 1, 0x06);
    CHECK(power.resets == 1);
    control.write(0, 1, 0x06);
    CHECK(power.resets == 1);
    control.reset();
    control.write(0, 1, 0xff);
    CHECK(power.resets == 2);
    CHECK(control.read(0, 1) == 0x0e);
}

TEST_CASE("port 0x92 resets as bit 0 rises and keeps A20", "[devices]") {
    fake::RecordingPower power;
    Port92 port{power};
    CHECK(port.read(0, 1) == 0x02);
    port.write(0, 1, 0x00);
    CHECK(power.resets == 0);
    port.write(0, 1, 0x03);
    CHECK(power.resets == 1);
    port.write(0, 1, 0x03);
    CHECK(power.resets == 1);
}

TEST_CASE("the keyboard controller answers its own commands", "[devices]") {
    fake::RecordingPower power;
    KeyboardController controller{power};
    IoDevice& data = controller.data();
    IoDevice& command = controller.command();
    const auto ask = [&](unsigned value) {
        command.write(0, 1, value);
        CHECK((command.read(0, 1) & 0x09) == 0x09);
        const std::uint64_t answer = data.read(0, 1);
        CHECK((command.read(0, 1) & 0x01) == 0);
        return answer;
    };
    CHECK(ask(0xaa) == 0x55);
    CHECK(ask(0xab) == 0x00);
    CHECK(ask(0xa9) == 0x00);
    command.write(0, 1, 0x60);
    data.write(0, 1, 0x47);
    CHECK(ask(0x20) == 0x47);
    command.write(0, 1, 0xad);
    CHECK(ask(0x20) == 0x57);
    command.write(0, 1, 0xae);
    CHECK(ask(0x20) == 0x47);
    command.write(0, 1, 0xd2);
    data.write(0, 1, 0x99);
    CHECK(data.read(0, 1) == 0x99);
    data.write(0, 1, 0xff);  // reset the keyboard: there is none
    CHECK((command.read(0, 1) & 0x01) == 0);
    CHECK(power.resets == 0);
}

TEST_CASE("the keyboard controller resets the machine by pulse and by output port", "[devices]") {
    fake::RecordingPower power;
    KeyboardController controller{power};
    controller.command().write(0, 1, 0xff);
    CHECK(power.resets == 0);
    controller.command().write(0, 1, 0xfe);
    CHECK(power.resets == 1);
    controller.command().write(0, 1, 0xd1);
    controller.data().write(0, 1, 0xdf);
    CHECK(power.resets == 1);
    controller.command().write(0, 1, 0xd1);
    controller.data().write(0, 1, 0xfe);
    CHECK(power.resets == 2);
    controller.reset();
    controller.command().write(0, 1, 0xd0);
    CHECK(controller.data().read(0, 1) == 0xcf);
}
