// SPDX-License-Identifier: MIT
#include "arch/x86_64/code_context_check.hpp"
#include "arch/x86_64/vmx/vcpu_fixture.hpp"

#include <algorithm>

using namespace hv;
using namespace hv::vmx;
using namespace hv::vmx::test;

TEST_CASE("a new vCPU is in the state after RESET", "[vmx]") {
    VcpuBench bench;
    bench.vcpu->enter_cpu();
    CpuState state{};
    bench.vcpu->get_state(state, RegSet::all);
    CHECK(state.cr0 == 0x6000'0010);
    CHECK((state.cr3 == 0 && state.cr4 == 0 && state.efer == 0));
    const Segment& cs = state.seg(SegmentName::cs);
    CHECK((cs.selector == 0xf000 && cs.base == 0xffff'0000 && cs.limit == 0xffff && cs.attributes == 0x9b));
    CHECK((state.seg(SegmentName::ss).attributes == 0x93 && state.tr.attributes == 0x8b &&
           state.ldtr.attributes == 0x82));
    CHECK((state.gdtr.limit == 0xffff && state.idtr.limit == 0xffff));
    CHECK((state.dr6 == 0xffff'0ff0 && state.dr7 == 0x400));
    CHECK(state.pat == 0x0007'0406'0007'0406);
    CHECK((bench.vcpu->regs.rip == 0xfff0 && bench.vcpu->regs.rflags == 2));
    CHECK(bench.vmcs().read(VMCS_LINK_POINTER) == ~std::uint64_t{0});
    CHECK(bench.vmcs().read(EPT_POINTER) == bench.space->root());
    CHECK(bench.vmcs().read(VIRTUAL_PROCESSOR_ID) != 0);
    // 1 ms of the fake machine's 1 GHz, rate shift 0
    CHECK(bench.vmcs().read(VMX_PREEMPTION_TIMER_VALUE) == 1'000'000);
    // An exit saves what is left of it; once it has expired, there is another one.
    bench.vmcs().write(VMX_PREEMPTION_TIMER_VALUE, 777U);
    bench.run(ExitReason::CPUID);
    CHECK(bench.vmcs().read(VMX_PREEMPTION_TIMER_VALUE) == 777);
    bench.vmcs().write(VMX_PREEMPTION_TIMER_VALUE, 0U);
    bench.run(ExitReason::PREEMPTION_TIMER);
    CHECK(bench.vcpu->exit.reason == VmExit::Reason::host_interrupt);
    CHECK(bench.vmcs().read(VMX_PREEMPTION_TIMER_VALUE) == 1'000'000);
    bench.vcpu->leave_cpu();
}

TEST_CASE("a part of the state can be had without the rest", "[vmx]") {
    VcpuBench bench;
    bench.vcpu->enter_cpu();
    CpuState state{};
    bench.vcpu->get_state(state, RegSet::all);
    state.cr0 |= CR0_PE | CR0_PG;
    state.cr3 = 0x1000;
    state.cr4 = CR4_PAE | CR4_SMEP;
    state.efer = EFER_LME | EFER_LMA | EFER_NXE;
    for (unsigned i = 0; i < 6; ++i)
        state.segment[i] = {0x10, 0xcf3, 0xffff'ffff, 0x1000 + i};
    state.seg(SegmentName::cs).attributes = 0xafb;
    bench.vcpu->set_state(state, RegSet::control | RegSet::segments);
    check_code_context(state, [&](const CodeContext& context) { return bench.vcpu->runs_in(context); });
    for (unsigned i = 0; i < 6; ++i)
        CHECK(bench.vcpu->segment_base(static_cast<SegmentName>(i)) == 0x1000 + i);
    CHECK(bench.vcpu->cpl() == 3);
    bench.vcpu->leave_cpu();
}

TEST_CASE("a vCPU launches once per stay on a CPU, then resumes", "[vmx]") {
    VcpuBench bench;
    bench.vcpu->enter_cpu();
    bench.run(ExitReason::CPUID);
    bench.run(ExitReason::CPUID);
    CHECK(std::count(bench.cpu.log.begin(), bench.cpu.log.end(), "vmlaunch") == 1);
    CHECK(std::count(bench.cpu.log.begin(), bench.cpu.log.end(), "vmresume") == 1);
    bench.vcpu->leave_cpu();
    CHECK_FALSE(bench.cpu.current);
    bench.vcpu->enter_cpu();
    bench.run(ExitReason::CPUID);
    CHECK(std::count(bench.cpu.log.begin(), bench.cpu.log.end(), "vmlaunch") == 2);
    bench.vcpu->leave_cpu();
}

TEST_CASE("only registers that changed are written before an entry", "[vmx]") {
    VcpuBench bench;
    bench.vcpu->enter_cpu();
    bench.run(ExitReason::CPUID, [](FakeVmcs& vmcs) {
        vmcs.set(GUEST_RIP, 0x1000);
        vmcs.set(GUEST_RSP, 0x8000);
        vmcs.set(GUEST_RFLAGS, 0x202);
    });
    CHECK(bench.vcpu->regs.rip == 0x1000);
    CHECK(bench.vcpu->regs.gpr[RSP] == 0x8000);
    CHECK(bench.vcpu->regs.rflags == 0x202);
    bench.cpu.written.clear();
    bench.run(ExitReason::CPUID);
    CHECK(bench.cpu.written.empty());
    bench.vcpu->regs.rip += 2;
    bench.run(ExitReason::CPUID);
    CHECK(bench.cpu.written == std::vector<std::uint32_t>{GUEST_RIP.encoding});
    CHECK(bench.vmcs().read(GUEST_RIP) == 0x1002);
    bench.vcpu->leave_cpu();
}

TEST_CASE("a refused VM entry is an exit, not a panic", "[vmx]") {
    VcpuBench bench;
    bench.vcpu->enter_cpu();
    bench.cpu.guest = [](FakeVmcs& vmcs, VcpuRegs&) {
        vmcs.set(VM_INSTRUCTION_ERROR, 7);
        return EntryResult::fail_valid;
    };
    bench.vcpu->run();
    const VmExit& exit = bench.vcpu->exit;
    CHECK(exit.reason == VmExit::Reason::invalid_state);
    CHECK(exit.raw.info1 == 7);
    CHECK(bench.run(static_cast<ExitReason>(33), [](FakeVmcs& vmcs) { vmcs.set(EXIT_REASON, 0x8000'0021); })
              .reason == VmExit::Reason::invalid_state);
    // Nothing has been launched yet.
    bench.cpu.log.clear();
    bench.run(ExitReason::CPUID);
    CHECK(bench.cpu.did("vmlaunch"));
    bench.vcpu->leave_cpu();
}

TEST_CASE("VMX fields that the processor lacks are not touched", "[vmx]") {
    Controls controls = broadwell_controls();
    controls.pin &= ~pin::PREEMPTION_TIMER;
    controls.secondary &=
        ~(secondary::ENABLE_VPID | secondary::PAUSE_LOOP_EXITING | secondary::ENABLE_RDTSCP);
    VcpuBench bench{controls};
    bench.vcpu->enter_cpu();
    for (const std::uint32_t field :
         {VMX_PREEMPTION_TIMER_VALUE.encoding, PLE_GAP.encoding, PLE_WINDOW.encoding,
          XSS_EXITING_BITMAP.encoding, ENCLS_EXITING_BITMAP.encoding})
        CHECK(bench.cpu.writes(field) == 0);
    CHECK(bench.cpu.writes(VIRTUAL_PROCESSOR_ID.encoding) == 0);
    CHECK_FALSE(bench.cpu.msrs.contains(Msr::IA32_TSC_AUX));
    bench.run(ExitReason::CPUID);
    for (const std::string& line : bench.cpu.log)
        CHECK(line.find("invvpid") == std::string::npos);
    bench.vcpu->leave_cpu();
}

TEST_CASE("PDPTEs are loaded when the VMM switches PAE paging on", "[vmx]") {
    VcpuBench bench;
    constexpr std::uint64_t kTable = 0x40'0000, kGuestTable = 0x2020;
    REQUIRE(bench.space->map(Gpa{0}, Hpa{kTable}, 0x4000, GuestAccess::read_write_execute));
    auto* table = machine::hva<std::uint64_t>(Hpa{kTable + kGuestTable});
    table[0] = 0x3001;
    table[1] = 0x4000;          // not present
    table[2] = 0x5001 | 0x1e6;  // reserved bits
    table[3] = 0x6001 | CR3_PWT;
    bench.vcpu->enter_cpu();
    CpuState state{};
    bench.vcpu->get_state(state, RegSet::control);
    state.cr0 = CR0_PE | CR0_PG | CR0_ET;
    state.cr3 = kGuestTable;
    state.cr4 = CR4_PAE;
    bench.vcpu->set_state(state, RegSet::control);
    CHECK(bench.vmcs().read(GUEST_PDPTE0) == 0x3001);
    CHECK(bench.vmcs().read(GUEST_PDPTE1) == 0);
    CHECK(bench.vmcs().read(GUEST_PDPTE2) == 0);
    CHECK(bench.vmcs().read(GUEST_PDPTE3) == (0x6001 | CR3_PWT));
    // The processor loads them anew on MOV to CR alone.
    table[0] = 0x9001;
    state.cr2 = 7;
    bench.vcpu->set_state(state, RegSet::control);
    CHECK(bench.vmcs().read(GUEST_PDPTE0) == 0x3001);
    // A table outside RAM
    state.cr3 = 0x10'0000;
    bench.vcpu->set_state(state, RegSet::control);
    CHECK(bench.vmcs().read(GUEST_PDPTE0) == 0);
    bench.vcpu->leave_cpu();
}

TEST_CASE("a new start leaves nothing blocked or pending", "[vmx]") {
    VcpuBench bench;
    bench.vcpu->enter_cpu();
    CpuState state{};
    bench.vcpu->get_state(state, RegSet::all);
    CHECK(bench.vcpu->inject(Event::non_maskable()));
    bench.vmcs().set(GUEST_INTERRUPTIBILITY_STATE, kNmiBlocked | 1);
    bench.vmcs().set(GUEST_PENDING_DEBUG_EXCEPTIONS, 0x4000);
    bench.vcpu->set_state(state, RegSet::all);
    CHECK(bench.vmcs().read(VM_ENTRY_INTERRUPTION_INFORMATION) == 0);
    CHECK(bench.vmcs().read(GUEST_PENDING_DEBUG_EXCEPTIONS) == 0);
    CHECK((bench.vmcs().read(GUEST_INTERRUPTIBILITY_STATE) & 3) == 0);
    CHECK(bench.vcpu->inject(Event::non_maskable()));
    bench.vcpu->leave_cpu();
}

TEST_CASE("each vCPU has a VPID of its own, and gives it back", "[vmx]") {
    VpidPool pool;
    CHECK(pool.allocate().value() == 1);
    for (unsigned i = 2; i <= 65535; ++i)
        REQUIRE(pool.allocate().value() == i);
    CHECK(pool.allocate().error() == Error::busy);
    pool.release(4711);
    CHECK(pool.allocate().value() == 4711);
}

TEST_CASE("a vCPU that finds no memory says so and leaks nothing", "[vmx]") {
    FakeFrames frames;
    FakeCpu cpu;
    CHECK(Shared::create(frames, broadwell_controls(), {}, 1).has_value());
    for (std::size_t left = 0; left < 5; ++left) {
        frames.left = left;
        const auto shared = Shared::create(frames, broadwell_controls(), {}, 1);
        CHECK(shared.has_value() == (left == 4));
    }
    frames.left = 10;
    auto shared = Shared::create(frames, broadwell_controls(), {}, 1).value();
    auto space = EptAddressSpace::create(frames, EptFormat{0}).value();
    for (const std::size_t left : {0U, 1U}) {  // the VMCS, the virtual-APIC page
        frames.left = left;
        CHECK(
            BasicVcpu<FakeMachine>::create(FakeMachine{cpu}, *shared, EptAddressSpace::of(*space)).error() ==
            Error::no_memory);
    }
}

TEST_CASE("the vCPU's state can be shown", "[vmx]") {
    VcpuBench bench;
    bench.vcpu->enter_cpu();
    bench.vcpu->log_state();
    bench.vcpu->leave_cpu();
}
