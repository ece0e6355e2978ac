// SPDX-License-Identifier: MIT
#include "vmm/monitor/vm_manager_view.hpp"

#include "vmm/core/vm_manager.hpp"
#include "vmm/monitor/console_mux.hpp"
#include "vmm/monitor/vm_console_set.hpp"
#include "vmm/monitor/vsock_terminal.hpp"

namespace hv {

std::size_t VmManagerView::size() const {
    return manager_.entries().size();
}

const config::VmConfig& VmManagerView::config(std::size_t index) const {
    return *manager_.entries()[index].config;
}

VmDirectory::Status VmManagerView::status(std::size_t index) const {
    const VmManager::Entry& entry = manager_.entries()[index];
    Status status{to_string(entry.state), {}, entry.resets, entry.vm != nullptr, 0};
    if (entry.failed_to_start)
        status.ending.append("failed to start");
    else if (entry.reason == VmStop::exit_code)
        status.ending.append("debug exit with code %u", entry.exit_code);
    else if (entry.reason != VmStop::none)
        status.ending.append("%s", to_string(entry.reason));
    if (entry.vm != nullptr)
        status.overhead = entry.vm->overhead_bytes() + consoles_.bytes();
    return status;
}

std::optional<VmDirectory::VcpuStatistics> VmManagerView::vcpu(std::size_t index,
                                                               std::uint32_t number) const {
    const VmManager::Entry& entry = manager_.entries()[index];
    if (entry.vm == nullptr)
        return std::nullopt;
    const Vcpu& vcpu = *entry.vm->vcpus()[number];
    VcpuStatistics statistics{};
    for (unsigned reason = 0; reason < VmExit::kReasons; ++reason)
        statistics.exits[reason] = vcpu.exits(static_cast<VmExit::Reason>(reason));
    const auto nanoseconds = [](std::uint64_t ticks) {
        return Clock::scale(ticks, 1'000'000'000, machine::tsc_hz());
    };
    const VmServices& services = manager_.services();
    const Scheduler::Times times = services.scheduler.times(vcpu);
    statistics.run_ticks = times.ran;
    statistics.run_ns = nanoseconds(times.ran);
    statistics.wait_ns = nanoseconds(times.waited);
    statistics.wakes = vcpu.wakes();
    statistics.wake_ns = nanoseconds(vcpu.wake_ticks());
    statistics.most_wake_ns = nanoseconds(vcpu.most_wake_ticks());
    statistics.age_ns = nanoseconds(services.clock.now() - entry.started_at);
    return statistics;
}

std::optional<VmDirectory::DiskStatistics> VmManagerView::disk(std::size_t index, std::size_t number) const {
    const VmManager::Entry& entry = manager_.entries()[index];
    if (entry.vm == nullptr)
        return std::nullopt;
    const VmDisk& disk = *entry.vm->disks()[number];
    const virtio::VirtioBlk::Counters& counters = disk.device().counters();
    const auto value = [](const std::atomic<std::uint64_t>& counter) {
        return counter.load(std::memory_order_relaxed);
    };
    return DiskStatistics{value(counters.reads),   value(counters.sectors_read) * kSectorSize,
                          value(counters.writes),  value(counters.sectors_written) * kSectorSize,
                          value(counters.flushes), value(counters.errors),
                          disk.overlay_bytes()};
}

Expected<void> VmManagerView::start(std::size_t index) {
    return manager_.start(manager_.entries()[index]);
}
Expected<void> VmManagerView::stop(std::size_t index) {
    return manager_.stop(manager_.entries()[index]);
}
Expected<void> VmManagerView::reset(std::size_t index) {
    return manager_.reset(manager_.entries()[index]);
}
Expected<void> VmManagerView::press_power_button(std::size_t index) {
    return manager_.press_power_button(manager_.entries()[index]);
}
Expected<void> VmManagerView::set_link(std::size_t index, std::size_t nic, Link link) {
    using DeviceLink = virtio::VirtioNet::Link;
    return manager_.set_link(manager_.entries()[index], nic,
                             link == Link::up ? DeviceLink::up : DeviceLink::down);
}
Expected<void> VmManagerView::set_balloon(std::size_t index, std::uint64_t bytes) {
    return manager_.set_balloon(manager_.entries()[index], bytes);
}
Expected<VmDirectory::Balloon> VmManagerView::look_at_balloon(std::size_t index) {
    const VmManager::Entry& entry = manager_.entries()[index];
    if (entry.vm == nullptr)
        return Unexpected{Error::not_found};
    virtio::VirtioBalloon* const device = entry.vm->devices().balloon();
    if (device == nullptr)
        return Unexpected{Error::unsupported};
    const auto told = device->statistics();
    const Balloon balloon{device->target() * kPageSize,           device->actual() * kPageSize,
                          entry.vm->memory().absent_bytes(),      told[virtio::VIRTIO_BALLOON_S_MEMTOT],
                          told[virtio::VIRTIO_BALLOON_S_MEMFREE], told[virtio::VIRTIO_BALLOON_S_AVAIL]};
    device->request_statistics();
    return balloon;
}
void VmManagerView::show_console(std::size_t index) {
    mux_.focus(consoles_.channel(index));
}
Expected<void> VmManagerView::connect(std::size_t index, std::uint32_t port) {
    const VmManager::Entry& entry = manager_.entries()[index];
    if (entry.vm == nullptr)
        return Unexpected{Error::not_found};
    virtio::VirtioVsock* const device = entry.vm->devices().vsock();
    if (device == nullptr)
        return Unexpected{Error::unsupported};
    return terminal_.connect(entry.config->name, *device, port);
}

}  // namespace hv
