// SPDX-License-Identifier: MIT
// A virtual machine: memory, address space, buses, board, disks, network interfaces, small devices and vCPUs,
// destroyed in reverse order. Vm::create() (vm_builder.cpp) builds one from its configuration.
#pragma once

#include "vmm/config/config.hpp"
#include "vmm/core/board.hpp"
#include "vmm/core/guest_address_space.hpp"
#include "vmm/core/io_bus.hpp"
#include "vmm/core/spare_memory.hpp"
#include "vmm/core/vcpu.hpp"
#include "vmm/core/vm_control.hpp"
#include "vmm/core/vm_devices.hpp"
#include "vmm/core/vm_disk.hpp"
#include "vmm/core/vm_nic.hpp"
#include "vmm/devices/char_sink.hpp"
#include "vmm/loader/module_files.hpp"
#include "vmm/mm/guest_memory.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

namespace hv {

class DiskDirectory;
class EntropySource;

namespace net {
class Switch;
}

/// What a VM is made with; all of it outlives the VM.
struct VmServices {
    FrameSource& frames;
    VirtExtension& extension;
    Clock& clock;
    Scheduler& scheduler;
    const loader::ModuleFiles& files;
    DiskDirectory& disks;
    std::span<const std::unique_ptr<net::Switch>> switches;  ///< in the order of Config::switches
    x86::CpuidPolicy (*cpuid_policy)(const x86::CpuidConfig& config);
    WallClock boot_time;
    /// Called when the boot CPU shall look at the VM: its last vCPU has parked after a stop, or Vm::service()
    /// has something to do. Any CPU, without locks.
    void (*call)(void* context);
    void* context;
    /// Bytes that are taken of the host's memory at this moment.
    std::uint64_t (*memory_in_use)();
    EntropySource* entropy{nullptr};  ///< nullptr: no VM has an entropy device
};

class Vm final : private VmControl, private SpareMemory::Owner {
public:
    /// Where what the guest prints on its serial line and its debug port goes.
    struct Consoles {
        CharSink& serial;
        CharSink& debug;
    };

    /// Builds the VM that `config` describes, its kernel loaded, not yet running. What is wrong is in the
    /// log, by the VM's name. Error::no_memory, Error::not_found (a file), Error::corrupted and others from
    /// the loader.
    static Expected<std::unique_ptr<Vm>> create(const config::VmConfig& config, const VmServices& services,
                                                Consoles consoles);
    ~Vm();
    Vm(const Vm&) = delete;
    Vm& operator=(const Vm&) = delete;

    /// Lets the vCPUs run.
    void start();
    /// See VmControl. The VM stands still once stopped() is true.
    void request_stop(VmStop reason, std::uint32_t code) override;
    /// Whether all vCPUs have parked after a request.
    [[nodiscard]] bool stopped() const { return running_vcpus_.load(std::memory_order_acquire) == 0; }
    [[nodiscard]] VmStop stop_reason() const { return stop_reason_.load(std::memory_order_acquire); }
    [[nodiscard]] std::uint32_t exit_code() const { return exit_code_; }
    /// While not stopped, on the boot CPU: what its vCPUs cannot do.
    void service();
    /// While stopped: takes the disks out of use. True: none of their requests is under way any more, which
    /// reset() and the VM's end need; else another call will tell.
    bool settle();
    /// While stopped and settled: the machine as after power-on, the kernel loaded again; disks keep their
    /// contents. Errors as create().
    Expected<void> reset();

    void vcpu_parked() override;

    [[nodiscard]] const config::VmConfig& config() const { return config_; }
    [[nodiscard]] std::span<const std::unique_ptr<Vcpu>> vcpus() const { return vcpus_.span(); }
    [[nodiscard]] GuestMemory& memory() { return memory_; }
    [[nodiscard]] const GuestAddressSpace& address_space() const { return *space_; }
    [[nodiscard]] Board& board() { return *board_; }
    [[nodiscard]] std::span<const std::unique_ptr<VmDisk>> disks() const { return disks_.span(); }
    [[nodiscard]] std::span<const std::unique_ptr<VmNic>> nics() const { return nics_.span(); }
    [[nodiscard]] const VmDevices& devices() const { return devices_; }
    /// Bytes that building the VM took of the host's memory, beside its RAM and its RAM disks: nested page
    /// tables, vCPUs with their control structures, devices.
    [[nodiscard]] std::uint64_t overhead_bytes() const { return overhead_bytes_; }
    /// The nested page tables' share of it.
    [[nodiscard]] std::uint64_t table_bytes() const { return space_->table_bytes(); }

private:
    Vm(const config::VmConfig& config, const VmServices& services, GuestMemory memory);

    // SpareMemory::Owner
    void spare_memory_waits() override { services_.call(services_.context); }
    void memory_leaves() override;

    /// The platform's reset of everything that may have a timer running.
    void quiesce();

    // vm_builder.cpp
    Expected<void> map_memory();
    Expected<void> add_board(Consoles consoles);
    Expected<void> add_vcpus();
    Expected<void> add_disks();
    Expected<void> add_nics();
    Expected<void> load_kernel();

    const config::VmConfig& config_;
    const VmServices& services_;
    std::uint64_t overhead_bytes_{0};
    GuestMemory memory_;
    SchedGroup group_;
    std::unique_ptr<GuestAddressSpace> space_;
    std::optional<SpareMemory> spare_;  ///< if it has a balloon
    IoBus ports_{IoBus::kPortHintShift};
    IoBus mmio_{IoBus::kMemoryHintShift};
    InterruptFabric fabric_;
    x86::CpuidPolicy cpuid_;
    std::int64_t tsc_offset_;
    x86::KvmClock kvm_clock_;
    std::unique_ptr<Board> board_;
    Vec<std::unique_ptr<VmDisk>> disks_;
    Vec<std::unique_ptr<VmNic>> nics_;
    VmDevices devices_;
    std::optional<VcpuEnvironment> environment_;
    Vec<std::unique_ptr<Vcpu>> vcpus_;
    Vec<LocalApic*> apics_;

    std::atomic<std::uint32_t> stop_epoch_{1};  ///< odd: the VM is to stop, or stands still
    std::atomic<VmStop> stop_reason_{VmStop::none};
    std::uint32_t exit_code_{0};  ///< written by whoever set stop_reason_
    std::atomic<std::uint32_t> running_vcpus_{0};
};

}  // namespace hv
