// SPDX-License-Identifier: MIT
#include "vmm/virtio/virtio_pci.hpp"

#include "vmm/base/bytes.hpp"
#include "vmm/base/log.hpp"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <span>

namespace hv::virtio {
namespace {

constexpr std::uint8_t kModernRevision = 1;
constexpr unsigned kBar = 0;
constexpr unsigned kMsixBar = 1;

constexpr std::uint32_t class_of(std::uint16_t device_id) {
    switch (device_id) {
    case VIRTIO_ID_NET: return 0x02'0000;
    case VIRTIO_ID_BLOCK: return 0x01'8000;
    default: return 0xff'0000;
    }
}

PciIdentity identity_of(const VirtioDevice& device) {
    const auto id = static_cast<std::uint16_t>(kFirstModernId + device.device_id());
    return {kVendor, id, kModernRevision, class_of(device.device_id()), kVendor, id};
}

constexpr std::uint32_t half(std::uint64_t value, std::uint32_t select) {
    return select < 2 ? static_cast<std::uint32_t>(value >> (32 * select)) : 0;
}
constexpr std::uint64_t with_half(std::uint64_t value, std::uint32_t select, std::uint64_t part) {
    const std::uint64_t mask = std::uint64_t{0xffff'ffff} << (32 * select);
    return (value & ~mask) | ((part << (32 * select)) & mask);
}

constinit log::RateLimit broken_driver_log;

}  // namespace

VirtioPciTransport::VirtioPciTransport(VirtioDevice& device, InterruptBus& interrupts, IrqLine* pin)
    : PciFunction{identity_of(device), pin},
      device_{device},
      queue_count_{device.queue_count()},
      msix_{queue_count_ + 1, interrupts} {
    HV_ASSERT(queue_count_ <= VirtioDevice::kMaxQueues);
    add_bar(kBar, kBarSize, *this);
    add_capabilities();
    add_msix(kMsixBar, msix_);
    registers_.with([&](Registers& registers) { clear(registers); });
    device_.set_transport(*this);
}

void VirtioPciTransport::add_capabilities() {
    const auto add = [&](CapabilityType type, std::uint32_t offset, std::uint32_t length,
                         std::uint32_t extra) {
        const bool longer = type == CapabilityType::notify || type == CapabilityType::pci;
        std::array<std::uint8_t, 18> body{};  // follows ID and next pointer
        body[0] = longer ? 20 : 16;           // cap_len
        body[1] = static_cast<std::uint8_t>(type);
        body[kCapBar - 2] = kBar;
        store(&body[kCapOffset - 2], offset);
        store(&body[kCapLength - 2], length);
        store(&body[kCapData - 2], extra);
        std::array<std::uint8_t, 18> writable{};
        if (type == CapabilityType::pci) {
            writable[kCapBar - 2] = 0xff;
            store(&writable[kCapOffset - 2], ~std::uint64_t{0});
            store(&writable[kCapData - 2], ~std::uint32_t{0});
        }
        return add_capability(pci::kCapabilityVendor, std::span{body}.first(body[0] - 2u),
                              std::span{writable}.first(body[0] - 2u));
    };
    add(CapabilityType::common, kCommonOffset, kCommonSize, 0);
    add(CapabilityType::isr, kIsrOffset, 1, 0);
    add(CapabilityType::device, kDeviceOffset, kRegionSize, 0);
    add(CapabilityType::notify, kNotifyOffset, queue_count_ * kNotifyMultiplier, kNotifyMultiplier);
    config_access_ = add(CapabilityType::pci, 0, 0, 0);
}

// --- interrupts
// -------------------------------------------------------------------------------------------------------------

std::uint16_t VirtioPciTransport::checked_vector(std::uint64_t vector) const {
    return vector < msix_.vectors() ? static_cast<std::uint16_t>(vector) : VIRTIO_MSI_NO_VECTOR;
}

void VirtioPciTransport::interrupt(std::uint16_t vector, std::uint8_t cause) {
    if (msix_enabled()) {
        if (vector != VIRTIO_MSI_NO_VECTOR)
            msix_.raise(vector);
        return;
    }
    isr_.fetch_or(cause);
    if ((status_.load() & DRIVER_OK) == 0)
        isr_ = 0;  // a reset came first, or comes now and clears it as well
    update_intx();
}

void VirtioPciTransport::queue_interrupt(unsigned queue) {
    interrupt(queue_vectors_[queue].load(std::memory_order_relaxed), kIsrQueue);
}

void VirtioPciTransport::config_changed() {
    generation_.fetch_add(1);
    if ((status_.load() & DRIVER_OK) != 0)
        interrupt(config_vector_.load(std::memory_order_relaxed), kIsrConfig);
}

void VirtioPciTransport::needs_reset() {
    // [virtio1.2 2.1.2 Device Requirements: Device Status Field]
    std::uint8_t before = status_.load();
    do {
        // Who reports this may come late: after a reset there is nothing wrong.
        if ((before & DRIVER_OK) == 0 || (before & DEVICE_NEEDS_RESET) != 0)
            return;
    } while (!status_.compare_exchange_weak(before, before | DEVICE_NEEDS_RESET));
    if (broken_driver_log.admit())
        log::warning(log::Topic::virtio,
                     "device %u: its driver broke the rules of the rings, it needs a reset",
                     device_.device_id());
    interrupt(config_vector_.load(std::memory_order_relaxed), kIsrConfig);
}

// --- BAR 0
// ------------------------------------------------------------------------------------------------------------------

std::uint64_t VirtioPciTransport::read(std::uint64_t offset, unsigned size) {
    switch (offset / kRegionSize) {
    case kCommonOffset / kRegionSize: return read_common(offset, size);
    case kIsrOffset / kRegionSize: {
        if (offset != kIsrOffset)
            return 0;
        const std::uint8_t isr = isr_.exchange(0);
        update_intx();
        return isr;
    }
    case kDeviceOffset / kRegionSize: return device_.read_config(offset - kDeviceOffset, size);
    default: return 0;
    }
}

void VirtioPciTransport::write_registers(std::uint64_t offset, unsigned size, std::uint64_t value) {
    if (offset < kIsrOffset)
        write_common(offset, size, value);
    else if (offset >= kDeviceOffset)
        device_.write_config(offset - kDeviceOffset, size, value);
}

std::uint64_t VirtioPciTransport::offered_features() const {
    return device_.features() | VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;
}

std::uint64_t VirtioPciTransport::read_common(std::uint64_t offset, unsigned size) {
    CommonConfig config{};
    bool resetting = false;
    registers_.with([&](Registers& registers) {
        resetting = registers.resetting;
        finish_reset(registers);
        config.device_feature_select = registers.device_feature_select;
        config.device_feature = half(offered_features(), registers.device_feature_select);
        config.driver_feature_select = registers.driver_feature_select;
        config.driver_feature = half(registers.driver_features, registers.driver_feature_select);
        config.config_msix_vector = config_vector_.load();
        config.num_queues = static_cast<std::uint16_t>(queue_count_);
        config.device_status = status_.load();
        config.config_generation = generation_.load();
        config.queue_select = registers.queue_select;
        if (registers.queue_select >= queue_count_)
            return;  // a queue_size of 0: there is no such queue
        const QueueLayout& queue = registers.queues[registers.queue_select];
        config.queue_size = queue.size;
        config.queue_msix_vector = queue_vectors_[registers.queue_select].load();
        config.queue_enable = registers.enabled[registers.queue_select] ? 1 : 0;
        config.queue_notify_off = registers.queue_select;
        config.queue_desc = queue.descriptors.raw;
        config.queue_driver = queue.driver.raw;
        config.queue_device = queue.device.raw;
    });
    if (resetting)
        update_intx();
    std::uint64_t value = 0;
    if (offset < kCommonSize)
        std::memcpy(&value, reinterpret_cast<const std::byte*>(&config) + offset,
                    std::min<std::size_t>(size, kCommonSize - offset));
    return value;
}

void VirtioPciTransport::write_common(std::uint64_t offset, unsigned size, std::uint64_t value) {
    // Each field is written with its own width, 64-bit ones also by halves [virtio1.2 4.1.3.1 Driver
    // Requirements: PCI Device Layout]; anything else has no effect.
    if (offset == offsetof(CommonConfig, device_status) && size == 1)
        return write_status(static_cast<std::uint8_t>(value));
    registers_.with([&](Registers& registers) {
        if (registers.resetting)
            return;
        const bool negotiating = (status_.load() & FEATURES_OK) == 0;
        if (offset == offsetof(CommonConfig, device_feature_select) && size == 4)
            registers.device_feature_select = static_cast<std::uint32_t>(value);
        else if (offset == offsetof(CommonConfig, driver_feature_select) && size == 4)
            registers.driver_feature_select = static_cast<std::uint32_t>(value);
        else if (offset == offsetof(CommonConfig, driver_feature) && size == 4) {
            if (negotiating && registers.driver_feature_select < 2)
                registers.driver_features =
                    with_half(registers.driver_features, registers.driver_feature_select, value);
        } else if (offset == offsetof(CommonConfig, config_msix_vector) && size == 2)
            config_vector_ = checked_vector(value);
        else if (offset == offsetof(CommonConfig, queue_select) && size == 2)
            registers.queue_select = static_cast<std::uint16_t>(value);
        else if (registers.queue_select < queue_count_)
            write_queue(registers, offset, size, value);
    });
}

void VirtioPciTransport::write_queue(Registers& registers, std::uint64_t offset, unsigned size,
                                     std::uint64_t value) {
    const unsigned index = registers.queue_select;
    if (offset == offsetof(CommonConfig, queue_msix_vector) && size == 2) {
        queue_vectors_[index] = checked_vector(value);
        return;
    }
    if (registers.enabled[index] || (status_.load() & DRIVER_OK) != 0)
        return;  // the layout is settled
    QueueLayout& queue = registers.queues[index];
    if (offset == offsetof(CommonConfig, queue_enable) && size == 2) {
        registers.enabled[index] = value == 1;
    } else if (offset == offsetof(CommonConfig, queue_size) && size == 2) {
        const auto entries = static_cast<std::uint16_t>(value);
        if (std::has_single_bit(entries) && entries <= device_.max_queue_size(index))
            queue.size = entries;
    } else if (offset >= offsetof(CommonConfig, queue_desc) &&
               offset < offsetof(CommonConfig, queue_notify_data)) {
        const std::uint64_t at = offset - offsetof(CommonConfig, queue_desc);
        const std::array<Gpa*, 3> fields{&queue.descriptors, &queue.driver, &queue.device};
        Gpa& field = *fields[at / 8];
        if (size == 8 && at % 8 == 0)
            field = Gpa{value};
        else if (size == 4 && at % 4 == 0)
            field = Gpa{with_half(field.raw, static_cast<std::uint32_t>(at / 4 % 2), value)};
    }
}

void VirtioPciTransport::write_status(std::uint8_t value) {
    bool started = false;
    bool usable = true;
    registers_.with([&](Registers& registers) {
        if (registers.resetting)
            return finish_reset(registers);
        if (value == 0)
            return begin_reset(registers);
        const std::uint8_t status = status_.load();
        auto added = static_cast<std::uint8_t>(value & ~status &
                                               (ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | FAILED));
        // [virtio1.2 2.2.2 Device Requirements: Feature Bits]: FEATURES_OK stays off if the device cannot
        // work like that.
        if ((added & FEATURES_OK) != 0) {
            const std::uint64_t features = registers.driver_features;
            if ((features & ~offered_features()) != 0 || (features & VIRTIO_F_VERSION_1) == 0 ||
                !device_.accepts(features))
                added = static_cast<std::uint8_t>(added & ~FEATURES_OK);
            else
                device_.negotiated(features);
        }
        if (((status | added) & FEATURES_OK) == 0)
            added = static_cast<std::uint8_t>(added & ~DRIVER_OK);
        started = (added & DRIVER_OK) != 0;
        status_.fetch_or(added);  // an interrupt counts from here on
        if (started)
            usable = start(registers);
    });
    update_intx();
    if (!usable)
        needs_reset();
    // Buffers may have been made available before DRIVER_OK, when doorbells had no effect.
    for (unsigned queue = 0; started && queue < queue_count_; ++queue)
        device_.queue_notified(queue);
}

bool VirtioPciTransport::start(const Registers& registers) {
    std::array<QueueLayout, VirtioDevice::kMaxQueues> layouts{};
    for (unsigned i = 0; i < queue_count_; ++i)
        if (registers.enabled[i])
            layouts[i] = registers.queues[i];
    return device_.start(registers.driver_features, std::span{layouts}.first(queue_count_));
}

// --- reset
// ------------------------------------------------------------------------------------------------------------------

void VirtioPciTransport::begin_reset(Registers& registers) {
    if (status_.load() == 0)
        return clear(registers);
    device_.stop();
    // The driver sees the reset complete by a status of 0, once no request is under way that could touch its
    // memory [virtio1.2 4.1.4.3.1 Device Requirements: Common configuration structure layout].
    registers.resetting = true;
    finish_reset(registers);
}

void VirtioPciTransport::finish_reset(Registers& registers) {
    if (registers.resetting && device_.drained())
        clear(registers);
}

void VirtioPciTransport::clear(Registers& registers) {
    registers = Registers{};
    for (unsigned i = 0; i < queue_count_; ++i)
        registers.queues[i].size = device_.max_queue_size(i);
    config_vector_ = VIRTIO_MSI_NO_VECTOR;
    for (auto& vector : queue_vectors_)
        vector = VIRTIO_MSI_NO_VECTOR;
    status_ = 0;
    isr_ = 0;
}

bool VirtioPciTransport::settle() {
    return registers_.with([&](Registers& registers) {
        if (!registers.resetting)
            begin_reset(registers);
        finish_reset(registers);
        return !registers.resetting;
    });
}

void VirtioPciTransport::reset() {
    const bool settled = settle();
    HV_ASSERT(settled);
    update_intx();
}

// --- access through configuration space [virtio1.2 4.1.4.9 PCI configuration access capability]
// -----------------------------

std::optional<VirtioPciTransport::WindowAccess> VirtioPciTransport::window_access(unsigned offset,
                                                                                  unsigned size) const {
    const unsigned data = config_access_ + kCapData;
    if (offset + size <= data || offset >= data + 4)
        return std::nullopt;
    const auto at = config<std::uint32_t>(config_access_ + kCapOffset);
    const auto length = config<std::uint32_t>(config_access_ + kCapLength);
    const auto bar = config<std::uint8_t>(config_access_ + kCapBar);
    if ((length != 1 && length != 2 && length != 4) || bar >= kBars || at % length != 0 ||
        at >= bar_size(bar))
        return std::nullopt;
    return WindowAccess{*bar_device(bar), at, length};
}

void VirtioPciTransport::before_config_read(unsigned offset, unsigned size) {
    if (const auto access = window_access(offset, size))
        set_config(config_access_ + kCapData,
                   static_cast<std::uint32_t>(access->device.read(access->offset, access->size)));
}

void VirtioPciTransport::after_config_write(unsigned offset, unsigned size) {
    if (const auto access = window_access(offset, size))
        access->device.write(access->offset, access->size,
                             config<std::uint32_t>(config_access_ + kCapData) & all_ones(access->size));
}

}  // namespace hv::virtio
