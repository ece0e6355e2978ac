// SPDX-License-Identifier: MIT
// PCI bus 0: configuration mechanism #1 (ports 0xcf8, 0xcfc) and ECAM, device 0 as the host bridge's own
// function, and the decoding of BARs onto the VM's memory bus. One function a device, no bridges.
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/base/guarded.hpp"
#include "vmm/core/guest_map.hpp"
#include "vmm/core/io_bus.hpp"
#include "vmm/core/io_device.hpp"
#include "vmm/devices/pci_function.hpp"

#include <array>
#include <atomic>
#include <cstdint>

namespace hv {

class PciHostBridge {
public:
    static constexpr unsigned kDevices = 32;

    /// BARs appear on `memory`, which outlives the bridge. `reset_port` gets byte accesses to port 0xcf9
    /// (offset 0), which lies inside the address register; nullptr: nobody answers there.
    explicit PciHostBridge(IoBus& memory, IoDevice* reset_port = nullptr);
    PciHostBridge(const PciHostBridge&) = delete;
    PciHostBridge& operator=(const PciHostBridge&) = delete;

    /// Puts `function`, which outlives the bridge's use, in the slot of `device` and gives its BARs addresses
    /// in the PCI window. Before the VM runs. Error::already_exists: the slot is taken; Error::out_of_range:
    /// no such slot; Error::no_memory: the window is full.
    Expected<void> attach(unsigned device, PciFunction& function);
    /// The first free slot, kDevices: none.
    [[nodiscard]] unsigned free_device() const;

    /// 8 bytes of ports at guest_map::kPciAddress.
    [[nodiscard]] IoDevice& ports() { return ports_; }
    /// guest_map::kEcamSize bytes of memory at guest_map::kEcam.
    [[nodiscard]] IoDevice& ecam() { return ecam_; }

    /// The platform's reset: configuration as attach() left it. No vCPU of the VM runs. Device state is reset
    /// apart.
    void reset();

private:
    friend class PciFunction;

    class Ports final : public IoDevice {
    public:
        Ports(PciHostBridge& bridge, IoDevice* reset_port) : bridge_{bridge}, reset_port_{reset_port} {}
        std::uint64_t read(std::uint64_t offset, unsigned size) override;
        void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
        void reset() { address_ = 0; }

    private:
        /// Offset in bus 0's configuration space that the data port shows, or kNowhere.
        [[nodiscard]] std::uint32_t selected() const;

        PciHostBridge& bridge_;
        IoDevice* reset_port_;
        std::atomic<std::uint32_t> address_{0};
    };
    class Ecam final : public IoDevice {
    public:
        explicit Ecam(PciHostBridge& bridge) : bridge_{bridge} {}
        std::uint64_t read(std::uint64_t offset, unsigned size) override {
            return bridge_.read(offset, size);
        }
        void write(std::uint64_t offset, unsigned size, std::uint64_t value) override {
            bridge_.write(offset, size, value);
        }

    private:
        PciHostBridge& bridge_;
    };

    /// `offset` is an ECAM offset in bus 0; any size up to 8, any alignment.
    std::uint64_t read(std::uint64_t offset, unsigned size);
    void write(std::uint64_t offset, unsigned size, std::uint64_t value);
    [[nodiscard]] PciFunction* function_at(std::uint64_t offset) const;
    /// Makes the memory bus agree with all functions' BARs and command registers. A BAR that overlaps
    /// something else stays off the bus until that has moved away. Under config_lock_.
    void remap();

    IoBus& memory_;
    Spinlock config_lock_{Rank::board};  ///< protects the configuration space of every function
    std::uint64_t next_address_{guest_map::kPciWindow};
    std::array<PciFunction*, kDevices> functions_{};
    Ports ports_;
    Ecam ecam_;
    PciFunction self_;
};

}  // namespace hv
