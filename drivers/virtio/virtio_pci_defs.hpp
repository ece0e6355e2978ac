// SPDX-License-Identifier: MIT
// Virtio over PCI: the constants and layouts that drivers and devices share. [virtio1.2 4.1 Virtio Over PCI
// Bus]
#pragma once

#include <cstddef>
#include <cstdint>

namespace hv::virtio {

// [virtio1.2 4.1.2 PCI Device Discovery]
inline constexpr std::uint16_t kVendor = 0x1af4;
inline constexpr std::uint16_t kFirstModernId = 0x1040;  ///< plus the device type

/// [virtio1.2 4.1.4 Virtio Structure PCI Capabilities], cfg_type.
enum class CapabilityType : std::uint8_t { common = 1, notify, isr, device, pci };
// struct virtio_pci_cap, from the start of the capability.
inline constexpr unsigned kCapType = 3;
inline constexpr unsigned kCapBar = 4;
inline constexpr unsigned kCapOffset = 8;
inline constexpr unsigned kCapLength = 12;
inline constexpr unsigned kCapData = 16;  ///< of the longer ones: the notify multiplier, the window's data

/// struct virtio_pci_common_cfg [virtio1.2 4.1.4.3 Common configuration structure layout].
struct CommonConfig {
    std::uint32_t device_feature_select, device_feature, driver_feature_select, driver_feature;
    std::uint16_t config_msix_vector, num_queues;
    std::uint8_t device_status, config_generation;
    std::uint16_t queue_select;
    std::uint16_t queue_size, queue_msix_vector, queue_enable, queue_notify_off;
    std::uint64_t queue_desc, queue_driver, queue_device;
    std::uint16_t queue_notify_data, queue_reset;
    std::uint32_t padding;
};
static_assert(sizeof(CommonConfig) == 64 && offsetof(CommonConfig, queue_desc) == 32);
inline constexpr std::uint32_t kCommonSize = 60;
inline constexpr std::uint16_t VIRTIO_MSI_NO_VECTOR = 0xffff;

}  // namespace hv::virtio
