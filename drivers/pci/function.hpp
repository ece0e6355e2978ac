// SPDX-License-Identifier: MIT
// Physical PCI functions: which there are, where their registers lie, and how they raise interrupts. Firmware
// has assigned buses and BARs; nothing is moved.
#pragma once

#include "drivers/pci/config.hpp"
#include "vmm/base/address.hpp"
#include "vmm/base/expected.hpp"

#include <optional>

namespace hv::pci {

struct Function {
    Bdf address;
    std::uint16_t vendor;
    std::uint16_t device;
    std::uint32_t class_code;  ///< class 23:16, subclass 15:8, programming interface 7:0
    std::uint8_t header_type;  ///< layout: 0 function, 1 PCI-to-PCI bridge

    [[nodiscard]] bool is_class(std::uint8_t base, std::uint8_t subclass) const {
        return class_code >> 8 == (unsigned{base} << 8 | subclass);
    }
};

/// The function at `address`, if there is one.
std::optional<Function> probe(PciConfig& config, Bdf address);

/// Calls `visit(const Function&)` for all functions on buses `first_bus` to `last_bus`.
template <class Visit>
void enumerate(PciConfig& config, std::uint8_t first_bus, std::uint8_t last_bus, Visit&& visit) {
    for (unsigned bus = first_bus; bus <= last_bus; ++bus) {
        for (unsigned device = 0; device < 32; ++device) {
            unsigned functions = 1;
            for (unsigned number = 0; number < functions; ++number) {
                const auto function =
                    probe(config, {static_cast<std::uint8_t>(bus), static_cast<std::uint8_t>(device),
                                   static_cast<std::uint8_t>(number)});
                if (!function)
                    continue;
                // Other functions exist only beside a function 0 that says so [pci3 6.2.1 Device
                // Identification].
                constexpr std::uint8_t kMultiFunction = 0x80;
                if (number == 0 && (function->header_type & kMultiFunction) != 0)
                    functions = 8;
                visit(*function);
            }
        }
    }
}

struct Bar {
    enum class Space : std::uint8_t { memory, port };
    Space space;
    bool is_64bit;  ///< it takes the next index as well
    bool prefetchable;
    std::uint64_t address;  ///< 0: not assigned
    std::uint64_t size;     ///< a power of two
};

/// Decodes and measures BAR `index`, 0 to 5, which must not be in use [pci3 6.2.5.1 Address Maps].
/// Error::not_found: there is none; Error::corrupted: it makes no sense.
Expected<Bar> read_bar(PciConfig& config, const Function& function, unsigned index);

/// Lets the function answer in its BARs and master the bus, without INTx.
void enable(PciConfig& config, const Function& function);
/// Stops its DMA and its answers.
void disable(PciConfig& config, const Function& function);

enum class Capability : std::uint8_t { power = 0x01, msi = 0x05, vendor = 0x09, express = 0x10, msix = 0x11 };
/// Offset of the first capability of this kind, or of the next one after that at `after`.
std::optional<std::uint8_t> find_capability(PciConfig& config, const Function& function, Capability id,
                                            std::uint8_t after = 0);

/// What a function writes to raise an interrupt.
struct MsiMessage {
    std::uint64_t address;
    std::uint32_t data;
};

/// Lets the function raise its INTx pin, or not.
void allow_intx(PciConfig& config, const Function& function, bool allowed);
/// Keeps a function from pulling its INTx pin until it has a driver, or for good: nobody would answer, on a
/// wire that others may share. Nothing else is taken from it, for firmware may go on using it. A bridge is
/// left alone.
void silence(PciConfig& config, const Function& function);
/// The pin that it has, 1 for INTA# to 4; 0: none. And the line that firmware wired it to for 8259s, which is
/// the GSI of the same number on chipsets that route both ways.
struct IntxRouting {
    std::uint8_t pin;
    std::uint8_t line;
};
IntxRouting intx_routing(PciConfig& config, const Function& function);

/// Makes MSI send `message`, as its only vector. Error::unsupported: the function has no MSI, or none that
/// reaches the address.
Expected<void> enable_msi(PciConfig& config, const Function& function, const MsiMessage& message);
/// Holds MSI back, or lets it go on, after enable_msi().
void mask_msi(PciConfig& config, const Function& function, bool masked);

/// Where MSI-X keeps its messages [pci3 6.8.2 MSI-X Capability and Table Structures].
struct MsixTable {
    std::uint16_t entries;
    std::uint8_t bar;
    std::uint32_t offset;  ///< in that BAR
    std::uint8_t capability;

    [[nodiscard]] std::uint32_t bytes() const { return entries * 16U; }
};
/// Error::unsupported: the function has no MSI-X.
Expected<MsixTable> find_msix(PciConfig& config, const Function& function);
/// Puts `message` into entry `index` of the mapped table and unmasks it.
void set_msix_entry(volatile std::uint32_t* table, std::uint16_t index, const MsiMessage& message);
void mask_msix_entry(volatile std::uint32_t* table, std::uint16_t index);
/// Turns MSI-X on: the function has no INTx and no MSI any more. Entries that are in use have been set
/// before.
void enable_msix(PciConfig& config, const Function& function, const MsixTable& table);
/// Holds all its messages back, or lets them go on; those that came meanwhile are then sent.
void mask_msix(PciConfig& config, const Function& function, const MsixTable& table, bool masked);

}  // namespace hv::pci
