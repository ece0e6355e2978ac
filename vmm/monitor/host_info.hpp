// SPDX-License-Identifier: MIT
// What the monitor asks of the host. Implemented by the composition root.
#pragma once

#include "vmm/mm/frame_allocator.hpp"
#include "vmm/mm/heap.hpp"

#include <cstdint>
#include <string_view>

namespace hv {

/// Called on the boot CPU, without a lock.
class HostInfo {
public:
    struct Cpu {
        std::uint32_t apic_id;
        std::string_view running;  ///< the vCPU's name, "vm/vcpu"; empty: idle, or the hypervisor's own work
    };

    [[nodiscard]] virtual std::uint32_t cpu_count() const = 0;
    /// A momentary picture; valid until the next VM ends. `index` < cpu_count().
    [[nodiscard]] virtual Cpu cpu(std::uint32_t index) const = 0;
    /// "VT-x", "AMD-V".
    [[nodiscard]] virtual std::string_view virtualization() const = 0;
    [[nodiscard]] virtual FrameStatistics frames() const = 0;
    [[nodiscard]] virtual HeapStatistics heap() const = 0;
    [[nodiscard]] virtual std::uint64_t uptime_ns() const = 0;
    /// Ends all VMs and then the host. Asks for it and returns, or does not return.
    virtual void power_off() = 0;
    virtual void reboot() = 0;

protected:
    ~HostInfo() = default;
};

}  // namespace hv
