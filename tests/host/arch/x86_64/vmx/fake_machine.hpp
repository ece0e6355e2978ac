// SPDX-License-Identifier: MIT
// A CPU with VT-x for host tests: VMCSs that remember, and a log of what was done to the machine. Access to a
// VMCS that is not current fails the test, as it would panic the kernel.
#pragma once

#include "arch/x86_64/vmx/machine_io.hpp"
#include "catch.hpp"
#include "vmm/mm/frame_source.hpp"

#include <array>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <type_traits>
#include <vector>

namespace hv::vmx::test {

/// The fields of one VMCS, as VMREAD and VMWRITE reach them. Read-only fields are set by set().
struct FakeVmcs {
    std::map<std::uint32_t, std::uint64_t> fields;

    template <class Field>
    typename Field::Value read(Field field) const {
        const auto found = fields.find(field.encoding);
        return found == fields.end() ? 0 : static_cast<typename Field::Value>(found->second);
    }
    template <class T>
    void write(VmcsField<T> field, std::type_identity_t<T> value) {
        fields[field.encoding] = value;
    }
    template <class Field>
    void set(Field field, std::uint64_t value) {
        fields[field.encoding] = value;
    }
};

/// The processor's FPU as cpu::GuestFpu shows it.
class FakeFpu {
public:
    static Expected<FakeFpu> create() { return FakeFpu{}; }
    void load() { loaded_ = true; }
    void save() { loaded_ = false; }
    void reset() { xcr0_ = 1; }
    void set_xcr0(std::uint64_t value) { xcr0_ = value; }
    [[nodiscard]] std::uint64_t xcr0() const { return xcr0_; }
    void get_vector(VectorFile, unsigned index, VectorValue& out) { out = vectors_.at(index); }
    void set_vector(VectorFile, unsigned index, const VectorValue& in) { vectors_.at(index) = in; }

private:
    std::array<VectorValue, 16> vectors_{};
    std::uint64_t xcr0_{1};
    bool loaded_{false};
};

struct FakeCpu {
    std::map<std::uint64_t, FakeVmcs> vmcss;  ///< by address
    std::optional<std::uint64_t> current;
    std::map<Msr, std::uint64_t> msrs;
    DebugRegisters debug{};
    std::uint64_t cr2{};
    HostState host{};
    std::vector<std::string> log;                            ///< what was done, but for VMCS and MSR accesses
    std::vector<std::uint32_t> written;                      ///< encodings, in order
    std::function<EntryResult(FakeVmcs&, VcpuRegs&)> guest;  ///< what the guest does until its exit

    FakeVmcs& vmcs() {
        REQUIRE(current);
        return vmcss[*current];
    }
    [[nodiscard]] unsigned writes(std::uint32_t encoding) const {
        return static_cast<unsigned>(std::count(written.begin(), written.end(), encoding));
    }
    [[nodiscard]] bool did(const std::string& what) const {
        return std::find(log.begin(), log.end(), what) != log.end();
    }
};

class FakeMachine {
public:
    using Fpu = FakeFpu;

    explicit FakeMachine(FakeCpu& cpu) : cpu_{&cpu} {}

    template <class Field>
    typename Field::Value read(Field field) const {
        return cpu_->vmcs().read(field);
    }
    template <class T>
    void write(VmcsField<T> field, std::type_identity_t<T> value) const {
        cpu_->vmcs().write(field, value);
        cpu_->written.push_back(field.encoding);
    }
    std::uint64_t read_msr(Msr msr) const {
        INFO("MSR " << std::hex << static_cast<std::uint32_t>(msr));
        REQUIRE(cpu_->msrs.contains(msr));
        return cpu_->msrs.at(msr);
    }
    void write_msr(Msr msr, std::uint64_t value) const { cpu_->msrs[msr] = value; }
    Expected<void> vmclear(Hpa vmcs) const {
        cpu_->log.push_back("vmclear");
        if (cpu_->current == vmcs.raw)
            cpu_->current.reset();
        return {};
    }
    Expected<void> vmptrld(Hpa vmcs) const {
        cpu_->log.push_back("vmptrld");
        cpu_->current = vmcs.raw;
        return {};
    }
    void invept(InveptType type, std::uint64_t eptp) const {
        cpu_->log.push_back("invept " + std::to_string(static_cast<unsigned>(type)) + " " +
                            std::to_string(eptp));
    }
    void invvpid(InvvpidType type, std::uint16_t vpid) const {
        cpu_->log.push_back("invvpid " + std::to_string(static_cast<unsigned>(type)) + " " +
                            std::to_string(vpid));
    }
    EntryResult enter(VcpuRegs& regs, bool launched, std::uint64_t&) const {
        cpu_->log.push_back(launched ? "vmresume" : "vmlaunch");
        return cpu_->guest ? cpu_->guest(cpu_->vmcs(), regs) : EntryResult::exited;
    }
    HostState host_state() const { return cpu_->host; }
    void load_debug_registers(const DebugRegisters& debug) const { cpu_->debug = debug; }
    void save_debug_registers(DebugRegisters& debug) const { debug = cpu_->debug; }
    std::uint64_t read_cr2() const { return cpu_->cr2; }
    void write_cr2(std::uint64_t value) const { cpu_->cr2 = value; }
    void deliver_nmi() const { cpu_->log.push_back("nmi"); }
    void deliver_machine_check() const { cpu_->log.push_back("machine check"); }
    void separate_vms(const Mitigations&) const { cpu_->log.push_back("separate"); }
    void clear_cpu_buffers() const { cpu_->log.push_back("verw"); }

private:
    FakeCpu* cpu_;
};

static_assert(VmxMachine<FakeMachine> && VmxMachine<const FakeMachine>);

/// Frames of the fake machine's physical memory, from 1 MiB up; some way into the arena that other tests do
/// not use.
class FakeFrames final : public FrameSource {
public:
    ~FakeFrames() override { CHECK(live.empty()); }
    Expected<Hpa> allocate(unsigned order) override {
        if (left == 0)
            return Unexpected{Error::no_memory};
        --left;
        const Hpa frame{align_up(next_, kPageSize << order)};
        next_ = frame.raw + (kPageSize << order);
        live.insert(frame.raw);
        return frame;
    }
    void free(Hpa frame, unsigned) override { REQUIRE(live.erase(frame.raw) == 1); }

    std::set<std::uint64_t> live;
    std::size_t left{1000};

private:
    std::uint64_t next_{kMiB};
};

}  // namespace hv::vmx::test
