// SPDX-License-Identifier: MIT
#include "lib/virtio.hpp"

#include "lib/cpu.hpp"
#include "lib/pci.hpp"
#include "lib/runtime.hpp"

#include <cstddef>
#include <cstring>

namespace payload::virtio {
namespace {

constexpr std::uint8_t kCapabilities = 0x34;
constexpr std::uint8_t kVendorCapability = 0x09;
constexpr std::uint8_t kCommonCfg = 1;
constexpr std::uint8_t kNotifyCfg = 2;
constexpr std::uint8_t kDeviceCfg = 4;
constexpr std::uint8_t kWindowCfg = 5;
constexpr std::uint64_t kVersion1 = std::uint64_t{1} << 32;
constexpr std::uint64_t kPatience = 20'000'000'000;  // TSC ticks

enum : std::uint64_t {  // of the common configuration
    device_feature_select = 0,
    device_feature = 4,
    driver_feature_select = 8,
    driver_feature = 12,
    device_status = 20,
    queue_select = 22,
    queue_size = 24,
    queue_enable = 28,
    queue_notify_off = 30,
    queue_desc = 32,
    queue_driver = 40,
    queue_device = 48
};

constexpr unsigned kMaxDevices = 8;
Rings all_rings[kMaxDevices];
unsigned devices;

Rings& next_rings() {
    CHECK(devices < kMaxDevices);
    return all_rings[devices++];
}

struct BlockRequest {
    std::uint32_t type, reserved;
    std::uint64_t sector;
};

bool transfer(Device& disk, std::uint32_t type, std::uint64_t sector, std::uint64_t data,
              std::uint16_t data_flags) {
    constexpr std::uint32_t kSector = 512;
    static volatile BlockRequest header;
    static volatile std::uint8_t result;
    header.type = type;
    header.reserved = 0;
    header.sector = sector;
    result = 0xff;
    const Descriptor chain[] = {{reinterpret_cast<std::uint64_t>(&header), sizeof header, kNext, 1},
                                {data, kSector, static_cast<std::uint16_t>(kNext | data_flags), 2},
                                {reinterpret_cast<std::uint64_t>(&result), 1, kWrite, 0}};
    std::memcpy(const_cast<Descriptor*>(disk.rings().descriptors), chain, sizeof chain);
    disk.submit(0);
    return disk.wait() && result == 0;
}

}  // namespace

Device::Device(std::uint16_t device_id, unsigned n) : rings_{next_rings()} {
    pci::Function& f = function_;
    if (!pci::find(kVendor, device_id, n, f))
        fail("there is no virtio device 0x%x number %u", device_id, n);
    for (std::uint8_t at = pci::read8(f, kCapabilities); at != 0;
         at = pci::read8(f, static_cast<std::uint8_t>(at + 1))) {
        const auto byte = [&](unsigned offset) {
            return pci::read8(f, static_cast<std::uint8_t>(at + offset));
        };
        const auto word = [&](unsigned offset) {
            return pci::read(f, static_cast<std::uint8_t>(at + offset));
        };
        if (byte(0) != kVendorCapability)
            continue;
        const std::uint8_t type = byte(3);
        if (type == kWindowCfg)
            window_ = at;
        if (type < kCommonCfg || type > kDeviceCfg)
            continue;
        structures_[type] = {pci::bar(f, byte(4)) + word(8), word(12)};
        if (type == kNotifyCfg)
            notify_multiplier_ = word(16);
    }
    CHECK(common() != 0 && structures_[kNotifyCfg].address != 0);
}

std::uint8_t Device::status() {
    return read<std::uint8_t>(common() + device_status);
}

void Device::reset() {
    write<std::uint8_t>(common() + device_status, 0);
    while (status() != 0)
        cpu_pause();
}

void Device::start(std::uint64_t features, std::uint16_t queue) {
    queue_ = queue;
    reset();
    std::memset(const_cast<void*>(static_cast<volatile void*>(&rings_)), 0, sizeof rings_);
    write<std::uint8_t>(common() + device_status, kAcknowledge | kDriver);
    std::uint64_t offered = 0;
    for (std::uint32_t half = 0; half < 2; ++half) {
        write<std::uint32_t>(common() + device_feature_select, half);
        offered |= std::uint64_t{read<std::uint32_t>(common() + device_feature)} << (half * 32);
    }
    const std::uint64_t taken = offered & (features | kVersion1);
    for (std::uint32_t half = 0; half < 2; ++half) {
        write<std::uint32_t>(common() + driver_feature_select, half);
        write<std::uint32_t>(common() + driver_feature, static_cast<std::uint32_t>(taken >> (half * 32)));
    }
    write<std::uint8_t>(common() + device_status, kAcknowledge | kDriver | kFeaturesOk);
    CHECK((status() & kFeaturesOk) != 0);
    write<std::uint16_t>(common() + queue_select, queue);
    write<std::uint16_t>(common() + queue_size, kQueueSize);
    const auto set64 = [this](std::uint64_t offset, const volatile void* address) {
        const auto value = reinterpret_cast<std::uint64_t>(address);
        write<std::uint32_t>(common() + offset, static_cast<std::uint32_t>(value));
        write<std::uint32_t>(common() + offset + 4, static_cast<std::uint32_t>(value >> 32));
    };
    set64(queue_desc, rings_.descriptors);
    set64(queue_driver, &rings_.available);
    set64(queue_device, &rings_.used);
    write<std::uint16_t>(common() + queue_enable, 1);
    doorbell_ = structures_[kNotifyCfg].address +
                std::uint64_t{read<std::uint16_t>(common() + queue_notify_off)} * notify_multiplier_;
    write<std::uint8_t>(common() + device_status, kAcknowledge | kDriver | kFeaturesOk | kDriverOk);
}

void Device::submit(std::uint16_t head) {
    const std::uint16_t index = rings_.available.index;
    rings_.available.ring[index % kQueueSize] = head;
    asm volatile("" : : : "memory");  // x86 keeps the order of stores
    rings_.available.index = static_cast<std::uint16_t>(index + 1);
    asm volatile("mfence" : : : "memory");
    ring_doorbell();
}

void Device::ring_doorbell() {
    write<std::uint16_t>(doorbell_, queue_);
}

bool Device::wait() {
    for (const std::uint64_t start = rdtsc(); rings_.used.index != rings_.available.index;) {
        if ((status() & kNeedsReset) != 0 || rdtsc() - start > kPatience)
            return false;
        cpu_pause();
    }
    return true;
}

bool read_sector(Device& disk, std::uint64_t sector, void* data) {
    return transfer(disk, 0, sector, reinterpret_cast<std::uint64_t>(data), kWrite);
}

bool write_sector(Device& disk, std::uint64_t sector, const void* data) {
    return transfer(disk, 1, sector, reinterpret_cast<std::uint64_t>(data), 0);
}

}  // namespace payload::virtio
