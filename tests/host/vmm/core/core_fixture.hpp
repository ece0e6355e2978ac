// SPDX-License-Identifier: MIT
// What a vCPU and a VM stand on, as far as tests replace it: a processor's CPUID, a virtualization extension
// without virtualization, jobs of the boot CPU.
#pragma once

#include "fakes/arena_frames.hpp"
#include "fakes/board.hpp"
#include "fakes/vcpu_backend.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/core/cpu_loop.hpp"
#include "vmm/core/guest_address_space.hpp"
#include "vmm/core/vcpu.hpp"
#include "vmm/devices/char_sink.hpp"

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace hv::test {

/// A processor with long mode, XSAVE, x2APIC and TSC-deadline.
struct SomeCpuid {
    static CpuidRegs cpuid(std::uint32_t leaf, std::uint32_t subleaf) {
        static const std::map<std::pair<std::uint32_t, std::uint32_t>, CpuidRegs> leaves{
            {{0, 0}, {0xd, 0x6874'7541, 0x444d'4163, 0x6974'6e65}},
            {{1, 0}, {0x000a'0f11, 0x0510'0800, ~0u, ~0u}},
            {{7, 0}, {0, 0x0040'0000, 0, 0}},
            {{0xd, 0}, {7, 832, 832, 0}},
            {{0xd, 2}, {256, 576, 0, 0}},
            {{0x8000'0000, 0}, {0x8000'0008, 0, 0, 0}},
            {{0x8000'0001, 0}, {0x000a'0f11, 0, ~0u, ~0u}},
            {{0x8000'0008, 0}, {0x0000'3028, 0, 0, 0}},
        };
        const auto found = leaves.find({leaf, subleaf});
        return found == leaves.end() ? CpuidRegs{} : found->second;
    }
};
inline x86::CpuidPolicy some_cpuid_policy(const x86::CpuidConfig& config) {
    SomeCpuid host;
    return x86::CpuidPolicy::create(host, config);
}

/// The boot CPU's jobs: `wanted` makes a CPU loop take the CPU away from its vCPU.
class Jobs final : public Housekeeping {
public:
    [[nodiscard]] bool pending() const override { return wanted; }
    void service() override { ++services; }
    bool wanted{false};
    unsigned services{0};
};

class FakeAddressSpace final : public GuestAddressSpace {
public:
    Expected<void> map(Gpa gpa, Hpa hpa, std::uint64_t length, GuestAccess) override {
        mapped[gpa.raw] = {hpa, length};
        return {};
    }
    Expected<void> unmap(Gpa gpa, std::uint64_t) override {
        mapped.erase(gpa.raw);
        return {};
    }
    [[nodiscard]] std::optional<Hpa> translate(Gpa) const override { return std::nullopt; }
    [[nodiscard]] std::uint64_t root() const override { return 0; }
    [[nodiscard]] std::uint64_t table_bytes() const override { return kPageSize; }
    std::map<std::uint64_t, std::pair<Hpa, std::uint64_t>> mapped;
};

class FakeExtension final : public VirtExtension {
public:
    [[nodiscard]] const char* name() const override { return "none"; }
    Expected<void> enable_on_this_cpu() override { return {}; }
    Expected<std::unique_ptr<GuestAddressSpace>> create_address_space() override {
        return std::unique_ptr<GuestAddressSpace>{HV_TRY(make<FakeAddressSpace>())};
    }
    Expected<std::unique_ptr<VcpuBackend>> create_vcpu(GuestAddressSpace&) override {
        auto backend = HV_TRY(make<fake::FakeVcpuBackend>());
        backends.push_back(backend.get());
        return std::unique_ptr<VcpuBackend>{std::move(backend)};
    }
    std::vector<fake::FakeVcpuBackend*> backends;  ///< all that were made, dead ones too
};

inline VmExit exit_of(VmExit::Reason reason, std::uint8_t length = 0) {
    VmExit exit;
    exit.reason = reason;
    exit.instruction_length = length;
    return exit;
}
inline VmExit out_exit(std::uint16_t port, std::uint8_t size = 1) {
    VmExit exit = exit_of(VmExit::Reason::io, 1);
    exit.io = {port, size, false, false, false};
    return exit;
}
inline VmExit in_exit(std::uint16_t port, std::uint8_t size = 1) {
    VmExit exit = out_exit(port, size);
    exit.io = IoExit{port, size, true, false, false};
    return exit;
}
inline VmExit fault_exit(std::uint64_t gpa, bool write = false) {
    VmExit exit = exit_of(VmExit::Reason::nested_fault);
    exit.fault = {Gpa{gpa}, !write, write, false, false, false};
    return exit;
}

class Text final : public CharSink {
public:
    void put(std::string_view text) override { all += text; }
    std::string all;
};

}  // namespace hv::test
