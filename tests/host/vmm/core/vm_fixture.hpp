// SPDX-License-Identifier: MIT
// VMs of a configuration, on a host with one CPU that tests turn by hand.
#pragma once

#include "catch.hpp"
#include "vmm/base/entropy.hpp"
#include "vmm/core/core_fixture.hpp"
#include "vmm/core/vm_manager.hpp"
#include "vmm/loader/loader_fixture.hpp"
#include "vmm/net/switch.hpp"
#include "vmm/storage/disk_directory.hpp"

#include <cstring>

namespace hv::test {

class Consoles final : public VmConsoles {
public:
    Expected<Vm::Consoles> open(std::size_t, std::string_view) override {
        if (fails)
            return Unexpected{Error::no_memory};
        ++opened;
        return Vm::Consoles{serial, debug};
    }
    void connect(std::size_t, Uart16550&, virtio::VirtioConsole*) override {}
    [[nodiscard]] std::uint64_t bytes() const override { return 0; }
    void close(std::size_t) override { ++closed; }
    Text serial, debug;
    unsigned opened{0}, closed{0};
    bool fails{false};
};

class NoEntropy final : public EntropySource {
public:
    void fill(std::span<std::byte>) override {}
};

/// Takes the CPU after each exit, and does the manager's work.
class ManagerJobs final : public Housekeeping {
public:
    [[nodiscard]] bool pending() const override { return true; }
    void service() override {
        if (manager != nullptr && manager->has_work())
            manager->service();
    }
    VmManager* manager{nullptr};
};

struct VmFixture {
    VmFixture() {
        fake::set_cpu(0);
        kernel = loader::ElfBuilder{true}.load(0x100'0000, "code").pvh_note(0x100'0000).build();
        disk.resize(64 * 1024, std::byte{0x5a});
        files.add("vmlinux", kernel).value();
        files.add("disk.img", disk).value();
        switches.push(net::Switch::create(clock).value()).value();
        extension.backends.reserve(1000);
    }
    VmFixture(const VmFixture&) = delete;

    /// Adds a VM with two vCPUs, a copy-on-write disk, a RAM disk, a network interface and all small
    /// devices.
    config::VmConfig& add(std::string_view name) {
        config::VmConfig vm;
        vm.name = name;
        vm.cpus = 2;
        vm.memory = 32 * kMiB;
        vm.kernel = "vmlinux";
        vm.debug_exit = true;
        vm.console = true;
        vm.balloon = true;
        vm.vsock = static_cast<std::uint32_t>(config::kFirstCid + config.vms.size());
        vm.disks.push({config::DiskSource::module, "disk.img", 0, config::DiskMode::copy_on_write}).value();
        vm.disks.push({config::DiskSource::ram, {}, 64 * 1024, config::DiskMode::read_write}).value();
        config::NicConfig nic;
        nic.mac = {0x52, 0x54, 0, 0, 0, static_cast<std::uint8_t>(config.vms.size() + 1)};
        vm.nics.push(nic).value();
        config.vms.push(std::move(vm)).value();
        return config.vms[config.vms.size() - 1];
    }
    VmServices services() {
        return {frames,
                extension,
                clock,
                *scheduler,
                files,
                disks,
                switches.span(),
                some_cpuid_policy,
                {0, clock.now()},
                note_stop,
                this,
                memory_in_use,
                &entropy};
    }
    static std::uint64_t memory_in_use() {
        in_use += step;
        return in_use;
    }
    static inline std::uint64_t in_use{0};
    static inline std::uint64_t step{0};  ///< what is taken between two looks
    static void note_stop(void* self) { ++static_cast<VmFixture*>(self)->stops; }

    fake::ArenaFrames frames;
    fake::ManualClock clock;
    FakeExtension extension;
    NoEntropy entropy;
    std::unique_ptr<Scheduler> scheduler{Scheduler::create(1).value()};
    std::vector<std::byte> kernel, disk;
    loader::ModuleFiles files;
    DiskDirectory disks;
    Vec<std::unique_ptr<net::Switch>> switches;
    config::Config config;
    Consoles consoles;
    ManagerJobs jobs;
    CpuLoop loop{*scheduler, clock, 0, &jobs};
    unsigned stops{0};
};

/// The boot processor writes `value` to a port.
inline void guest_out(fake::FakeVcpuBackend& backend, std::uint16_t port, std::uint8_t size,
                      std::uint64_t value) {
    backend.regs.gpr[RAX] = value;
    backend.exits.push_back(out_exit(port, size));
}

}  // namespace hv::test
