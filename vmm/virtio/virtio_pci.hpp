// SPDX-License-Identifier: MIT
// The PCI transport: a modern virtio device as a PCI function. BAR 0 holds the common configuration, ISR
// status, the device's configuration and a doorbell for each queue; BAR 1 the MSI-X table. [virtio1.2 4.1
// Virtio Over PCI Bus] Left out: legacy and transitional interface, queue reset, administration virtqueues.
#pragma once

#include "drivers/virtio/virtio_pci_defs.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/guarded.hpp"
#include "vmm/core/interrupt.hpp"
#include "vmm/core/io_device.hpp"
#include "vmm/devices/pci_function.hpp"
#include "vmm/devices/pci_msix.hpp"
#include "vmm/virtio/virtio_device.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>

namespace hv::virtio {

class VirtioPciTransport final : public PciFunction, public IoDevice, public VirtioTransport {
public:
    // BAR 0.
    static constexpr std::uint32_t kCommonOffset = 0x0000;
    static constexpr std::uint32_t kIsrOffset = 0x1000;
    static constexpr std::uint32_t kDeviceOffset = 0x2000;
    static constexpr std::uint32_t kNotifyOffset = 0x3000;  ///< queue q's doorbell: + q * kNotifyMultiplier
    static constexpr std::uint32_t kRegionSize = 0x1000;
    static constexpr std::uint32_t kBarSize = 0x4000;
    static constexpr std::uint32_t kNotifyMultiplier = 4;

    /// `device` outlives the transport. `pin` is the function's INTx line, or nullptr.
    VirtioPciTransport(VirtioDevice& device, InterruptBus& interrupts, IrqLine* pin);

    /// Takes the device out of use, for the platform's reset. No vCPU of the VM runs. True: it has left guest
    /// memory alone; else another call will tell.
    bool settle();
    /// The platform's reset, of a settled device.
    void reset();

    // VirtioTransport
    void queue_interrupt(unsigned queue) override;
    void config_changed() override;
    void needs_reset() override;

    // BAR 0
    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override {
        if (offset >= kNotifyOffset) [[likely]] {
            const auto queue = static_cast<unsigned>((offset - kNotifyOffset) / kNotifyMultiplier);
            if (queue < queue_count_)
                device_.queue_notified(queue);
            return;
        }
        write_registers(offset, size, value);
    }

private:
    static constexpr std::uint8_t kIsrQueue = 1;
    static constexpr std::uint8_t kIsrConfig = 2;

    struct Registers {
        std::uint32_t device_feature_select{};
        std::uint32_t driver_feature_select{};
        std::uint64_t driver_features{};
        std::uint16_t queue_select{};
        bool resetting{};  ///< status 0 was written, the device is not drained yet
        std::array<QueueLayout, VirtioDevice::kMaxQueues> queues{};
        std::array<bool, VirtioDevice::kMaxQueues> enabled{};
    };

    [[nodiscard]] bool intx_pending() const override { return isr_.load() != 0; }
    void before_config_read(unsigned offset, unsigned size) override;
    void after_config_write(unsigned offset, unsigned size) override;
    /// An access to a BAR that the guest makes through configuration space.
    struct WindowAccess {
        IoDevice& device;
        std::uint32_t offset;
        std::uint32_t size;
    };
    /// What an access to `size` configuration bytes at `offset` stands for, if it touches the window's data.
    [[nodiscard]] std::optional<WindowAccess> window_access(unsigned offset, unsigned size) const;
    void add_capabilities();

    [[nodiscard]] std::uint64_t offered_features() const;
    std::uint64_t read_common(std::uint64_t offset, unsigned size);
    void write_registers(std::uint64_t offset, unsigned size, std::uint64_t value);
    void write_common(std::uint64_t offset, unsigned size, std::uint64_t value);
    void write_status(std::uint8_t value);
    /// A write to the registers of the selected queue. Under the registers' lock.
    void write_queue(Registers& registers, std::uint64_t offset, unsigned size, std::uint64_t value);
    /// Takes the queues into use. False: one is unusable. Under the registers' lock.
    bool start(const Registers& registers);
    void begin_reset(Registers& registers);
    /// Ends a reset once the device is drained. Under the registers' lock.
    void finish_reset(Registers& registers);
    void clear(Registers& registers);
    /// What a vector register reads after `vector` was written.
    [[nodiscard]] std::uint16_t checked_vector(std::uint64_t vector) const;
    void interrupt(std::uint16_t vector, std::uint8_t cause);

    VirtioDevice& device_;
    const unsigned queue_count_;
    MsixTable msix_;
    unsigned config_access_{0};  ///< offset of the PCI configuration access capability
    Guarded<Registers, Rank::board> registers_{};
    // What is used without the lock:
    std::atomic<std::uint8_t> status_{0};
    std::atomic<std::uint8_t> isr_{0};
    std::atomic<std::uint8_t> generation_{0};
    std::atomic<std::uint16_t> config_vector_{VIRTIO_MSI_NO_VECTOR};
    std::array<std::atomic<std::uint16_t>, VirtioDevice::kMaxQueues> queue_vectors_{};
};

}  // namespace hv::virtio
