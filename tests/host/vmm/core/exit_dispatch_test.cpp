// SPDX-License-Identifier: MIT
// What the VMM does about each kind of exit.
#include "vmm/core/vcpu_fixture.hpp"
#include "vmm/x86/hypercalls.hpp"

using namespace hv;
using namespace hv::test;
using Outcome = Vcpu::Outcome;
using Reason = VmExit::Reason;

namespace {

constexpr std::uint64_t kMmio = 0xd000'0000;

struct Fixture : VcpuFixture {
    Fixture() {
        start();
        ports.add(0x500, 8, port).value();
        mmio.add(kMmio, 0x1000, device).value();
    }
    [[nodiscard]] bool crashed() const { return control.reasons == std::vector{VmStop::crashed}; }
    Scratch port, device;
};

}  // namespace

TEST_CASE("CPUID answers by the policy", "[core]") {
    Fixture f;
    f.regs().gpr[RAX] = 0xffff'ffff'4000'0000;
    f.regs().gpr[RBX] = f.regs().gpr[RDX] = ~std::uint64_t{0};
    f.run({exit_of(Reason::cpuid, 2)});
    CHECK(f.regs().gpr[RBX] == 0x4b4d'564b);  // "KVMK"
    CHECK(f.regs().gpr[RAX] >> 32 == 0);
    CHECK(f.regs().rip == VcpuFixture::kCode + 2);
}

TEST_CASE("an instruction whose length no one tells is found in memory", "[core]") {
    Fixture f;
    f.code({0x66, 0x0f, 0xa2});  // CPUID with a useless prefix
    f.run({exit_of(Reason::cpuid)});
    CHECK(f.regs().rip == VcpuFixture::kCode + 3);
    SECTION("and runs again if it is another one by now") {
        f.code({0x90, 0x90});
        f.run({exit_of(Reason::cpuid)});
        CHECK(f.regs().rip == VcpuFixture::kCode);
        CHECK(f.control.reasons.empty());
    }
}

TEST_CASE("RDMSR and WRMSR work on the MSR file, and an unknown one is a #GP", "[core]") {
    Fixture f;
    f.regs().gpr[RCX] = 0x10;  // TSC
    f.run({exit_of(Reason::rdmsr, 2)});
    CHECK(f.backend().injected.empty());
    CHECK(f.regs().rip == VcpuFixture::kCode + 2);
    f.regs().gpr[RCX] = 0x1b;  // APIC_BASE
    f.run({exit_of(Reason::rdmsr, 2)});
    CHECK(f.regs().gpr[RAX] == 0xfee0'0900);
    CHECK(f.regs().gpr[RDX] == 0);
    const std::uint64_t rip = f.regs().rip;
    f.regs().gpr[RCX] = 0xdead'0000;
    for (const Reason reason : {Reason::rdmsr, Reason::wrmsr}) {
        f.backend().injected.clear();
        f.run({exit_of(reason, 2)});
        CHECK(f.injected(Event::exception(EXCEPTION_GP, 0)));
        CHECK(f.regs().rip == rip);
        CHECK((f.regs().rflags & RFLAGS_RF) != 0);
    }
}

TEST_CASE("hypercalls answer as KVM's, and are for the kernel alone", "[core]") {
    Fixture f;
    f.regs().gpr[RAX] = 5;
    f.run({exit_of(Reason::vmcall, 3)});
    CHECK(static_cast<std::int64_t>(f.regs().gpr[RAX]) == -1000);
    f.enable_apic();
    f.regs().gpr[RAX] = x86::kSendIpi;
    f.regs().gpr[RBX] = 1;
    f.regs().gpr[RCX] = f.regs().gpr[RDX] = 0;
    f.regs().gpr[RSI] = 0x4041;
    f.run({exit_of(Reason::vmcall, 3)});
    CHECK(f.regs().gpr[RAX] == 1);
    CHECK(f.injected(Event::interrupt(0x41)));
    f.backend().set_cpl(3);
    for (const std::uint64_t number : {5U, x86::kSendIpi}) {
        f.regs().gpr[RAX] = number;
        f.run({exit_of(Reason::vmcall, 3)});
        CHECK(static_cast<std::int64_t>(f.regs().gpr[RAX]) == -1);
    }
}

TEST_CASE("XSETBV is checked", "[core]") {
    Fixture f;
    const std::uint64_t rip = f.regs().rip;
    f.regs().gpr[RCX] = 0;
    f.regs().gpr[RDX] = 0;
    f.regs().gpr[RAX] = 3;
    f.run({exit_of(Reason::xsetbv, 3)});  // CR4.OSXSAVE is clear
    CHECK(f.injected(Event::exception(EXCEPTION_UD)));
    f.backend().state.cr4 |= CR4_OSXSAVE;
    f.run({exit_of(Reason::xsetbv, 3)});
    CHECK(f.backend().xcr0_value == 3);
    CHECK(f.regs().rip == rip + 3);
    f.regs().gpr[RAX] = 6;  // without x87
    f.run({exit_of(Reason::xsetbv, 3)});
    CHECK(f.injected(Event::exception(EXCEPTION_GP, 0)));
    CHECK(f.backend().xcr0_value == 3);
}

TEST_CASE("IN and OUT move the accumulator as far as the operand goes", "[core]") {
    Fixture f;
    f.regs().gpr[RAX] = 0xaaaa'aaaa'1122'3344;
    f.run({out_exit(0x502, 2)});
    REQUIRE(f.port.writes.size() == 1);
    CHECK(f.port.writes[0].offset == 2);
    CHECK(f.port.writes[0].value == 0x3344);
    f.port.value = 0x9988'7766;
    f.run({in_exit(0x500, 1)});
    CHECK(f.regs().gpr[RAX] == 0xaaaa'aaaa'1122'3366);
    f.run({in_exit(0x500, 2)});
    CHECK(f.regs().gpr[RAX] == 0xaaaa'aaaa'1122'7766);
    f.run({in_exit(0x500, 4)});
    CHECK(f.regs().gpr[RAX] == 0x9988'7766);
    f.run({in_exit(0x600, 4)});
    CHECK(f.regs().gpr[RAX] == 0xffff'ffff);
}

TEST_CASE("string I/O goes through memory", "[core]") {
    Fixture f;
    f.code({0xf3, 0x6e});  // REP OUTSB
    f.memory.store(Gpa{0x2000}, std::uint32_t{0x6463'6261}).value();
    f.regs().gpr[RSI] = 0x2000;
    f.regs().gpr[RCX] = 4;
    f.regs().gpr[RDX] = 0x500;
    VmExit exit = out_exit(0x500);
    exit.io = IoExit{0x500, 1, false, true, true};
    f.run({exit});
    REQUIRE(f.port.writes.size() == 4);
    CHECK(f.port.writes[3].value == 0x64);
    CHECK(f.regs().gpr[RCX] == 0);
    CHECK(f.regs().gpr[RSI] == 0x2004);
    CHECK(f.regs().rip == VcpuFixture::kCode + 2);
}

TEST_CASE("MMIO reaches the device that answers there", "[core]") {
    Fixture f;
    f.code({0xa1, 0x10, 0x00, 0x00, 0xd0});  // MOV EAX, [0xd0000010]
    f.run({fault_exit(kMmio + 0x10)});
    REQUIRE(f.device.reads.size() == 1);
    CHECK(f.device.reads[0].offset == 0x10);
    CHECK(f.regs().gpr[RAX] == 0x5566'7788);
    f.code({0x89, 0x0d, 0x20, 0x00, 0x00, 0xd0});  // MOV [0xd0000020], ECX
    f.regs().gpr[RCX] = 0x1234;
    f.run({fault_exit(kMmio + 0x20, true)});
    REQUIRE(f.device.writes.size() == 1);
    CHECK(f.device.writes[0].value == 0x1234);
    f.code({0xa1, 0x10, 0x00, 0x00, 0xe8});  // nobody there
    f.run({fault_exit(0xe800'0010)});
    CHECK(f.regs().gpr[RAX] == 0xffff'ffff);
}

TEST_CASE("whoever is woken by a write to a device goes first on the same CPU", "[core]") {
    VcpuFixture f{2};
    f.start();
    Scratch device;
    f.mmio.add(kMmio, 0x1000, device).value();
    f.code({0x89, 0x0d, 0x20, 0x00, 0x00, 0xd0});  // MOV [0xd0000020], ECX
    f.scheduler->wake(f.vcpu());
    REQUIRE(f.scheduler->pick_next(0) == &f.vcpu());
    f.backend().exits = {fault_exit(kMmio + 0x20, true), exit_of(Reason::cpuid, 2)};
    f.backend().on_run = [&] { f.scheduler->wake(f.vcpu(1)); };
    CHECK(f.vcpu().run(f.loop) == Outcome::preempted);
    CHECK(device.writes.size() == 1);
    CHECK(f.backend().runs == 1);
    CHECK(f.scheduler->pick_next(0) == &f.vcpu(1));
}

TEST_CASE("the local APIC's page is where its base says, and gone in x2APIC mode", "[core]") {
    Fixture f;
    f.code({0xa1, 0x30, 0x00, 0xe0, 0xfe});  // MOV EAX, [0xfee00030]: version
    f.run({fault_exit(0xfee0'0030)});
    CHECK((f.regs().gpr[RAX] & 0xff) >= 0x10);
    CHECK(f.regs().gpr[RAX] != 0xffff'ffff);
    REQUIRE(f.vcpu().apic().set_apic_base(0xfee0'0d00));
    f.code({0xa1, 0x30, 0x00, 0xe0, 0xfe});
    f.run({fault_exit(0xfee0'0030)});
    CHECK(f.regs().gpr[RAX] == 0xffff'ffff);
}

TEST_CASE("an exit that only the guest's misdeeds lead to stops its VM", "[core]") {
    Fixture f;
    VmExit exit;
    SECTION("a triple fault") {
        exit = exit_of(Reason::shutdown);
    }
    SECTION("state that the processor refuses") {
        exit = exit_of(Reason::invalid_state);
    }
    SECTION("an instruction fetch outside RAM") {
        exit = fault_exit(kMmio);
        exit.fault.execute = true;
        exit.fault.read = false;
    }
    SECTION("an instruction that is not emulated") {
        f.code({0x0f, 0x58, 0x05, 0x00, 0x00, 0x00, 0xd0});  // ADDPS XMM0, [0xd0000000]
        exit = fault_exit(kMmio);
    }
    SECTION("an interrupt's stack outside RAM") {
        // Not the instruction at RIP made the access, whatever it is.
        f.code({0x89, 0x0d, 0x20, 0x00, 0x00, 0xd0});
        exit = fault_exit(kMmio + 0x20, true);
        exit.interrupted = Event::interrupt(0x31);
    }
    SECTION("an exception's stack outside RAM") {
        f.code({0x89, 0x0d, 0x20, 0x00, 0x00, 0xd0});
        exit = fault_exit(kMmio + 0x20, true);
        exit.interrupted = Event::exception(EXCEPTION_PF, 2);
    }
    SECTION("page tables outside RAM") {
        f.code({0x89, 0x0d, 0x20, 0x00, 0x00, 0xd0});
        exit = fault_exit(kMmio + 0x20, true);
        exit.fault.during_walk = true;
    }
    SECTION("an unknown exit") {
        exit = exit_of(Reason::unhandled);
    }
    f.backend().exits = {exit};
    CHECK(f.turn() == Outcome::parked);
    CHECK(f.crashed());
    CHECK(f.backend().runs == 1);
    CHECK(f.device.writes.empty());
    CHECK(f.backend().left == f.backend().entered);
}

TEST_CASE("exceptions while exceptions are delivered end in a triple fault", "[core]") {
    Fixture f;
    VmExit first = exit_of(Reason::exception);
    first.exception = Event::exception(EXCEPTION_DB);
    f.run({first, exit_of(Reason::host_interrupt)});
    f.run({});
    CHECK(f.injected(Event::exception(EXCEPTION_DB)));
    VmExit fault = exit_of(Reason::rdmsr, 2);  // raises #GP
    fault.interrupted = Event::exception(EXCEPTION_DF, 0);
    f.regs().gpr[RCX] = 0xdead'0000;
    f.run({fault});
    CHECK(f.run({}) == Outcome::parked);
    CHECK(f.crashed());
}

TEST_CASE("instructions of what this processor lacks are #UD", "[core]") {
    Fixture f;
    f.run({exit_of(Reason::undefined, 3)});
    CHECK(f.injected(Event::exception(EXCEPTION_UD)));
    CHECK(f.regs().rip == VcpuFixture::kCode);
}

TEST_CASE("INVD and WBINVD are skipped", "[core]") {
    Fixture f;
    f.code({0x0f, 0x08, 0x0f, 0x09});
    f.run({exit_of(Reason::invd), exit_of(Reason::invd)});
    CHECK(f.regs().rip == VcpuFixture::kCode + 4);
}

TEST_CASE("single-stepping over an exit traps after it", "[core]") {
    Fixture f;
    f.regs().rflags |= RFLAGS_TF;
    f.run({exit_of(Reason::cpuid, 2)});
    CHECK(f.injected(Event::exception(EXCEPTION_DB)));
    CHECK((f.backend().state.dr6 & DR6_BS) != 0);
}

TEST_CASE("control registers are written by what the instruction says", "[core]") {
    Fixture f;
    f.code({0x0f, 0x22, 0xc3});  // MOV CR0, EBX
    f.regs().gpr[RBX] = 0x31;
    VmExit exit = exit_of(Reason::cr_access);
    exit.cr = {0, true, false, 0};
    f.run({exit});
    CHECK(f.backend().state.cr0 == 0x31);
    CHECK(f.regs().rip == VcpuFixture::kCode + 3);
    f.code({0x0f, 0x22, 0xc3});
    f.regs().gpr[RBX] = 0x8000'0000;  // PG without PE
    f.run({exit});
    CHECK(f.injected(Event::exception(EXCEPTION_GP, 0)));
    f.code({0x90});  // changed under way to something that accesses no control register
    f.backend().exits = {exit};
    CHECK(f.turn() == Outcome::parked);
    CHECK(f.crashed());
}

TEST_CASE("#UD of either vendor's hypercall is one, any other #UD is the guest's", "[core]") {
    Fixture f;
    VmExit exit = exit_of(Reason::exception);
    exit.exception = Event::exception(EXCEPTION_UD);
    for (const int last : {0xc1, 0xd9}) {
        f.code({0x0f, 0x01, last});
        f.regs().gpr[RAX] = 5;
        f.run({exit});
        CHECK(static_cast<std::int64_t>(f.regs().gpr[RAX]) == -1000);
        CHECK(f.regs().rip == VcpuFixture::kCode + 3);
        f.run({});
        CHECK(f.backend().injected.empty());
    }
    SECTION("LOCK") {
        f.code({0xf0, 0x0f, 0x01, 0xc1});
    }
    SECTION("UD2") {
        f.code({0x0f, 0x0b});
    }
    SECTION("what no decoder knows") {
        f.code({0x0f, 0x04});
    }
    f.run({exit});
    f.run({});  // an exit with an exception gives the CPU away first where that is wanted
    CHECK(f.injected(Event::exception(EXCEPTION_UD)));
    CHECK(f.regs().rip == VcpuFixture::kCode);
    CHECK_FALSE(f.crashed());
}

TEST_CASE("breakpoints see what the VMM does for the guest", "[core]") {
    Fixture f;
    CpuState& state = f.backend().state;
    const auto met = [&] {
        const bool trap = f.injected(Event::exception(EXCEPTION_DB));
        const std::uint64_t hits = state.dr6 & DR6_B0_B3;
        f.backend().injected.clear();
        state.dr6 = DR6_RESET;
        return trap ? hits : 0;
    };
    state.dr7 = 0x22 | 0xf0f'0000;  // 0 and 2, four bytes, accesses
    state.dr[0] = kMmio + 0x10;
    state.dr[2] = 0x2000;
    VmExit exit = fault_exit(kMmio + 0x10);
    exit.dr7 = static_cast<std::uint32_t>(state.dr7);
    f.code({0xa1, 0x10, 0x00, 0x00, 0xd0});  // MOV EAX, [0xd0000010]
    f.run({exit});
    CHECK(met() == 1);
    CHECK(f.regs().rip == VcpuFixture::kCode + 5);
    CHECK(f.device.reads.size() == 1);
    f.code({0xa1, 0x14, 0x00, 0x00, 0xd0});
    exit.fault.gpa = Gpa{kMmio + 0x14};
    f.run({exit});
    CHECK(met() == 0);

    f.code({0xf3, 0x6e});  // REP OUTSB from 0x1fff to 0x2001
    f.regs().gpr[RSI] = 0x1fff;
    f.regs().gpr[RCX] = 3;
    f.regs().gpr[RDX] = 0x500;
    VmExit out = out_exit(0x500);
    out.io = IoExit{0x500, 1, false, true, true};
    out.dr7 = exit.dr7;
    for (const std::uint64_t expected : {0, 4, 4}) {
        f.run({out});
        CHECK(met() == expected);
    }
    CHECK(f.regs().gpr[RCX] == 0);
    CHECK(f.regs().rip == VcpuFixture::kCode + 2);

    state.dr[0] = 0x502;
    state.dr7 = 0x2 | 0x2'0000;  // port
    state.cr4 |= CR4_DE;
    out = out_exit(0x500, 4);
    out.dr7 = static_cast<std::uint32_t>(state.dr7);
    f.run({out});
    CHECK(met() == 1);
    f.regs().rflags |= RFLAGS_TF;
    f.run({out});
    CHECK((state.dr6 & DR6_BS) != 0);
    CHECK(met() == 1);
    out = out_exit(0x500, 2);
    out.dr7 = static_cast<std::uint32_t>(state.dr7);
    f.regs().rflags &= ~RFLAGS_TF;
    f.run({out});
    CHECK(met() == 0);
}

TEST_CASE("LMSW takes the low bits of a register or of memory, and its faults", "[core]") {
    Fixture f;
    VmExit exit = exit_of(Reason::cr_access);
    exit.cr = {0, true, false, 0};
    f.code({0x0f, 0x01, 0xf3});  // LMSW BX
    f.regs().gpr[RBX] = 0xfff2;  // MP alone; PE stays
    f.run({exit});
    CHECK(f.backend().state.cr0 == 0x13);
    CHECK(f.regs().rip == VcpuFixture::kCode + 3);

    f.code({0x0f, 0x01, 0x73, 0x10});  // LMSW [EBX + 0x10]
    f.regs().gpr[RBX] = 0x2000;
    f.memory.store(Gpa{0x2010}, std::uint16_t{0x000c}).value();
    f.run({exit});
    CHECK(f.backend().state.cr0 == 0x1d);
    CHECK(f.regs().rip == VcpuFixture::kCode + 4);

    f.code({0x0f, 0x01, 0x73, 0x10});
    f.backend().state.seg(SegmentName::ds).limit = 0x2010;
    f.run({exit});
    CHECK(f.injected(Event::exception(EXCEPTION_GP, 0)));
    CHECK(f.backend().state.cr0 == 0x1d);
    CHECK(f.regs().rip == VcpuFixture::kCode);
    CHECK_FALSE(f.crashed());
}

TEST_CASE("MOV of CR0 with LOCK is one of CR8", "[core]") {
    Fixture f;
    VmExit exit = exit_of(Reason::cr_access);
    exit.cr = {8, true, false, 0};
    f.code({0xf0, 0x0f, 0x22, 0xc3});  // LOCK MOV CR0, EBX
    f.regs().gpr[RBX] = 5;
    f.run({exit});
    CHECK(f.vcpu().apic().tpr() == 0x50);
    CHECK(f.backend().state.cr0 == 0x11);
    f.code({0xf0, 0x0f, 0x20, 0xc1});  // LOCK MOV ECX, CR0
    f.run({exit});
    CHECK(f.regs().gpr[RCX] == 5);
}

TEST_CASE("every reason has a name", "[core]") {
    for (unsigned reason = 0; reason < VmExit::kReasons; ++reason)
        CHECK(std::string{to_string(static_cast<Reason>(reason))} != "?");
}

TEST_CASE("INT1 is a #DB behind the instruction, and not a single step", "[core]") {
    Fixture f;
    f.code({0x2e, 0x2e, 0xf1});
    f.regs().rflags |= RFLAGS_TF;
    f.run({exit_of(Reason::int1)});
    CHECK(f.injected(Event::exception(EXCEPTION_DB)));
    CHECK(f.regs().rip == VcpuFixture::kCode + 3);
    CHECK((f.backend().state.dr6 & DR6_BS) == 0);
    CHECK((f.regs().rflags & RFLAGS_TF) != 0);
}

TEST_CASE("INVLPG drops translations", "[core]") {
    Fixture f;
    f.code({0x0f, 0x01, 0x38});
    const unsigned before = f.backend().flushes;
    f.run({exit_of(Reason::invlpg)});
    CHECK(f.backend().flushes == before + 1);
    CHECK(f.regs().rip == VcpuFixture::kCode + 3);
}

TEST_CASE("a task switch goes behind the instruction that causes it", "[core]") {
    Fixture f;
    constexpr std::uint64_t kGdt = 0x1000, kOldTss = 0x2000, kNewTss = 0x3000;
    f.memory.store(Gpa{kGdt + 8}, std::uint64_t{0x00cf'9b00'0000'ffff}).value();
    f.memory.store(Gpa{kGdt + 16}, std::uint64_t{0x00cf'9300'0000'ffff}).value();
    f.memory.store(Gpa{kGdt + 24}, std::uint64_t{0x0000'8b00'2000'0067}).value();
    f.memory.store(Gpa{kGdt + 32}, std::uint64_t{0x0000'8900'3000'0067}).value();
    f.memory.store(Gpa{kNewTss + 0x20}, std::uint32_t{0x4000}).value();
    f.memory.store(Gpa{kNewTss + 0x4c}, std::uint16_t{8}).value();
    f.memory.store(Gpa{kNewTss + 0x50}, std::uint16_t{16}).value();
    f.backend().state.gdtr = {kGdt, 0x27};
    f.backend().state.tr = {24, 0x8b, 0x67, kOldTss};
    f.code({0xea, 0, 0, 0, 0, 32, 0});  // JMP 32:0
    VmExit exit = exit_of(Reason::task_switch);
    exit.task = {TaskSwitch::Cause::jump, true, false, false, false, 32, 0};
    SECTION("without a length from the processor") {
        f.run({exit});
    }
    SECTION("with one") {
        exit.instruction_length = 7;
        f.run({exit});
    }
    CHECK(f.regs().rip == 0x4000);
    CHECK(f.memory.load<std::uint32_t>(Gpa{kOldTss + 0x20}).value() == VcpuFixture::kCode + 7);
    CHECK(f.control.reasons.empty());
}

TEST_CASE("a TSS outside RAM ends the VM", "[core]") {
    Fixture f;
    f.backend().state.gdtr = {0xe000'0000, 0x27};
    VmExit exit = exit_of(Reason::task_switch, 7);
    exit.task = {TaskSwitch::Cause::jump, true, false, false, false, 32, 0};
    f.run({exit});
    CHECK(f.crashed());
}
