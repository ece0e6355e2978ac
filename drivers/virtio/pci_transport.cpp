// SPDX-License-Identifier: MIT
#include "drivers/virtio/pci_transport.hpp"

#include "vmm/base/wait.hpp"

namespace hv::virtio {
namespace {

// Device IDs of functions that have a legacy interface as well [virtio1.2 4.1.2.1 Device Requirements: PCI
// Device Discovery].
constexpr std::uint16_t kTransitionalNet = 0x1000;
constexpr std::uint16_t kTransitionalBlock = 0x1001;
constexpr std::uint16_t kLastModernId = 0x107f;

/// Of a reset at boot.
constexpr std::uint64_t kResetTimeNs = 1'000'000'000;

/// Looks after which a device is not expected to come out of a reset any more: two seconds.
constexpr unsigned kMaxResetPolls = 2000;

/// What is no longer there reads as all ones.
constexpr std::uint8_t kVanished = 0xff;

/// Up to queue_device, which is as far as the first versions of the structure go.
constexpr std::size_t kCommonNeeded = offsetof(CommonConfig, queue_notify_data);

}  // namespace

std::uint16_t device_type(const pci::Function& function) {
    if (function.vendor != kVendor)
        return 0;
    if (function.device == kTransitionalNet)
        return VIRTIO_ID_NET;
    if (function.device == kTransitionalBlock)
        return VIRTIO_ID_BLOCK;
    if (function.device < kFirstModernId || function.device > kLastModernId)
        return 0;
    return static_cast<std::uint16_t>(function.device - kFirstModernId);
}

// --- structures
// -----------------------------------------------------------------------------------------------------------

Expected<PciTransport> PciTransport::create(pci::PciConfig& config, const pci::Function& function,
                                            const Bars& bars) {
    PciTransport transport{config, function};
    transport.find_structures(bars);
    if (!transport.has_structures())
        return Unexpected{Error::unsupported};
    return transport;
}

void PciTransport::find_structures(const Bars& bars) {
    std::uint8_t at = 0;
    // 192 bytes hold 48 capabilities: a list that is longer is a ring.
    for (unsigned left = 48; left > 0; --left) {
        const auto next = pci::find_capability(*config_, function_, pci::Capability::vendor, at);
        if (!next)
            return;
        at = *next;
        note_structure(at, bars);
    }
}

void PciTransport::note_structure(std::uint8_t capability, const Bars& bars) {
    const auto field = [&](unsigned offset) { return static_cast<std::uint16_t>(capability + offset); };
    const std::uint8_t type = config_->read8(function_.address, field(kCapType));
    const std::uint8_t bar = config_->read8(function_.address, field(kCapBar));
    const std::uint32_t offset = config_->read32(function_.address, field(kCapOffset));
    const std::uint32_t size = config_->read32(function_.address, field(kCapLength));
    // Other values of bar and type are reserved, and such structures to be ignored.
    const std::uint32_t alignment = type == static_cast<unsigned>(CapabilityType::notify) ? 2 : 4;
    if (bar >= bars.size() || bars[bar] == nullptr || offset % alignment != 0)
        return;
    if (offset > bars[bar]->size() || size > bars[bar]->size() - offset)
        return;
    const Structure structure{bars[bar], offset, size};
    // The first one of a type is the one that the device prefers.
    if (type == static_cast<unsigned>(CapabilityType::common) && common_.registers == nullptr) {
        common_ = structure;
    } else if (type == static_cast<unsigned>(CapabilityType::device) && device_.registers == nullptr) {
        device_ = structure;
    } else if (type == static_cast<unsigned>(CapabilityType::notify) && notify_.registers == nullptr) {
        notify_ = structure;
        notify_multiplier_ = config_->read32(function_.address, field(kCapData));
    }
}

bool PciTransport::has_structures() const {
    return common_.registers != nullptr && common_.size >= kCommonNeeded && notify_.registers != nullptr;
}

// --- common configuration
// -------------------------------------------------------------------------------------------------

std::uint8_t PciTransport::status() {
    return common_.registers->read8(common(offsetof(CommonConfig, device_status)));
}

void PciTransport::write_status(std::uint8_t status) {
    common_.registers->write8(common(offsetof(CommonConfig, device_status)), status);
}

std::uint8_t PciTransport::config_generation() {
    return common_.registers->read8(common(offsetof(CommonConfig, config_generation)));
}

void PciTransport::select_queue(std::uint16_t index) {
    common_.registers->write16(common(offsetof(CommonConfig, queue_select)), index);
}

PciTransport::Reset PciTransport::reset_progress() {
    const std::uint8_t value = status();
    if (value == kVanished)
        return Reset::failed;
    return value == 0 ? Reset::done : Reset::pending;
}

PciTransport::Reset PciTransport::poll_reset(std::uint64_t features) {
    const Reset progress = reset_progress();
    if (progress == Reset::pending)
        return ++reset_polls_ < kMaxResetPolls ? Reset::pending : Reset::failed;
    if (progress == Reset::failed)
        return Reset::failed;
    const auto agreed = negotiate(features);
    return agreed && *agreed == features ? Reset::done : Reset::failed;
}

Expected<void> PciTransport::reset(const Clock& clock) {
    begin_reset();
    Reset progress{};
    const auto is_over = [&] {
        progress = reset_progress();
        return progress != Reset::pending;
    };
    if (!wait_until(clock, kResetTimeNs, is_over))
        return Unexpected{Error::timed_out};
    if (progress == Reset::failed)
        return Unexpected{Error::io_error};
    return {};
}

bool PciTransport::needs_reset() {
    return (status() & DEVICE_NEEDS_RESET) != 0;  // or all ones
}

void PciTransport::shut_down() {
    begin_reset();
    pci::disable(*config_, function_);
}

Expected<std::uint64_t> PciTransport::negotiate(std::uint64_t wanted) {
    // [virtio1.2 3.1.1 Driver Requirements: Device Initialization]
    write_status(ACKNOWLEDGE);
    write_status(ACKNOWLEDGE | DRIVER);
    DeviceRegisters& registers = *common_.registers;
    std::uint64_t features = 0;
    for (std::uint32_t half = 0; half < 2; ++half) {
        registers.write32(common(offsetof(CommonConfig, device_feature_select)), half);
        features |= std::uint64_t{registers.read32(common(offsetof(CommonConfig, device_feature)))}
                    << (32 * half);
    }
    features &= wanted | VIRTIO_F_VERSION_1;
    if ((features & VIRTIO_F_VERSION_1) == 0) {
        write_status(FAILED);
        return Unexpected{Error::unsupported};
    }
    for (std::uint32_t half = 0; half < 2; ++half) {
        registers.write32(common(offsetof(CommonConfig, driver_feature_select)), half);
        registers.write32(common(offsetof(CommonConfig, driver_feature)),
                          static_cast<std::uint32_t>(features >> (32 * half)));
    }
    write_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    const std::uint8_t answer = status();
    if ((answer & FEATURES_OK) == 0 || answer == kVanished) {
        write_status(FAILED);
        return Unexpected{Error::unsupported};
    }
    return features;
}

std::uint16_t PciTransport::queue_count() {
    return common_.registers->read16(common(offsetof(CommonConfig, num_queues)));
}

std::uint16_t PciTransport::max_queue_size(std::uint16_t index) {
    select_queue(index);
    return common_.registers->read16(common(offsetof(CommonConfig, queue_size)));
}

Expected<Doorbell> PciTransport::enable_queue(std::uint16_t index, const DriverQueue& queue,
                                              std::uint16_t vector) {
    DeviceRegisters& registers = *common_.registers;
    select_queue(index);
    registers.write16(common(offsetof(CommonConfig, queue_size)), queue.size());
    registers.write16(common(offsetof(CommonConfig, queue_msix_vector)), vector);
    // [virtio1.2 4.1.5.1.2.1 Driver Requirements: MSI-X Vector Configuration]: read back, for the device may
    // not have got it.
    if (registers.read16(common(offsetof(CommonConfig, queue_msix_vector))) != vector)
        return Unexpected{Error::no_memory};
    // [virtio1.2 4.1.4.4 Notification structure layout]
    const std::uint64_t doorbell =
        std::uint64_t{registers.read16(common(offsetof(CommonConfig, queue_notify_off)))} *
        notify_multiplier_;
    if (doorbell % 2 != 0 || doorbell + sizeof index > notify_.size)
        return Unexpected{Error::unsupported};
    registers.write64(common(offsetof(CommonConfig, queue_desc)), queue.descriptor_area().raw);
    registers.write64(common(offsetof(CommonConfig, queue_driver)), queue.driver_area().raw);
    registers.write64(common(offsetof(CommonConfig, queue_device)), queue.device_area().raw);
    registers.write16(common(offsetof(CommonConfig, queue_enable)), 1);
    return Doorbell{*notify_.registers, notify_.offset + static_cast<std::size_t>(doorbell), index};
}

void PciTransport::set_config_vector(std::uint16_t vector) {
    common_.registers->write16(common(offsetof(CommonConfig, config_msix_vector)), vector);
}

// --- device configuration space
// -----------------------------------------------------------------------------------------

std::uint8_t PciTransport::config8(std::size_t offset) {
    return has_config(offset, 1) ? device_.registers->read8(device_.offset + offset) : std::uint8_t{0};
}

std::uint16_t PciTransport::config16(std::size_t offset) {
    return has_config(offset, 2) ? device_.registers->read16(device_.offset + offset) : std::uint16_t{0};
}

std::uint32_t PciTransport::config32(std::size_t offset) {
    return has_config(offset, 4) ? device_.registers->read32(device_.offset + offset) : 0;
}

std::uint64_t PciTransport::config64(std::size_t offset) {
    return has_config(offset, 8) ? device_.registers->read64(device_.offset + offset) : 0;
}

}  // namespace hv::virtio
