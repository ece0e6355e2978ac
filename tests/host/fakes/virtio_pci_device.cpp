// SPDX-License-Identifier: MIT
#include "fakes/virtio_pci_device.hpp"

#include "vmm/base/machine.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <stdexcept>

namespace hv::fake {
namespace {

using namespace hv::virtio;

void expect(bool condition, const char* what) {
    if (!condition)
        throw std::logic_error{what};
}

template <class T>
std::atomic_ref<T> word(std::uint64_t address) {
    return std::atomic_ref<T>{*machine::hva<T>(Hpa{address})};
}

/// Widths of the fields of the common configuration, by their offset.
const std::map<std::size_t, unsigned> kWidths{{0, 4},  {4, 4},  {8, 4},  {12, 4}, {16, 2}, {18, 2}, {20, 1},
                                              {21, 1}, {22, 2}, {24, 2}, {26, 2}, {28, 2}, {30, 2}, {32, 4},
                                              {36, 4}, {40, 4}, {44, 4}, {48, 4}, {52, 4}};

}  // namespace

std::vector<std::byte> VirtioPciDevice::Chain::bytes() const {
    std::vector<std::byte> all;
    for (const auto& piece : readable)
        all.insert(all.end(), piece.begin(), piece.end());
    return all;
}

void VirtioPciDevice::Chain::write(std::size_t offset, std::span<const std::byte> data) const {
    for (const auto& piece : writable) {
        if (offset >= piece.size()) {
            offset -= piece.size();
            continue;
        }
        const std::size_t size = std::min(piece.size() - offset, data.size());
        std::copy_n(data.begin(), size, piece.begin() + static_cast<std::ptrdiff_t>(offset));
        data = data.subspan(size);
        offset = 0;
    }
    expect(data.empty(), "the device writes more than there is room for");
}

std::size_t VirtioPciDevice::Chain::writable_size() const {
    std::size_t size = 0;
    for (const auto& piece : writable)
        size += piece.size();
    return size;
}

VirtioPciDevice::VirtioPciDevice(const Options& options)
    : config{options.config}, features_{options.features}, vectors_{options.vectors} {
    for (const std::uint16_t size : options.queue_sizes)
        queues.push_back({.size = size, .max_size = size});
    store<std::uint16_t>(&config_space[0x00], kVendor);
    store<std::uint16_t>(&config_space[0x02], static_cast<std::uint16_t>(kFirstModernId + options.type));
    store<std::uint16_t>(&config_space[0x04], 0x0406);
    config_space[0x06] = 0x10;  // it has capabilities
    config_space[0x34] = kCommonCap;
    add_capability(kCommonCap, CapabilityType::common, 0, kCommonSize, 0, kIsrCap);
    add_capability(kIsrCap, CapabilityType::isr, kIsr, 1, 0, kConfigCap);
    add_capability(kConfigCap, CapabilityType::device, kConfig, static_cast<std::uint32_t>(config.size()), 0,
                   kNotifyCap);
    add_capability(kNotifyCap, CapabilityType::notify, kNotify, static_cast<std::uint32_t>(4 * queues.size()),
                   4, kWindowCap);
    add_capability(kWindowCap, CapabilityType::pci, 0, 0, 0, 0);
}

void VirtioPciDevice::add_capability(std::uint8_t at, CapabilityType type, std::uint32_t offset,
                                     std::uint32_t size, std::uint32_t data, std::uint8_t next) {
    config_space[at] = 0x09;
    config_space[at + 1U] = next;
    config_space[at + 2U] = 20;
    config_space[at + kCapType] = static_cast<std::uint8_t>(type);
    config_space[at + kCapBar] = kBar;
    store(&config_space[at + kCapOffset], offset);
    store(&config_space[at + kCapLength], size);
    store(&config_space[at + kCapData], data);
}

// --- registers
// -----------------------------------------------------------------------------------------------------------

std::uint32_t VirtioPciDevice::read_register(std::size_t at, unsigned size) {
    if (on_read)
        on_read(at);
    std::uint32_t value = ~std::uint32_t{0};
    if (vanished)
        return value;
    if (at < kIsr)
        return read_common(at, size);
    expect(at >= kConfig && at + size <= kConfig + config.size(), "a read outside the structures");
    std::memcpy(&value, &config[at - kConfig], size);
    return value;
}

std::uint32_t VirtioPciDevice::read_common(std::size_t at, unsigned size) {
    expect(kWidths.contains(at) && kWidths.at(at) == size, "a field is read with another width");
    CommonConfig common{};
    common.device_feature = static_cast<std::uint32_t>(features_ >> (32 * device_half_));
    common.config_msix_vector = config_vector;
    common.num_queues = static_cast<std::uint16_t>(queues.size());
    common.device_status = status;
    common.config_generation = unsteady_config ? generation_++ : generation_;
    if (selected_ < queues.size()) {
        const Queue& queue = queues[selected_];
        common.queue_size = queue.size;
        common.queue_msix_vector = queue.vector;
        common.queue_notify_off = static_cast<std::uint16_t>(selected_ + notify_offset);
    }
    std::uint32_t value = 0;
    std::memcpy(&value, reinterpret_cast<const std::byte*>(&common) + at, size);
    return value;
}

void VirtioPciDevice::write_register(std::size_t at, unsigned size, std::uint32_t value) {
    if (vanished)
        return;
    if (at >= kNotify) {
        const auto queue = static_cast<unsigned>((at - kNotify) / 4);
        expect(size == 2 && (at - kNotify) % 4 == 0 && value == queue, "a doorbell with a wrong number");
        expect(ready(), "a doorbell before DRIVER_OK");
        doorbells.push_back(queue);
        if (on_notify)
            on_notify(queue);
        return;
    }
    expect(kWidths.contains(at) && kWidths.at(at) == size, "a field is written with another width");
    if (at == offsetof(CommonConfig, device_status))
        return write_status(static_cast<std::uint8_t>(value));
    write_common(at, value);
}

void VirtioPciDevice::write_common(std::size_t at, std::uint32_t value) {
    switch (at) {
    case offsetof(CommonConfig, device_feature_select): device_half_ = value & 1; return;
    case offsetof(CommonConfig, driver_feature_select): driver_half_ = value & 1; return;
    case offsetof(CommonConfig, driver_feature):
        expect((status & FEATURES_OK) == 0, "features after FEATURES_OK");
        driver_features &= ~(std::uint64_t{0xffff'ffff} << (32 * driver_half_));
        driver_features |= std::uint64_t{value} << (32 * driver_half_);
        return;
    case offsetof(CommonConfig, config_msix_vector):
        config_vector = value < vectors_ ? static_cast<std::uint16_t>(value) : VIRTIO_MSI_NO_VECTOR;
        return;
    case offsetof(CommonConfig, queue_select): selected_ = static_cast<std::uint16_t>(value); return;
    default: write_queue(at, value);
    }
}

void VirtioPciDevice::write_queue(std::size_t at, std::uint32_t value) {
    expect(selected_ < queues.size(), "a queue that there is not");
    expect((status & FEATURES_OK) != 0 && !ready(), "a queue is set up at the wrong time");
    Queue& queue = queues[selected_];
    expect(!queue.enabled, "a queue is set up that is enabled");
    const auto half = [&](std::uint64_t& field) {
        const unsigned shift = at % 8 == 0 ? 0 : 32;
        field = (field & ~(std::uint64_t{0xffff'ffff} << shift)) | std::uint64_t{value} << shift;
    };
    switch (at) {
    case offsetof(CommonConfig, queue_size):
        expect(std::has_single_bit(value) && value <= queue.max_size, "a queue of a wrong size");
        queue.size = static_cast<std::uint16_t>(value);
        return;
    case offsetof(CommonConfig, queue_msix_vector):
        queue.vector =
            value < vectors_ && vectors_left > 0 ? static_cast<std::uint16_t>(value) : VIRTIO_MSI_NO_VECTOR;
        vectors_left = static_cast<std::uint16_t>(vectors_left - (value < vectors_ && vectors_left > 0));
        return;
    case offsetof(CommonConfig, queue_enable):
        expect(queue.descriptors % 16 == 0 && queue.driver % 2 == 0 && queue.device % 4 == 0,
               "a queue is misaligned");
        queue.enabled = true;
        return;
    default: break;
    }
    half(at < 40 ? queue.descriptors : at < 48 ? queue.driver : queue.device);
}

void VirtioPciDevice::write_status(std::uint8_t value) {
    if (value == 0)
        return reset();
    expect((status & ~value & ~DEVICE_NEEDS_RESET) == 0 || value == FAILED, "a status bit is taken back");
    if ((value & FEATURES_OK) != 0 && (status & FEATURES_OK) == 0) {
        expect((driver_features & ~features_) == 0, "a feature that was not offered");
        if (refuses_features)
            value = static_cast<std::uint8_t>(value & ~FEATURES_OK);
    }
    status = value;
}

void VirtioPciDevice::reset() {
    ++resets;
    if (stuck)
        return;
    status = 0;
    driver_features = 0;
    config_vector = VIRTIO_MSI_NO_VECTOR;
    for (Queue& queue : queues)
        queue = {.size = queue.max_size, .max_size = queue.max_size};
}

// --- rings
// -----------------------------------------------------------------------------------------------------------

std::optional<VirtioPciDevice::Chain> VirtioPciDevice::pop(unsigned index) {
    Queue& queue = queues.at(index);
    if (!queue.enabled || !ready())
        return std::nullopt;
    if (word<std::uint16_t>(queue.driver + 2).load() == queue.next_avail) {
        want_notifications(index, true);
        return std::nullopt;
    }
    const auto head = word<std::uint16_t>(queue.driver + 4 + 2 * (queue.next_avail % queue.size)).load();
    ++queue.next_avail;
    Chain chain{.head = head, .readable = {}, .writable = {}, .indirect = false};
    std::uint64_t table = queue.descriptors;
    std::uint64_t at = head;
    std::uint64_t entries = queue.size;
    for (unsigned count = 0;; ++count) {
        expect(count < queue.size && at < entries, "a chain that is too long or leaves its table");
        const auto descriptor = *machine::hva<VirtqDescriptor>(Hpa{table + 16 * at});
        if ((descriptor.flags & VIRTQ_DESC_F_INDIRECT) != 0) {
            expect((driver_features & VIRTIO_F_INDIRECT_DESC) != 0 && !chain.indirect, "indirect, unasked");
            chain.indirect = true;
            table = descriptor.addr;
            entries = descriptor.len / 16;
            at = 0;
            continue;
        }
        const bool writes = (descriptor.flags & VIRTQ_DESC_F_WRITE) != 0;
        expect(writes || chain.writable.empty(), "a readable buffer behind writable ones");
        (writes ? chain.writable : chain.readable)
            .emplace_back(machine::hva(Hpa{descriptor.addr}), descriptor.len);
        if ((descriptor.flags & VIRTQ_DESC_F_NEXT) == 0)
            return chain;
        at = descriptor.next;
    }
}

void VirtioPciDevice::push(unsigned index, std::uint32_t id, std::uint32_t written) {
    Queue& queue = queues.at(index);
    const std::uint64_t element = queue.device + 4 + 8 * (queue.used % queue.size);
    word<std::uint32_t>(element).store(id);
    word<std::uint32_t>(element + 4).store(written);
    const std::uint16_t old = queue.used++;
    word<std::uint16_t>(queue.device + 2).store(queue.used);
    const auto flags = word<std::uint16_t>(queue.driver).load();
    const auto event = word<std::uint16_t>(queue.driver + 4 + 2 * queue.size).load();
    if (event_index() ? event == old : (flags & VIRTQ_AVAIL_F_NO_INTERRUPT) == 0)
        ++interrupts[queue.vector];
}

void VirtioPciDevice::set_used_index(unsigned index, std::uint16_t value) {
    word<std::uint16_t>(queues.at(index).device + 2).store(value);
}

void VirtioPciDevice::want_notifications(unsigned index, bool wanted) {
    Queue& queue = queues.at(index);
    if (event_index())
        word<std::uint16_t>(queue.device + 4 + 8 * queue.size)
            .store(static_cast<std::uint16_t>(wanted ? queue.next_avail : queue.next_avail - 1));
    else
        word<std::uint16_t>(queue.device).store(wanted ? 0 : VIRTQ_USED_F_NO_NOTIFY);
}

}  // namespace hv::fake
