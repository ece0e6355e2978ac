// SPDX-License-Identifier: MIT
#include "arch/x86_64/code_context_check.hpp"
#include "arch/x86_64/vmx/ept.hpp"
#include "arch/x86_64/vmx/fake_machine.hpp"
#include "arch/x86_64/vmx/recorded_msrs.hpp"
#include "arch/x86_64/vmx/vcpu.hpp"
#include "catch.hpp"
#include "fakes/machine.hpp"

using namespace hv;
using namespace hv::vmx;
using namespace hv::vmx::test;

namespace {

struct Bench {
    explicit Bench(const Controls& controls = broadwell_controls(), const Mitigations& mitigations = {})
        : shared{Shared::create(frames, controls, mitigations, 4).value()},
          space{EptAddressSpace::create(frames, EptFormat{controls.caps.ept_vpid}).value()},
          vcpu{make_vcpu()} {
        fake::set_cpu(0);
        for (const Msr msr :
             {Msr::IA32_STAR, Msr::IA32_LSTAR, Msr::IA32_CSTAR, Msr::IA32_FMASK, Msr::IA32_KERNEL_GS_BASE})
            cpu.msrs[msr] = 0xdead;
    }
    ~Bench() { fake::set_cpu(0); }
    std::unique_ptr<VcpuBackend> make_vcpu() {
        return BasicVcpu<FakeMachine>::create(FakeMachine{cpu}, *shared, EptAddressSpace::of(*space)).value();
    }

    /// Runs the guest up to an exit for `reason`.
    VmExit run(ExitReason reason, std::function<void(FakeVmcs&)> more = {}) {
        cpu.guest = [=](FakeVmcs& vmcs, VcpuRegs&) {
            vmcs.set(EXIT_REASON, static_cast<std::uint64_t>(reason));
            vmcs.set(VM_ENTRY_INTERRUPTION_INFORMATION,
                     vmcs.read(VM_ENTRY_INTERRUPTION_INFORMATION) & 0x7fff'ffff);
            if (more)
                more(vmcs);
            return EntryResult::exited;
        };
        vcpu->run();
        return vcpu->exit;
    }
    FakeVmcs& vmcs() { return cpu.vmcs(); }

    FakeFrames frames;
    FakeCpu cpu;
    std::unique_ptr<Shared> shared;
    std::unique_ptr<GuestAddressSpace> space;
    std::unique_ptr<VcpuBackend> vcpu;
};

constexpr std::uint32_t kNmiBlocked = 8;

}  // namespace

TEST_CASE("a new vCPU is in the state after RESET", "[vmx]") {
    Bench bench;
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
    Bench bench;
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
    Bench bench;
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
    Bench bench;
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
    Bench bench;
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

TEST_CASE("interrupts go in when the guest can take them", "[vmx]") {
    Bench bench;
    bench.vcpu->enter_cpu();
    VcpuBackend& vcpu = *bench.vcpu;
    CHECK_FALSE(vcpu.inject(Event::interrupt(0x31)));  // IF clear
    bench.run(ExitReason::HLT);
    vcpu.regs.rflags = RFLAGS_FIXED | RFLAGS_IF;
    bench.vmcs().set(GUEST_INTERRUPTIBILITY_STATE, 1);  // STI
    CHECK_FALSE(vcpu.can_take_interrupt());
    CHECK_FALSE(vcpu.inject(Event::interrupt(0x31)));
    vcpu.regs.rip += 1;  // the VMM completes the instruction under it
    CHECK(vcpu.can_take_interrupt());
    CHECK(vcpu.inject(Event::interrupt(0x31)));
    CHECK(bench.vmcs().read(VM_ENTRY_INTERRUPTION_INFORMATION) == 0x8000'0031);
    CHECK_FALSE(vcpu.inject(Event::exception(6)));  // nothing is replaced
    bench.run(ExitReason::HLT);
    CHECK(vcpu.inject(Event::exception(13, 0x1'0010)));
    bench.vcpu->leave_cpu();
}

TEST_CASE("an error code goes in where the guest's mode has one", "[vmx]") {
    Bench bench;
    bench.vcpu->enter_cpu();
    CHECK(bench.vcpu->inject(Event::exception(13, 0x10)));
    CHECK(bench.vmcs().read(VM_ENTRY_INTERRUPTION_INFORMATION) == 0x8000'030d);
    bench.run(ExitReason::HLT);
    CpuState state{};
    bench.vcpu->get_state(state, RegSet::control);
    state.cr0 |= CR0_PE;
    bench.vcpu->set_state(state, RegSet::control);
    CHECK(bench.vcpu->inject(Event::exception(13, 0x10)));
    CHECK(bench.vmcs().read(VM_ENTRY_INTERRUPTION_INFORMATION) == 0x8000'0b0d);
    CHECK(bench.vmcs().read(VM_ENTRY_EXCEPTION_ERROR_CODE) == 0x10);
    bench.run(ExitReason::HLT);
    CHECK(bench.vcpu->inject({Event::Type::software_interrupt, 0x80, false, 2, 0}));
    CHECK(bench.vmcs().read(VM_ENTRY_INSTRUCTION_LENGTH) == 2);
    bench.vcpu->leave_cpu();
}

TEST_CASE("NMIs wait while one is being handled, and have a window", "[vmx]") {
    Bench bench;
    bench.vcpu->enter_cpu();
    CHECK(bench.vcpu->inject(Event::non_maskable()));
    bench.run(ExitReason::CPUID, [](FakeVmcs& vmcs) { vmcs.set(GUEST_INTERRUPTIBILITY_STATE, kNmiBlocked); });
    CHECK_FALSE(bench.vcpu->inject(Event::non_maskable()));
    bench.vcpu->request_window(Event::Type::nmi);
    CHECK((bench.vmcs().read(PRIMARY_PROCESSOR_BASED_CONTROLS) & primary::NMI_WINDOW_EXITING) != 0);
    CHECK(bench.run(ExitReason::NMI_WINDOW, [](FakeVmcs& vmcs) { vmcs.set(GUEST_INTERRUPTIBILITY_STATE, 0); })
              .reason == VmExit::Reason::nmi_window);
    CHECK((bench.vmcs().read(PRIMARY_PROCESSOR_BASED_CONTROLS) & primary::NMI_WINDOW_EXITING) == 0);
    CHECK(bench.vcpu->inject(Event::non_maskable()));
    bench.vcpu->leave_cpu();
}

TEST_CASE("an NMI waits for the end of a shadow, of STI's by the interrupt window", "[vmx]") {
    constexpr std::uint32_t kWindows = primary::NMI_WINDOW_EXITING | primary::INTERRUPT_WINDOW_EXITING;
    Bench bench;
    bench.vcpu->enter_cpu();
    const auto window = [&](std::uint32_t state) {
        bench.run(ExitReason::HLT, [&](FakeVmcs& vmcs) { vmcs.set(GUEST_INTERRUPTIBILITY_STATE, state); });
        CHECK_FALSE(bench.vcpu->inject(Event::non_maskable()));
        bench.vcpu->request_window(Event::Type::nmi);
        const std::uint32_t wanted = bench.vmcs().read(PRIMARY_PROCESSOR_BASED_CONTROLS) & kWindows;
        bench.run(ExitReason::NMI_WINDOW);
        bench.run(ExitReason::INTERRUPT_WINDOW);
        return wanted;
    };
    CHECK(window(2) == primary::NMI_WINDOW_EXITING);
    CHECK(window(1) == primary::INTERRUPT_WINDOW_EXITING);
    CHECK(window(1 | kNmiBlocked) == primary::NMI_WINDOW_EXITING);
    bench.run(ExitReason::HLT, [](FakeVmcs& vmcs) { vmcs.set(GUEST_INTERRUPTIBILITY_STATE, 1); });
    CHECK(bench.vcpu->inject(Event::exception(EXCEPTION_UD)));  // which ends it
    bench.vcpu->request_window(Event::Type::nmi);
    CHECK((bench.vmcs().read(PRIMARY_PROCESSOR_BASED_CONTROLS) & kWindows) == primary::NMI_WINDOW_EXITING);
    bench.run(ExitReason::HLT, [](FakeVmcs& vmcs) { vmcs.set(GUEST_INTERRUPTIBILITY_STATE, 0); });
    CHECK_FALSE(bench.vcpu->nmi_blocking());
    bench.vcpu->set_nmi_blocking(true);
    CHECK(bench.vcpu->nmi_blocking());
    CHECK(bench.vmcs().read(GUEST_INTERRUPTIBILITY_STATE) == kNmiBlocked);
    bench.vcpu->set_nmi_blocking(false);
    CHECK(bench.vmcs().read(GUEST_INTERRUPTIBILITY_STATE) == 0);
    bench.vcpu->leave_cpu();
}

TEST_CASE("a window closes with its exit and is asked for once", "[vmx]") {
    Bench bench;
    bench.vcpu->enter_cpu();
    bench.cpu.written.clear();
    bench.vcpu->request_window(Event::Type::external_interrupt);
    bench.vcpu->request_window(Event::Type::external_interrupt);
    CHECK(bench.cpu.writes(PRIMARY_PROCESSOR_BASED_CONTROLS.encoding) == 1);
    bench.run(ExitReason::INTERRUPT_WINDOW);
    CHECK(bench.vmcs().read(PRIMARY_PROCESSOR_BASED_CONTROLS) == bench.shared->controls.primary);
    bench.vcpu->leave_cpu();
}

TEST_CASE("an NMI whose delivery an exit interrupted can be injected again", "[vmx]") {
    Bench bench;
    bench.vcpu->enter_cpu();
    const VmExit exit = bench.run(ExitReason::EPT_VIOLATION, [](FakeVmcs& vmcs) {
        vmcs.set(IDT_VECTORING_INFORMATION, 0x8000'0202);
        vmcs.set(GUEST_INTERRUPTIBILITY_STATE, kNmiBlocked);
    });
    REQUIRE(exit.interrupted.type == Event::Type::nmi);
    CHECK(bench.vcpu->inject(exit.interrupted));
    bench.vcpu->leave_cpu();
}

TEST_CASE("an IRET that faults keeps NMIs blocked", "[vmx]") {
    Bench bench;
    bench.vcpu->enter_cpu();
    SECTION("EPT violation") {
        bench.run(ExitReason::EPT_VIOLATION, [](FakeVmcs& vmcs) { vmcs.set(EXIT_QUALIFICATION, 0x1181); });
        CHECK_FALSE(bench.vcpu->inject(Event::non_maskable()));
    }
    SECTION("exception") {
        bench.run(ExitReason::EXCEPTION_OR_NMI,
                  [](FakeVmcs& vmcs) { vmcs.set(VM_EXIT_INTERRUPTION_INFORMATION, 0x8000'1b11); });
        CHECK_FALSE(bench.vcpu->inject(Event::non_maskable()));
    }
    SECTION("not for an event that was being delivered") {
        bench.run(ExitReason::EPT_VIOLATION, [](FakeVmcs& vmcs) {
            vmcs.set(EXIT_QUALIFICATION, 0x1181);
            vmcs.set(IDT_VECTORING_INFORMATION, 0x8000'0031);
        });
        CHECK(bench.vcpu->inject(Event::non_maskable()));
    }
    bench.vcpu->leave_cpu();
}

TEST_CASE("the host's NMIs and machine checks are handed to the host", "[vmx]") {
    Bench bench;
    bench.vcpu->enter_cpu();
    const auto info = [](std::uint32_t value) {
        return [=](FakeVmcs& vmcs) { vmcs.set(VM_EXIT_INTERRUPTION_INFORMATION, value); };
    };
    CHECK(bench.run(ExitReason::EXCEPTION_OR_NMI, info(0x8000'0202)).reason ==
          VmExit::Reason::host_interrupt);
    CHECK(bench.cpu.did("nmi"));
    CHECK_FALSE(bench.cpu.did("machine check"));
    CHECK(bench.run(ExitReason::EXCEPTION_OR_NMI, info(0x8000'0312)).reason ==
          VmExit::Reason::host_interrupt);
    CHECK(bench.cpu.did("machine check"));
    bench.vcpu->leave_cpu();
}

TEST_CASE("a #DB exit leaves DR6 and DR7 as its delivery would", "[vmx]") {
    Bench bench;
    bench.vcpu->enter_cpu();
    bench.cpu.debug.dr6 = 0xfffe'0ff0 | 1;  // an earlier #DB inside a transaction
    bench.vmcs().set(GUEST_DR7, 0x400 | DR7_GD | 2);
    const VmExit exit = bench.run(ExitReason::EXCEPTION_OR_NMI, [](FakeVmcs& vmcs) {
        vmcs.set(VM_EXIT_INTERRUPTION_INFORMATION, 0x8000'0301);
        vmcs.set(EXIT_QUALIFICATION, 0x4004);
        vmcs.set(GUEST_RFLAGS, RFLAGS_FIXED | RFLAGS_TF);
        vmcs.set(GUEST_INTERRUPTIBILITY_STATE, 1);
    });
    CHECK(exit.reason == VmExit::Reason::exception);
    CpuState state{};
    bench.vcpu->get_state(state, RegSet::debug);
    CHECK(state.dr6 == (0xffff'0ff0 | 0x4004));
    CHECK(state.dr7 == (0x400 | 2));
    // A single step under an STI shadow: VM entry wants to see it pending.
    CHECK(bench.vmcs().read(GUEST_PENDING_DEBUG_EXCEPTIONS) == 0x4000);
    CHECK(bench.vcpu->inject(exit.exception));
    bench.vcpu->leave_cpu();
}

TEST_CASE("INT1 leaves DR6 and DR7 alone", "[vmx]") {
    Bench bench;
    bench.vcpu->enter_cpu();
    bench.cpu.debug.dr6 = 0xffff'0ff1;
    bench.vmcs().set(GUEST_DR7, 0x400 | DR7_GD);
    const VmExit exit = bench.run(ExitReason::EXCEPTION_OR_NMI, [](FakeVmcs& vmcs) {
        vmcs.set(VM_EXIT_INTERRUPTION_INFORMATION, 0x8000'0501);
        vmcs.set(VM_EXIT_INSTRUCTION_LENGTH, 1);
        vmcs.set(EXIT_QUALIFICATION, 0);
    });
    CHECK(unsigned{exit.exception.instruction_length} == 1);
    CpuState state{};
    bench.vcpu->get_state(state, RegSet::debug);
    CHECK(state.dr6 == 0xffff'0ff1);
    CHECK(state.dr7 == (0x400 | DR7_GD));
    bench.vcpu->leave_cpu();
}

TEST_CASE("an injected #DB takes the breakpoints with it that a MOV SS left pending", "[vmx]") {
    Bench bench;
    bench.vcpu->enter_cpu();
    bench.cpu.debug.dr6 = 0xffff'0ff0;
    bench.run(ExitReason::CPUID, [](FakeVmcs& vmcs) {
        vmcs.set(GUEST_PENDING_DEBUG_EXCEPTIONS, 0x5002);
        vmcs.set(GUEST_INTERRUPTIBILITY_STATE, 2);
    });
    bench.vcpu->regs.rip += 2;  // CPUID is completed
    CHECK(bench.vcpu->inject(Event::exception(EXCEPTION_DB)));
    CHECK(bench.cpu.debug.dr6 == (0xffff'0ff0 | 0x4002));
    CHECK(bench.vmcs().read(GUEST_PENDING_DEBUG_EXCEPTIONS) == 0);
    bench.vcpu->leave_cpu();
}

TEST_CASE("translations are flushed when they may be stale, and only then", "[vmx]") {
    Bench bench;
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
    Bench bench;
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
    Bench bench;
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
    Bench bench{broadwell_controls(), {true, true, true}};
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

TEST_CASE("VMX fields that the processor lacks are not touched", "[vmx]") {
    Controls controls = broadwell_controls();
    controls.pin &= ~pin::PREEMPTION_TIMER;
    controls.secondary &=
        ~(secondary::ENABLE_VPID | secondary::PAUSE_LOOP_EXITING | secondary::ENABLE_RDTSCP);
    Bench bench{controls};
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
    Bench bench;
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
    Bench bench;
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
    Bench bench;
    bench.vcpu->enter_cpu();
    bench.vcpu->log_state();
    bench.vcpu->leave_cpu();
}
