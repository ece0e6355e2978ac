// SPDX-License-Identifier: MIT
// The local APICs of a few CPUs, and what a guest does with their registers.
#pragma once

#include "catch.hpp"
#include "fakes/step_clock.hpp"
#include "vmm/x86/local_apic.hpp"

#include <atomic>
#include <memory>
#include <vector>

namespace hv::apic::test {

inline constexpr std::uint32_t kMmioEnabled = 0x1ff;  // SVR

struct Owner final : LocalApicOwner {
    void interrupt_posted() override { ++posted; }
    void priority_changed() override { ++changes; }
    void nmi() override { ++nmis; }
    void init() override { ++inits; }
    void startup(std::uint8_t vector) override { startups.push_back(vector); }
    std::atomic<unsigned> posted{0};
    unsigned changes{0};
    unsigned nmis{0};
    unsigned inits{0};
    std::vector<unsigned> startups;
};

struct EoiRecorder final : EoiListener {
    void eoi(std::uint8_t vector) override { vectors.push_back(vector); }
    std::vector<unsigned> vectors;
};

struct Machine {
    explicit Machine(unsigned cpus = 1, std::uint64_t hz = 1'000'000'000) : clock{hz} {
        for (unsigned id = 0; id < cpus; ++id) {
            owners.push_back(std::make_unique<Owner>());
            apics.push_back(
                std::make_unique<LocalApic>(LocalApic::Config{id, id == 0}, fabric, *owners.back(), clock));
            pointers.push_back(apics.back().get());
        }
        fabric.connect(pointers, &eois);
    }
    LocalApic& operator[](unsigned index) { return *apics[index]; }
    void enable_all() {
        for (auto& apic : apics)
            apic->mmio_write(SVR << 4, 4, kMmioEnabled);
    }

    fake::StepClock clock;
    InterruptFabric fabric;
    EoiRecorder eois;
    std::vector<std::unique_ptr<Owner>> owners;
    std::vector<std::unique_ptr<LocalApic>> apics;
    std::vector<LocalApic*> pointers;
};

inline std::uint32_t get(LocalApic& apic, std::uint32_t index) {
    return static_cast<std::uint32_t>(apic.mmio_read(index << 4, 4));
}
inline void put(LocalApic& apic, std::uint32_t index, std::uint32_t value) {
    apic.mmio_write(index << 4, 4, value);
}
inline void send(LocalApic& apic, std::uint32_t destination, std::uint32_t low) {
    put(apic, ICR_HIGH, destination << 24);
    put(apic, ICR, low);
}
inline std::uint32_t latch_errors(LocalApic& apic) {
    put(apic, ESR, 0);
    return get(apic, ESR);
}
/// Takes everything that is pending, to the end, as a guest without nesting would.
inline std::vector<int> drain(LocalApic& apic) {
    std::vector<int> vectors;
    for (int vector; (vector = apic.pending_vector()) >= 0;) {
        apic.accept(static_cast<std::uint8_t>(vector));
        vectors.push_back(vector);
        apic.eoi();
    }
    return vectors;
}
inline void to_x2apic(LocalApic& apic) {
    REQUIRE(apic.set_apic_base(apic.apic_base() | Base::X2apic::kMask));
}
inline bool faults(LocalApic& apic, std::uint32_t index, std::uint64_t value) {
    return !apic.write_msr(kFirstMsr + index, value);
}

}  // namespace hv::apic::test
