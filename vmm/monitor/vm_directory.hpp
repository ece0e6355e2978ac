// SPDX-License-Identifier: MIT
// The VMs as the monitor's commands see them.
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/base/text.hpp"
#include "vmm/core/vm_exit.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace hv {

namespace config {
struct VmConfig;
}

/// Called on the boot CPU, without a lock. VMs have the order of the configuration; `index` < size().
class VmDirectory {
public:
    struct Status {
        std::string_view state;  ///< "running"
        TextBuffer<48> ending;   ///< how it ended last; empty: it never did
        std::uint32_t resets;    ///< how often it started anew
        bool running;            ///< the rest, and vcpu(), are there
        std::uint64_t overhead;  ///< bytes that it costs beside RAM and RAM disks
    };
    /// What a vCPU has done since its VM was built.
    struct VcpuStatistics {
        std::uint64_t exits[VmExit::kReasons];
        std::uint64_t run_ticks;     ///< ran on a CPU, in TSC ticks
        std::uint64_t run_ns;        ///< the same
        std::uint64_t wait_ns;       ///< wanted to, while others ran
        std::uint64_t wakes;         ///< how often it ran after it was woken from its sleep,
        std::uint64_t wake_ns;       ///< how long after, in all,
        std::uint64_t most_wake_ns;  ///< and at most
        std::uint64_t age_ns;        ///< since its VM was built
    };

    /// What a disk has done since its VM was built.
    struct DiskStatistics {
        std::uint64_t reads, bytes_read;
        std::uint64_t writes, bytes_written;
        std::uint64_t flushes;
        std::uint64_t errors;   ///< requests that were answered with one
        std::uint64_t overlay;  ///< bytes of memory that a copy-on-write disk has taken
    };

    /// A VM's balloon, in bytes.
    struct Balloon {
        std::uint64_t target;      ///< what it should hold
        std::uint64_t actual;      ///< what it holds by the guest's word
        std::uint64_t given_back;  ///< what the host has of it, and of memory that the guest reported as free
        // What the guest said last of its memory; nothing: it did not.
        std::optional<std::uint64_t> total, free, available;
    };

    [[nodiscard]] virtual std::size_t size() const = 0;
    [[nodiscard]] virtual const config::VmConfig& config(std::size_t index) const = 0;
    [[nodiscard]] virtual Status status(std::size_t index) const = 0;
    /// Of a running VM; `vcpu` < config().cpus. Nothing: it does not run.
    [[nodiscard]] virtual std::optional<VcpuStatistics> vcpu(std::size_t index, std::uint32_t vcpu) const = 0;

    /// The same of a disk; `disk` < config().disks.size().
    [[nodiscard]] virtual std::optional<DiskStatistics> disk(std::size_t index, std::size_t disk) const = 0;

    /// Errors as those of VmManager.
    virtual Expected<void> start(std::size_t index) = 0;
    virtual Expected<void> stop(std::size_t index) = 0;
    virtual Expected<void> reset(std::size_t index) = 0;
    virtual Expected<void> press_power_button(std::size_t index) = 0;
    enum class Link : std::uint8_t { down, up };
    virtual Expected<void> set_link(std::size_t index, std::size_t nic, Link link) = 0;
    virtual Expected<void> set_balloon(std::size_t index, std::uint64_t bytes) = 0;
    /// How the balloon is, and asks the guest for news of its memory, which a later call tells. Errors as
    /// set_balloon().
    virtual Expected<Balloon> look_at_balloon(std::size_t index) = 0;
    /// Gives the VM's console the line.
    virtual void show_console(std::size_t index) = 0;
    /// Gives the line to a new connection to a port of the VM's guest. Error::not_found: the VM does not run,
    /// or its guest's driver does not use its sockets; Error::unsupported: it has none; Error::busy: there
    /// are as many connections as there can be.
    virtual Expected<void> connect(std::size_t index, std::uint32_t port) = 0;

    [[nodiscard]] std::string_view name(std::size_t index) const;
    /// The VM of this name, if there is one.
    [[nodiscard]] std::optional<std::size_t> find(std::string_view name) const;

protected:
    ~VmDirectory() = default;
};

}  // namespace hv
