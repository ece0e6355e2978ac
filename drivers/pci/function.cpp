// SPDX-License-Identifier: MIT
#include "drivers/pci/function.hpp"

#include <bit>

namespace hv::pci {
namespace {

// [pci3 6.1 Configuration Space Organization]
constexpr std::uint16_t kVendor = 0x00, kCommand = 0x04, kStatus = 0x06, kClass = 0x08, kHeaderType = 0x0e,
                        kBar0 = 0x10, kCapabilities = 0x34, kInterruptLine = 0x3c, kInterruptPin = 0x3d;
constexpr std::uint16_t kCommandPort = 0x001, kCommandMemory = 0x002, kCommandMaster = 0x004,
                        kCommandNoIntx = 0x400;
constexpr std::uint16_t kStatusCapabilities = 0x010;
constexpr std::uint8_t kLayout = 0x7f;
constexpr std::uint16_t kFirstCapability = 0x40;

// [pci3 6.8.1 MSI Capability Structure]
constexpr std::uint16_t kMsiEnable = 0x0001, kMsiMultiple = 0x0070, kMsi64Bit = 0x0080;
// [pci3 6.8.2 MSI-X Capability and Table Structures]
constexpr std::uint16_t kMsixEnable = 0x8000, kMsixMaskAll = 0x4000, kMsixSize = 0x07ff;
constexpr std::uint32_t kMsixEntryMasked = 1;

/// What of a BAR is address: the bits that can be set, below which the size begins.
struct Measured {
    std::uint32_t value;
    std::uint32_t mask;  ///< reads back after all ones were written
};

Measured measure(PciConfig& config, Bdf address, std::uint16_t offset) {
    const std::uint32_t value = config.read32(address, offset);
    config.write32(address, offset, 0xffff'ffff);
    const std::uint32_t mask = config.read32(address, offset);
    config.write32(address, offset, value);
    return {value, mask};
}

Bar decode(const Measured& low, const Measured& high) {
    if ((low.mask & 1) != 0) {
        // Functions may leave the upper half of a port BAR unimplemented.
        const std::uint32_t mask = (low.mask & ~3U) | 0xffff'0000;
        return Bar{Bar::Space::port, false, false, low.value & 0xfffc, ~mask + 1};
    }
    const bool is_64bit = (low.mask >> 1 & 3) == 2;
    const std::uint64_t mask =
        (low.mask & ~15U) | (is_64bit ? std::uint64_t{high.mask} << 32 : ~std::uint64_t{0} << 32);
    const std::uint64_t address = (low.value & ~15U) | (is_64bit ? std::uint64_t{high.value} << 32 : 0);
    return Bar{Bar::Space::memory, is_64bit, (low.mask & 8) != 0, address, ~mask + 1};
}

void change_command(PciConfig& config, Bdf address, std::uint16_t clear, std::uint16_t set) {
    const std::uint16_t command = config.read16(address, kCommand);
    config.write16(address, kCommand, static_cast<std::uint16_t>((command & ~clear) | set));
}

}  // namespace

std::optional<Function> probe(PciConfig& config, Bdf address) {
    const std::uint32_t id = config.read32(address, kVendor);
    if ((id & 0xffff) == 0xffff || (id & 0xffff) == 0)
        return std::nullopt;
    return Function{address, static_cast<std::uint16_t>(id), static_cast<std::uint16_t>(id >> 16),
                    config.read32(address, kClass) >> 8, config.read8(address, kHeaderType)};
}

Expected<Bar> read_bar(PciConfig& config, const Function& function, unsigned index) {
    const unsigned bars = (function.header_type & kLayout) == 0 ? 6 : 2;
    if (index >= bars)
        return Unexpected{Error::invalid_argument};
    const Bdf address = function.address;
    const auto offset = static_cast<std::uint16_t>(kBar0 + index * 4);
    // While a BAR holds all ones the function must not answer.
    const std::uint16_t command = config.read16(address, kCommand);
    config.write16(address, kCommand, static_cast<std::uint16_t>(command & ~(kCommandPort | kCommandMemory)));
    const Measured low = measure(config, address, offset);
    const bool is_64bit = (low.mask & 1) == 0 && (low.mask >> 1 & 3) == 2;
    Measured high{};
    if (is_64bit && index + 1 < bars)
        high = measure(config, address, static_cast<std::uint16_t>(offset + 4));
    config.write16(address, kCommand, command);
    if (low.mask == 0 || low.mask == 0xffff'ffff)
        return Unexpected{Error::not_found};
    if (is_64bit && index + 1 >= bars)
        return Unexpected{Error::corrupted};
    const Bar bar = decode(low, high);
    if (!std::has_single_bit(bar.size) || (bar.address & (bar.size - 1)) != 0)
        return Unexpected{Error::corrupted};
    return bar;
}

void enable(PciConfig& config, const Function& function) {
    change_command(config, function.address, 0,
                   kCommandPort | kCommandMemory | kCommandMaster | kCommandNoIntx);
}

void disable(PciConfig& config, const Function& function) {
    change_command(config, function.address, kCommandPort | kCommandMemory | kCommandMaster, kCommandNoIntx);
}

std::optional<std::uint8_t> find_capability(PciConfig& config, const Function& function, Capability id,
                                            std::uint8_t after) {
    const Bdf address = function.address;
    if ((config.read16(address, kStatus) & kStatusCapabilities) == 0)
        return std::nullopt;
    std::uint8_t offset =
        config.read8(address, after == 0 ? kCapabilities : static_cast<std::uint16_t>(after + 1));
    // A list that a broken device closes into a ring ends here: 192 bytes hold 48 capabilities.
    for (unsigned left = 48; left > 0; --left) {
        offset &= 0xfc;
        if (offset < kFirstCapability)
            return std::nullopt;
        const std::uint16_t header = config.read16(address, offset);
        if ((header & 0xff) == static_cast<unsigned>(id))
            return offset;
        offset = static_cast<std::uint8_t>(header >> 8);
    }
    return std::nullopt;
}

void allow_intx(PciConfig& config, const Function& function, bool allowed) {
    change_command(config, function.address, allowed ? kCommandNoIntx : std::uint16_t{0},
                   allowed ? std::uint16_t{0} : kCommandNoIntx);
}

void silence(PciConfig& config, const Function& function) {
    // [pci3 6.2.2 Device Control]: bit 10 holds back this function's interrupts and nothing else.
    if ((function.header_type & kLayout) == 0)
        allow_intx(config, function, false);
}

IntxRouting intx_routing(PciConfig& config, const Function& function) {
    return {config.read8(function.address, kInterruptPin), config.read8(function.address, kInterruptLine)};
}

Expected<void> enable_msi(PciConfig& config, const Function& function, const MsiMessage& message) {
    const auto capability = find_capability(config, function, Capability::msi);
    if (!capability)
        return Unexpected{Error::unsupported};
    const Bdf address = function.address;
    const std::uint16_t base = *capability;
    const auto at = [&](unsigned offset) { return static_cast<std::uint16_t>(base + offset); };
    const std::uint16_t control = config.read16(address, at(2));
    const bool is_64bit = (control & kMsi64Bit) != 0;
    if (!is_64bit && message.address >> 32 != 0)
        return Unexpected{Error::unsupported};
    config.write16(address, at(2), static_cast<std::uint16_t>(control & ~(kMsiEnable | kMsiMultiple)));
    config.write32(address, at(4), static_cast<std::uint32_t>(message.address));
    if (is_64bit)
        config.write32(address, at(8), static_cast<std::uint32_t>(message.address >> 32));
    config.write16(address, at(is_64bit ? 12 : 8), static_cast<std::uint16_t>(message.data));
    config.write16(address, at(2), static_cast<std::uint16_t>((control & ~kMsiMultiple) | kMsiEnable));
    return {};
}

void mask_msi(PciConfig& config, const Function& function, bool masked) {
    const auto capability = find_capability(config, function, Capability::msi);
    if (!capability)
        return;
    // Few functions have a mask; without MSI and INTx a function cannot interrupt either.
    const auto offset = static_cast<std::uint16_t>(*capability + 2);
    const std::uint16_t control = config.read16(function.address, offset);
    config.write16(function.address, offset,
                   static_cast<std::uint16_t>(masked ? control & ~kMsiEnable : control | kMsiEnable));
}

Expected<MsixTable> find_msix(PciConfig& config, const Function& function) {
    const auto capability = find_capability(config, function, Capability::msix);
    if (!capability)
        return Unexpected{Error::unsupported};
    const std::uint16_t control =
        config.read16(function.address, static_cast<std::uint16_t>(*capability + 2));
    const std::uint32_t where = config.read32(function.address, static_cast<std::uint16_t>(*capability + 4));
    return MsixTable{static_cast<std::uint16_t>((control & kMsixSize) + 1),
                     static_cast<std::uint8_t>(where & 7), where & ~7U, *capability};
}

void set_msix_entry(volatile std::uint32_t* table, std::uint16_t index, const MsiMessage& message) {
    volatile std::uint32_t* const entry = table + std::size_t{index} * 4;
    mask_msix_entry(table, index);  // an unmasked entry must not be changed
    entry[0] = static_cast<std::uint32_t>(message.address);
    entry[1] = static_cast<std::uint32_t>(message.address >> 32);
    entry[2] = message.data;
    entry[3] = entry[3] & ~kMsixEntryMasked;
}

void mask_msix_entry(volatile std::uint32_t* table, std::uint16_t index) {
    volatile std::uint32_t* const entry = table + std::size_t{index} * 4;
    entry[3] = entry[3] | kMsixEntryMasked;
}

void enable_msix(PciConfig& config, const Function& function, const MsixTable& table) {
    mask_msix(config, function, table, false);
}

void mask_msix(PciConfig& config, const Function& function, const MsixTable& table, bool masked) {
    const auto offset = static_cast<std::uint16_t>(table.capability + 2);
    const std::uint16_t control = config.read16(function.address, offset);
    config.write16(
        function.address, offset,
        static_cast<std::uint16_t>((control & ~kMsixMaskAll) | kMsixEnable | (masked ? kMsixMaskAll : 0)));
}

}  // namespace hv::pci
