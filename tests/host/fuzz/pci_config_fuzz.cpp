// SPDX-License-Identifier: MIT
// A guest that reads and writes configuration space, BARs and the MSI-X table as fuzz bytes say, 12 bytes an
// access.
#include "fakes/virtio_driver.hpp"
#include "vmm/net/switch.hpp"
#include "vmm/virtio/virtio_net.hpp"

#include <cstring>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace hv;
    fake::Board board;
    auto lan = net::Switch::create(board.clock);
    const MacAddress mac{0x52, 0x54, 0, 0, 0, 1};
    auto device = virtio::VirtioNet::create(board.memory, board.clock, {mac, 1500});
    virtio::VirtioPciTransport transport{**device, board.interrupts, &board.line};
    board.bridge.attach(1, transport).value();
    net::SwitchPort* port = (*lan)->add_port(**device, {net::PortOptions::Kind::access, mac, 0, 0}).value();
    (*device)->connect(port);

    for (; size >= 12; data += 12, size -= 12) {
        std::uint64_t value = 0;
        std::memcpy(&value, data + 4, 8);
        const unsigned width = 1u << (data[0] >> 2 & 3);
        const bool write = (data[0] & 0x10) != 0;
        const std::uint64_t offset = data[1] | std::uint64_t{data[2]} << 8;
        IoBus* bus = &board.memory_bus;
        std::uint64_t address = 0;
        switch (data[0] & 3) {
        case 0: address = guest_map::kEcam + (1u << 15) + offset % 0x400; break;
        case 1: address = guest_map::kPciWindow + offset; break;
        case 2: address = (value & 0xffff'0000) | offset; break;
        default: bus = &board.ports; address = guest_map::kPciAddress + offset % 8;
        }
        if (write)
            bus->write(address, width, value);
        else
            (void)bus->read(address, width);
    }
    board.clock.run();
    (*device)->connect(nullptr);
    (*lan)->remove_port(*port);
    transport.reset();
    return 0;
}
