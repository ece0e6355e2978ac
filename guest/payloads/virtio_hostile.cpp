// SPDX-License-Identifier: MIT
// The driver of every virtio device at its worst: rings, layouts, registers and requests that no driver
// makes, and resets at any moment. After each attack the device resets, and does what it is for.
#include "lib/cpu.hpp"
#include "lib/pci.hpp"
#include "lib/runtime.hpp"
#include "lib/virtio.hpp"

#include <iterator>

using namespace payload;
using virtio::Descriptor;
using virtio::Device;
using virtio::kIndirect;
using virtio::kNext;
using virtio::kQueueSize;
using virtio::kWrite;

namespace {

enum : std::uint64_t {  // of the common configuration [virtio1.2 4.1.4.3 Common configuration structure
                        // layout]
    driver_feature_select = 8,
    driver_feature = 12,
    device_status = 20,
    queue_select = 22,
    queue_size = 24,
    queue_enable = 28,
    queue_desc = 32,
    queue_driver = 40,
    queue_device = 48
};

struct Target {
    const char* name;
    std::uint16_t id;
    std::uint16_t queues;        ///< that are attacked
    std::uint16_t honest_queue;  ///< whose driver gives a buffer that comes back
    std::uint16_t flags;         ///< of that buffer
    std::uint32_t length;
    std::uint64_t features;
};

constexpr std::uint64_t kIndirectDesc = std::uint64_t{1} << 28, kEventIndex = std::uint64_t{1} << 29;
constexpr std::uint64_t kRing = kIndirectDesc | kEventIndex;
constexpr std::uint64_t kControlQueue = std::uint64_t{1} << 17;  ///< VIRTIO_NET_F_CTRL_VQ

constexpr Target kTargets[] = {
    {"blk", virtio::kBlock, 1, 0, 0, 0, 0},         {"net", virtio::kNet, 3, 1, 0, 12 + 60, kControlQueue},
    {"rng", virtio::kEntropy, 1, 0, kWrite, 64, 0}, {"console", virtio::kConsole, 2, 1, 0, 1, 0},
    {"vsock", virtio::kSocket, 3, 1, 0, 44, 0},     {"balloon", virtio::kBalloon, 5, 0, 0, 4, 0},
};

constexpr std::uint32_t kSocketCid = 3;  ///< this VM's, by its configuration

alignas(4096) volatile std::uint8_t scratch[2 * 4096];

std::uint64_t address_of(const volatile void* object) {
    return reinterpret_cast<std::uint64_t>(object);
}

/// Addresses that are no RAM of this VM, or are its devices' own. The first one is replaced by that of the
/// device at hand.
std::uint64_t bad_addresses[] = {0,           0xb000'0000, 0xe000'0000, 0xfee0'0000, 0xfec0'0000,
                                 0xfffe'fff0, 1ull << 32,  1ull << 52,  1ull << 63,  ~0ull - 15};
constexpr std::uint32_t kBadLengths[] = {16, 0x8000'0000, 0xffff'fff0, 0xffff'ffff};

std::uint32_t random_state = 1;
std::uint32_t random() {  // the same in each run
    random_state = random_state * 1664525 + 1013904223;
    return random_state >> 8;
}

void put(Device& d, unsigned index, const Descriptor& value) {
    volatile Descriptor& at = d.rings().descriptors[index];
    at.address = value.address;
    at.length = value.length;
    at.flags = value.flags;
    at.next = value.next;
}

void put_table(unsigned index, const Descriptor& value) {
    reinterpret_cast<volatile Descriptor*>(scratch)[index].address = value.address;
    reinterpret_cast<volatile Descriptor*>(scratch)[index].length = value.length;
    reinterpret_cast<volatile Descriptor*>(scratch)[index].flags = value.flags;
    reinterpret_cast<volatile Descriptor*>(scratch)[index].next = value.next;
}

/// The device is reset, and does what it is for.
void revive(Device& d, const Target& target, const char* attack) {
    d.reset();
    for (unsigned i = 0; i < sizeof scratch; ++i)
        scratch[i] = 0;
    alignas(16) static char sector[512];
    bool works = false;
    d.start(0, target.honest_queue);
    if (target.id == virtio::kBlock) {
        works = virtio::write_sector(d, 0, sector) && virtio::read_sector(d, 0, sector);
    } else {
        scratch[0] = target.id == virtio::kConsole ? '.' : 0;
        put(d, 0, {address_of(scratch), target.length, target.flags, 0});
        d.submit(0);
        works = d.wait();
    }
    if (!works)
        fail("%s does not work after %s: status 0x%x", target.name, attack, d.status());
}

// --- rings
// ---------------------------------------------------------------------------------------------------------------

using Garbage = void (*)(Device&);

constexpr Garbage kRings[] = {
    [](Device& d) { d.submit(kQueueSize); },
    [](Device& d) { d.submit(0xffff); },
    [](Device& d) {  // a chain that never ends
        put(d, 0, {address_of(scratch), 16, kNext, 1});
        put(d, 1, {address_of(scratch), 16, kNext | kWrite, 0});
        d.submit(0);
    },
    [](Device& d) {  // one that is longer than the queue, by way of the same descriptors
        for (std::uint16_t i = 0; i < kQueueSize; ++i)
            put(d, i, {address_of(scratch), 16, kNext, static_cast<std::uint16_t>((i + 1) % kQueueSize)});
        d.submit(0);
    },
    [](Device& d) {  // a next that does not exist
        put(d, 0, {address_of(scratch), 16, kNext, 0x8000});
        d.submit(0);
    },
    [](Device& d) {  // read after written
        put(d, 0, {address_of(scratch), 16, kWrite | kNext, 1});
        put(d, 1, {address_of(scratch), 16, 0, 0});
        d.submit(0);
    },
    [](Device& d) {  // lengths whose sum wraps
        for (std::uint16_t i = 0; i < kQueueSize; ++i)
            put(d, i, {0, 0xffff'ffff, kNext, static_cast<std::uint16_t>(i + 1)});
        put(d, kQueueSize - 1, {0, 0xffff'ffff, kWrite, 0});
        d.submit(0);
    },
    [](Device& d) {  // of no length
        put(d, 0, {address_of(scratch), 0, kNext, 1});
        put(d, 1, {address_of(scratch), 0, kWrite, 0});
        d.submit(0);
    },
    [](Device& d) {  // the rings themselves as a buffer
        put(d, 0, {address_of(&d.rings()), sizeof(virtio::Rings), kWrite, 0});
        d.submit(0);
    },
    [](Device& d) {  // an index that jumps
        d.rings().available.index = 0x4000;
        d.ring_doorbell();
        d.rings().available.index = 3;
        d.ring_doorbell();
    },
    [](Device& d) {  // a table in a table
        put(d, 0, {address_of(scratch), 32, kIndirect, 0});
        put_table(0, {address_of(scratch), 32, kIndirect, 0});
        d.submit(0);
    },
    [](Device& d) {  // a table that is its own buffer, and goes round
        put(d, 0, {address_of(scratch), 4096, kIndirect, 0});
        put_table(0, {address_of(scratch), 4096, kNext | kWrite, 1});
        put_table(1, {address_of(scratch), 4096, kNext | kWrite, 0});
        d.submit(0);
    },
    [](Device& d) {  // no multiple of 16, and nothing at all
        put(d, 0, {address_of(scratch), 24, kIndirect, 0});
        put(d, 1, {address_of(scratch), 0, kIndirect, 0});
        d.submit(0);
        d.submit(1);
    },
    [](Device& d) {  // a table that goes on in the ring
        put(d, 0, {address_of(scratch), 32, kIndirect | kNext, 1});
        put(d, 1, {address_of(scratch), 16, 0, 0});
        d.submit(0);
    },
};

void attack_rings(Device& d, const Target& target) {
    for (std::uint16_t queue = 0; queue < target.queues; ++queue)
        for (const std::uint64_t ring : {std::uint64_t{0}, kRing})
            for (const Garbage garbage : kRings) {
                d.start(target.features | ring, queue);
                garbage(d);
            }
    revive(d, target, "broken rings");
    for (std::uint16_t queue = 0; queue < target.queues; ++queue)
        for (const std::uint64_t address : bad_addresses)
            for (const std::uint32_t length : kBadLengths)
                for (const std::uint16_t flags : {std::uint16_t{0}, kWrite, kIndirect}) {
                    d.start(target.features | kRing, queue);
                    put(d, 0, {address, length, flags, 0});
                    d.submit(0);
                }
    revive(d, target, "buffers outside of RAM");
}

// --- queues
// --------------------------------------------------------------------------------------------------------------

void set64(Device& d, std::uint64_t offset, std::uint64_t value) {
    write<std::uint32_t>(d.common() + offset, static_cast<std::uint32_t>(value));
    write<std::uint32_t>(d.common() + offset + 4, static_cast<std::uint32_t>(value >> 32));
}

/// Negotiates, and lets `layout` say what the queue is like.
template <class Layout>
void with_layout(Device& d, std::uint16_t queue, std::uint16_t size, Layout&& layout) {
    d.reset();
    write<std::uint8_t>(d.common() + device_status, virtio::kAcknowledge | virtio::kDriver);
    write<std::uint32_t>(d.common() + driver_feature_select, 1);
    write<std::uint32_t>(d.common() + driver_feature, 1);  // VERSION_1
    write<std::uint8_t>(d.common() + device_status,
                        virtio::kAcknowledge | virtio::kDriver | virtio::kFeaturesOk);
    write<std::uint16_t>(d.common() + queue_select, queue);
    write<std::uint16_t>(d.common() + queue_size, size);
    set64(d, queue_desc, address_of(d.rings().descriptors));
    set64(d, queue_driver, address_of(&d.rings().available));
    set64(d, queue_device, address_of(&d.rings().used));
    layout();
    write<std::uint16_t>(d.common() + queue_enable, 1);
    write<std::uint16_t>(d.common() + queue_enable, 1);
    write<std::uint8_t>(d.common() + device_status,
                        virtio::kAcknowledge | virtio::kDriver | virtio::kFeaturesOk | virtio::kDriverOk);
    d.ring_doorbell();
}

void attack_layouts(Device& d, const Target& target) {
    for (std::uint16_t queue = 0; queue <= target.queues; ++queue) {
        constexpr std::uint16_t kSizes[] = {0, 1, 3, 0x7fff, 0x8000, 0xffff};
        for (const std::uint16_t size : kSizes)
            with_layout(d, queue, size, [] {});
        for (const std::uint64_t offset : {queue_desc, queue_driver, queue_device}) {
            for (const std::uint64_t address : bad_addresses)
                with_layout(d, queue, kQueueSize, [&] { set64(d, offset, address); });
            with_layout(d, queue, kQueueSize, [&] { set64(d, offset, address_of(scratch) + 1); });
        }
        // Used over available, and all three at one place.
        with_layout(d, queue, kQueueSize, [&] { set64(d, queue_device, address_of(&d.rings().available)); });
        with_layout(d, queue, kQueueSize, [&] {
            for (const std::uint64_t offset : {queue_desc, queue_driver, queue_device})
                set64(d, offset, address_of(scratch));
        });
    }
    with_layout(d, 0xffff, kQueueSize, [] {});
    revive(d, target, "impossible queues");
    // No queue at all; features that were not offered; every order of the status bits.
    d.reset();
    for (unsigned status = 1; status < 0x100; ++status) {
        write<std::uint32_t>(d.common() + driver_feature_select, random() % 4);
        write<std::uint32_t>(d.common() + driver_feature, ~0u);
        write<std::uint8_t>(d.common() + device_status, static_cast<std::uint8_t>(status * 0x35));
        d.ring_doorbell();
    }
    revive(d, target, "impossible states");
}

// --- registers
// -----------------------------------------------------------------------------------------------------------

template <class T>
void scribble(std::uint64_t address, std::uint32_t length) {
    constexpr std::uint64_t kPatterns[] = {0, ~0ull, 0x5a5a'5a5a'5a5a'5a5a};
    for (std::uint32_t offset = 0; offset < length; ++offset) {
        read<T>(address + offset);
        write<T>(address + offset, static_cast<T>(kPatterns[random() % std::size(kPatterns)]));
    }
}

std::uint32_t configuration(pci::Function f, std::uint8_t offset, unsigned size, std::uint32_t value) {
    pci::read(f, offset);  // selects
    const auto port = static_cast<std::uint16_t>(0xcfc + offset % 4);
    if (size == 1)
        out8(port, static_cast<std::uint8_t>(value));
    else if (size == 2)
        out16(port, static_cast<std::uint16_t>(value));
    else
        out32(port, value);
    return in32(0xcfc);
}

void attack_registers(Device& d, const Target& target) {
    constexpr std::uint32_t kMost = 64;  // further on it is the same again
    d.start(target.features);
    for (unsigned type = 1; type <= 4; ++type) {
        const Device::Structure& where = d.structure(type);
        if (where.address == 0)
            continue;
        const std::uint32_t length = where.length < kMost ? where.length + 8 : kMost;
        scribble<std::uint8_t>(where.address, length);
        scribble<std::uint16_t>(where.address, length);
        scribble<std::uint32_t>(where.address, length);
        scribble<std::uint64_t>(where.address, length);
    }
    revive(d, target, "writes to its registers");

    const pci::Function f = d.function();
    std::uint32_t saved[64];
    for (unsigned i = 0; i < 64; ++i)
        saved[i] = pci::read(f, static_cast<std::uint8_t>(4 * i));
    const auto restore = [&] {
        for (unsigned i = 64; i-- > 0;)
            pci::write(f, static_cast<std::uint8_t>(4 * i), saved[i]);
    };
    for (const unsigned size : {1u, 2u, 4u})
        for (unsigned offset = 0; offset < 0x100; offset += size)
            configuration(f, static_cast<std::uint8_t>(offset), size, random() * 0x101);
    restore();
    revive(d, target, "writes to its configuration space");
    // The window on its BARs: bar, offset and length of anything. [virtio1.2 4.1.4.9 PCI configuration access
    // capability]
    for (unsigned i = 0; i < 400 && d.window() != 0; ++i) {
        const std::uint8_t at = d.window();
        configuration(f, static_cast<std::uint8_t>(at + 4), 1, random() % 8);
        pci::write(f, static_cast<std::uint8_t>(at + 8), i % 2 == 0 ? random() % 0x4000 : random() * 0x3001);
        pci::write(f, static_cast<std::uint8_t>(at + 12), i % 5);
        configuration(f, static_cast<std::uint8_t>(at + 16), 1u << i % 3, i % 7 == 0 ? random() : 0);
    }
    restore();
    revive(d, target, "its configuration window");
}

// --- requests
// ------------------------------------------------------------------------------------------------------------

void put_number(unsigned at, std::uint32_t value) {
    for (unsigned i = 0; i < 4; ++i)
        scratch[at + i] = static_cast<std::uint8_t>(value >> 8 * i);
}

/// The begin of a request as the device expects it, where that is no small number, so that it looks at what
/// follows; and as long as such a request may be.
void put_header(const Target& target, std::uint32_t& length, std::uint32_t& room) {
    if (target.id == virtio::kBlock) {
        // [virtio1.2 5.2.6 Device Operation]: in, out, flush, get_id, discard, write_zeroes
        constexpr std::uint32_t kTypes[] = {0, 1, 4, 8, 11, 13};
        put_number(0, kTypes[random() % std::size(kTypes)]);
        put_number(8, random() % 4096);  // 1 MiB has 2048 sectors
        put_number(12, 0);
        length = 16 + (random() % 2 == 0 ? 512 : 16) * (random() % 4);
        room = 1 + 512 * (random() % 4);
    } else if (target.id == virtio::kSocket) {
        // [virtio1.2 5.10.6 Device Operation]: to the host from this guest, a stream's; any operation
        put_number(0, kSocketCid);
        put_number(4, 0);
        put_number(8, 2);
        put_number(12, 0);
        put_number(24, random() % 128);
        put_number(28, 1 | random() % 9 << 16);
        length = 44 + random() % 128;
    }
}

void attack_requests(Device& d, const Target& target) {
    const bool shown = target.id == virtio::kConsole;  // to whoever reads the transcript
    for (std::uint16_t queue = 0; queue < target.queues; ++queue) {
        d.start(target.features | kRing, queue);
        for (unsigned i = 0; i < 300; ++i) {
            if ((d.status() & virtio::kNeedsReset) != 0)
                d.start(target.features | kRing, queue);
            // Small numbers are types, operations, classes and CIDs; large ones lengths, credit and sectors.
            for (unsigned at = 0; at < 64; ++at)
                scratch[at] = static_cast<std::uint8_t>(shown               ? '.'
                                                        : random() % 2 == 0 ? random() % 8
                                                                            : random());
            std::uint32_t length = i % 4 == 0 && !shown ? random() % 8192 : random() % 64;
            std::uint32_t room = random() % 4096;
            if (i % 2 == 0)
                put_header(target, length, room);
            put(d, 0, {address_of(scratch), length, kNext, 1});
            put(d, 1, {address_of(scratch) + 4096, room, kWrite, 0});
            d.submit(0);
        }
    }
    revive(d, target, "requests of garbage");
    // The doorbells of queues that do not exist.
    d.start(target.features);
    for (std::uint32_t queue = 0; queue < 0x10000; queue += 1 + random() % 4096)
        write<std::uint16_t>(d.structure(2).address, static_cast<std::uint16_t>(queue));
    revive(d, target, "doorbells of queues that it does not have");
}

void attack_by_reset(Device& d, const Target& target) {
    for (unsigned i = 0; i < 100; ++i) {
        d.start(target.features, target.honest_queue);
        const bool disk = target.id == virtio::kBlock;
        scratch[0] = static_cast<std::uint8_t>(disk ? i % 2 : 0);  // in or out
        put(d, 0,
            {address_of(scratch), disk ? 16u : target.length,
             static_cast<std::uint16_t>(disk ? kNext : target.flags), 1});
        put(d, 1,
            {address_of(scratch) + 512, 512, static_cast<std::uint16_t>(kNext | (i % 2 == 0 ? kWrite : 0)),
             2});
        put(d, 2, {address_of(scratch) + 64, 1, kWrite, 0});
        for (unsigned times = 0; times < i % kQueueSize; ++times)
            d.submit(0);
        d.reset();
    }
    revive(d, target, "resets under way");
}

}  // namespace

int payload_main() {
    unsigned attacks = 0;
    for (const Target& target : kTargets) {
        Device d{target.id, 0};
        bad_addresses[0] = d.common();
        constexpr void (*kAttacks[])(Device&, const Target&) = {
            attack_rings, attack_layouts, attack_registers, attack_requests, attack_by_reset};
        revive(d, target, "nothing");
        for (const auto attack : kAttacks) {
            attack(d, target);
            ++attacks;
        }
        d.reset();
        print("virtio_hostile: %s ok\n", target.name);
    }
    print("virtio_hostile: %u attacks, every device lives\n", attacks);
    return 0;
}
