// SPDX-License-Identifier: MIT
// Events that go into the guest, and what of them an exit takes out of it.
#include "arch/x86_64/vmx/vcpu_fixture.hpp"

using namespace hv;
using namespace hv::vmx;
using namespace hv::vmx::test;

TEST_CASE("interrupts go in when the guest can take them", "[vmx]") {
    VcpuBench bench;
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
    VcpuBench bench;
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
    VcpuBench bench;
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

TEST_CASE("PAUSE exits while it is wished, where the processor does not tell loops", "[vmx]") {
    for (const bool tells : {true, false}) {
        RecordedMsrs msrs;
        if (!tells)
            msrs.forbid(Msr::IA32_VMX_PROCBASED_CTLS2, secondary::PAUSE_LOOP_EXITING);
        VcpuBench bench{negotiate(read_capabilities(msrs)).value()};
        bench.vcpu->enter_cpu();
        for (const bool wanted : {true, true, false, false}) {
            bench.vcpu->set_pause_exits(wanted);
            CHECK(((bench.vmcs().read(PRIMARY_PROCESSOR_BASED_CONTROLS) & primary::PAUSE_EXITING) != 0) ==
                  (wanted && !tells));
            CHECK(bench.run(ExitReason::PAUSE).reason == VmExit::Reason::pause);
        }
        bench.vcpu->leave_cpu();
    }
}

TEST_CASE("an NMI waits for the end of a shadow, of STI's by the interrupt window", "[vmx]") {
    constexpr std::uint32_t kWindows = primary::NMI_WINDOW_EXITING | primary::INTERRUPT_WINDOW_EXITING;
    VcpuBench bench;
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
    VcpuBench bench;
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
    VcpuBench bench;
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
    VcpuBench bench;
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
    VcpuBench bench;
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
    VcpuBench bench;
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
    VcpuBench bench;
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
    VcpuBench bench;
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
