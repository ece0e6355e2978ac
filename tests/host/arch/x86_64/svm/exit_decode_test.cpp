// SPDX-License-Identifier: MIT
#include "arch/x86_64/defs/cr.hpp"
#include "arch/x86_64/exit_scenarios.hpp"
#include "arch/x86_64/svm/exit_decode.hpp"
#include "catch.hpp"

#include <memory>

using namespace hv;
using namespace hv::svm;

namespace {

using Fill = std::function<void(Vmcb&)>;

Fill basic(ExitCode code, unsigned length = 0, std::uint64_t info1 = 0, std::uint64_t info2 = 0) {
    return [=](Vmcb& vmcb) {
        vmcb.control.exit_code = static_cast<std::uint64_t>(code);
        vmcb.control.exit_info1 = info1;
        vmcb.control.exit_info2 = info2;
        vmcb.control.next_rip = length == 0 ? 0 : test::kScenarioRip + length;
    };
}

/// IOIO [apm2 15.10.2 IN and OUT Behavior]: EXITINFO2 is the next instruction's address.
Fill io(std::uint16_t port, unsigned size, bool in, bool string, bool rep, unsigned length) {
    const std::uint64_t info =
        std::uint64_t{port} << 16 | size << 4 | unsigned{in} | unsigned{string} << 2 | unsigned{rep} << 3;
    return basic(ExitCode::ioio, length, info, test::kScenarioRip + length);
}

/// NPF: EXITINFO1 is a page fault's error code, with the guest's accesses always those of a user.
Fill npf(std::uint64_t gpa, std::uint64_t error_code, std::uint64_t interrupted = 0) {
    constexpr std::uint64_t kUser = 4;
    return [=](Vmcb& vmcb) {
        basic(ExitCode::npf, 0, error_code | kUser, gpa)(vmcb);
        vmcb.control.exit_int_info = interrupted;
    };
}

/// A task switch: EXITINFO1 has the selector, EXITINFO2 cause and error code.
Fill task(std::uint64_t selector, std::uint64_t info, std::uint64_t event = 0) {
    return [=](Vmcb& vmcb) {
        basic(ExitCode::task_switch, 0, selector, info)(vmcb);
        vmcb.control.exit_int_info = event;
    };
}

Fill cr(unsigned number, bool write, unsigned gpr, unsigned length) {
    const auto code = static_cast<ExitCode>((write ? 0x10U : 0U) + number);
    return basic(code, length, std::uint64_t{1} << 63 | gpr);
}

constexpr std::uint64_t kFinal = std::uint64_t{1} << 32;
constexpr std::uint64_t kWalk = std::uint64_t{1} << 33;
constexpr std::uint64_t kWrite = 2;
constexpr std::uint64_t kFetch = 16;

const std::map<std::string_view, Fill> kFillers{
    {"a physical interrupt", basic(ExitCode::intr)},
    {"a physical NMI", basic(ExitCode::nmi)},
    {"the interrupt window opens", basic(ExitCode::vintr)},
    {"the NMI window opens", {}},  // GuestVmcb finds out by IRET
    {"CPUID", basic(ExitCode::cpuid, 2)},
    {"RDMSR", basic(ExitCode::msr, 2, 0)},
    {"WRMSR", basic(ExitCode::msr, 2, 1)},
    {"HLT", basic(ExitCode::hlt, 1)},
    {"VMCALL or VMMCALL", basic(ExitCode::vmmcall, 3)},
    {"a loop of PAUSEs", basic(ExitCode::pause, 2)},
    {"XSETBV", basic(ExitCode::xsetbv, 3)},
    {"INVD", basic(ExitCode::invd, 2)},
    {"WBINVD", basic(ExitCode::wbinvd, 2)},
    {"OUT DX, AL to 0x3f8", io(0x3f8, 1, false, false, false, 1)},
    {"OUT 0x80, AX", io(0x80, 2, false, false, false, 3)},
    {"IN EAX, DX from 0xcfc", io(0xcfc, 4, true, false, false, 1)},
    {"REP OUTSB to 0x3f8", io(0x3f8, 1, false, true, true, 2)},
    {"INSW from 0x1f0", io(0x1f0, 2, true, true, false, 2)},
    {"a read of an address without memory", npf(0xfec0'0010, kFinal)},
    {"a write to an address without memory", npf(0xfec0'0010, kFinal | kWrite)},
    {"a fetch from an address without memory", npf(0x1'0000'0000, kFinal | kFetch)},
    {"a write to read-only memory", npf(0xf'0000, kFinal | kWrite | 1)},
    {"a page walk through an address without memory", npf(0xd000'0000, kWalk | kWrite)},
    {"the stack of an interrupt has no memory", npf(0xfec0'0010, kFinal | kWrite, 0x8000'0031)},
    {"the stack of an NMI has no memory", npf(0xfec0'0010, kFinal | kWrite, 0x8000'0202)},
    {"the stack of a #PF has no memory", npf(0xfec0'0010, kFinal | kWrite, 0x2'8000'0b0e)},
    {"the stack of a #UD has no memory", npf(0xfec0'0010, kFinal | kWrite, 0x8000'0306)},
    {"MOV CR0, RAX", cr(0, true, RAX, 3)},
    {"MOV CR4, R15", cr(4, true, R15, 4)},
    {"MOV RSP, CR8", cr(8, false, RSP, 4)},
    {"MOV CR8, RCX", cr(8, true, RCX, 4)},
    {"#DB", basic(static_cast<ExitCode>(0x41))},
    {"#AC", basic(static_cast<ExitCode>(0x51))},
    {"#AC while #AC is delivered",
     [](Vmcb& vmcb) {
         basic(static_cast<ExitCode>(0x51))(vmcb);
         vmcb.control.exit_int_info = 0x8000'0b11;
     }},
    {"RDPMC", basic(ExitCode::rdpmc)},
    {"MONITOR", basic(ExitCode::monitor, 3)},
    {"MWAIT", basic(ExitCode::mwait, 3)},
    {"an instruction of the virtualization extension", basic(ExitCode::vmrun, 3)},
    {"CALL to a TSS", task(0x28, 0)},
    {"JMP to a TSS", task(0x28, std::uint64_t{1} << 38)},
    {"IRET to a TSS", task(0x30, std::uint64_t{1} << 36)},
    {"an interrupt through a task gate", task(0x28, 0, 0x8000'0031)},
    {"an NMI through a task gate", task(0x28, 0, 0x8000'0202)},
    {"a #PF through a task gate", task(0x28, 0x0001'1000'0000'0002, 0x2'8000'0b0e)},
    {"a triple fault", basic(ExitCode::shutdown)},
    {"INIT", basic(ExitCode::init)},
    {"guest state that the processor refuses", basic(ExitCode::invalid)},
};

void check(const ExitAssists& assists, test::Assists kind) {
    test::check_exit_scenarios<Vmcb>(
        kFillers,
        [&](const Fill& fill) {
            auto vmcb = std::make_unique<Vmcb>();
            vmcb->save.rip = test::kScenarioRip;
            vmcb->save.dr7 = test::kScenarioDr7;
            fill(*vmcb);
            if (!assists.next_rip)
                vmcb->control.next_rip = 0;
            VmExit exit;
            decode_exit(*vmcb, assists, exit);
            return exit;
        },
        kind);
}

VmExit decoded(const Fill& fill, const ExitAssists& assists = {true, true}) {
    Vmcb vmcb{};
    vmcb.save.rip = test::kScenarioRip;
    fill(vmcb);
    VmExit exit;
    decode_exit(vmcb, assists, exit);
    return exit;
}

}  // namespace

TEST_CASE("exits of a processor with all assists become neutral ones", "[svm]") {
    check({true, true}, test::Assists::all);
}
TEST_CASE("and those of one without", "[svm]") {
    check({false, false}, test::Assists::some);
}

TEST_CASE("without decode assists no register is made up", "[svm]") {
    CHECK_FALSE(decoded(cr(0, true, 0, 3), {true, false}).cr.decoded);
    // CLTS and LMSW exit as writes to CR0, but are no MOV.
    CHECK_FALSE(decoded(basic(ExitCode::write_cr0, 2)).cr.decoded);
}

TEST_CASE("a next RIP that makes no sense is no length", "[svm]") {
    const auto length = [](std::uint64_t next_rip) {
        return unsigned{decoded([&](Vmcb& vmcb) {
                            basic(ExitCode::cpuid)(vmcb);
                            vmcb.control.next_rip = next_rip;
                        }).instruction_length};
    };
    CHECK(length(test::kScenarioRip + 15) == 15);
    CHECK(length(test::kScenarioRip + 16) == 0);
    CHECK(length(test::kScenarioRip - 1) == 0);
}

TEST_CASE("VMEXIT_INVALID is known by its low half alone", "[svm]") {
    CHECK(decoded(basic(static_cast<ExitCode>(0xffff'ffff))).reason == VmExit::Reason::invalid_state);
}

TEST_CASE("an exit code that nobody knows is unhandled", "[svm]") {
    for (const std::uint64_t code :
         {std::uint64_t{0x9f}, std::uint64_t{0x401}, std::uint64_t{0xfff}, std::uint64_t{1} << 40})
        CHECK(decoded(basic(static_cast<ExitCode>(code))).reason == VmExit::Reason::unhandled);
    CHECK(decoded(basic(ExitCode::read_dr0)).reason == VmExit::Reason::dr_access);
    CHECK(decoded(basic(ExitCode::write_dr15)).reason == VmExit::Reason::dr_access);
}

TEST_CASE("INT n, INT3 and INTO through a task gate are the program's own", "[svm]") {
    for (const std::uint64_t event : {0x8000'0440u, 0x8000'0303u, 0x8000'0304u}) {
        const VmExit exit = decoded(task(0x28, 0, event));
        CHECK(exit.task.cause == TaskSwitch::Cause::gate);
        CHECK(exit.task.instruction);
        CHECK_FALSE(exit.task.external);
        CHECK_FALSE(exit.interrupted.pending());
    }
    CHECK(decoded(basic(ExitCode::icebp, 1)).reason == VmExit::Reason::int1);
}

TEST_CASE("events go to EVENTINJ and come back from EXITINTINFO", "[svm]") {
    CHECK(encode_event(Event::interrupt(0x31)) == 0x8000'0031);
    CHECK(encode_event(Event::non_maskable()) == 0x8000'0202);
    CHECK(encode_event(Event::exception(EXCEPTION_UD)) == 0x8000'0306);
    CHECK(encode_event(Event::exception(EXCEPTION_PF, 7)) == 0x7'8000'0b0e);
    CHECK(encode_event({}) == 0);
    for (const Event& event : {Event::interrupt(0xff), Event::non_maskable(), Event::exception(EXCEPTION_UD),
                               Event::exception(EXCEPTION_GP, 0x1234'5678)})
        CHECK(test::same_event(decode_event(encode_event(event)), event));
    // INT n, INT3 and INTO run again.
    CHECK_FALSE(decode_event(0x8000'0440).pending());
    CHECK_FALSE(decode_event(0x8000'0303).pending());
    CHECK_FALSE(decode_event(0x8000'0304).pending());
    CHECK_FALSE(decode_event(0x8000'0731).pending());  // a reserved type
}
