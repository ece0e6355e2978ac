// SPDX-License-Identifier: MIT
// One list of exits for both vendors: what a guest did, and the VmExit that neutral code must get for it.
// Each backend's test brings a filler for each scenario, which writes what its processor would report, and
// calls check_exit_scenarios().
//
// The guest is at RIP 0x1000 in 64-bit mode.
#pragma once

#include "catch.hpp"
#include "vmm/core/vm_exit.hpp"

#include <functional>
#include <map>
#include <string_view>
#include <vector>

namespace hv::test {

inline constexpr std::uint64_t kScenarioRip = 0x1000;
inline constexpr std::uint32_t kScenarioDr7 = 0x0d00'0408;

struct ExitScenario {
    std::string_view name;
    VmExit expected;  ///< `raw` is the vendor's own and not compared
};

namespace scenario {

inline VmExit exit(VmExit::Reason reason, std::uint8_t instruction_length = 0) {
    VmExit e;
    e.reason = reason;
    e.instruction_length = instruction_length;
    return e;
}
inline VmExit io(IoExit io, std::uint8_t instruction_length) {
    VmExit e = exit(VmExit::Reason::io, instruction_length);
    e.io = io;
    e.dr7 = kScenarioDr7;
    return e;
}
inline VmExit cr(CrExit cr, std::uint8_t instruction_length) {
    VmExit e = exit(VmExit::Reason::cr_access, instruction_length);
    e.cr = cr;
    return e;
}
inline VmExit fault(NestedFault fault, Event interrupted = {}) {
    VmExit e = exit(VmExit::Reason::nested_fault);
    e.fault = fault;
    e.dr7 = kScenarioDr7;
    e.interrupted = interrupted;
    return e;
}
inline VmExit exception(Event event, Event interrupted = {}) {
    VmExit e = exit(VmExit::Reason::exception);
    e.exception = event;
    e.interrupted = interrupted;
    return e;
}

inline VmExit task(TaskSwitch task, Event interrupted = {}) {
    VmExit e = exit(VmExit::Reason::task_switch);
    e.task = task;
    e.interrupted = interrupted;
    return e;
}

}  // namespace scenario

inline const std::vector<ExitScenario>& exit_scenarios() {
    using namespace scenario;
    using Reason = VmExit::Reason;
    using Cause = TaskSwitch::Cause;
    constexpr Gpa kMmio{0xfec0'0010};
    constexpr NestedFault kMmioRead{kMmio, true, false, false, false, false};
    constexpr NestedFault kMmioWrite{kMmio, false, true, false, false, false};
    static const std::vector<ExitScenario> scenarios{
        {"a physical interrupt", exit(Reason::host_interrupt)},
        {"a physical NMI", exit(Reason::host_interrupt)},
        {"the interrupt window opens", exit(Reason::interrupt_window)},
        {"the NMI window opens", exit(Reason::nmi_window)},
        {"CPUID", exit(Reason::cpuid, 2)},
        {"RDMSR", exit(Reason::rdmsr, 2)},
        {"WRMSR", exit(Reason::wrmsr, 2)},
        {"HLT", exit(Reason::hlt, 1)},
        {"VMCALL or VMMCALL", exit(Reason::vmcall, 3)},
        {"a loop of PAUSEs", exit(Reason::pause, 2)},
        {"XSETBV", exit(Reason::xsetbv, 3)},
        {"INVD", exit(Reason::invd, 2)},
        {"WBINVD", exit(Reason::invd, 2)},
        {"OUT DX, AL to 0x3f8", io({0x3f8, 1, false, false, false}, 1)},
        {"OUT 0x80, AX", io({0x80, 2, false, false, false}, 3)},
        {"IN EAX, DX from 0xcfc", io({0xcfc, 4, true, false, false}, 1)},
        {"REP OUTSB to 0x3f8", io({0x3f8, 1, false, true, true}, 2)},
        {"INSW from 0x1f0", io({0x1f0, 2, true, true, false}, 2)},
        {"a read of an address without memory", fault(kMmioRead)},
        {"a write to an address without memory", fault(kMmioWrite)},
        {"a fetch from an address without memory",
         fault({Gpa{0x1'0000'0000}, false, false, true, false, false})},
        {"a write to read-only memory", fault({Gpa{0xf'0000}, false, true, false, true, false})},
        {"a page walk through an address without memory",
         fault({Gpa{0xd000'0000}, false, true, false, false, true})},
        {"the stack of an interrupt has no memory", fault(kMmioWrite, Event::interrupt(0x31))},
        {"the stack of an NMI has no memory", fault(kMmioWrite, Event::non_maskable())},
        {"the stack of a #PF has no memory", fault(kMmioWrite, Event::exception(14, 2))},
        {"the stack of a #UD has no memory", fault(kMmioWrite, Event::exception(6))},
        {"MOV CR0, RAX", cr({0, true, true, RAX}, 3)},
        {"MOV CR4, R15", cr({4, true, true, R15}, 4)},
        {"MOV RSP, CR8", cr({8, false, true, RSP}, 4)},
        {"MOV CR8, RCX", cr({8, true, true, RCX}, 4)},
        {"#DB", exception(Event::exception(1))},
        {"#AC", exception(Event::exception(17, 0))},
        {"#AC while #AC is delivered", exception(Event::exception(17, 0), Event::exception(17, 0))},
        {"RDPMC", exception(Event::exception(13, 0))},
        {"MONITOR", exit(Reason::undefined, 3)},
        {"MWAIT", exit(Reason::undefined, 3)},
        {"an instruction of the virtualization extension", exit(Reason::undefined, 3)},
        {"CALL to a TSS", task({Cause::call, true, false, false, false, 0x28, 0})},
        {"JMP to a TSS", task({Cause::jump, true, false, false, false, 0x28, 0})},
        {"IRET to a TSS", task({Cause::iret, true, false, false, false, 0x30, 0})},
        {"an interrupt through a task gate",
         task({Cause::gate, false, true, false, false, 0x28, 0}, Event::interrupt(0x31))},
        {"an NMI through a task gate",
         task({Cause::gate, false, true, false, false, 0x28, 0}, Event::non_maskable())},
        {"a #PF through a task gate",
         task({Cause::gate, false, true, true, true, 0x28, 2}, Event::exception(14, 2))},
        {"a triple fault", exit(Reason::shutdown)},
        {"INIT", exit(Reason::init_signal)},
        {"guest state that the processor refuses", exit(Reason::invalid_state)},
    };
    return scenarios;
}

inline bool same_event(const Event& a, const Event& b) {
    return a.type == b.type && a.vector == b.vector && a.has_error_code == b.has_error_code &&
           a.error_code == b.error_code && a.instruction_length == b.instruction_length;
}

/// What the processor reports beside the exit itself. Where it does not, `instruction_length` may be 0 and a
/// CR access undecoded.
enum class Assists { all, some };

inline void check_same_exit(const VmExit& expected, const VmExit& actual, Assists assists) {
    CHECK(actual.reason == expected.reason);
    CHECK(actual.dr7 == expected.dr7);
    if (assists == Assists::all || actual.instruction_length != 0)
        CHECK(unsigned{actual.instruction_length} == unsigned{expected.instruction_length});
    CHECK(same_event(actual.interrupted, expected.interrupted));
    if (actual.reason != expected.reason)
        return;
    switch (expected.reason) {
    case VmExit::Reason::io:
        CHECK(actual.io.port() == expected.io.port());
        CHECK(unsigned{actual.io.size()} == unsigned{expected.io.size()});
        CHECK(actual.io.in() == expected.io.in());
        CHECK(actual.io.string() == expected.io.string());
        CHECK(actual.io.rep() == expected.io.rep());
        break;
    case VmExit::Reason::nested_fault:
        CHECK(actual.fault.gpa == expected.fault.gpa);
        CHECK(actual.fault.read == expected.fault.read);
        CHECK(actual.fault.write == expected.fault.write);
        CHECK(actual.fault.execute == expected.fault.execute);
        CHECK(actual.fault.present == expected.fault.present);
        CHECK(actual.fault.during_walk == expected.fault.during_walk);
        break;
    case VmExit::Reason::cr_access:
        CHECK(unsigned{actual.cr.cr} == unsigned{expected.cr.cr});
        CHECK(actual.cr.write == expected.cr.write);
        if (assists == Assists::all || actual.cr.decoded) {
            CHECK(actual.cr.decoded == expected.cr.decoded);
            CHECK(unsigned{actual.cr.gpr} == unsigned{expected.cr.gpr});
        }
        break;
    case VmExit::Reason::task_switch:
        CHECK(actual.task.cause == expected.task.cause);
        CHECK(actual.task.instruction == expected.task.instruction);
        CHECK(actual.task.external == expected.task.external);
        CHECK(actual.task.resume_flag == expected.task.resume_flag);
        CHECK(actual.task.has_error_code == expected.task.has_error_code);
        CHECK(actual.task.selector == expected.task.selector);
        CHECK(actual.task.error_code == expected.task.error_code);
        break;
    case VmExit::Reason::exception: CHECK(same_event(actual.exception, expected.exception)); break;
    default: break;
    }
}

/// Runs all scenarios. `fillers` has one for each name; an empty one says that this vendor has no such exit.
/// `decode(fill)` makes a fresh control structure, lets `fill` write to it and decodes it.
template <class Structure, class Decode>
void check_exit_scenarios(const std::map<std::string_view, std::function<void(Structure&)>>& fillers,
                          Decode&& decode, Assists assists) {
    for (const ExitScenario& s : exit_scenarios()) {
        INFO(s.name);
        const auto filler = fillers.find(s.name);
        REQUIRE(filler != fillers.end());
        if (filler->second)
            check_same_exit(s.expected, decode(filler->second), assists);
    }
    CHECK(fillers.size() == exit_scenarios().size());
}

}  // namespace hv::test
