// SPDX-License-Identifier: MIT
// A vCPU that comes to a CPU and leaves it: what goes with it, and what others left behind.
#include "arch/x86_64/vmx/vcpu_fixture.hpp"

using namespace hv;
using namespace hv::vmx;
using namespace hv::vmx::test;

TEST_CASE("translations are flushed when they may be stale, and only then", "[vmx]") {
    VcpuBench bench;
    const std::string vpid = std::to_string(1);  // the first one given out
    const std::string invept = "invept 1 " + std::to_string(bench.space->root());
    const std::string invvpid = "invvpid 1 " + vpid;
    bench.vcpu->enter_cpu();
    bench.run(ExitReason::CPUID);
    CHECK(bench.cpu.did(invept));  // new on this CPU
    CHECK(bench.cpu.did(invvpid));
    const auto runs_with = [&](bool ept, bool linear) {
        bench.cpu.log.clear();
        bench.run(ExitReason::CPUID);
        CHECK(bench.cpu.did(invept) == ept);
        CHECK(bench.cpu.did(invvpid) == linear);
    };
    runs_with(false, false);
    bench.vcpu->flush_guest_tlb();
    runs_with(false, true);
    runs_with(false, false);
    REQUIRE(bench.space->map(Gpa{0}, Hpa{0}, kPageSize, GuestAccess::read));
    REQUIRE(bench.space->unmap(Gpa{0}, kPageSize));
    runs_with(true, false);
    CpuState state{};
    bench.vcpu->get_state(state, RegSet::control);
    bench.vcpu->set_state(state, RegSet::control);
    runs_with(false, false);
    state.cr3 = 0x5000;
    bench.vcpu->set_state(state, RegSet::control);
    runs_with(false, true);
    bench.vcpu->leave_cpu();
    bench.vcpu->enter_cpu();
    runs_with(false, false);
    bench.vcpu->leave_cpu();
    fake::set_cpu(1);
    bench.vcpu->enter_cpu();
    runs_with(true, true);
    bench.vcpu->leave_cpu();
    fake::set_cpu(0);
    bench.vcpu->enter_cpu();
    runs_with(true, true);
    bench.vcpu->leave_cpu();
}

TEST_CASE("host state is that of the CPU that the vCPU comes to", "[vmx]") {
    VcpuBench bench;
    bench.cpu.host.gs_base = 0x1111;
    bench.cpu.host.rip = 0x2222;
    bench.vcpu->enter_cpu();
    CHECK(bench.vmcs().read(HOST_GS_BASE) == 0x1111);
    CHECK(bench.vmcs().read(HOST_RIP) == 0x2222);
    bench.vcpu->leave_cpu();
    fake::set_cpu(2);
    bench.cpu.host.gs_base = 0x3333;
    bench.vcpu->enter_cpu();
    CHECK(bench.vmcs().read(HOST_GS_BASE) == 0x3333);
    bench.vcpu->leave_cpu();
}

TEST_CASE("what VM entries do not switch goes and comes with the vCPU", "[vmx]") {
    VcpuBench bench;
    auto other = bench.make_vcpu();
    bench.vcpu->enter_cpu();
    // The guest writes these itself, without an exit.
    bench.cpu.msrs[Msr::IA32_LSTAR] = 0xffff'8000'0000'1000;
    bench.cpu.msrs[Msr::IA32_KERNEL_GS_BASE] = 0x77;
    bench.cpu.debug.dr[2] = 0x1234;
    bench.cpu.cr2 = 0xbad;
    bench.vcpu->set_tsc_aux(5);
    bench.vcpu->leave_cpu();

    other->enter_cpu();
    CHECK(bench.cpu.msrs[Msr::IA32_LSTAR] == 0);
    CHECK(bench.cpu.msrs[Msr::IA32_TSC_AUX] == 0);
    CHECK((bench.cpu.debug.dr[2] == 0 && bench.cpu.cr2 == 0));
    other->leave_cpu();

    bench.vcpu->enter_cpu();
    CHECK(bench.cpu.msrs[Msr::IA32_TSC_AUX] == 5);
    CpuState state{};
    bench.vcpu->get_state(state, RegSet::all);
    CHECK((state.lstar == 0xffff'8000'0000'1000 && state.kernel_gs_base == 0x77 && state.dr[2] == 0x1234 &&
           state.cr2 == 0xbad));
    bench.vcpu->leave_cpu();
}

TEST_CASE("a CPU that changes VMs is cleaned first", "[vmx]") {
    VcpuBench bench{broadwell_controls(), {true, true, true}};
    auto sibling = bench.make_vcpu();
    const auto separated = [&](VcpuBackend& vcpu) {
        bench.cpu.log.clear();
        vcpu.enter_cpu();
        vcpu.leave_cpu();
        return bench.cpu.did("separate");
    };
    CHECK(separated(*bench.vcpu));
    CHECK(separated(*sibling));  // new here: its EPT root may have been another VM's
    CHECK_FALSE(separated(*bench.vcpu));
    CHECK_FALSE(separated(*sibling));
    auto other_space =
        EptAddressSpace::create(bench.frames, EptFormat{bench.shared->controls.caps.ept_vpid}).value();
    auto stranger = BasicVcpu<FakeMachine>::create(FakeMachine{bench.cpu}, *bench.shared,
                                                   EptAddressSpace::of(*other_space))
                        .value();
    CHECK(separated(*stranger));
    CHECK(separated(*bench.vcpu));
    bench.vcpu->enter_cpu();
    bench.run(ExitReason::CPUID);
    CHECK(bench.cpu.did("verw"));
    bench.vcpu->leave_cpu();
    stranger.reset();
}
