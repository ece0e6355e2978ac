// SPDX-License-Identifier: MIT
// The driver's way to a modern virtio device that is a PCI function: its structures, found through vendor
// capabilities, the status handshake, feature negotiation, the set-up of queues, doorbells, and reset.
// [virtio1.2 4.1 Virtio Over PCI Bus] Left out: the legacy interface, INTx and with it the ISR status,
// administration virtqueues.
#pragma once

#include "drivers/pci/function.hpp"
#include "drivers/virtio/driver_queue.hpp"
#include "drivers/virtio/virtio_defs.hpp"
#include "drivers/virtio/virtio_pci_defs.hpp"
#include "vmm/base/device_registers.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/timer.hpp"

#include <array>
#include <cstddef>
#include <cstdint>

namespace hv::virtio {

/// The device type, VIRTIO_ID_*, of a function with a modern interface, perhaps beside a legacy one; 0: it is
/// none [virtio1.2 4.1.2 PCI Device Discovery].
std::uint16_t device_type(const pci::Function& function);

/// Where a queue's notifications go. Any CPU.
class Doorbell {
public:
    Doorbell() = default;
    Doorbell(DeviceRegisters& registers, std::size_t offset, std::uint16_t queue)
        : registers_{&registers}, offset_{offset}, queue_{queue} {}
    void ring() const { registers_->write16(offset_, queue_); }

private:
    DeviceRegisters* registers_{nullptr};
    std::size_t offset_{0};
    std::uint16_t queue_{0};
};

class PciTransport {
public:
    /// The function's memory BARs as far as they are mapped; nullptr where there is none.
    using Bars = std::array<DeviceRegisters*, 6>;

    /// The function answers in its BARs and masters the bus (pci::enable), MSI-X is on if queues shall have
    /// vectors. All outlive the transport. Error::unsupported: it lacks a structure, or has it where it
    /// cannot be.
    static Expected<PciTransport> create(pci::PciConfig& config, const pci::Function& function,
                                         const Bars& bars);

    [[nodiscard]] const pci::Function& function() const { return function_; }

    // --- life
    // -------------------------------------------------------------------------------------------------------
    /// Resets the device and waits for it, a second at most: at boot alone. Error::timed_out,
    /// Error::io_error: it is not there.
    Expected<void> reset(const Clock& clock);
    /// Asks for a reset, after which the device knows of no queue.
    void begin_reset() {
        reset_polls_ = 0;
        write_status(0);
    }
    enum class Reset : std::uint8_t { pending, done, failed };
    /// To be called each millisecond after begin_reset(). `done`: the device has agreed to `features`, those
    /// from before, and waits for its queues. `failed`: it does not come back, or is another one.
    Reset poll_reset(std::uint64_t features);
    /// After a reset: takes of `wanted` what the device offers, and tells what that is. Error::unsupported:
    /// it is not of this version, or refuses.
    Expected<std::uint64_t> negotiate(std::uint64_t wanted);
    /// After the queues were set up.
    void set_driver_ok() { write_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK); }
    /// For good: the device touches no memory from now on, whether it obeys or not.
    void shut_down();

    /// It waits for a reset, or is not there any more.
    [[nodiscard]] bool needs_reset();

    // --- queues, between negotiate() and set_driver_ok()
    // -------------------------------------------------------------
    [[nodiscard]] std::uint16_t queue_count();
    /// The size of queue `index` at most; 0: there is none.
    [[nodiscard]] std::uint16_t max_queue_size(std::uint16_t index);
    /// Enables queue `index`, which is `queue`, with entry `vector` of the MSI-X table or
    /// VIRTIO_MSI_NO_VECTOR. Error::no_memory: the device has no room for the vector; Error::unsupported: its
    /// doorbell cannot be.
    Expected<Doorbell> enable_queue(std::uint16_t index, const DriverQueue& queue, std::uint16_t vector);

    /// Entry `vector` of the MSI-X table tells of changes of the configuration space. A device that has no
    /// room for it tells of none. [virtio1.2 4.1.5.1.2 MSI-X Vector Configuration]
    void set_config_vector(std::uint16_t vector);

    // --- device configuration space
    // -------------------------------------------------------------------------------------
    // Fields are read with their own width, 64 bits as halves [virtio1.2 4.1.3.1 Driver Requirements: PCI
    // Device Layout]. What lies beyond the end reads as 0.
    [[nodiscard]] std::uint8_t config8(std::size_t offset);
    [[nodiscard]] std::uint16_t config16(std::size_t offset);
    [[nodiscard]] std::uint32_t config32(std::size_t offset);
    [[nodiscard]] std::uint64_t config64(std::size_t offset);
    /// Calls `read()` until the fields that it reads belong together. Error::io_error: they do not stop
    /// changing. [virtio1.2 2.5.1 Driver Requirements: Device Configuration Space]
    template <class Read>
    Expected<void> read_config(Read&& read) {
        constexpr unsigned kAttempts = 16;
        for (unsigned i = 0; i < kAttempts; ++i) {
            const std::uint8_t generation = config_generation();
            read();
            if (config_generation() == generation)
                return {};
        }
        return Unexpected{Error::io_error};
    }

private:
    /// A structure in a BAR.
    struct Structure {
        DeviceRegisters* registers{};
        std::size_t offset{};
        std::size_t size{};
    };

    PciTransport(pci::PciConfig& config, const pci::Function& function)
        : config_{&config}, function_{function} {}
    void find_structures(const Bars& bars);
    void note_structure(std::uint8_t capability, const Bars& bars);
    [[nodiscard]] bool has_structures() const;
    /// Offset of a field of the common configuration.
    [[nodiscard]] std::size_t common(std::size_t field) const { return common_.offset + field; }
    [[nodiscard]] std::uint8_t status();
    [[nodiscard]] Reset reset_progress();
    void write_status(std::uint8_t status);
    [[nodiscard]] std::uint8_t config_generation();
    void select_queue(std::uint16_t index);
    [[nodiscard]] bool has_config(std::size_t offset, std::size_t size) const {
        return device_.registers != nullptr && offset + size <= device_.size;
    }

    pci::PciConfig* config_;
    pci::Function function_;
    Structure common_{}, notify_{}, device_{};
    std::uint32_t notify_multiplier_{0};
    unsigned reset_polls_{0};
};

}  // namespace hv::virtio
