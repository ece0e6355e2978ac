// SPDX-License-Identifier: MIT
#include "vmm/devices/pci_host_bridge.hpp"

#include "vmm/base/address.hpp"
#include "vmm/devices/irq_router.hpp"

#include <algorithm>

namespace hv {
namespace {

/// A host bridge without any function of its own; the IDs are those of a generic PCI Express host bridge that
/// guests know.
constexpr PciIdentity kIdentity{0x1b36, 0x0008, 0, 0x06'0000, 0x1af4, 0x1100};

constexpr unsigned kFunctionShift = 12;  ///< ECAM: 4 KiB a function, 8 functions a device
constexpr unsigned kDeviceShift = 15;
constexpr std::uint64_t kFunctionMask = 7;
constexpr std::uint64_t kOffsetMask = 0xfff;
constexpr std::uint32_t kNowhere = ~std::uint32_t{0};

// Address register [pci3 3.2.2.3.2 Software Generation of Configuration Transactions].
constexpr std::uint32_t kAddressEnable = 1u << 31;
constexpr std::uint32_t kAddressBits = 0x80ff'fffc;
constexpr std::uint64_t kDataOffset = guest_map::kPciData - guest_map::kPciAddress;
constexpr std::uint64_t kResetOffset = guest_map::kReset - guest_map::kPciAddress;

}  // namespace

PciHostBridge::PciHostBridge(IoBus& memory, IoDevice* reset_port)
    : memory_{memory}, ports_{*this, reset_port}, ecam_{*this}, self_{kIdentity} {
    self_.bridge_ = this;
    functions_[0] = &self_;
}

Expected<void> PciHostBridge::attach(unsigned device, PciFunction& function) {
    if (device >= kDevices)
        return Unexpected{Error::out_of_range};
    if (functions_[device] != nullptr)
        return Unexpected{Error::already_exists};
    for (PciFunction::Bar& bar : function.bars_) {
        if (bar.device == nullptr)
            continue;
        const std::uint64_t address = align_up(next_address_, bar.size);
        if (address + bar.size > guest_map::kPciWindowEnd)
            return Unexpected{Error::no_memory};
        bar.initial = static_cast<std::uint32_t>(address);
        next_address_ = address + bar.size;
    }
    LockGuard guard{config_lock_};
    function.bridge_ = this;
    // For systems that know neither ACPI nor MP tables: the line of the 8259s, as firmware routes it.
    if (function.pin_ != nullptr)
        function.interrupt_line_ = IrqRouter::pic_irq_of_pci(device % IrqRouter::kPciLines);
    function.reset_config();
    functions_[device] = &function;
    return {};
}

unsigned PciHostBridge::free_device() const {
    unsigned device = 0;
    while (device < kDevices && functions_[device] != nullptr)
        ++device;
    return device;
}

void PciHostBridge::reset() {
    ports_.reset();
    {
        LockGuard guard{config_lock_};
        for (PciFunction* function : functions_)
            if (function != nullptr)
                function->reset_config();
        remap();
    }
    for (PciFunction* function : functions_)
        if (function != nullptr)
            function->update_intx();
}

PciFunction* PciHostBridge::function_at(std::uint64_t offset) const {
    const std::uint64_t device = offset >> kDeviceShift;
    if (device >= kDevices || ((offset >> kFunctionShift) & kFunctionMask) != 0)
        return nullptr;
    return functions_[device];
}

std::uint64_t PciHostBridge::read(std::uint64_t offset, unsigned size) {
    std::uint64_t value = 0;
    for (unsigned done = 0; done < size;) {
        const std::uint64_t at = offset + done;
        const unsigned piece = std::min(size - done, static_cast<unsigned>(4 - (at & 3)));
        PciFunction* function = function_at(at);
        const std::uint64_t part = function != nullptr
                                       ? function->read_config(static_cast<unsigned>(at & kOffsetMask), piece)
                                       : all_ones(piece);
        value |= part << (8 * done);
        done += piece;
    }
    return value;
}

void PciHostBridge::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
    for (unsigned done = 0; done < size;) {
        const std::uint64_t at = offset + done;
        const unsigned piece = std::min(size - done, static_cast<unsigned>(4 - (at & 3)));
        if (PciFunction* function = function_at(at))
            function->write_config(static_cast<unsigned>(at & kOffsetMask), piece,
                                   static_cast<std::uint32_t>(value >> (8 * done)));
        done += piece;
    }
}

void PciHostBridge::remap() {
    const auto for_each_bar = [&](auto&& action) {
        for (PciFunction* function : functions_) {
            for (unsigned i = 0; function != nullptr && i < PciFunction::kBars; ++i) {
                std::uint32_t address = 0;
                const bool decodes = function->decodes(i, address);
                action(function->bars_[i], decodes, address);
            }
        }
    };
    for_each_bar([&](PciFunction::Bar& bar, bool decodes, std::uint32_t address) {
        if (bar.mapped && (!decodes || address != bar.mapped_at))
            bar.mapped = !memory_.remove(bar.mapped_at).has_value();
    });
    for_each_bar([&](PciFunction::Bar& bar, bool decodes, std::uint32_t address) {
        if (!bar.mapped && decodes && memory_.add(address, bar.size, *bar.device)) {
            bar.mapped = true;
            bar.mapped_at = address;
        }
    });
}

std::uint32_t PciHostBridge::Ports::selected() const {
    const std::uint32_t address = address_.load(std::memory_order_relaxed);
    if ((address & kAddressEnable) == 0 || (address & 0x00ff'0000) != 0)
        return kNowhere;
    return (address & 0xff00) << 4 | (address & 0xfc);
}

std::uint64_t PciHostBridge::Ports::read(std::uint64_t offset, unsigned size) {
    if (offset == 0 && size == 4)
        return address_.load(std::memory_order_relaxed);
    if (offset == kResetOffset && size == 1 && reset_port_ != nullptr)
        return reset_port_->read(0, 1);
    const std::uint32_t base = selected();
    if (offset < kDataOffset || base == kNowhere)
        return all_ones(size);
    return bridge_.read(base + (offset - kDataOffset), size);
}

void PciHostBridge::Ports::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
    if (offset == 0 && size == 4)
        return address_.store(static_cast<std::uint32_t>(value) & kAddressBits, std::memory_order_relaxed);
    if (offset == kResetOffset && size == 1 && reset_port_ != nullptr)
        return reset_port_->write(0, 1, value);
    const std::uint32_t base = selected();
    if (offset >= kDataOffset && base != kNowhere)
        bridge_.write(base + (offset - kDataOffset), size, value);
}

}  // namespace hv
