// SPDX-License-Identifier: MIT
#include "vmm/core/vm_disk.hpp"

#include "vmm/base/vec.hpp"
#include "vmm/core/vm.hpp"
#include "vmm/storage/disk_directory.hpp"
#include "vmm/storage/module_disk.hpp"
#include "vmm/storage/ram_disk.hpp"

#include <new>

namespace hv {

Expected<std::unique_ptr<VmDisk>> VmDisk::create(const config::DiskConfig& config, std::string_view vm,
                                                 const VmServices& services, const GuestMemory& memory,
                                                 InterruptBus& interrupts, Board& board) {
    std::unique_ptr<VmDisk> disk{new (std::nothrow) VmDisk{config}};
    if (disk == nullptr)
        return Unexpected{Error::no_memory};
    HV_TRY(disk->open(services, vm));
    static_assert(config::kMaxDiskQueues <= virtio::VirtioBlk::kMaxQueues);
    disk->device_ =
        HV_TRY(virtio::VirtioBlk::create(disk->contents(), memory, services.clock, device_options(config)));
    const unsigned slot = board.pci().free_device();
    if (slot == PciHostBridge::kDevices)
        return Unexpected{Error::out_of_range};
    disk->transport_ =
        HV_TRY(make<virtio::VirtioPciTransport>(*disk->device_, interrupts, &board.pci_line(slot)));
    HV_TRY(board.pci().attach(slot, *disk->transport_));
    return disk;
}

Expected<void> VmDisk::open(const VmServices& services, std::string_view vm) {
    switch (config_.source) {
    case config::DiskSource::module: {
        const auto* file = services.files.find(config_.name);
        if (file == nullptr)
            return Unexpected{Error::not_found};
        source_ = HV_TRY(make<ModuleDisk>(file->bytes));
        break;
    }
    case config::DiskSource::ram: source_ = HV_TRY(RamDisk::create(services.frames, config_.size)); break;
    case config::DiskSource::disk:
    case config::DiskSource::partition: source_ = HV_TRY(services.disks.open(config_, vm)); break;
    }
    if (config_.mode == config::DiskMode::copy_on_write)
        overlay_ = HV_TRY(CowOverlay::create(*source_, services.frames, overlay_options(config_, vm)));
    return {};
}

virtio::VirtioBlk::Options VmDisk::device_options(const config::DiskConfig& config) {
    return {.queues = config.queues,
            .serial = config.serial.empty() ? config.name : config.serial,
            .bytes_per_second = config.rate,
            .requests_per_second = config.iops};
}

CowOverlay::Options VmDisk::overlay_options(const config::DiskConfig& config, std::string_view vm) {
    return {.limit = config.limit, .user = vm, .disk = config.name};
}

}  // namespace hv
