// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/board.hpp"
#include "vmm/devices/test_device.hpp"

using namespace hv;

TEST_CASE("the guest drives the wires that there are", "[devices]") {
    fake::RecordingLine first, last;
    TestDevice::Wires wires{};
    wires[0] = &first;
    wires[TestDevice::kLines - 1] = &last;
    TestDevice device{wires};
    device.lines().write(0, 1, 1);
    CHECK(first.level);
    device.lines().write(0, 1, 0);
    CHECK_FALSE(first.level);
    device.lines().write(1, 1, 1);  // no wire
    device.lines().write(TestDevice::kLines - 2, 2, 0x8000);
    CHECK(last.level);
    CHECK(device.lines().read(0, 1) == 0xff);
    device.reset();
    CHECK_FALSE(last.level);
}

TEST_CASE("register and memory hold what was written in whatever pieces", "[devices]") {
    TestDevice device{{}};
    IoDevice& memory = device.memory();
    memory.write(3, 8, 0x8877'6655'4433'2211);
    CHECK(memory.read(3, 8) == 0x8877'6655'4433'2211);
    memory.write(5, 2, 0xaaaa);
    CHECK(memory.read(4, 4) == 0x55aa'aa22);
    memory.write(device.memory().kSize - 1, 1, 0x5a);
    CHECK(memory.read(device.memory().kSize - 2, 2) == 0x5a00);
    device.register_block().write(0, 4, 0x1234'5678);
    CHECK(device.register_block().read(2, 1) == 0x34);
    device.flush().write(0, 4, 0x1000);
    device.reset();
    CHECK(memory.read(3, 8) == 0);
    CHECK(device.register_block().read(0, 4) == 0);
}
