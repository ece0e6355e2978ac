// SPDX-License-Identifier: MIT
// One PCI function: type 0 configuration space with memory BARs, capabilities, MSI-X and an INTx pin. Derived
// classes describe themselves in their constructor. [pci3 6 Configuration Space]
#pragma once

#include "vmm/base/assert.hpp"
#include "vmm/base/turn.hpp"
#include "vmm/core/interrupt.hpp"
#include "vmm/core/io_device.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <span>

namespace hv {

class MsixTable;
class PciHostBridge;

/// Offsets in configuration space.
namespace pci {
inline constexpr unsigned kVendor = 0x00;
inline constexpr unsigned kDevice = 0x02;
inline constexpr unsigned kCommand = 0x04;
inline constexpr unsigned kStatus = 0x06;
inline constexpr unsigned kRevision = 0x08;
inline constexpr unsigned kClass = 0x09;  ///< programming interface, subclass, class
inline constexpr unsigned kBar0 = 0x10;
inline constexpr unsigned kSubsystemVendor = 0x2c;
inline constexpr unsigned kSubsystem = 0x2e;
inline constexpr unsigned kCapabilities = 0x34;
inline constexpr unsigned kInterruptLine = 0x3c;
inline constexpr unsigned kInterruptPin = 0x3d;
inline constexpr unsigned kFirstCapability = 0x40;
inline constexpr unsigned kConfigSize = 256;

inline constexpr std::uint16_t kCommandMemory = 1u << 1;
inline constexpr std::uint16_t kCommandMaster = 1u << 2;
inline constexpr std::uint16_t kCommandIntxDisable = 1u << 10;
inline constexpr std::uint16_t kStatusInterrupt = 1u << 3;
inline constexpr std::uint16_t kStatusCapabilities = 1u << 4;

inline constexpr std::uint8_t kCapabilityVendor = 0x09;
inline constexpr std::uint8_t kCapabilityMsix = 0x11;
}  // namespace pci

struct PciIdentity {
    std::uint16_t vendor;
    std::uint16_t device;
    std::uint8_t revision;
    std::uint32_t class_code;  ///< class, subclass, programming interface: 24 bits
    std::uint16_t subsystem_vendor;
    std::uint16_t subsystem;
};

class PciFunction {
public:
    static constexpr unsigned kBars = 6;

    /// `pin` is INTA#; nullptr: the function has none.
    explicit PciFunction(const PciIdentity& identity, IrqLine* pin = nullptr);
    virtual ~PciFunction() = default;
    PciFunction(const PciFunction&) = delete;
    PciFunction& operator=(const PciFunction&) = delete;

    /// An access inside one dword of configuration space, as the host bridge makes them.
    std::uint32_t read_config(unsigned offset, unsigned size);
    void write_config(unsigned offset, unsigned size, std::uint32_t value);

protected:
    /// Whether the function asks for its INTx interrupt. Any CPU, no lock of rank board or above held.
    [[nodiscard]] virtual bool intx_pending() const { return false; }
    /// Before a guest's read, and after a guest's write, of configuration bytes; without a lock.
    virtual void before_config_read(unsigned /*offset*/, unsigned /*size*/) {}
    virtual void after_config_write(unsigned /*offset*/, unsigned /*size*/) {}

    /// To be called, with no lock of rank board or above held, whenever intx_pending() may have changed.
    void update_intx();
    [[nodiscard]] bool msix_enabled() const { return msix_enabled_.load(std::memory_order_relaxed); }
    /// The configuration bytes at `offset`.
    template <class T>
    T config(unsigned offset) const {
        T value;
        copy_config(offset, std::as_writable_bytes(std::span{&value, 1}));
        return value;
    }
    template <class T>
    void set_config(unsigned offset, T value) {
        store_config(offset, std::as_bytes(std::span{&value, 1}));
    }
    /// The device behind a BAR and the BAR's size; nullptr: there is none.
    [[nodiscard]] IoDevice* bar_device(unsigned index) const { return bars_[index].device; }
    [[nodiscard]] std::uint32_t bar_size(unsigned index) const { return bars_[index].size; }

    // --- for constructors
    // -----------------------------------------------------------------------------------------
    /// A 32-bit memory BAR of `size` bytes, a power of two of at least 4 KiB.
    void add_bar(unsigned index, std::uint32_t size, IoDevice& device);
    /// Adds a capability: `body` follows ID and next pointer; `writable` has a one for each bit that the
    /// guest can change and may be shorter. Returns its offset.
    unsigned add_capability(std::uint8_t id, std::span<const std::uint8_t> body,
                            std::span<const std::uint8_t> writable = {});
    /// Adds MSI-X with `table` behind BAR `bar`.
    void add_msix(unsigned bar, MsixTable& table);

private:
    friend class PciHostBridge;
    struct Bar {
        std::uint32_t size;
        IoDevice* device;
        std::uint32_t initial;  ///< what the platform's reset sets
        std::uint32_t mapped_at;
        bool mapped;
    };

    void copy_config(unsigned offset, std::span<std::byte> out) const;
    void store_config(unsigned offset, std::span<const std::byte> in);
    template <class T>
    [[nodiscard]] T raw(unsigned offset) const;
    template <class T>
    void set_raw(unsigned offset, T value);
    /// Where a BAR decodes; false: nowhere.
    [[nodiscard]] bool decodes(unsigned index, std::uint32_t& address) const;
    /// Puts what other threads read without the lock in step with the configuration bytes. Under the bridge's
    /// lock.
    void apply_controls();
    /// The configuration as built, BARs at their initial addresses. Under the bridge's lock.
    void reset_config();

    PciHostBridge* bridge_{nullptr};
    IrqLine* pin_;
    std::uint8_t interrupt_line_{0};  ///< what the platform's reset writes to that register
    MsixTable* msix_{nullptr};
    unsigned msix_offset_{0};
    unsigned last_capability_{0};
    unsigned capabilities_end_{pci::kFirstCapability};
    std::array<std::uint8_t, pci::kConfigSize> bytes_{};     ///< under the bridge's lock
    std::array<std::uint8_t, pci::kConfigSize> writable_{};  ///< fixed after construction
    std::array<Bar, kBars> bars_{};                          ///< under the bridge's lock
    std::atomic<bool> msix_enabled_{false};
    std::atomic<bool> intx_enabled_{true};
    Turn line_turn_{Turn::Initially::open};
};

}  // namespace hv
