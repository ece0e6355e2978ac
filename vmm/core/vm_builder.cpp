// SPDX-License-Identifier: MIT
// Where a VM is built.
#include "vmm/base/log.hpp"
#include "vmm/base/machine.hpp"
#include "vmm/core/vm.hpp"
#include "vmm/loader/acpi_tables.hpp"
#include "vmm/loader/loader.hpp"
#include "vmm/loader/mp_table.hpp"

#include <algorithm>
#include <new>

namespace hv {
namespace {

/// Says in the log what went wrong with the VM, and passes the error on.
Unexpected failed(const config::VmConfig& config, const char* what, Error error) {
    log::error(log::Topic::vm, "%.*s: %s: %s", static_cast<int>(config.name.size()), config.name.data(), what,
               to_string(error));
    return Unexpected{error};
}

/// Nanoseconds since 1970 when the VM's TSC was 0, on the same scale as the RTC.
std::uint64_t wall_clock_at(std::int64_t tsc_offset, const VmServices& services) {
    const WallClock& boot = services.boot_time;
    const std::uint64_t zero = 0 - static_cast<std::uint64_t>(tsc_offset);
    return static_cast<std::uint64_t>(boot.seconds) * 1'000'000'000 +
           services.clock.to_nanoseconds(zero - boot.at);
}

CpuSet affinity_of(const config::VmConfig& config) {
    if (config.pin.empty())
        return CpuSet::all();
    CpuSet set;
    for (const std::uint32_t cpu : config.pin)
        set.add(cpu);
    return set;
}

}  // namespace

Expected<std::unique_ptr<Vm>> Vm::create(const config::VmConfig& config, const VmServices& services,
                                         Consoles consoles) {
    const std::uint64_t before = services.memory_in_use();
    auto memory =
        GuestMemory::create(services.frames, config.memory,
                            config.balloon ? GuestMemory::Kind::releasable : GuestMemory::Kind::fixed);
    if (!memory)
        return failed(config, "its RAM could not be allocated", memory.error());
    std::unique_ptr<Vm> vm{new (std::nothrow) Vm{config, services, std::move(*memory)}};
    if (vm == nullptr)
        return failed(config, "no memory for it", Error::no_memory);
    if (const auto done = vm->map_memory(); !done)
        return failed(config, "its RAM could not be mapped", done.error());
    if (const auto done = vm->add_board(consoles); !done)
        return failed(config, "its board could not be built", done.error());
    if (const auto done = vm->add_disks(); !done)
        return failed(config, "a disk could not be attached", done.error());
    if (const auto done = vm->add_nics(); !done)
        return failed(config, "a network interface could not be attached", done.error());
    if (const auto done = vm->devices_.add(config, services, vm->memory_, vm->spare_ ? &*vm->spare_ : nullptr,
                                           vm->fabric_, *vm->board_, consoles.serial);
        !done)
        return failed(config, "a device could not be attached", done.error());
    if (const auto done = vm->add_vcpus(); !done)
        return failed(config, "its vCPUs could not be made", done.error());
    if (const auto done = vm->load_kernel(); !done)
        return failed(config, "it cannot be booted", done.error());
    // On the boot CPU, which alone makes VMs; what a running VM's copy-on-write disk takes meanwhile is RAM
    // disk.
    const std::uint64_t taken = services.memory_in_use() - before;
    vm->overhead_bytes_ = taken - std::min(taken, config::memory_needed(config));
    return vm;
}

Vm::Vm(const config::VmConfig& config, const VmServices& services, GuestMemory memory)
    : config_{config},
      services_{services},
      memory_{std::move(memory)},
      group_{config.weight, config.cap},
      cpuid_{services.cpuid_policy({.vcpus = config.cpus,
                                    .tsc_hz = services.clock.hz(),
                                    .apic_timer_hz = LocalApicTimer::kBusHz,
                                    .instructions = services.extension.instructions()})},
      tsc_offset_{-static_cast<std::int64_t>(services.clock.now())},
      kvm_clock_{services.clock.hz(), 0, wall_clock_at(tsc_offset_, services)} {}

Expected<void> Vm::map_memory() {
    space_ = HV_TRY(services_.extension.create_address_space());
    if (config_.balloon)
        spare_.emplace(memory_, *space_, services_.clock, static_cast<SpareMemory::Owner&>(*this));
    return memory_.for_each_run([&](Gpa gpa, Hpa hpa, std::uint64_t length) {
        return space_->map(gpa, hpa, length, GuestAccess::read_write_execute);
    });
}

Expected<void> Vm::add_board(Consoles consoles) {
    board_ = HV_TRY(Board::create({ports_,
                                   mmio_,
                                   fabric_,
                                   services_.clock,
                                   *this,
                                   consoles.serial,
                                   consoles.debug,
                                   services_.boot_time,
                                   config_.debug_exit,
                                   {config_.cpus, config_.memory}}));
    return {};
}

Expected<void> Vm::add_vcpus() {
    environment_.emplace(VcpuEnvironment{memory_, ports_, mmio_, fabric_, board_->ext_int(), cpuid_,
                                         kvm_clock_, services_.clock, services_.scheduler, group_, *this,
                                         tsc_offset_, stop_epoch_, spare_ ? &*spare_ : nullptr});
    HV_TRY(vcpus_.reserve(config_.cpus));
    HV_TRY(apics_.reserve(config_.cpus));
    for (std::uint32_t index = 0; index < config_.cpus; ++index) {
        auto backend = HV_TRY(services_.extension.create_vcpu(*space_));
        auto vcpu = HV_TRY(Vcpu::create(*environment_, index, std::move(backend), affinity_of(config_)));
        vcpu->set_name(config_.name);
        HV_TRY(apics_.push(&vcpu->apic()));
        HV_TRY(vcpus_.push(std::move(vcpu)));
    }
    fabric_.connect(apics_.span(), &board_->io_apic());
    board_->connect(*apics_[0], &vcpus_[0]->tick_target());
    return {};
}

Expected<void> Vm::add_disks() {
    HV_TRY(disks_.reserve(config_.disks.size()));  // what is on the PCI bus stays
    for (const config::DiskConfig& disk : config_.disks) {
        auto attached = HV_TRY(VmDisk::create(disk, config_.name, services_, memory_, fabric_, *board_));
        HV_TRY(disks_.push(std::move(attached)));
    }
    return {};
}

Expected<void> Vm::add_nics() {
    HV_TRY(nics_.reserve(config_.nics.size()));
    for (const config::NicConfig& nic : config_.nics) {
        auto attached = HV_TRY(VmNic::create(nic, services_, memory_, fabric_, *board_));
        HV_TRY(nics_.push(std::move(attached)));
    }
    return {};
}

/// Firmware's tables, kernel, initrd and command line into zeroed memory; the boot processor at the kernel's
/// entry.
Expected<void> Vm::load_kernel() {
    const auto file = [&](std::string_view name) -> Expected<std::span<const std::byte>> {
        const auto* found = services_.files.find(name);
        if (found == nullptr) {
            log::error(log::Topic::vm, "%.*s: there is no file %.*s among the boot modules",
                       static_cast<int>(config_.name.size()), config_.name.data(),
                       static_cast<int>(name.size()), name.data());
            return Unexpected{Error::not_found};
        }
        return found->bytes;
    };
    loader::LoadRequest request;
    request.vm_name = config_.name;
    request.protocol = config_.boot;
    request.kernel = HV_TRY(file(config_.kernel));
    if (!config_.initrd.empty())
        request.initrd = HV_TRY(file(config_.initrd));
    request.initrd_name = config_.initrd;
    Vec<loader::BootModule> modules;
    for (const config::ModuleConfig& module : config_.modules)
        HV_TRY(modules.push({HV_TRY(file(module.file)), module.command_line}));
    request.modules = modules.span();
    request.command_line = config_.command_line;
    request.rsdp = HV_TRY(loader::build_acpi_tables({config_.cpus, true}, memory_));
    HV_TRY(loader::build_mp_table({config_.cpus, cpuid_.cpu().signature}, memory_));
    const auto entry = HV_TRY(loader::load(request, memory_));
    for (const auto& vcpu : vcpus_)
        vcpu->reset(vcpu->index() == 0 ? &entry.cpu : nullptr, vcpu->index() == 0 ? &entry.regs : nullptr);
    return {};
}

Expected<void> Vm::reset() {
    HV_ASSERT(stopped());
    quiesce();
    if (spare_)
        spare_->finish();
    memory_.clear();
    return load_kernel();
}

}  // namespace hv
