// SPDX-License-Identifier: MIT
#include "arch/x86_64/exit_scenarios.hpp"
#include "arch/x86_64/vmx/exit_decode.hpp"
#include "arch/x86_64/vmx/fake_machine.hpp"
#include "catch.hpp"

using namespace hv;
using namespace hv::vmx;
using namespace hv::vmx::test;

namespace {

using Fill = std::function<void(FakeVmcs&)>;

Fill basic(ExitReason reason, unsigned length = 0, std::uint64_t qualification = 0) {
    return [=](FakeVmcs& vmcs) {
        vmcs.set(EXIT_REASON, static_cast<std::uint64_t>(reason));
        vmcs.set(VM_EXIT_INSTRUCTION_LENGTH, length);
        vmcs.set(EXIT_QUALIFICATION, qualification);
    };
}

/// EXCEPTION_OR_NMI with its interruption information.
Fill exception(std::uint32_t info, std::uint32_t error_code = 0, std::uint64_t qualification = 0,
               std::uint32_t vectoring = 0, std::uint32_t vectoring_error = 0) {
    return [=](FakeVmcs& vmcs) {
        basic(ExitReason::EXCEPTION_OR_NMI, 0, qualification)(vmcs);
        vmcs.set(VM_EXIT_INTERRUPTION_INFORMATION, info);
        vmcs.set(VM_EXIT_INTERRUPTION_ERROR_CODE, error_code);
        vmcs.set(IDT_VECTORING_INFORMATION, vectoring);
        vmcs.set(IDT_VECTORING_ERROR_CODE, vectoring_error);
    };
}

/// An EPT violation; the instruction length is left over from an earlier exit, as it may be.
Fill violation(std::uint64_t gpa, std::uint64_t qualification, std::uint32_t vectoring = 0,
               std::uint32_t error_code = 0) {
    return [=](FakeVmcs& vmcs) {
        basic(ExitReason::EPT_VIOLATION, 7, qualification)(vmcs);
        vmcs.set(GUEST_PHYSICAL_ADDRESS, gpa);
        vmcs.set(IDT_VECTORING_INFORMATION, vectoring);
        vmcs.set(IDT_VECTORING_ERROR_CODE, error_code);
    };
}

/// A task switch, with the event that comes through a task gate.
Fill task(std::uint64_t qualification, std::uint32_t vectoring = 0, std::uint32_t error_code = 0,
          std::uint64_t rflags = 2, unsigned length = 0) {
    return [=](FakeVmcs& vmcs) {
        basic(ExitReason::TASK_SWITCH, length, qualification)(vmcs);
        vmcs.set(IDT_VECTORING_INFORMATION, vectoring);
        vmcs.set(IDT_VECTORING_ERROR_CODE, error_code);
        vmcs.set(GUEST_RFLAGS, rflags);
    };
}

constexpr std::uint64_t kMmio = 0xfec0'0010;
constexpr std::uint64_t kOperand = 0x180;  // bits 8:7: the instruction's own access

// Values as the SDM's tables give them, not by our own constants.
const std::map<std::string_view, Fill> kFillers{
    {"a physical interrupt", basic(ExitReason::EXTERNAL_INTERRUPT)},
    {"a physical NMI", exception(0x8000'0202)},
    {"the interrupt window opens", basic(ExitReason::INTERRUPT_WINDOW)},
    {"the NMI window opens", basic(ExitReason::NMI_WINDOW)},
    {"CPUID", basic(ExitReason::CPUID, 2)},
    {"RDMSR", basic(ExitReason::RDMSR, 2)},
    {"WRMSR", basic(ExitReason::WRMSR, 2)},
    {"HLT", basic(ExitReason::HLT, 1)},
    {"VMCALL or VMMCALL", basic(ExitReason::VMCALL, 3)},
    {"a loop of PAUSEs", basic(ExitReason::PAUSE, 2)},
    {"XSETBV", basic(ExitReason::XSETBV, 3)},
    {"INVD", basic(ExitReason::INVD, 2)},
    {"WBINVD", basic(ExitReason::WBINVD, 2)},
    {"OUT DX, AL to 0x3f8", basic(ExitReason::IO_INSTRUCTION, 1, 0x03f8'0000)},
    {"OUT 0x80, AX", basic(ExitReason::IO_INSTRUCTION, 3, 0x0080'0041)},
    {"IN EAX, DX from 0xcfc", basic(ExitReason::IO_INSTRUCTION, 1, 0x0cfc'000b)},
    {"REP OUTSB to 0x3f8", basic(ExitReason::IO_INSTRUCTION, 2, 0x03f8'0030)},
    {"INSW from 0x1f0", basic(ExitReason::IO_INSTRUCTION, 2, 0x01f0'0019)},
    {"a read of an address without memory", violation(kMmio, kOperand | 1)},
    {"a write to an address without memory", violation(kMmio, kOperand | 2)},
    {"a fetch from an address without memory", violation(0x1'0000'0000, kOperand | 4)},
    {"a write to read-only memory", violation(0xf'0000, kOperand | 0x28 | 2)},
    {"a page walk through an address without memory", violation(0xd000'0000, 0x80 | 2)},
    {"the stack of an interrupt has no memory", violation(kMmio, kOperand | 2, 0x8000'0031)},
    {"the stack of an NMI has no memory", violation(kMmio, kOperand | 2, 0x8000'0202)},
    {"the stack of a #PF has no memory", violation(kMmio, kOperand | 2, 0x8000'0b0e, 2)},
    {"the stack of a #UD has no memory", violation(kMmio, kOperand | 2, 0x8000'0306, 99)},
    {"MOV CR0, RAX", basic(ExitReason::CONTROL_REGISTER_ACCESS, 3, 0x000)},
    {"MOV CR4, R15", basic(ExitReason::CONTROL_REGISTER_ACCESS, 4, 0xf04)},
    {"MOV RSP, CR8", basic(ExitReason::CONTROL_REGISTER_ACCESS, 4, 0x418)},
    {"MOV CR8, RCX", basic(ExitReason::CONTROL_REGISTER_ACCESS, 4, 0x108)},
    {"#DB", exception(0x8000'0301, 0, 0x4000)},
    {"#AC", exception(0x8000'0b11, 0)},
    {"#AC while #AC is delivered", exception(0x8000'0b11, 0, 0, 0x8000'0b11, 0)},
    {"RDPMC", basic(ExitReason::RDPMC, 2)},
    {"MONITOR", basic(ExitReason::MONITOR, 3)},
    {"MWAIT", basic(ExitReason::MWAIT, 3)},
    {"an instruction of the virtualization extension", basic(ExitReason::VMLAUNCH, 3)},
    {"CALL to a TSS", task(0x28)},
    {"JMP to a TSS", task(0x8000'0028)},
    {"IRET to a TSS", task(0x4000'0030)},
    {"an interrupt through a task gate", task(0xc000'0028, 0x8000'0031)},
    {"an NMI through a task gate", task(0xc000'0028, 0x8000'0202)},
    {"a #PF through a task gate", task(0xc000'0028, 0x8000'0b0e, 2, 0x1'0002)},
    {"a triple fault", basic(ExitReason::TRIPLE_FAULT)},
    {"INIT", basic(ExitReason::INIT_SIGNAL)},
    {"guest state that the processor refuses", [](FakeVmcs& vmcs) { vmcs.set(EXIT_REASON, 0x8000'0021); }},
};

VmExit decode(const Fill& fill) {
    FakeVmcs vmcs;
    vmcs.set(GUEST_DR7, hv::test::kScenarioDr7);
    fill(vmcs);
    return decode_exit(vmcs);
}

}  // namespace

TEST_CASE("VT-x' exits become neutral ones, scenario by scenario", "[vmx]") {
    hv::test::check_exit_scenarios<FakeVmcs>(kFillers, decode, hv::test::Assists::all);
}

TEST_CASE("every exit reason has its place", "[vmx]") {
    using Reason = VmExit::Reason;
    const std::map<unsigned, Reason> expected{
        {1, Reason::host_interrupt},
        {2, Reason::shutdown},
        {3, Reason::init_signal},
        {7, Reason::interrupt_window},
        {8, Reason::nmi_window},
        {9, Reason::task_switch},
        {10, Reason::cpuid},
        {11, Reason::undefined},
        {12, Reason::hlt},
        {13, Reason::invd},
        {14, Reason::invlpg},
        {15, Reason::exception},
        {17, Reason::undefined},
        {18, Reason::vmcall},
        {19, Reason::undefined},
        {20, Reason::undefined},
        {21, Reason::undefined},
        {22, Reason::undefined},
        {23, Reason::undefined},
        {24, Reason::undefined},
        {25, Reason::undefined},
        {26, Reason::undefined},
        {27, Reason::undefined},
        {28, Reason::cr_access},
        {29, Reason::dr_access},
        {30, Reason::io},
        {31, Reason::rdmsr},
        {32, Reason::wrmsr},
        {36, Reason::undefined},
        {39, Reason::undefined},
        {40, Reason::pause},
        {48, Reason::nested_fault},
        {50, Reason::undefined},
        {52, Reason::host_interrupt},
        {53, Reason::undefined},
        {54, Reason::invd},
        {55, Reason::xsetbv},
        {59, Reason::undefined},
        {60, Reason::undefined},
        {70, Reason::undefined},
        {76, Reason::undefined},
        {77, Reason::undefined},
        {43, Reason::interrupt_window},
        {44, Reason::nested_fault},
        {45, Reason::apic_eoi},
        {56, Reason::apic_write},
    };
    for (unsigned reason = 1; reason < 0x1'0000;
         reason = reason < kExitReasons + 4 ? reason + 1 : reason * 2) {
        INFO("exit reason " << reason);
        const auto found = expected.find(reason);
        const VmExit exit = decode(basic(static_cast<ExitReason>(reason)));
        CHECK(exit.reason == (found != expected.end() ? found->second : Reason::unhandled));
        CHECK(exit.raw.code == reason);
    }
}

TEST_CASE("CLTS and LMSW are left to the decoder", "[vmx]") {
    const VmExit clts = decode(basic(ExitReason::CONTROL_REGISTER_ACCESS, 2, 0x20));
    CHECK((clts.cr.write && !clts.cr.decoded && clts.cr.cr == 0));
    const VmExit lmsw = decode(basic(ExitReason::CONTROL_REGISTER_ACCESS, 3, 0x0001'0030));
    CHECK((lmsw.cr.write && !lmsw.cr.decoded && lmsw.cr.cr == 0));
}

TEST_CASE("a load of PDPTEs that has no memory counts as a walk", "[vmx]") {
    CHECK(decode(violation(0x5000, 0x01)).fault.during_walk);
}

TEST_CASE("software events that were interrupted keep their length", "[vmx]") {
    Fill fill = violation(kMmio, kOperand | 2, 0x8000'0480);
    const VmExit int80 = decode([&](FakeVmcs& vmcs) {
        fill(vmcs);
        vmcs.set(VM_EXIT_INSTRUCTION_LENGTH, 2);
    });
    CHECK(int80.interrupted.type == Event::Type::software_interrupt);
    CHECK(int80.interrupted.vector == 0x80);
    CHECK(int80.interrupted.instruction_length == 2);
    CHECK(int80.instruction_length == 0);
}

TEST_CASE("INT n, INT3 and INTO through a task gate are the program's own", "[vmx]") {
    for (const std::uint32_t vectoring : {0x8000'0440u, 0x8000'0603u, 0x8000'0604u}) {
        const VmExit exit = decode(task(0xc000'0028, vectoring, 0, 2, 2));
        CHECK(exit.task.cause == TaskSwitch::Cause::gate);
        CHECK(exit.task.instruction);
        CHECK_FALSE(exit.task.external);
        CHECK(unsigned{exit.instruction_length} == 2);
    }
    const VmExit int1 = decode(task(0xc000'0028, 0x8000'0501, 0, 2, 1));
    CHECK(int1.task.instruction);
    CHECK(int1.task.external);
}

TEST_CASE("events go into VM entry as the SDM encodes them", "[vmx]") {
    // [sdm3 25.8.3 VM-Entry Controls for Event Injection]
    CHECK(entry_information(Event::interrupt(0x31), true) == 0x8000'0031);
    CHECK(entry_information(Event::non_maskable(), true) == 0x8000'0202);
    CHECK(entry_information(Event::exception(13, 0x10), true) == 0x8000'0b0d);
    CHECK(entry_information(Event::exception(13, 0x10), false) == 0x8000'030d);  // real mode
    CHECK(entry_information(Event::exception(6), true) == 0x8000'0306);
    CHECK(entry_information({Event::Type::software_interrupt, 0x80, false, 2, 0}, true) == 0x8000'0480);
    CHECK(entry_information({Event::Type::exception, 3, false, 1, 0}, true) == 0x8000'0603);
    CHECK(entry_information({Event::Type::exception, 1, false, 1, 0}, true) == 0x8000'0501);
    CHECK(entry_information({}, true) == 0);
}

TEST_CASE("what VM exits tell of an event can be injected again", "[vmx]") {
    for (const Event& event :
         {Event::interrupt(0x20), Event::non_maskable(), Event::exception(14, 6), Event::exception(0),
          Event{Event::Type::software_interrupt, 0x40, false, 2, 0},
          Event{Event::Type::exception, 4, false, 1, 0}, Event{Event::Type::exception, 1, false, 1, 0}})
        CHECK(hv::test::same_event(
            event_of(entry_information(event, true), event.error_code, event.instruction_length), event));
    CHECK_FALSE(event_of(0x0000'0b0d, 1, 2).pending());  // not valid
    CHECK_FALSE(event_of(0x8000'0100, 0, 0).pending());  // a reserved type
}
