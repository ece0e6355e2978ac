// SPDX-License-Identifier: MIT
// Restarts the VM through the reset control register and counts on its disk, which a restart leaves alone,
// how often it came up. Ends well the third time.
#include "lib/cpu.hpp"
#include "lib/runtime.hpp"
#include "lib/virtio.hpp"

using namespace payload;

int payload_main() {
    constexpr std::uint16_t kResetControl = 0xcf9;
    constexpr std::uint64_t kMagic = 0x746f'6f62'6e72'6163;
    alignas(16) static std::uint64_t sector[64];
    static std::uint64_t untouched = kMagic;  // a restart brings the kernel's data back
    CHECK(untouched == kMagic);
    untouched = 0;
    virtio::Device disk{virtio::kBlock, 0};
    disk.start();
    CHECK(virtio::read_sector(disk, 1, sector));
    const std::uint64_t boots = sector[0] == kMagic ? sector[1] + 1 : 1;
    print("reboot: boot %lu\n", boots);
    if (boots == 3)
        return 0;
    sector[0] = kMagic;
    sector[1] = boots;
    CHECK(virtio::write_sector(disk, 1, sector));
    out8(kResetControl, 0x02);
    out8(kResetControl, 0x06);
    for (const std::uint64_t start = rdtsc(); rdtsc() - start < 5'000'000'000;)
        cpu_pause();
    fail("still here after a reset");
}
