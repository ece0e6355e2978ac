// SPDX-License-Identifier: MIT
#include "vmm/devices/pci_function.hpp"

#include "vmm/base/address.hpp"
#include "vmm/base/bytes.hpp"
#include "vmm/base/guarded.hpp"
#include "vmm/devices/pci_host_bridge.hpp"
#include "vmm/devices/pci_msix.hpp"

#include <bit>
#include <cstring>
#include <optional>

namespace hv {
namespace {

/// Configuration bytes need the bridge's lock once the function sits on it; before that one CPU builds it.
class MaybeLocked {
public:
    explicit MaybeLocked(Spinlock* lock) {
        if (lock != nullptr)
            guard_.emplace(*lock);
    }

private:
    std::optional<LockGuard> guard_;
};

constexpr std::uint16_t kMsixEnable = 0x8000;
constexpr std::uint16_t kMsixMask = 0x4000;

constexpr unsigned bar_offset(unsigned index) {
    return pci::kBar0 + index * 4;
}

}  // namespace

template <class T>
T PciFunction::raw(unsigned offset) const {
    return load<T>(&bytes_[offset]);
}
template <class T>
void PciFunction::set_raw(unsigned offset, T value) {
    store(&bytes_[offset], value);
}

PciFunction::PciFunction(const PciIdentity& identity, IrqLine* pin) : pin_{pin} {
    set_raw(pci::kVendor, identity.vendor);
    set_raw(pci::kDevice, identity.device);
    set_raw(pci::kRevision, identity.revision | identity.class_code << 8);
    set_raw(pci::kSubsystemVendor, identity.subsystem_vendor);
    set_raw(pci::kSubsystem, identity.subsystem);
    store<std::uint16_t>(&writable_[pci::kCommand],
                         pci::kCommandMemory | pci::kCommandMaster | pci::kCommandIntxDisable);
    writable_[pci::kInterruptLine] = 0xff;
    if (pin != nullptr)
        bytes_[pci::kInterruptPin] = 1;
}

void PciFunction::add_bar(unsigned index, std::uint32_t size, IoDevice& device) {
    HV_ASSERT(index < kBars && std::has_single_bit(size) && size >= kPageSize &&
              bars_[index].device == nullptr);
    bars_[index] = {size, &device, 0, 0, false};
    store<std::uint32_t>(&writable_[bar_offset(index)], ~(size - 1));
}

unsigned PciFunction::add_capability(std::uint8_t id, std::span<const std::uint8_t> body,
                                     std::span<const std::uint8_t> writable) {
    const unsigned offset = capabilities_end_;
    HV_ASSERT(offset + 2 + body.size() <= pci::kConfigSize && writable.size() <= body.size());
    bytes_[offset] = id;
    std::memcpy(&bytes_[offset + 2], body.data(), body.size());
    if (!writable.empty())
        std::memcpy(&writable_[offset + 2], writable.data(), writable.size());
    bytes_[last_capability_ == 0 ? pci::kCapabilities : last_capability_ + 1] =
        static_cast<std::uint8_t>(offset);
    bytes_[pci::kStatus] |= pci::kStatusCapabilities;
    last_capability_ = offset;
    capabilities_end_ = static_cast<unsigned>(align_up(offset + 2 + body.size(), 4));
    return offset;
}

void PciFunction::add_msix(unsigned bar, MsixTable& table) {
    HV_ASSERT(msix_ == nullptr);
    add_bar(bar, MsixTable::kSize, table);
    std::array<std::uint8_t, 10> body{};
    store(&body[0], static_cast<std::uint16_t>(table.vectors() - 1));
    store<std::uint32_t>(&body[2], bar);
    store<std::uint32_t>(&body[6], bar | MsixTable::kPendingOffset);
    const std::array<std::uint8_t, 2> writable{0, (kMsixEnable | kMsixMask) >> 8};
    msix_offset_ = add_capability(pci::kCapabilityMsix, body, writable);
    msix_ = &table;
}

std::uint32_t PciFunction::read_config(unsigned offset, unsigned size) {
    if (offset + size > pci::kConfigSize)
        return 0;  // there are no extended capabilities [pcie6 7.9.1 Extended Capabilities in Configuration
                   // Space]
    before_config_read(offset, size);
    std::uint32_t value = 0;
    const bool interrupt = intx_pending();
    LockGuard guard{bridge_->config_lock_};
    if (interrupt)
        bytes_[pci::kStatus] |= pci::kStatusInterrupt;
    else
        bytes_[pci::kStatus] &= static_cast<std::uint8_t>(~pci::kStatusInterrupt);
    std::memcpy(&value, &bytes_[offset], size);
    return value;
}

void PciFunction::write_config(unsigned offset, unsigned size, std::uint32_t value) {
    if (offset + size > pci::kConfigSize)
        return;
    {
        LockGuard guard{bridge_->config_lock_};
        for (unsigned i = 0; i < size; ++i, value >>= 8) {
            const std::uint8_t mask = writable_[offset + i];
            std::uint8_t& octet = bytes_[offset + i];
            octet = static_cast<std::uint8_t>((octet & ~mask) | (value & mask));
        }
        apply_controls();
        const unsigned aligned = offset & ~3u;
        if (aligned == pci::kCommand || (aligned >= pci::kBar0 && aligned < bar_offset(kBars)))
            bridge_->remap();
    }
    update_intx();
    after_config_write(offset, size);
}

void PciFunction::update_intx() {
    if (pin_ == nullptr || !line_turn_.enter())
        return;
    do
        pin_->set(intx_pending() && intx_enabled_.load() && !msix_enabled_.load());
    while (line_turn_.leave());
}

void PciFunction::apply_controls() {
    intx_enabled_ = (raw<std::uint16_t>(pci::kCommand) & pci::kCommandIntxDisable) == 0;
    if (msix_ == nullptr)
        return;
    const auto control = raw<std::uint16_t>(msix_offset_ + 2);
    msix_enabled_ = (control & kMsixEnable) != 0;
    msix_->set_control((control & kMsixEnable) != 0, (control & kMsixMask) != 0);
}

void PciFunction::reset_config() {
    for (unsigned i = 0; i < pci::kConfigSize; ++i)
        bytes_[i] &= static_cast<std::uint8_t>(~writable_[i]);
    for (unsigned i = 0; i < kBars; ++i)
        set_raw(bar_offset(i), bars_[i].initial);
    bytes_[pci::kInterruptLine] = interrupt_line_;
    if (msix_ != nullptr)
        msix_->reset();
    apply_controls();
}

bool PciFunction::decodes(unsigned index, std::uint32_t& address) const {
    if (bars_[index].device == nullptr || (raw<std::uint16_t>(pci::kCommand) & pci::kCommandMemory) == 0)
        return false;
    address = raw<std::uint32_t>(bar_offset(index));
    return true;
}

void PciFunction::copy_config(unsigned offset, std::span<std::byte> out) const {
    HV_ASSERT(offset + out.size() <= pci::kConfigSize);
    const MaybeLocked lock{bridge_ != nullptr ? &bridge_->config_lock_ : nullptr};
    std::memcpy(out.data(), &bytes_[offset], out.size());
}

void PciFunction::store_config(unsigned offset, std::span<const std::byte> in) {
    HV_ASSERT(offset + in.size() <= pci::kConfigSize);
    const MaybeLocked lock{bridge_ != nullptr ? &bridge_->config_lock_ : nullptr};
    std::memcpy(&bytes_[offset], in.data(), in.size());
}

}  // namespace hv
