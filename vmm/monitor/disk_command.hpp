// SPDX-License-Identifier: MIT
// `disk`: the physical disks, their partitions, and who uses them.
#pragma once

#include "vmm/monitor/monitor_command.hpp"
#include "vmm/storage/disk_directory.hpp"

#include <string_view>

namespace hv {

class DiskCommand final : public MonitorCommand {
public:
    explicit DiskCommand(DiskDirectory& disks) : disks_{disks} {}
    [[nodiscard]] std::string_view name() const override { return "disk"; }
    [[nodiscard]] std::string_view help() const override {
        return "the disks, their partitions, and who uses them";
    }
    [[nodiscard]] std::string_view usage() const override { return "disk\n"; }
    Result run(Arguments arguments, Output& out) override;

private:
    void show(const DiskDirectory::Disk& disk, Output& out);
    /// The users of [first, first + sectors).
    void show_users(const DiskDirectory::Disk& disk, std::uint64_t first, std::uint64_t sectors, Output& out);

    DiskDirectory& disks_;
};

}  // namespace hv
