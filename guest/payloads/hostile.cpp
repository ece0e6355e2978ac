// SPDX-License-Identifier: MIT
// Pokes what it must not, and checks that it gets the answer of the architecture and is still alive.
#include "lib/cpu.hpp"
#include "lib/interrupts.hpp"
#include "lib/runtime.hpp"
#include "lib/virtio.hpp"

#include <iterator>

using namespace payload;

namespace {

constexpr int kGeneralProtection = 13;

void poke_msrs() {
    // Between the ranges of both vendors' bitmaps, in each of them, beyond them; IA32_FEATURE_CONTROL's
    // neighbours; VM_HSAVE_PA.
    constexpr std::uint32_t kUnknown[] = {0x0000'1fff, 0x0000'2000, 0x1234'5678, 0xc000'1fff,
                                          0xc000'2000, 0xc001'1fff, 0xffff'ffff, 0x4b56'4dff};
    for (const std::uint32_t msr : kUnknown) {
        std::uint64_t value = 0;
        if (try_rdmsr(msr, value) != kGeneralProtection)
            fail("RDMSR 0x%x gave 0x%lx instead of #GP", msr, value);
        if (try_wrmsr(msr, ~std::uint64_t{0}) != kGeneralProtection)
            fail("WRMSR 0x%x raised no #GP", msr);
    }
    print("hostile: MSRs ok\n");
}

void poke_ports() {
    constexpr std::uint16_t kUnclaimed[] = {0x0100, 0x1234, 0x5658, 0xaaaa, 0xfffc};
    for (const std::uint16_t port : kUnclaimed) {
        out8(port, 0x5a);
        out16(port, 0x5a5a);
        out32(port, 0x5a5a'5a5a);
        if (in8(port) != 0xff || in16(port) != 0xffff || in32(port) != 0xffff'ffff)
            fail("port 0x%x does not read as all ones", port);
    }
    print("hostile: ports ok\n");
}

template <class T>
void poke_address(std::uint64_t address) {
    write<T>(address, T{0x5a});
    if (read<T>(address) != static_cast<T>(~T{0}))
        fail("physical address 0x%lx does not read as all ones (%u bytes)", address,
             static_cast<unsigned>(sizeof(T)));
}

void poke_memory() {
    constexpr std::uint64_t kUnbacked[] = {0xb000'0000, 0xbfff'fff8,    0xf000'0000,
                                           0xfd00'0000, 0x10'0000'0000, 0x3f'ffff'fff8};
    for (const std::uint64_t address : kUnbacked) {
        if (address >> 32 != 0)
            map_high(address);
        poke_address<std::uint8_t>(address);
        poke_address<std::uint16_t>(address);
        poke_address<std::uint32_t>(address);
        poke_address<std::uint64_t>(address);
    }
    print("hostile: unbacked memory ok\n");
}

using Garbage = void (*)(virtio::Device&);

/// What a broken or malicious driver may leave in its queue. Buffers are of RAM's low end, so a device that
/// takes them for good shows.
constexpr Garbage kGarbage[] = {
    [](virtio::Device& d) {  // a descriptor that does not exist
        d.submit(virtio::kQueueSize);
    },
    [](virtio::Device& d) { d.submit(0xffff); },
    [](virtio::Device& d) {  // a chain that never ends
        d.rings().descriptors[0].address = 0x1000;
        d.rings().descriptors[0].length = 16;
        d.rings().descriptors[0].flags = virtio::kNext;
        d.submit(0);
    },
    [](virtio::Device& d) {  // a next that does not exist
        d.rings().descriptors[0].address = 0x1000;
        d.rings().descriptors[0].length = 16;
        d.rings().descriptors[0].flags = virtio::kNext;
        d.rings().descriptors[0].next = 0x8000;
        d.submit(0);
    },
    [](virtio::Device& d) {  // buffers outside of RAM
        d.rings().descriptors[0].address = 0xb000'0000;
        d.rings().descriptors[0].length = 16;
        d.submit(0);
    },
    [](virtio::Device& d) {  // address and length overflow
        d.rings().descriptors[0].address = ~std::uint64_t{0} - 7;
        d.rings().descriptors[0].length = 0xffff'ffff;
        d.submit(0);
    },
    [](virtio::Device& d) {  // more chains than the ring holds
        d.rings().available.index = 0x4000;
        d.ring_doorbell();
    },
    [](virtio::Device& d) {  // an indirect table where none was negotiated
        d.rings().descriptors[0].address = 0x1000;
        d.rings().descriptors[0].length = 16;
        d.rings().descriptors[0].flags = virtio::kIndirect;
        d.submit(0);
    },
};

void poke_virtqueue() {
    virtio::Device disk{virtio::kBlock, 0};
    unsigned number = 0;
    for (const Garbage garbage : kGarbage) {
        disk.start();
        garbage(disk);
        if (disk.wait() || (disk.status() & virtio::kNeedsReset) == 0)
            fail("virtqueue garbage %u: status 0x%x without DEVICE_NEEDS_RESET", number, disk.status());
        ++number;
    }
    // A reset makes the device as good as new.
    alignas(16) static char sector[512];
    disk.start();
    CHECK(virtio::write_sector(disk, 0, sector) && virtio::read_sector(disk, 0, sector));
    print("hostile: %u virtqueues ok\n", number);
}

}  // namespace

int payload_main() {
    constexpr void (*kSteps[])() = {poke_msrs, poke_ports, poke_memory, poke_virtqueue};
    for (std::uint64_t step = argument("from", 0); step < std::size(kSteps); ++step)
        kSteps[step]();
    print("hostile: still alive\n");
    return 0;
}
