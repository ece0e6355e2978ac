// SPDX-License-Identifier: MIT
#include "vmm/core/vm_manager.hpp"

#include "vmm/base/log.hpp"
#include "vmm/base/machine.hpp"

#include <algorithm>

namespace hv {

using log::Topic;

namespace {

/// Guests restart themselves as often as they like: from then on, their lines are limited.
constexpr std::uint32_t kManyResets = 8;
constexpr std::uint64_t kRetryNs = 1'000'000;
constinit log::RateLimit restart_log;
bool worth_a_line(const VmManager::Entry& entry) {
    return entry.resets < kManyResets || restart_log.admit();
}

}  // namespace

const char* to_string(VmState state) {
    switch (state) {
    case VmState::stopped: return "stopped";
    case VmState::running: return "running";
    case VmState::stopping: return "stopping";
    case VmState::ended: return "ended";
    }
    return "?";
}

bool VmManager::Entry::ended_well() const {
    switch (reason) {
    case VmStop::power_off:
    case VmStop::by_host: return true;
    case VmStop::exit_code: return exit_code == 0;
    default: return false;
    }
}

VmManager::VmManager(const config::Config& config, VmServices services, VmConsoles& consoles)
    : config_{config}, services_{services}, consoles_{consoles}, boot_cpu_{machine::cpu_index()} {
    services_.call = note_work;
    services_.context = this;
}

Expected<void> VmManager::init() {
    HV_TRY(entries_.reserve(config_.vms.size()));
    for (const config::VmConfig& vm : config_.vms) {
        Entry entry;
        entry.config = &vm;
        HV_TRY(entries_.push(std::move(entry)));
    }
    return {};
}

VmManager::Needs VmManager::needs_of(const config::VmConfig& vm) const {
    using config::DiskSource;
    const bool disks = std::any_of(vm.disks.begin(), vm.disks.end(), [](const config::DiskConfig& disk) {
        return disk.source == DiskSource::disk || disk.source == DiskSource::partition;
    });
    const bool uplinks = std::any_of(vm.nics.begin(), vm.nics.end(), [&](const config::NicConfig& nic) {
        return nic.switch_index < config_.switches.size() &&
               !config_.switches[nic.switch_index].uplink.empty();
    });
    return disks || uplinks ? Needs::devices : Needs::nothing;
}

void VmManager::autostart(Needs needs) {
    for (Entry& entry : entries_) {
        if (entry.config->autostart && needs_of(*entry.config) == needs)
            static_cast<void>(start(entry));  // said in the log, and all_ended_well() knows
    }
}

VmManager::Entry* VmManager::find(std::string_view name) {
    for (Entry& entry : entries_) {
        if (entry.config->name == name)
            return &entry;
    }
    return nullptr;
}

Expected<void> VmManager::start(Entry& entry) {
    if (entry.vm != nullptr || shutting_down_)
        return Unexpected{Error::busy};
    const auto index = static_cast<std::size_t>(&entry - entries_.begin());
    const auto name = entry.config->name;
    entry.failed_to_start = true;
    if (!entry.config->valid) {
        log::error(Topic::vm, "%.*s is not started: its configuration is wrong",
                   static_cast<int>(name.size()), name.data());
        return Unexpected{Error::invalid_argument};
    }
    entry.started_at = services_.clock.now();
    const Vm::Consoles consoles = HV_TRY(consoles_.open(index, name));
    auto vm = Vm::create(*entry.config, services_, consoles);
    if (!vm) {
        consoles_.close(index);
        return Unexpected{vm.error()};
    }
    entry.failed_to_start = false;
    entry.vm = std::move(*vm);
    entry.state = VmState::running;
    entry.reason = VmStop::none;
    consoles_.connect(index, entry.vm->board().uart(), entry.vm->devices().console());
    if (worth_a_line(entry))
        log::info(Topic::vm, "%.*s starts: %u vCPUs, %llu MiB, %llu KiB beside",
                  static_cast<int>(name.size()), name.data(), entry.config->cpus,
                  static_cast<unsigned long long>(entry.config->memory / kMiB),
                  static_cast<unsigned long long>((entry.vm->overhead_bytes() + consoles_.bytes()) / kKiB));
    entry.vm->start();
    return {};
}

Expected<void> VmManager::stop(Entry& entry) {
    if (entry.vm == nullptr)
        return Unexpected{Error::not_found};
    entry.state = VmState::stopping;
    entry.vm->request_stop(VmStop::by_host, 0);
    return {};
}

Expected<void> VmManager::reset(Entry& entry) {
    if (entry.vm == nullptr)
        return Unexpected{Error::not_found};
    entry.vm->request_stop(VmStop::reset, 0);
    return {};
}

Expected<void> VmManager::press_power_button(Entry& entry) {
    if (entry.vm == nullptr)
        return Unexpected{Error::not_found};
    entry.vm->board().press_power_button();
    return {};
}

Expected<void> VmManager::set_link(Entry& entry, std::size_t number, virtio::VirtioNet::Link link) {
    if (entry.vm == nullptr)
        return Unexpected{Error::not_found};
    if (number >= entry.vm->nics().size())
        return Unexpected{Error::out_of_range};
    entry.vm->nics()[number]->set_link(link);
    return {};
}

Expected<void> VmManager::set_balloon(Entry& entry, std::uint64_t bytes) {
    if (entry.vm == nullptr)
        return Unexpected{Error::not_found};
    virtio::VirtioBalloon* const balloon = entry.vm->devices().balloon();
    if (balloon == nullptr)
        return Unexpected{Error::unsupported};
    if (bytes > entry.config->memory)
        return Unexpected{Error::out_of_range};
    balloon->set_target(static_cast<std::uint32_t>(bytes / kPageSize));
    return {};
}

void VmManager::update_disks() {
    for (const Entry& entry : entries_) {
        if (entry.vm == nullptr)
            continue;
        for (const auto& disk : entry.vm->disks())
            disk->update_size();
    }
}

void VmManager::shut_down() {
    shutting_down_ = true;
    for (Entry& entry : entries_)
        static_cast<void>(stop(entry));  // what does not run needs no stop
}

void VmManager::note_work(void* self) {
    auto& manager = *static_cast<VmManager*>(self);
    manager.work_.store(true, std::memory_order_release);
    machine::kick_cpu(manager.boot_cpu_);
}

void VmManager::service() {
    work_.store(false, std::memory_order_seq_cst);
    for (Entry& entry : entries_) {
        if (entry.vm == nullptr)
            continue;
        if (!entry.vm->stopped())
            entry.vm->service();
        else if (entry.vm->settle())
            finish(entry);
        else
            services_.clock.arm(retry_, services_.clock.now() + services_.clock.from_nanoseconds(kRetryNs));
    }
}

void VmManager::finish(Entry& entry) {
    VmStop reason = entry.vm->stop_reason();
    entry.exit_code = entry.vm->exit_code();
    const auto name = entry.config->name;
    if (reason == VmStop::reset && entry.state == VmState::stopping) {
        reason = VmStop::by_host;  // the guest's wish came first, the host's counts
    } else if (reason == VmStop::reset) {
        if (worth_a_line(entry))
            log::info(Topic::vm, "%.*s is reset", static_cast<int>(name.size()), name.data());
        ++entry.resets;
        if (entry.vm->reset()) {
            entry.vm->start();
            return;
        }
        reason = VmStop::crashed;
    }
    end(entry, reason);
    if (wants_restart(entry)) {
        ++entry.resets;
        static_cast<void>(start(entry));  // said in the log
    }
}

void VmManager::end(Entry& entry, VmStop reason) {
    const std::uint64_t lasted = services_.clock.now() - entry.started_at;
    consoles_.close(static_cast<std::size_t>(&entry - entries_.begin()));
    entry.vm.reset();
    entry.state = VmState::ended;
    entry.reason = reason;
    const auto name = entry.config->name;
    if (!worth_a_line(entry))
        return;
    log::debug(Topic::vm, "%.*s lasted for %llu ticks", static_cast<int>(name.size()), name.data(),
               static_cast<unsigned long long>(lasted));
    if (reason == VmStop::exit_code)
        log::info(Topic::vm, "%.*s ended: debug exit with code %u", static_cast<int>(name.size()),
                  name.data(), entry.exit_code);
    else
        log::info(Topic::vm, "%.*s ended: %s", static_cast<int>(name.size()), name.data(), to_string(reason));
}

bool VmManager::wants_restart(const Entry& entry) const {
    if (shutting_down_ || entry.reason == VmStop::by_host)
        return false;
    switch (entry.config->restart) {
    case config::Restart::no: return false;
    case config::Restart::on_failure: return !entry.ended_well();
    case config::Restart::always: return true;
    }
    return false;
}

bool VmManager::all_ended() const {
    for (const Entry& entry : entries_) {
        if (entry.vm != nullptr)
            return false;
    }
    return true;
}

bool VmManager::all_ended_well() const {
    for (const Entry& entry : entries_) {
        if (entry.failed_to_start || (entry.state == VmState::ended && !entry.ended_well()))
            return false;
    }
    return true;
}

}  // namespace hv
