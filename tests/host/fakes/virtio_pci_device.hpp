// SPDX-License-Identifier: MIT
// A physical virtio device as its driver sees it: a PCI function with registers behind BAR 4, which reads and
// writes the driver's rings in physical memory. Tests play the device: they take chains, answer them when and
// how they like, and make it break the rules. A driver that breaks them gets an exception.
#pragma once

#include "drivers/pci/function.hpp"
#include "drivers/virtio/pci_transport.hpp"
#include "drivers/virtio/virtio_defs.hpp"
#include "drivers/virtio/virtio_pci_defs.hpp"
#include "vmm/base/bytes.hpp"
#include "vmm/base/device_registers.hpp"

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <vector>

namespace hv::fake {

class VirtioPciDevice final : public pci::PciConfig, public DeviceRegisters {
public:
    static constexpr pci::Bdf kAddress{0, 3, 0};
    static constexpr unsigned kBar = 4;
    static constexpr std::uint16_t kIsr = 0x1000, kConfig = 0x2000, kNotify = 0x3000, kRegisters = 0x4000;
    /// Where the capabilities lie in configuration space.
    static constexpr std::uint8_t kCommonCap = 0x50, kIsrCap = 0x60, kConfigCap = 0x70, kNotifyCap = 0x80,
                                  kWindowCap = 0x98;

    struct Options {
        std::uint16_t type;  ///< VIRTIO_ID_*
        std::uint64_t features;
        std::vector<std::uint16_t> queue_sizes;
        std::vector<std::byte> config;  ///< the device's own configuration space
        std::uint16_t vectors = 8;
    };
    explicit VirtioPciDevice(const Options& options);

    [[nodiscard]] pci::Function function() { return pci::probe(*this, kAddress).value(); }
    [[nodiscard]] virtio::PciTransport::Bars bars() {
        virtio::PciTransport::Bars all{};
        all[kBar] = this;
        return all;
    }
    [[nodiscard]] virtio::PciTransport transport() {
        return virtio::PciTransport::create(*this, function(), bars()).value();
    }

    // --- what the driver did
    // --------------------------------------------------------------------------------------------
    [[nodiscard]] bool ready() const { return (status & virtio::DRIVER_OK) != 0; }
    [[nodiscard]] bool masters_bus() const { return (config_space[4] & 4) != 0; }
    std::uint8_t status{0};
    std::uint64_t driver_features{0};
    std::vector<unsigned> doorbells;  ///< queues that were notified
    unsigned resets{0};
    std::uint16_t config_vector{virtio::VIRTIO_MSI_NO_VECTOR};

    // --- rings
    // -------------------------------------------------------------------------------------------------------
    struct Chain {
        std::uint16_t head;
        std::vector<std::span<std::byte>> readable, writable;
        bool indirect;
        /// All that the device may read.
        [[nodiscard]] std::vector<std::byte> bytes() const;
        template <class T>
        [[nodiscard]] T read(std::size_t offset = 0) const {
            return load_at<T>(bytes(), offset).value();
        }
        /// Writes into what the device may write, from `offset` on.
        void write(std::size_t offset, std::span<const std::byte> data) const;
        [[nodiscard]] std::size_t writable_size() const;
    };
    struct Queue {
        std::uint16_t size{}, max_size{};
        std::uint16_t vector{virtio::VIRTIO_MSI_NO_VECTOR};
        bool enabled{};
        std::uint64_t descriptors{}, driver{}, device{};
        std::uint16_t next_avail{}, used{};
    };
    /// Takes the next chain. A device that finds none asks to be notified of the next one.
    std::optional<Chain> pop(unsigned queue);
    /// Says that `id` is done with, whether there is such a chain or not, and interrupts if that is wanted.
    void push(unsigned queue, std::uint32_t id, std::uint32_t written);
    /// Puts anything in the used index.
    void set_used_index(unsigned queue, std::uint16_t index);
    /// Asks for notifications, of the chain after the last one that was taken, or for none.
    void want_notifications(unsigned queue, bool wanted);
    std::vector<Queue> queues;
    std::map<std::uint16_t, unsigned> interrupts;  ///< by vector

    // --- how it misbehaves
    // ----------------------------------------------------------------------------------------------
    bool vanished{false};
    bool stuck{false};  ///< does not come out of a reset
    bool refuses_features{false};
    bool unsteady_config{false};               ///< its generation changes with each look
    std::uint16_t notify_offset{0};            ///< added to all queues'
    std::uint16_t vectors_left{0xffff};        ///< that it has room for
    std::function<void(unsigned)> on_notify;   ///< the driver rang the doorbell of a queue
    std::function<void(std::size_t)> on_read;  ///< before a register is read
    std::array<std::uint8_t, 256> config_space{};
    std::vector<std::byte> config;

    // pci::PciConfig
    std::uint8_t read8(pci::Bdf f, std::uint16_t at) override { return read_space<std::uint8_t>(f, at); }
    std::uint16_t read16(pci::Bdf f, std::uint16_t at) override { return read_space<std::uint16_t>(f, at); }
    std::uint32_t read32(pci::Bdf f, std::uint16_t at) override { return read_space<std::uint32_t>(f, at); }
    void write8(pci::Bdf, std::uint16_t at, std::uint8_t value) override { write_space(at, value); }
    void write16(pci::Bdf, std::uint16_t at, std::uint16_t value) override { write_space(at, value); }
    void write32(pci::Bdf, std::uint16_t at, std::uint32_t value) override { write_space(at, value); }

    // DeviceRegisters
    [[nodiscard]] std::size_t size() const override { return kRegisters; }
    std::uint8_t read8(std::size_t at) override { return read_register<std::uint8_t>(at); }
    std::uint16_t read16(std::size_t at) override { return read_register<std::uint16_t>(at); }
    std::uint32_t read32(std::size_t at) override { return read_register<std::uint32_t>(at); }
    void write8(std::size_t at, std::uint8_t value) override { write_register(at, 1, value); }
    void write16(std::size_t at, std::uint16_t value) override { write_register(at, 2, value); }
    void write32(std::size_t at, std::uint32_t value) override { write_register(at, 4, value); }

private:
    template <class T>
    T read_space(pci::Bdf function, std::uint16_t at) {
        if (vanished || function != kAddress)
            return static_cast<T>(~T{0});
        return load<T>(&config_space.at(at));
    }
    template <class T>
    void write_space(std::uint16_t at, T value) {
        store(&config_space.at(at), value);
    }
    template <class T>
    T read_register(std::size_t at) {
        return static_cast<T>(read_register(at, sizeof(T)));
    }
    void add_capability(std::uint8_t at, virtio::CapabilityType type, std::uint32_t offset,
                        std::uint32_t size, std::uint32_t data, std::uint8_t next);
    std::uint32_t read_register(std::size_t at, unsigned size);
    std::uint32_t read_common(std::size_t at, unsigned size);
    void write_register(std::size_t at, unsigned size, std::uint32_t value);
    void write_common(std::size_t at, std::uint32_t value);
    void write_queue(std::size_t at, std::uint32_t value);
    void write_status(std::uint8_t value);
    void reset();
    [[nodiscard]] bool event_index() const { return (driver_features & virtio::VIRTIO_F_EVENT_IDX) != 0; }

    const std::uint64_t features_;
    const std::uint16_t vectors_;
    std::uint8_t generation_{0};
    std::uint32_t device_half_{0}, driver_half_{0};
    std::uint16_t selected_{0};
};

}  // namespace hv::fake
