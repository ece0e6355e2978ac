// SPDX-License-Identifier: MIT
// A physical PCI function in the hands of its driver: its BARs mapped, its interrupts connected by the best
// means that it has.
#pragma once

#include "boot/main/host_interrupts.hpp"
#include "drivers/pci/function.hpp"
#include "drivers/pci/interrupt_gate.hpp"
#include "vmm/base/device_registers.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/log.hpp"
#include "vmm/base/text.hpp"

#include <array>
#include <optional>

namespace hv::boot {

class PciDevice final : private pci::InterruptGate::Source {
public:
    using Bars = std::array<DeviceRegisters*, 6>;
    /// What a driver can be interrupted by, beside MSI with a single message.
    enum class Means : std::uint8_t {
        msix,          ///< and several vectors of it
        msix_only,     ///< nothing but that
        single_vector  ///< MSI or INTx, no MSI-X
    };

    using Name = TextBuffer<24>;
    /// All outlive the device; `name` is what its driver calls it.
    PciDevice(pci::PciConfig& config, const pci::Function& function, Clock& clock, const Name& name)
        : config_{config}, function_{function}, clock_{clock}, name_{name} {}
    PciDevice(const PciDevice&) = delete;
    PciDevice& operator=(const PciDevice&) = delete;

    /// Maps the memory BARs, and lets the function answer there and master the bus. Error::no_memory.
    Expected<void> open();
    /// Stops its answers and its DMA.
    void close() { pci::disable(config_, function_); }
    [[nodiscard]] const Bars& bars() const { return bars_; }
    /// Error::not_found: BAR `index` is no memory, or firmware gave it none.
    [[nodiscard]] Expected<DeviceRegisters*> bar(unsigned index) const;

    /// `handler` runs, without a lock, when the function interrupts; vector v's message goes to CPU v.
    /// Returns how many vectors there are, 1 to `wanted`. Error::unsupported: none that is allowed; others as
    /// HostInterrupts.
    Expected<unsigned> connect(HostInterrupts& interrupts, Means means, unsigned wanted,
                               pci::InterruptGate::Handler handler, void* context);
    [[nodiscard]] const pci::Function& function() const { return function_; }

private:
    /// An INTx wire is taken from what firmware told of another interrupt controller.
    static constexpr std::uint64_t kWirePollNs = 2'000'000;
    enum class Kind : std::uint8_t { none, msix, msi, intx };

    void mask(bool masked) override;
    void note_storm() override;
    Expected<unsigned> connect_msix(HostInterrupts& interrupts, const pci::MsixTable& table, unsigned wanted);
    Expected<void> connect_msi(HostInterrupts& interrupts);
    Expected<void> connect_wire(HostInterrupts& interrupts);

    pci::PciConfig& config_;
    const pci::Function function_;
    Clock& clock_;
    const Name& name_;
    log::RateLimit storm_limit_{1};
    std::array<MappedRegisters, 6> mapped_{};
    std::array<Hpa, 6> addresses_{};
    Bars bars_{};
    Kind kind_{Kind::none};
    pci::MsixTable msix_{};
    pci::SharedWire* wire_{nullptr};
    std::optional<pci::InterruptGate> gate_;
};

}  // namespace hv::boot
