// SPDX-License-Identifier: MIT
// All VMs of the host, by the configuration: starts, stops and restarts them, and says when the last one has
// ended. Used on the boot CPU only, but for note_work().
#pragma once

#include "vmm/base/vec.hpp"
#include "vmm/config/config.hpp"
#include "vmm/core/vm.hpp"

#include <cstdint>
#include <memory>
#include <string_view>

namespace hv {

/// Makes and takes back the consoles of VMs. Implemented by the monitor.
class VmConsoles {
public:
    /// For the VM with this index in the configuration, before it is built. Error::no_memory.
    virtual Expected<Vm::Consoles> open(std::size_t index, std::string_view name) = 0;
    /// The VM is built: what is typed goes to it from now on, to its virtio console if it has one that its
    /// driver uses.
    virtual void connect(std::size_t index, Uart16550& uart, virtio::VirtioConsole* console) = 0;
    /// The VM is about to be destroyed.
    virtual void close(std::size_t index) = 0;
    /// What each VM's console takes of the host's memory.
    [[nodiscard]] virtual std::uint64_t bytes() const = 0;

protected:
    ~VmConsoles() = default;
};

enum class VmState : std::uint8_t {
    stopped,  ///< never started, or its configuration is wrong
    running,
    stopping,  ///< its vCPUs are on their way out
    ended,     ///< see VmManager::Entry::reason
};
const char* to_string(VmState state);

class VmManager {
public:
    struct Entry {
        const config::VmConfig* config{};
        std::unique_ptr<Vm> vm;  ///< only while running or stopping
        VmState state{VmState::stopped};
        VmStop reason{VmStop::none};  ///< why it ended last
        std::uint32_t exit_code{0};   ///< with VmStop::exit_code
        std::uint64_t started_at{0};  ///< TSC before it was built
        std::uint32_t resets{0};      ///< by the guest, by the monitor, or by its restart policy
        bool failed_to_start{false};
        /// Whether it ended as it should: by power-off, by the host, or with exit code 0.
        [[nodiscard]] bool ended_well() const;
    };

    /// All outlive this.
    VmManager(const config::Config& config, VmServices services, VmConsoles& consoles);
    ~VmManager() { services_.clock.disarm(retry_); }

    /// Makes the list. Error::no_memory.
    Expected<void> init();
    /// What VMs with `autostart` need of the host's own devices.
    enum class Needs : std::uint8_t { nothing, devices };
    /// Starts those that need this.
    void autostart(Needs needs);
    [[nodiscard]] std::span<Entry> entries() { return entries_.span(); }
    [[nodiscard]] const VmServices& services() const { return services_; }
    /// nullptr: there is no VM of that name.
    [[nodiscard]] Entry* find(std::string_view name);

    /// Builds and starts a VM. Error::busy: it runs; Error::invalid_argument: its configuration is wrong;
    /// else as Vm::create().
    Expected<void> start(Entry& entry);
    /// Ends a running VM at once, as if its plug were pulled. Error::not_found: it does not run.
    Expected<void> stop(Entry& entry);
    /// Restarts a running VM as its reset button would. Error::not_found: it does not run.
    Expected<void> reset(Entry& entry);
    /// Presses the power button. Error::not_found: it does not run.
    Expected<void> press_power_button(Entry& entry);
    /// Plugs the cable of the VM's NIC `number` in, or pulls it. Error::not_found: it does not run;
    /// Error::out_of_range: it has no such NIC.
    Expected<void> set_link(Entry& entry, std::size_t number, virtio::VirtioNet::Link link);
    /// Asks the VM's guest to have so many bytes, cut to whole pages, in its balloon. Error::not_found: it
    /// does not run; Error::unsupported: it has no balloon; Error::out_of_range: more than its RAM.
    Expected<void> set_balloon(Entry& entry, std::uint64_t bytes);
    /// Disks of the host have other sizes now: tells the VMs that have them.
    void update_disks();
    /// Stops all VMs and lets none start again.
    void shut_down();

    /// Deals with VMs that have stopped, and with memory that guests do without. To be called when
    /// note_work() was.
    void service();
    [[nodiscard]] bool has_work() const { return work_.load(std::memory_order_acquire); }
    /// No VM runs.
    [[nodiscard]] bool all_ended() const;
    /// Every VM that was started has ended well, and none failed to start.
    [[nodiscard]] bool all_ended_well() const;

private:
    /// Looks again at VMs whose disks still work on something.
    class Retry final : public Timer {
    public:
        explicit Retry(VmManager& manager) : manager_{manager} {}
        void fire() override { note_work(&manager_); }

    private:
        VmManager& manager_;
    };

    static void note_work(void* self);
    void finish(Entry& entry);
    void end(Entry& entry, VmStop reason);
    [[nodiscard]] Needs needs_of(const config::VmConfig& vm) const;
    [[nodiscard]] bool wants_restart(const Entry& entry) const;

    const config::Config& config_;
    VmServices services_;
    VmConsoles& consoles_;
    Vec<Entry> entries_;
    Retry retry_{*this};
    std::atomic<bool> work_{false};
    bool shutting_down_{false};
    std::uint32_t boot_cpu_;
};

}  // namespace hv
