// SPDX-License-Identifier: MIT
// A SATA host bus adapter that answers by AHCI 1.0 to 1.3.1, and the disks at its ports. Left out: ATAPI
// devices, port multipliers, hot plug of new disks, power management of the link, command completion
// coalescing.
#pragma once

#include "drivers/block/ahci_port.hpp"

#include <array>
#include <memory>
#include <span>
#include <string_view>

namespace hv::block {

class AhciController {
public:
    /// Takes the HBA over from the firmware and starts its disks, which may take seconds. `registers` are its
    /// ABAR; it may master the bus. `memory_end` is the end of what it may be told to transfer to and from.
    /// All outlive the controller, and the controller lives as long as the host runs. Error::unsupported: it
    /// does not reach all of that memory; Error::timed_out: it hangs; Error::corrupted: it makes no sense;
    /// Error::no_memory.
    static Expected<std::unique_ptr<AhciController>>
    create(DeviceRegisters& registers, DmaPool& pool, Clock& clock, std::string_view name, Hpa memory_end);

    /// Those with a disk; each wants an engine of one channel and ports()[i]->slots() slots.
    [[nodiscard]] std::span<const std::unique_ptr<AhciPort>> ports() const { return ports_.span(); }
    /// Whom service() calls for `port`. Before the interrupt is let in.
    void set_engine(const AhciPort& port, CommandEngine& engine) { engines_[port.number()] = &engine; }

    /// The HBA's interrupt came. No lock held. Called once after it has been set up as well: what came before
    /// would keep it from coming again.
    void service();
    /// Before the host is powered off, with the engines stopped. Waits.
    void shut_down();

private:
    AhciController(DeviceRegisters& registers, Clock& clock, std::string_view name)
        : hba_{registers, clock, name} {}
    void take_over();
    Expected<void> make_ports(DmaPool& pool);
    Expected<void> stop_ports();
    void find_disks();

    AhciHba hba_;
    Vec<std::unique_ptr<AhciPort>> ports_;
    std::array<CommandEngine*, ahci::kMaxPorts> engines_{};
};

}  // namespace hv::block
