// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/machine.hpp"
#include "vmm/devices/fw_cfg.hpp"

using namespace hv;

namespace {

std::uint64_t item(FwCfg& device, unsigned key, unsigned bytes) {
    device.write(0, 2, key);
    std::uint64_t value = 0;
    for (unsigned i = 0; i < bytes; ++i)
        value |= device.read(1, 1) << (8 * i);
    return value;
}

}  // namespace

TEST_CASE("items are read byte by byte, from their start after each selection", "[devices]") {
    FwCfg device{{.vcpus = 300, .ram = 0x1'2345'0000}};
    CHECK(item(device, 0x00, 4) == 0x554d'4551);
    CHECK(item(device, 0x01, 4) == 1);  // no DMA
    CHECK(item(device, 0x03, 8) == 0x1'2345'0000);
    CHECK(item(device, 0x05, 2) == 300);
    CHECK(item(device, 0x0f, 2) == 300);
    CHECK(item(device, 0x19, 4) == 0);  // no files
    device.write(0, 2, 0);
    CHECK(device.read(1, 1) == 'Q');
    device.write(0, 2, 0);
    CHECK(device.read(1, 1) == 'Q');
    for (unsigned i = 0; i < 100; ++i)
        device.read(1, 1);
    CHECK(device.read(1, 1) == 0);
}

TEST_CASE("the selector takes words only and cannot be read, the data port cannot be written", "[devices]") {
    FwCfg device{{.vcpus = 2, .ram = 0}};
    device.write(0, 2, 5);
    device.write(0, 1, 0);
    device.write(1, 1, 0x77);
    CHECK(device.read(0, 2) == 0xffff);
    CHECK(device.read(1, 1) == 2);
    device.reset();
    CHECK(device.read(1, 1) == 'Q');
}
