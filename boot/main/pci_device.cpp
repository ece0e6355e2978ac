// SPDX-License-Identifier: MIT
#include "boot/main/pci_device.hpp"

#include "arch/x86_64/cpu/host_memory.hpp"
#include "arch/x86_64/cpu/per_cpu.hpp"
#include "vmm/base/log.hpp"

#include <algorithm>

namespace hv::boot {
using pci::InterruptGate;

namespace {

/// No register that a driver here uses lies further inside.
constexpr std::uint64_t kMostMapped = 16 * kMiB;

}  // namespace

Expected<void> PciDevice::open() {
    pci::disable(config_, function_);
    for (unsigned index = 0; index < bars_.size(); ++index) {
        const auto bar = pci::read_bar(config_, function_, index);
        if (!bar)
            continue;
        if (bar->space == pci::Bar::Space::memory && bar->address != 0) {
            const std::uint64_t size = std::min(bar->size, kMostMapped);
            mapped_[index] = {HV_TRY(cpu::map_device_bytes(Hpa{bar->address}, size)), size};
            addresses_[index] = Hpa{bar->address};
            bars_[index] = &mapped_[index];
        }
        if (bar->is_64bit)
            ++index;
    }
    pci::enable(config_, function_);
    return {};
}

Expected<DeviceRegisters*> PciDevice::bar(unsigned index) const {
    if (bars_[index] == nullptr)
        return Unexpected{Error::not_found};
    return bars_[index];
}

Expected<unsigned> PciDevice::connect(HostInterrupts& interrupts, Means means, unsigned wanted,
                                      InterruptGate::Handler handler, void* context) {
    InterruptGate::Source& source = *this;
    const auto table = pci::find_msix(config_, function_);
    if (table && means != Means::single_vector) {
        gate_.emplace(clock_, source, handler, context);
        return connect_msix(interrupts, *table, wanted);
    }
    if (means == Means::msix_only)
        return Unexpected{Error::unsupported};
    if (pci::find_capability(config_, function_, pci::Capability::msi)) {
        gate_.emplace(clock_, source, handler, context);
        HV_TRY(connect_msi(interrupts));
    } else {
        gate_.emplace(clock_, source, handler, context, kWirePollNs);
        HV_TRY(connect_wire(interrupts));
    }
    return 1;
}

Expected<unsigned> PciDevice::connect_msix(HostInterrupts& interrupts, const pci::MsixTable& table,
                                           unsigned wanted) {
    DeviceRegisters* where = HV_TRY(bar(table.bar));
    if (table.offset > where->size() || where->size() - table.offset < table.bytes())
        return Unexpected{Error::corrupted};
    auto* entries =
        HV_TRY(cpu::map_device<volatile std::uint32_t>(addresses_[table.bar] + table.offset, table.bytes()));
    const std::uint8_t vector = HV_TRY(interrupts.take_vector(*gate_));
    const unsigned most = std::min<unsigned>({wanted, table.entries, cpu::cpu_count()});
    unsigned count = 0;
    while (count < most) {
        const auto message = HostInterrupts::message_to(count, vector);
        if (!message)
            break;
        pci::set_msix_entry(entries, static_cast<std::uint16_t>(count), *message);
        ++count;
    }
    if (count == 0)
        return Unexpected{Error::unsupported};
    for (unsigned rest = count; rest < table.entries; ++rest)
        pci::mask_msix_entry(entries, static_cast<std::uint16_t>(rest));
    msix_ = table;
    kind_ = Kind::msix;
    pci::enable_msix(config_, function_, table);
    return count;
}

Expected<void> PciDevice::connect_msi(HostInterrupts& interrupts) {
    const std::uint8_t vector = HV_TRY(interrupts.take_vector(*gate_));
    HV_TRY(pci::enable_msi(config_, function_, HV_TRY(HostInterrupts::message_to(0, vector))));
    kind_ = Kind::msi;
    return {};
}

Expected<void> PciDevice::connect_wire(HostInterrupts& interrupts) {
    const pci::IntxRouting routing = pci::intx_routing(config_, function_);
    if (routing.pin == 0)
        return Unexpected{Error::unsupported};
    const auto wire = interrupts.share_wire(routing.line, *gate_);
    if (!wire) {
        const pci::Bdf& at = function_.address;
        log::warning(log::Topic::device, "PCI %02x:%02x.%x: no interrupts from its wire %u: %s; it is polled",
                     at.bus, at.device, at.function, routing.line, to_string(wire.error()));
        return {};
    }
    kind_ = Kind::intx;
    wire_ = *wire;
    pci::allow_intx(config_, function_, true);
    return {};
}

void PciDevice::note_storm() {
    const pci::Bdf& at = function_.address;
    if (storm_limit_.admit())
        log::warning(log::Topic::device,
                     "%.*s (PCI %02x:%02x.%x) interrupts without end: it is masked at times",
                     width(name_.view()), name_.view().data(), at.bus, at.device, at.function);
}

void PciDevice::mask(bool masked) {
    switch (kind_) {
    case Kind::none: break;
    case Kind::msix: pci::mask_msix(config_, function_, msix_, masked); break;
    case Kind::msi: pci::mask_msi(config_, function_, masked); break;
    case Kind::intx: wire_->mask(masked); break;
    }
}

}  // namespace hv::boot
