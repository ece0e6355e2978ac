// SPDX-License-Identifier: MIT
#include "vmm/monitor/disk_command.hpp"

#include "vmm/monitor/printed_units.hpp"

namespace hv {

MonitorCommand::Result DiskCommand::run(Arguments arguments, Output& out) {
    if (!arguments.empty())
        return Result::wrong_arguments;
    disks_.refresh();
    if (disks_.disks().empty())
        out.write("There is no disk that this host can drive.\n");
    for (const DiskDirectory::Disk& disk : disks_.disks())
        show(disk, out);
    return Result::done;
}

void DiskCommand::show(const DiskDirectory::Disk& disk, Output& out) {
    const BlockGeometry geometry = disk.device->geometry();
    const PrintedUnit size = printed_size(geometry.sectors * kSectorSize);
    out.print("%.*s: %.*s, blocks of %u, %.*s, serial %.*s%s%s", HV_VIEW(disk.name.view()),
              HV_VIEW(size.view()), geometry.logical_block_size, HV_VIEW(disk.model.view()),
              HV_VIEW(disk.serial.view()), geometry.read_only ? ", read-only" : "",
              disk.device->gone() ? ", GONE" : "");
    const BlockDevice::Troubles troubles = disk.device->troubles();
    if (troubles.resets != 0)
        out.print(", reset %llu times", static_cast<unsigned long long>(troubles.resets));
    if (troubles.strays != 0)
        out.print(", %llu stray completions", static_cast<unsigned long long>(troubles.strays));
    if (disk.partitions.empty())
        show_users(disk, 0, geometry.sectors, out);
    out.write("\n");
    for (const DiskDirectory::Partition& partition : disk.partitions) {
        const PrintedUnit part = printed_size(partition.sectors * kSectorSize);
        out.print("  %.*sp%u: %.*s, \"%.*s\"", HV_VIEW(disk.name.view()), partition.number,
                  HV_VIEW(part.view()), HV_VIEW(partition.label.view()));
        show_users(disk, partition.first, partition.sectors, out);
        out.write("\n");
    }
}

void DiskCommand::show_users(const DiskDirectory::Disk& disk, std::uint64_t first, std::uint64_t sectors,
                             Output& out) {
    for (const DiskDirectory::Claim& claim : disks_.claims()) {
        if (claim.disk == &disk && claim.first < first + sectors && first < claim.first + claim.sectors)
            out.print(", %s by %.*s", claim.writes ? "written" : "read", HV_VIEW(claim.user));
    }
}

}  // namespace hv
