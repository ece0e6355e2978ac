// SPDX-License-Identifier: MIT
// The machine's own disks and network interfaces: found on the PCI bus by class, driven, and named in the
// order of their addresses ("nvme0", "ahci0", "virtio0", "nic0"). A name stands for a place, whatever works
// elsewhere. What does not work is said in the log, and the host goes on without it. Boot CPU only.
#pragma once

#include "boot/main/host_interrupts.hpp"
#include "boot/main/host_ports.hpp"
#include "boot/main/pci_device.hpp"
#include "drivers/block/ahci_controller.hpp"
#include "drivers/block/command_engine.hpp"
#include "drivers/block/nvme_controller.hpp"
#include "drivers/block/virtio_blk_driver.hpp"
#include "drivers/net/net_device.hpp"
#include "vmm/base/text.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/mm/dma.hpp"
#include "vmm/storage/disk_directory.hpp"
#include "vmm/storage/partition_reader.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

namespace hv::boot {

class HostDevices {
public:
    using Name = DiskDirectory::Name;
    struct Nic {
        Name name;
        std::unique_ptr<NetDevice> device;
    };

    /// Called when disks have other sizes now, on any CPU, under locks.
    using Resized = void (*)(void* context);

    /// All outlive this. `memory_end` is the end of RAM.
    HostDevices(FrameSource& frames, Clock& clock, Hpa memory_end, Resized on_resize, void* context)
        : pool_{frames}, clock_{clock}, memory_end_{memory_end}, resized_{on_resize}, context_{context} {}

    /// Finds and starts them all, and reads the disks' partition tables, which may take seconds.
    void discover();
    [[nodiscard]] DiskDirectory& disks() { return disks_; }
    [[nodiscard]] std::span<Nic> nics() { return nics_.span(); }
    /// Before the power goes off, once no VM runs: disks write down what they have.
    void shut_down();

private:
    /// A function in its driver's hands, for as long as the host runs; what it is not stays empty.
    struct Driven {
        Driven(HostDevices& its_host, const pci::Function& function, unsigned its_number)
            : host{its_host}, number{its_number}, pci{its_host.config_, function, its_host.clock_, name} {}
        HostDevices& host;
        const unsigned number;  ///< among those of its kind
        Name name{};
        PciDevice pci;
        std::unique_ptr<block::NvmeController> nvme;
        std::unique_ptr<block::AhciController> ahci;
        std::unique_ptr<block::VirtioBlkDriver> virtio;
        Vec<std::unique_ptr<Name>> names;  ///< of the engines
        Vec<std::unique_ptr<block::CommandEngine>> engines;
        std::atomic<block::CommandEngine*> engine{nullptr};  ///< the only one, once interrupts may find it
        std::atomic<NetDevice*> nic{nullptr};
    };
    struct Driver {
        Expected<void> (HostDevices::*start)(Driven&);  ///< nullptr: there is none
        unsigned HostDevices::*count;                   ///< of its kind, those that do not work too
    };

    /// Those that have a driver.
    Vec<pci::Function> silence_all();
    static Driver driver_of(const pci::Function& function);
    void start(const pci::Function& function);
    void leave_out(const pci::Function& function, Error why);
    Expected<void> start_nvme(Driven& driven);
    Expected<void> start_ahci(Driven& driven);
    Expected<void> start_virtio_blk(Driven& driven);
    Expected<block::CommandEngine*> add_engine(Driven& driven, block::CommandHardware& hardware,
                                               block::CommandEngine::Options options);
    static void cut_off(void* driven);
    static void resized(void* driven);
    static void service_engine(void* driven);
    Expected<void> add_disk(const Name& name, block::CommandEngine& engine,
                            const block::DiskDescription& description);
    static void say_found(const DiskDirectory::Disk& disk);
    Expected<void> start_nic(Driven& driven);
    Expected<std::unique_ptr<NetDevice>> make_nic(Driven& driven);

    DmaPool pool_;
    Clock& clock_;
    const Hpa memory_end_;
    const Resized resized_;
    void* const context_;
    pci::PortConfig<HostPorts> config_;
    HostInterrupts interrupts_;
    Vec<std::unique_ptr<Driven>> driven_;
    unsigned nvme_count_{0}, ahci_count_{0}, virtio_count_{0}, nic_count_{0};
    Vec<DiskDirectory::Disk> found_;
    PartitionReader partitions_{pool_};
    DiskDirectory disks_{partitions_};
    Vec<Nic> nics_;
};

}  // namespace hv::boot
