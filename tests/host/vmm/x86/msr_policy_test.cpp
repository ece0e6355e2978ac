// SPDX-License-Identifier: MIT
#include "arch/x86_64/defs/cr.hpp"
#include "catch.hpp"
#include "fakes/arena_frames.hpp"
#include "fakes/board.hpp"
#include "fakes/vcpu_backend.hpp"
#include "vmm/x86/msr_policy.hpp"

namespace hv::x86 {
namespace {

struct Owner final : LocalApicOwner {
    void interrupt_posted() override {}
    void priority_changed() override {}
    void nmi() override {}
    void init() override {}
    void startup(std::uint8_t) override {}
};

struct Machine {
    explicit Machine(Vendor vendor = Vendor::intel) {
        cpu.vendor = vendor;
        fake::set_tsc(1'000'000);
    }
    std::uint64_t read(Msr msr) { return msrs.read(static_cast<std::uint32_t>(msr)).value(); }
    Expected<void> write(Msr msr, std::uint64_t value) {
        return msrs.write(static_cast<std::uint32_t>(msr), value);
    }
    bool refused(Msr msr, std::uint64_t value) {
        const auto result = write(msr, value);
        return !result && result.error() == Error::guest_fault;
    }
    bool unknown(Msr msr) {
        const auto result = msrs.read(static_cast<std::uint32_t>(msr));
        return !result && result.error() == Error::guest_fault;
    }

    GuestCpu cpu{.physical_bits = 40,
                 .efer_allowed = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE,
                 .tsc_hz = 2'600'000'000};
    fake::ArenaFrames frames{};
    GuestMemory memory{GuestMemory::create(frames, kPage2M).value()};
    fake::FakeVcpuBackend vcpu;
    fake::ManualClock timers;
    Owner owner;
    InterruptFabric fabric;
    LocalApic apic{{.id = 0, .bsp = true}, fabric, owner, timers};
    KvmClock clock{1'000'000'000, 0, 1'700'000'000'000'000'000};
    MsrFile msrs{cpu, vcpu, apic, memory, clock, -1'000'000};
};

}  // namespace

TEST_CASE("an MSR that is not on the list is #GP, and counted", "[x86]") {
    Machine m;
    for (const Msr msr : {Msr::IA32_SPEC_CTRL, Msr::IA32_ARCH_CAPABILITIES, Msr::IA32_VMX_BASIC, Msr::VM_CR,
                          Msr::IA32_XSS, Msr::IA32_MC0_CTL, Msr::KVM_PV_EOI_EN, Msr::SYSCFG, Msr::HWCR}) {
        CHECK(m.unknown(msr));
        CHECK(m.refused(msr, 0));
    }
    CHECK(m.msrs.unknown_accesses() == 18);
    CHECK_FALSE(m.msrs.read(0xffff'ffff));
    CHECK_FALSE(m.msrs.read(0x900));
}

TEST_CASE("EFER keeps LMA, refuses reserved bits and LME while paging", "[x86]") {
    Machine m;
    m.vcpu.enter_protected_mode();
    REQUIRE(m.write(Msr::IA32_EFER, EFER_LME | EFER_NXE | EFER_LMA));
    CHECK(m.read(Msr::IA32_EFER) == (EFER_LME | EFER_NXE));
    CHECK(m.vcpu.flushes == 1);
    CHECK(m.refused(Msr::IA32_EFER, EFER_SVME));
    CHECK(m.refused(Msr::IA32_EFER, bit(1)));
    m.vcpu.enter_long_mode(0x1000);
    CHECK(m.refused(Msr::IA32_EFER, EFER_NXE));
    REQUIRE(m.write(Msr::IA32_EFER, EFER_LME));
    CHECK(m.read(Msr::IA32_EFER) == (EFER_LME | EFER_LMA));
}

TEST_CASE("addresses must be canonical", "[x86]") {
    Machine m;
    for (const Msr msr : {Msr::IA32_FS_BASE, Msr::IA32_GS_BASE, Msr::IA32_KERNEL_GS_BASE, Msr::IA32_LSTAR,
                          Msr::IA32_CSTAR, Msr::IA32_SYSENTER_ESP, Msr::IA32_SYSENTER_EIP}) {
        CHECK(m.refused(msr, 0x0000'8000'0000'0000));
        REQUIRE(m.write(msr, 0xffff'8000'1234'5678));
        CHECK(m.read(msr) == 0xffff'8000'1234'5678);
    }
    CHECK(m.vcpu.state.seg(SegmentName::gs).base == 0xffff'8000'1234'5678);
    CHECK(m.vcpu.state.lstar == 0xffff'8000'1234'5678);
}

TEST_CASE("PAT and MTRRs take memory types only", "[x86]") {
    Machine m;
    REQUIRE(m.write(Msr::IA32_PAT, PAT_RESET));
    CHECK(m.read(Msr::IA32_PAT) == PAT_RESET);
    CHECK(m.refused(Msr::IA32_PAT, 0x02));
    CHECK(m.refused(Msr::IA32_PAT, 0x0800'0000'0000'0000));
    CHECK((m.read(Msr::IA32_MTRRCAP) & 0xff) == 8);
    CHECK(m.refused(Msr::IA32_MTRRCAP, 0));
    for (std::uint32_t i = 0; i < 8; ++i) {
        REQUIRE(m.write(Msr::IA32_MTRR_PHYSBASE0 + 2 * i, 0xc000'0000 | i << 20 | 6));
        REQUIRE(m.write(Msr::IA32_MTRR_PHYSMASK0 + 2 * i, 0xff'c000'0800));
        CHECK(m.read(Msr::IA32_MTRR_PHYSBASE0 + 2 * i) == (0xc000'0000 | i << 20 | 6));
    }
    CHECK(m.unknown(Msr::IA32_MTRR_PHYSBASE0 + 16));
    CHECK(m.refused(Msr::IA32_MTRR_PHYSBASE0, 2));
    CHECK(m.refused(Msr::IA32_MTRR_PHYSBASE0, 0x100'0000'0006));  // beyond 40 bits
    CHECK(m.refused(Msr::IA32_MTRR_PHYSMASK0, 1));
    REQUIRE(m.write(Msr::IA32_MTRR_FIX4K_F8000, 0x0606'0606'0606'0606));
    CHECK(m.read(Msr::IA32_MTRR_FIX4K_F8000) == 0x0606'0606'0606'0606);
    CHECK(m.refused(Msr::IA32_MTRR_FIX64K_00000, 0x07));
    REQUIRE(m.write(Msr::IA32_MTRR_DEF_TYPE, MTRR_DEF_TYPE_E | MTRR_DEF_TYPE_FE | 6));
    CHECK(m.refused(Msr::IA32_MTRR_DEF_TYPE, 0x1000));
    CHECK(m.unknown(static_cast<Msr>(0x251)));
    CHECK(m.unknown(static_cast<Msr>(0x270)));
}

TEST_CASE("MTRRs are off after RESET and on as firmware leaves them", "[x86]") {
    Machine m;
    CHECK(m.read(Msr::IA32_MTRR_DEF_TYPE) == 0);
    m.msrs.enter_firmware_state();
    CHECK(m.read(Msr::IA32_MTRR_DEF_TYPE) == (MTRR_DEF_TYPE_E | MTRR_DEF_TYPE_FE | 6));
    CHECK(m.read(Msr::IA32_MTRR_PHYSBASE0) == 0xc000'0000);
    CHECK(m.read(Msr::IA32_MTRR_PHYSMASK0) == 0xff'c000'0800);
    CHECK(m.read(Msr::IA32_MTRR_FIX64K_00000) == 0x0606'0606'0606'0606);
    CHECK(m.read(Msr::IA32_MTRR_FIX16K_A0000) == 0);
    // All of it is what the guest itself may write.
    for (const Msr msr : {Msr::IA32_MTRR_DEF_TYPE, Msr::IA32_MTRR_PHYSBASE0, Msr::IA32_MTRR_PHYSMASK0})
        CHECK(m.write(msr, m.read(msr)));
}

TEST_CASE("MISC_ENABLE keeps its read-only bits and limits CPUID and NXE", "[x86]") {
    Machine m;
    m.vcpu.enter_protected_mode();
    CHECK(m.read(Msr::IA32_MISC_ENABLE) == 0x1801);
    REQUIRE(m.write(Msr::IA32_MISC_ENABLE, 0x4'00c5'0089));
    CHECK(m.read(Msr::IA32_MISC_ENABLE) == 0x4'00c5'1809);
    CHECK(m.refused(Msr::IA32_MISC_ENABLE, bit(1)));
    CHECK(m.refused(Msr::IA32_MISC_ENABLE, bit(63)));
    CHECK(m.refused(Msr::IA32_EFER, EFER_NXE));
    REQUIRE(m.msrs.limits_cpuid());
    CpuidRegs regs{0x1f, 1, 2, cpuid::ext1_edx::NX};
    m.msrs.limit_cpuid(cpuid::kFeatures, regs);
    CHECK(regs == CpuidRegs{0x1f, 1, 2, cpuid::ext1_edx::NX});
    m.msrs.limit_cpuid(cpuid::kExtendedFeatures, regs);
    CHECK(regs.edx == 0);
    m.msrs.limit_cpuid(cpuid::kVendor, regs);
    CHECK(regs.eax == 2);
    REQUIRE(m.write(Msr::IA32_MISC_ENABLE, 1));
    CHECK_FALSE(m.msrs.limits_cpuid());
    REQUIRE(m.write(Msr::IA32_EFER, EFER_NXE));
}

TEST_CASE("TSC and TSC_ADJUST move together", "[x86]") {
    Machine m;
    CHECK(m.read(Msr::IA32_TIME_STAMP_COUNTER) == 0);
    fake::advance_tsc(500);
    CHECK(m.read(Msr::IA32_TIME_STAMP_COUNTER) == 500);
    REQUIRE(m.write(Msr::IA32_TIME_STAMP_COUNTER, 10'500));
    CHECK(m.read(Msr::IA32_TSC_ADJUST) == 10'000);
    CHECK(m.vcpu.tsc_offset == -1'000'000 + 10'000);
    REQUIRE(m.write(Msr::IA32_TSC_ADJUST, 0));
    CHECK(m.read(Msr::IA32_TIME_STAMP_COUNTER) == 500);
    CHECK(m.vcpu.tsc_offset == -1'000'000);
}

TEST_CASE("the local APIC answers its own MSRs", "[x86]") {
    Machine m;
    CHECK(m.unknown(Msr::IA32_X2APIC_APICID));  // not in x2APIC mode yet
    const std::uint64_t base = m.read(Msr::IA32_APIC_BASE);
    CHECK(base == (0xfee0'0000 | APIC_BASE_ENABLE | APIC_BASE_BSP));
    REQUIRE(m.write(Msr::IA32_APIC_BASE, base | APIC_BASE_EXTD));
    CHECK(m.read(Msr::IA32_X2APIC_APICID) == 0);
    REQUIRE(m.write(Msr::IA32_X2APIC_TPR, 0x20));
    CHECK(m.apic.tpr() == 0x20);
}

TEST_CASE("the paravirtual clock is written where the guest says", "[x86]") {
    Machine m;
    REQUIRE(m.write(Msr::KVM_SYSTEM_TIME_NEW, 0x5001));
    CHECK(m.read(Msr::KVM_SYSTEM_TIME) == 0x5001);
    CHECK(m.memory.load<PvclockVcpuTimeInfo>(Gpa{0x5000}).value().flags == PVCLOCK_TSC_STABLE_BIT);
    REQUIRE(m.write(Msr::IA32_TSC_ADJUST, 77));
    CHECK(m.memory.load<PvclockVcpuTimeInfo>(Gpa{0x5000}).value().tsc_timestamp == 77);
    REQUIRE(m.write(Msr::KVM_WALL_CLOCK_NEW, 0x6000));
    CHECK(m.memory.load<PvclockWallClock>(Gpa{0x6000}).value().sec == 1'700'000'000);
    REQUIRE(m.write(Msr::KVM_SYSTEM_TIME_NEW, 0xffff'ffff'ffff'fff1));  // no RAM: no harm
    REQUIRE(m.write(Msr::KVM_SYSTEM_TIME_NEW, 0));
}

TEST_CASE("AMD's registers exist on AMD alone, Intel's on Intel alone", "[x86]") {
    Machine intel;
    CHECK(intel.read(Msr::IA32_FEATURE_CONTROL) == FEATURE_CONTROL_LOCK);
    CHECK(intel.read(Msr::MSR_PLATFORM_INFO) == 26 << 8);
    CHECK(intel.read(Msr::IA32_BIOS_SIGN_ID) >> 32 == 1);
    Machine amd{Vendor::amd};
    for (const Msr msr : {Msr::IA32_FEATURE_CONTROL, Msr::MSR_PLATFORM_INFO, Msr::IA32_PLATFORM_ID,
                          Msr::MSR_SMI_COUNT, Msr::MISC_FEATURES_ENABLES, Msr::IA32_PERF_STATUS}) {
        REQUIRE(intel.msrs.read(static_cast<std::uint32_t>(msr)));
        CHECK(amd.unknown(msr));
        CHECK(intel.refused(msr, 1));
    }
    CHECK(amd.refused(Msr::IA32_BIOS_UPDT_TRIG, 0));
    REQUIRE(intel.write(Msr::IA32_BIOS_UPDT_TRIG, 0));
    CHECK((amd.read(Msr::HWCR) & bit(24)) != 0);
    CHECK(amd.refused(Msr::HWCR, bit(40)));
    CHECK(amd.read(Msr::DE_CFG) == 2);
    CHECK(amd.read(Msr::SYSCFG) == 0);
    REQUIRE(amd.write(Msr::NB_CFG, bit(46)));
    CHECK(amd.read(Msr::NB_CFG) == bit(46));
    CHECK(amd.refused(Msr::IA32_TSC_AUX, bit(32)));
}

TEST_CASE("RESET undoes what the guest wrote", "[x86]") {
    Machine m;
    REQUIRE(m.write(Msr::IA32_TSC_ADJUST, 77));
    REQUIRE(m.write(Msr::IA32_MTRR_DEF_TYPE, 6));
    REQUIRE(m.write(Msr::KVM_SYSTEM_TIME_NEW, 0x5001));
    m.msrs.reset();
    CHECK(m.read(Msr::IA32_TSC_ADJUST) == 0);
    CHECK(m.msrs.tsc_offset() == -1'000'000);
    CHECK(m.read(Msr::IA32_MTRR_DEF_TYPE) == 0);
    CHECK(m.read(Msr::KVM_SYSTEM_TIME) == 0);
}

}  // namespace hv::x86
