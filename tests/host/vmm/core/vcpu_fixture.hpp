// SPDX-License-Identifier: MIT
// Vcpus of a VM with 4 MiB of RAM on a host with four CPUs, and no devices but what a test brings.
#pragma once

#include "catch.hpp"
#include "vmm/core/core_fixture.hpp"

namespace hv::test {

class RecordingControl final : public VmControl {
public:
    RecordingControl(std::atomic<std::uint32_t>& epoch, const std::vector<std::unique_ptr<Vcpu>>& vcpus)
        : epoch_{epoch}, vcpus_{vcpus} {}
    void request_stop(VmStop reason, std::uint32_t code) override {
        reasons.push_back(reason);
        codes.push_back(code);
        epoch_.fetch_or(1);
        for (const auto& vcpu : vcpus_)
            vcpu->poke();
    }
    void vcpu_parked() override { ++parked; }
    std::vector<VmStop> reasons;
    std::vector<std::uint32_t> codes;
    unsigned parked{0};

private:
    std::atomic<std::uint32_t>& epoch_;
    const std::vector<std::unique_ptr<Vcpu>>& vcpus_;
};

class FakePic final : public ExtIntSource {
public:
    std::uint8_t acknowledge() override {
        ++acknowledged;
        if (on_acknowledge)
            on_acknowledge();
        return 0x27;
    }
    unsigned acknowledged{0};
    std::function<void()> on_acknowledge;
};

/// Keeps what was written to it, byte by byte.
class Scratch final : public IoDevice {
public:
    std::uint64_t read(std::uint64_t offset, unsigned size) override {
        reads.push_back({offset, size});
        return value & all_ones(size);
    }
    void write(std::uint64_t offset, unsigned size, std::uint64_t written) override {
        writes.push_back({offset, size, written});
    }
    struct Read {
        std::uint64_t offset;
        unsigned size;
    };
    struct Write {
        std::uint64_t offset;
        unsigned size;
        std::uint64_t value;
    };
    std::uint64_t value{0x1122'3344'5566'7788};
    std::vector<Read> reads;
    std::vector<Write> writes;
};

struct VcpuFixture {
    static constexpr std::uint64_t kCode = 0x10'0000;
    static constexpr std::uint32_t kRunning = 2;

    explicit VcpuFixture(std::uint32_t count = 1, GuestMemory::Kind kind = GuestMemory::Kind::fixed)
        : memory{GuestMemory::create(frames, 2 * kPage2M, kind).value()} {
        fake::set_cpu(0);
        for (std::uint32_t index = 0; index < count; ++index) {
            auto backend = std::make_unique<fake::FakeVcpuBackend>();
            backends.push_back(backend.get());
            vcpus.push_back(Vcpu::create(environment, index, std::move(backend), CpuSet::all()).value());
            vcpus.back()->set_name("vm");
            apics.push_back(&vcpus.back()->apic());
        }
        fabric.connect(apics, nullptr);
        for (auto& vcpu : vcpus)
            vcpu->reset(nullptr, nullptr);
        epoch = kRunning;
    }
    VcpuFixture(const VcpuFixture&) = delete;
    ~VcpuFixture() {
        for (auto& vcpu : vcpus)
            vcpu->apic().reset();
        for (auto& vcpu : vcpus) {
            if (vcpu->state() == SchedEntity::State::running)
                scheduler->block(*vcpu, [] { return true; });
            REQUIRE(scheduler->retire(*vcpu));
        }
    }

    /// The boot processor at kCode in flat 32-bit code, interrupts enabled.
    void start() {
        CpuState state{};
        backend().enter_protected_mode();
        state = backend().state;
        VcpuRegs regs{};
        regs.rip = kCode;
        regs.rflags = 0x202;
        vcpu().reset(&state, &regs);
        backend().takes_interrupts = true;
    }
    void code(std::initializer_list<int> bytes) {
        std::uint64_t at = kCode;
        for (const int byte : bytes)
            memory.store(Gpa{at++}, static_cast<std::uint8_t>(byte)).value();
        vcpu().backend().regs.rip = kCode;
    }
    /// Runs these exits, and is preempted after them.
    Vcpu::Outcome run(std::initializer_list<VmExit> exits) {
        backend().exits.assign(exits);
        jobs.wanted = true;
        return turn();
    }
    /// A vCPU's turn, once the scheduler has nothing more to say.
    Vcpu::Outcome turn(std::size_t index = 0) {
        static_cast<void>(scheduler->pick_next(0));
        return vcpu(index).run(loop);
    }
    Vcpu& vcpu(std::size_t index = 0) { return *vcpus[index]; }
    fake::FakeVcpuBackend& backend(std::size_t index = 0) { return *backends[index]; }
    VcpuRegs& regs() { return vcpu().backend().regs; }
    [[nodiscard]] bool injected(const Event& event) {
        for (const Event& each : backend().injected) {
            if (each.type == event.type && each.vector == event.vector &&
                each.has_error_code == event.has_error_code)
                return true;
        }
        return false;
    }
    /// Software-enables the local APIC as a guest would, by its page.
    void enable_apic(std::size_t index = 0) { vcpu(index).apic().mmio_write(0xf0, 4, 0x1ff); }

    fake::ArenaFrames frames;
    GuestMemory memory;
    IoBus ports{IoBus::kPortHintShift};
    IoBus mmio{IoBus::kMemoryHintShift};
    InterruptFabric fabric;
    FakePic pic;
    fake::ManualClock clock;
    x86::CpuidPolicy cpuid{some_cpuid_policy({2, clock.hz(), 1'000'000'000})};
    x86::KvmClock kvm_clock{clock.hz(), 0, 0};
    std::unique_ptr<Scheduler> scheduler{Scheduler::create(4).value()};
    SchedGroup group;
    std::atomic<std::uint32_t> epoch{1};
    RecordingControl control{epoch, vcpus};
    VcpuEnvironment environment{memory, ports,      mmio,  fabric,  pic, cpuid, kvm_clock,
                                clock,  *scheduler, group, control, 0,   epoch};
    Jobs jobs;
    CpuLoop loop{*scheduler, clock, 0, &jobs};
    std::vector<fake::FakeVcpuBackend*> backends;
    std::vector<std::unique_ptr<Vcpu>> vcpus;
    std::vector<LocalApic*> apics;
};

}  // namespace hv::test
