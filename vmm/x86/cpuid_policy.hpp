// SPDX-License-Identifier: MIT
// The guest's CPUID: a fixed list of what may be offered, masked by what the host has; nothing else of the
// host shows. One package of N cores with one thread each; KVM's paravirtual leaves; TSC and APIC timer
// frequencies, exact. The table is built when the VM is, a lookup costs an index and, for a few leaves, what
// depends on the vCPU's state.
#pragma once

#include "arch/x86_64/defs/cpuid.hpp"
#include "vmm/core/vcpu_backend.hpp"
#include "vmm/x86/guest_cpu.hpp"

#include <array>
#include <cstdint>

namespace hv::x86 {

struct CpuidConfig {
    std::uint32_t vcpus{1};
    std::uint64_t tsc_hz{0};
    std::uint64_t apic_timer_hz{1'000'000'000};
    std::uint32_t kvm_features{cpuid::kvm_eax::CLOCKSOURCE | cpuid::kvm_eax::CLOCKSOURCE2 |
                               cpuid::kvm_eax::CLOCKSOURCE_STABLE};
    GuestInstructions instructions{};
};

/// Immutable once built: any vCPU may look up at any time.
class CpuidPolicy {
public:
    template <CpuidIo Io>
    static CpuidPolicy create(Io& host, const CpuidConfig& config) {
        return CpuidPolicy{[](void* context, std::uint32_t leaf, std::uint32_t subleaf) {
                               const auto answer = static_cast<Io*>(context)->cpuid(leaf, subleaf);
                               return CpuidRegs{answer.eax, answer.ebx, answer.ecx, answer.edx};
                           },
                           &host, config};
    }

    /// What CPUID returns where that is always the same, else nullptr: then lookup() tells.
    [[nodiscard]] const CpuidRegs* constant(std::uint32_t leaf, std::uint32_t subleaf) const {
        const Slot& slot = slot_of(leaf);
        if (slot.kind != Kind::constant) [[unlikely]]
            return nullptr;
        const std::uint32_t last = slot.subleaves - 1U;
        return entries_.data() + slot.first + (subleaf < last ? subleaf : last);
    }
    /// What CPUID returns on the vCPU with this APIC ID, whose IA32_APIC_BASE is `apic_base`.
    [[nodiscard]] CpuidRegs lookup(std::uint32_t leaf, std::uint32_t subleaf, const VcpuBackend& backend,
                                   std::uint32_t apic_id, std::uint64_t apic_base) const {
        if (const CpuidRegs* fixed = constant(leaf, subleaf); fixed != nullptr)
            return *fixed;
        return dynamic(slot_of(leaf), subleaf, backend, apic_id, apic_base);
    }

    [[nodiscard]] const GuestCpu& cpu() const { return cpu_; }

private:
    /// What is left to do at the time of the lookup.
    enum class Kind : std::uint8_t { constant, indexed, features, extended, topology, xsave, amd_topology };
    struct Slot {
        std::uint8_t first{0};
        std::uint8_t subleaves{1};
        Kind kind{Kind::constant};
    };
    static constexpr unsigned kPerRange = 0x20;  ///< leaves in each of the three ranges
    static constexpr unsigned kEntries = 128;

    using Query = CpuidRegs (*)(void* context, std::uint32_t leaf, std::uint32_t subleaf);
    struct Host {
        Query query;
        void* context;
        std::uint32_t max_basic, max_extended;
        [[nodiscard]] CpuidRegs get(std::uint32_t leaf, std::uint32_t subleaf = 0) const;
    };

    CpuidPolicy(Query query, void* context, const CpuidConfig& config);
    [[nodiscard]] const Slot& slot_of(std::uint32_t leaf) const {
        if (leaf < kPerRange)
            return slots_.data()[leaf];
        if (leaf - cpuid::kExtended < kPerRange)
            return slots_.data()[kPerRange + (leaf - cpuid::kExtended)];
        if (leaf - cpuid::kHypervisor < kPerRange)
            return slots_.data()[2 * kPerRange + (leaf - cpuid::kHypervisor)];
        return out_of_range_;
    }
    CpuidRegs dynamic(Slot slot, std::uint32_t subleaf, const VcpuBackend& backend, std::uint32_t apic_id,
                      std::uint64_t apic_base) const;
    void extended_features(CpuidRegs& regs, const VcpuBackend& backend, std::uint64_t apic_base) const;
    [[nodiscard]] CpuidRegs xsave(const CpuidRegs& fixed, std::uint32_t subleaf, std::uint64_t xcr0) const;

    Slot& slot_at(std::uint32_t leaf);
    void add(std::uint32_t leaf, const CpuidRegs& value, Kind kind = Kind::constant);
    void add_subleaf(std::uint32_t leaf, const CpuidRegs& value);
    [[nodiscard]] CpuidRegs with_sharing(CpuidRegs cache) const;
    void add_basic(const Host& host);
    void add_features(const Host& host);
    void add_caches(const Host& host);
    void add_structured(const Host& host);
    void add_topology(std::uint32_t leaf);
    void add_xsave(const Host& host);
    void add_timing();
    void add_hypervisor(const CpuidConfig& config);
    void add_extended(const Host& host);
    void add_amd(const Host& host);
    void derive_registers(std::uint32_t ecx1, std::uint32_t edx1, std::uint32_t ebx7, std::uint32_t ecx7,
                          std::uint32_t edx_ext1);

    std::array<Slot, 3 * kPerRange> slots_{};
    std::array<CpuidRegs, kEntries> entries_{};  ///< entry 0 is all zeros
    std::uint8_t used_{1};
    Slot out_of_range_{};
    GuestCpu cpu_{};
    GuestInstructions instructions_;
    unsigned core_bits_{0};  ///< width of the core number in an APIC ID
    struct Component {
        std::uint32_t size, offset;
        bool aligned;
    };
    std::array<Component, 10> components_{};  ///< by XCR0 bit
};

}  // namespace hv::x86
