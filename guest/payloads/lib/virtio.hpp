// SPDX-License-Identifier: MIT
// A driver for virtio devices on PCI, polled, one split virtqueue at a time: small, and with everything in
// the open, so that tests can do wrong what a good driver does right. [virtio1.2 4.1 Virtio Over PCI Bus]
#pragma once

#include "lib/pci.hpp"

#include <cstdint>

namespace payload::virtio {

inline constexpr std::uint16_t kVendor = 0x1af4;
inline constexpr std::uint16_t kBlock = 0x1042;
inline constexpr std::uint16_t kNet = 0x1041;
inline constexpr std::uint16_t kConsole = 0x1043;
inline constexpr std::uint16_t kEntropy = 0x1044;
inline constexpr std::uint16_t kSocket = 0x1053;
inline constexpr std::uint16_t kBalloon = 0x1045;

/// Bits of device_status. [virtio1.2 2.1 Device Status Field]
inline constexpr std::uint8_t kAcknowledge = 1, kDriver = 2, kDriverOk = 4, kFeaturesOk = 8, kNeedsReset = 64,
                              kFailed = 128;

inline constexpr std::uint16_t kNext = 1, kWrite = 2, kIndirect = 4;  ///< flags of a descriptor

struct Descriptor {
    std::uint64_t address;
    std::uint32_t length;
    std::uint16_t flags;
    std::uint16_t next;
};

inline constexpr std::uint16_t kQueueSize = 8;

struct Available {
    std::uint16_t flags, index, ring[kQueueSize], used_event;
};
struct UsedElement {
    std::uint32_t id, length;
};
struct Used {
    std::uint16_t flags, index;
    UsedElement ring[kQueueSize];
    std::uint16_t available_event;
};

/// The rings of a queue; the device reads and writes them behind the compiler's back, hence volatile.
struct Rings {
    alignas(16) volatile Descriptor descriptors[kQueueSize];
    alignas(2) volatile Available available;
    alignas(4) volatile Used used;
};

class Device {
public:
    /// Finds the n-th device of this kind and its registers; ends the payload if there is none.
    Device(std::uint16_t device_id, unsigned n);

    /// Reset, negotiation of VERSION_1 and those of `features` that are offered, `queue`, DRIVER_OK; rings
    /// are cleared.
    void start(std::uint64_t features = 0, std::uint16_t queue = 0);
    void reset();
    std::uint8_t status();

    Rings& rings() { return rings_; }
    /// Makes descriptor `head` available and rings the doorbell.
    void submit(std::uint16_t head);
    void ring_doorbell();
    /// Waits until as many chains are used as were submitted; false: the device wants a reset, or nothing
    /// happens.
    bool wait();

    /// Offsets in the common configuration. [virtio1.2 4.1.4.3 Common configuration structure layout]
    std::uint64_t common() const { return structures_[1].address; }
    std::uint64_t doorbell() const { return doorbell_; }
    /// A part of the device's registers. [virtio1.2 4.1.4 Virtio Structure PCI Capabilities]
    struct Structure {
        std::uint64_t address;
        std::uint32_t length;
    };
    /// By cfg_type, 1 to 4; address 0: the device has none.
    const Structure& structure(unsigned type) const { return structures_[type]; }
    /// Where VIRTIO_PCI_CAP_PCI_CFG lies in configuration space.
    std::uint8_t window() const { return window_; }
    pci::Function function() const { return function_; }

private:
    pci::Function function_{};
    Structure structures_[5]{};
    std::uint8_t window_{0};
    std::uint16_t queue_{0};
    std::uint64_t doorbell_{0};
    std::uint32_t notify_multiplier_{0};
    Rings& rings_;
};

/// One sector of a virtio block device, in or out; false: the device refused it.
bool read_sector(Device& disk, std::uint64_t sector, void* data);
bool write_sector(Device& disk, std::uint64_t sector, const void* data);

}  // namespace payload::virtio
