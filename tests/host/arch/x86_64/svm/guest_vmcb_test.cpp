// SPDX-License-Identifier: MIT
#include "arch/x86_64/code_context_check.hpp"
#include "arch/x86_64/defs/cr.hpp"
#include "arch/x86_64/exit_scenarios.hpp"
#include "arch/x86_64/svm/guest_vmcb.hpp"
#include "catch.hpp"

#include <cstring>
#include <functional>
#include <memory>

using namespace hv;
using namespace hv::svm;

namespace {

constexpr std::uint64_t kRip = 0x1000;

struct Fixture {
    explicit Fixture(bool clean_bits = true, bool pause_filter = true)
        : guest{*vmcb, {{true, true}, clean_bits, pause_filter, Hpa{0x10000}, Hpa{0x20000}, 0x30000}} {
        regs.rip = kRip;
        regs.rflags = 0x202;
    }
    /// VMRUN, in which the guest gets as far as `code`.
    VmExit run(ExitCode code, const std::function<void()>& meanwhile = {}) {
        guest.enter(regs);
        injected = c.event_injection;
        c.exit_code = static_cast<std::uint64_t>(code);
        c.exit_int_info = c.exit_info1 = c.exit_info2 = 0;
        if (meanwhile)
            meanwhile();
        VmExit exit;
        guest.leave(regs, exit);
        return exit;
    }
    VmExit run_to_exception(std::uint8_t vector, const std::function<void()>& meanwhile = {}) {
        return run(static_cast<ExitCode>(0x40 + vector), meanwhile);
    }
    [[nodiscard]] bool intercepts(Intercept intercept) const {
        const auto index = static_cast<unsigned>(intercept);
        return (c.intercepts[index / 32] >> index % 32 & 1) != 0;
    }
    [[nodiscard]] bool clean(Clean bits) const { return (c.clean & static_cast<std::uint32_t>(bits)) != 0; }
    [[nodiscard]] bool window_wanted() const {
        return VirtualInterrupt::Pending::test(c.virtual_interrupt) && intercepts(Intercept::vintr);
    }
    /// The vector of the interrupt that the next VMRUN delivers, or -1.
    [[nodiscard]] int going_in() const {
        if (!VirtualInterrupt::Pending::test(c.virtual_interrupt) || intercepts(Intercept::vintr))
            return -1;
        return static_cast<int>(VirtualInterrupt::Vector::get(c.virtual_interrupt));
    }
    /// What the processor does when it takes it.
    void take_interrupt() const { c.virtual_interrupt &= ~VirtualInterrupt::Pending::kMask; }
    /// An NMI is on its way to the guest's handler, which is at its IRET.
    void into_nmi_handler() {
        REQUIRE(guest.inject(Event::non_maskable(), regs));
        run(ExitCode::hlt);
    }
    bool inject_nmi() { return guest.inject(Event::non_maskable(), regs); }

    std::unique_ptr<Vmcb> vmcb = std::make_unique<Vmcb>();
    VmcbControl& c = vmcb->control;
    VmcbSave& s = vmcb->save;
    GuestVmcb guest;
    VcpuRegs regs{};
    std::uint64_t injected{0};
};

}  // namespace

TEST_CASE("a VMCB starts as the processor does after RESET, with what VMRUN insists on", "[svm]") {
    Fixture f;
    CHECK(f.s.cs.base == 0xffff'0000);
    CHECK(f.s.cr0 == (CR0_ET | CR0_CD | CR0_NW));
    CHECK((f.s.efer & EFER_SVME) != 0);
    CHECK(f.intercepts(Intercept::vmrun));
    CHECK(f.intercepts(Intercept::intr));
    CHECK(f.intercepts(Intercept::nmi));
    CHECK(f.c.nested_control == 1);
    CHECK(f.c.nested_cr3 == 0x30000);
    CHECK(f.c.iopm_base == 0x10000);
    CHECK(f.c.msrpm_base == 0x20000);
    CHECK(VirtualInterrupt::Masking::test(f.c.virtual_interrupt));
    CHECK((f.c.intercept_exceptions & (1U << EXCEPTION_DB | 1U << EXCEPTION_AC | 1U << EXCEPTION_MC)) ==
          (1U << EXCEPTION_DB | 1U << EXCEPTION_AC | 1U << EXCEPTION_MC));
}

TEST_CASE("registers go in and come out", "[svm]") {
    Fixture f;
    CpuState in;
    auto* bytes = reinterpret_cast<std::uint8_t*>(&in);
    for (std::size_t i = 0; i < sizeof in; ++i)
        bytes[i] = static_cast<std::uint8_t>(i * 7 + 1);
    for (Segment& segment : in.segment)
        segment.attributes = 0xc93 | 3 << 5;
    in.tr.attributes = 0x8b;
    in.ldtr.attributes = 0x82;
    in.efer = 0xd01;
    in.dr6 = in.dr7 = 0xffff'0ff0;
    CHECK(f.guest.set_state(in, RegSet::all));
    CpuState out{};
    std::copy_n(in.dr, 4, out.dr);  // not the VMCB's
    f.guest.get_state(out, RegSet::all);
    CHECK(out.cr0 == in.cr0);
    CHECK(out.cr2 == in.cr2);
    CHECK(out.cr3 == in.cr3);
    CHECK(out.cr4 == in.cr4);
    CHECK(out.efer == in.efer);
    CHECK(f.s.efer == (in.efer | EFER_SVME));
    for (unsigned i = 0; i < 6; ++i) {
        CHECK(out.segment[i].selector == in.segment[i].selector);
        CHECK(out.segment[i].base == in.segment[i].base);
        CHECK(out.segment[i].limit == in.segment[i].limit);
        CHECK(out.segment[i].attributes == in.segment[i].attributes);
    }
    CHECK(out.tr.base == in.tr.base);
    CHECK(out.ldtr.base == in.ldtr.base);
    CHECK(out.gdtr.base == in.gdtr.base);
    CHECK(out.idtr.limit == in.idtr.limit);
    CHECK(out.dr6 == in.dr6);
    CHECK(out.dr7 == in.dr7);
    CHECK(out.star == in.star);
    CHECK(out.kernel_gs_base == in.kernel_gs_base);
    CHECK(out.sysenter_eip == in.sysenter_eip);
    CHECK(out.pat == in.pat);
    CHECK(f.s.cpl == 3);
    CHECK(out.cpl() == 3);
    check_code_context(out, [&](const CodeContext& context) { return f.guest.runs_in(context); });
    for (unsigned i = 0; i < 6; ++i)
        CHECK(f.guest.segment(static_cast<SegmentName>(i)).base == in.segment[i].base);
    SECTION("CPL rules, not SS.DPL") {
        f.s.cpl = 0;
        f.guest.get_state(out, RegSet::segments);
        CHECK(out.cpl() == 0);
        CHECK(f.guest.runs_in(CodeContext::of(out)));
    }
    SECTION("the upper halves of DR6 and DR7 would make VMRUN fail") {
        in.dr6 = in.dr7 = ~std::uint64_t{0};
        CHECK_FALSE(f.guest.set_state(in, RegSet::debug));
        CHECK(f.s.dr6 >> 32 == 0);
        CHECK(f.s.dr7 >> 32 == 0);
    }
    SECTION("CR2 alone voids no translation") {
        in.cr2 = 0x1234;
        CHECK_FALSE(f.guest.set_state(in, RegSet::control));
        in.cr3 ^= 0x1000;
        CHECK(f.guest.set_state(in, RegSet::control));
    }
}

TEST_CASE("what is changed is not called clean", "[svm]") {
    Fixture f;
    CpuState state{};
    f.guest.get_state(state, RegSet::all);
    const auto changes = [&](RegSet which, Clean bit) {
        f.run(ExitCode::hlt);
        REQUIRE(f.clean(bit));
        static_cast<void>(f.guest.set_state(state, which));
        CHECK_FALSE(f.clean(bit));
    };
    changes(RegSet::control, Clean::control_registers);
    changes(RegSet::control, Clean::cr2);
    changes(RegSet::segments, Clean::segments);
    changes(RegSet::tables, Clean::descriptor_tables);
    changes(RegSet::debug, Clean::debug_registers);
    changes(RegSet::msrs, Clean::nested_paging);
    f.run(ExitCode::hlt);
    f.guest.set_asid(5, TlbControl::flush_all);
    CHECK_FALSE(f.clean(Clean::asid));
    CHECK(f.c.tlb_control == 1);
    f.run(ExitCode::hlt);
    CHECK(f.c.tlb_control == 0);
    f.guest.set_tsc_offset(-1);
    CHECK_FALSE(f.clean(Clean::intercepts));
    f.run(ExitCode::hlt);
    f.guest.arrive();
    CHECK(f.c.clean == 0);
    SECTION("a processor without clean bits finds none") {
        Fixture old{false};
        old.run(ExitCode::hlt);
        CHECK(old.c.clean == 0);
    }
}

TEST_CASE("PAUSE exits always by the filter, without one while it is wished", "[svm]") {
    for (const bool pause_filter : {true, false}) {
        Fixture f{true, pause_filter};
        CHECK((f.c.pause_filter_count != 0) == pause_filter);
        for (const bool wanted : {true, true, false, false}) {
            const bool before = f.intercepts(Intercept::pause);
            f.run(ExitCode::hlt);
            f.guest.set_pause_exits(wanted);
            CHECK(f.intercepts(Intercept::pause) == (pause_filter || wanted));
            CHECK(f.clean(Clean::intercepts) == (f.intercepts(Intercept::pause) == before));
        }
    }
}

TEST_CASE("an interrupt window is asked for, and ends with its exit", "[svm]") {
    Fixture f;
    f.run(ExitCode::hlt);
    f.guest.request_window(Event::Type::external_interrupt);
    CHECK(f.window_wanted());
    CHECK_FALSE(f.clean(Clean::tpr));
    CHECK_FALSE(f.clean(Clean::intercepts));
    CHECK(f.run(ExitCode::vintr).reason == VmExit::Reason::interrupt_window);
    CHECK_FALSE(VirtualInterrupt::Pending::test(f.c.virtual_interrupt));
    CHECK_FALSE(f.intercepts(Intercept::vintr));
    // Else the processor would go on with what it has, and deliver vector 0.
    CHECK_FALSE(f.clean(Clean::tpr));
}

TEST_CASE("events go in when the guest can take them", "[svm]") {
    Fixture f;
    SECTION("IF") {
        f.regs.rflags = 2;
        CHECK_FALSE(f.guest.inject(Event::interrupt(0x31), f.regs));
    }
    SECTION("shadow") {
        f.c.interrupt_shadow = 1;
        f.regs.rip = f.vmcb->save.rip;
        CHECK_FALSE(f.guest.inject(Event::interrupt(0x31), f.regs));
        CHECK_FALSE(f.inject_nmi());
        f.regs.rip += 1;
        CHECK(f.guest.inject(Event::interrupt(0x31), f.regs));
    }
    SECTION("an error code in protected mode alone") {
        CHECK(f.guest.inject(Event::exception(EXCEPTION_GP, 0x10), f.regs));
        f.run(ExitCode::hlt);
        CHECK(f.injected == 0x8000'030d);
    }
    SECTION("an exception ends a shadow") {
        f.c.interrupt_shadow = 1;
        CHECK(f.guest.inject(Event::exception(EXCEPTION_UD), f.regs));
        CHECK_FALSE(f.guest.interrupt_shadow(f.regs));
    }
    SECTION("one at a time") {
        f.s.cr0 |= CR0_PE;
        CHECK(f.guest.inject(Event::exception(EXCEPTION_GP, 0), f.regs));
        CHECK_FALSE(f.guest.inject(Event::interrupt(0x31), f.regs));
        f.run(ExitCode::hlt);
        CHECK(f.injected == 0x8000'0b0d);
        CHECK(f.guest.inject(Event::interrupt(0x31), f.regs));
    }
}

TEST_CASE("an interrupt goes in as a virtual one, past the guest's TPR", "[svm]") {
    Fixture f;
    f.run(ExitCode::hlt);
    REQUIRE(f.guest.inject(Event::interrupt(0x31), f.regs));
    CHECK(f.going_in() == 0x31);
    CHECK_FALSE(EventInjection::Valid::test(f.c.event_injection));
    CHECK(VirtualInterrupt::IgnoreTpr::test(f.c.virtual_interrupt));
    CHECK(VirtualInterrupt::Masking::test(f.c.virtual_interrupt));
    CHECK_FALSE(f.clean(Clean::tpr));
    SECTION("taken") {
        CHECK_FALSE(f.run(ExitCode::cpuid, [&] { f.take_interrupt(); }).interrupted.pending());
        CHECK(f.going_in() == -1);
    }
    SECTION("an exit came first: it goes in again") {
        const VmExit exit = f.run(ExitCode::intr);
        CHECK(exit.reason == VmExit::Reason::host_interrupt);
        CHECK(test::same_event(exit.interrupted, Event::interrupt(0x31)));
        CHECK(f.going_in() == -1);
        CHECK_FALSE(f.clean(Clean::tpr));
        CHECK(f.guest.inject(exit.interrupted, f.regs));
        CHECK(f.going_in() == 0x31);
    }
    SECTION("its delivery was interrupted, by a processor that says still pending and one that does not") {
        const bool pending = GENERATE(true, false);
        const VmExit exit = f.run(ExitCode::npf, [&] {
            f.c.exit_int_info = encode_event(Event::interrupt(0x31));
            if (!pending)
                f.take_interrupt();
        });
        CHECK(test::same_event(exit.interrupted, Event::interrupt(0x31)));
        CHECK(f.going_in() == -1);
    }
    SECTION("nothing else goes in with it") {
        CHECK_FALSE(f.guest.inject(Event::interrupt(0x32), f.regs));
        CHECK_FALSE(f.inject_nmi());
        CHECK(f.going_in() == 0x31);
    }
    SECTION("what waits behind it: the run ends when it is delivered") {
        const auto type = GENERATE(Event::Type::external_interrupt, Event::Type::nmi);
        CHECK(f.guest.request_window(type) == GuestVmcb::Window::at_once);
        CHECK(f.going_in() == -1);
        CHECK_FALSE(f.window_wanted());
        f.run(ExitCode::intr);
        CHECK(f.injected == 0x8000'0031);
    }
    SECTION("it takes the place of a window") {
        f.run(ExitCode::cpuid, [&] { f.take_interrupt(); });
        f.guest.request_window(Event::Type::external_interrupt);
        REQUIRE(f.window_wanted());
        CHECK(f.guest.inject(Event::interrupt(0x33), f.regs));
        CHECK_FALSE(f.intercepts(Intercept::vintr));
        CHECK(f.going_in() == 0x33);
    }
}

TEST_CASE("NMIs are blocked until the handler's IRET has been executed", "[svm]") {
    Fixture f;
    f.into_nmi_handler();
    CHECK_FALSE(f.inject_nmi());
    f.guest.request_window(Event::Type::nmi);
    CHECK_FALSE(f.window_wanted());
    CHECK(f.intercepts(Intercept::iret));
    f.regs.rip = 0x2000;
    f.regs.rflags = 2;
    CHECK(f.run(ExitCode::iret).reason == VmExit::Reason::host_interrupt);
    CHECK_FALSE(f.inject_nmi());
    CHECK((f.regs.rflags & RFLAGS_TF) != 0);
    CHECK_FALSE(f.intercepts(Intercept::iret));

    SECTION("the step ends it, and the guest sees nothing of the trap") {
        f.s.dr6 = DR6_RESET;
        const VmExit exit = f.run_to_exception(EXCEPTION_DB, [&] {
            f.s.rip = 0x1234;
            f.s.rflags = 0x202;
            f.s.dr6 |= DR6_BS;
        });
        CHECK(exit.reason == VmExit::Reason::nmi_window);
        CHECK(f.s.dr6 == DR6_RESET);
        CHECK(f.regs.rflags == 0x202);
        CHECK(f.c.intercept_exceptions ==
              (1U << EXCEPTION_DB | 1U << EXCEPTION_UD | 1U << EXCEPTION_AC | 1U << EXCEPTION_MC));
        CHECK(f.inject_nmi());
    }
    SECTION("a physical interrupt before it: the IRET is still to come") {
        CHECK(f.run(ExitCode::intr).reason == VmExit::Reason::host_interrupt);
        CHECK((f.regs.rflags & RFLAGS_TF) == 0);
        CHECK_FALSE(f.inject_nmi());
        CHECK(f.intercepts(Intercept::iret));
        f.run(ExitCode::iret);
        const VmExit exit = f.run_to_exception(EXCEPTION_DB, [&] {
            f.s.rip = 0x1234;
            f.s.rflags = 0x202;
            f.s.dr6 |= DR6_BS;
        });
        CHECK(exit.reason == VmExit::Reason::nmi_window);
        CHECK(f.inject_nmi());
    }
    SECTION("the IRET faults: the handler of that gets the guest's flags and address") {
        const VmExit exit = f.run_to_exception(EXCEPTION_PF, [&] {
            f.c.exit_info1 = 2;
            f.c.exit_info2 = 0xdead'f000;
        });
        CHECK(exit.reason == VmExit::Reason::exception);
        CHECK(test::same_event(exit.exception, Event::exception(EXCEPTION_PF, 2)));
        CHECK(f.regs.rflags == 2);
        CHECK(f.s.cr2 == 0xdead'f000);
        CHECK(f.guest.inject(exit.exception, f.regs));
        f.run(ExitCode::hlt);
        CHECK(f.inject_nmi());
    }
    SECTION("a breakpoint on the IRET is the guest's") {
        const VmExit exit = f.run_to_exception(EXCEPTION_DB, [&] { f.s.dr6 |= 1; });
        CHECK(exit.reason == VmExit::Reason::exception);
        CHECK((f.s.dr6 & 1) != 0);
        CHECK(f.regs.rflags == 2);
        CHECK_FALSE(f.inject_nmi());
    }
    SECTION("an interrupt does not come between, nor does its window") {
        f.regs.rflags |= RFLAGS_IF;
        CHECK_FALSE(f.guest.inject(Event::interrupt(0x31), f.regs));
        f.guest.request_window(Event::Type::external_interrupt);
        CHECK_FALSE(f.window_wanted());
    }
}

TEST_CASE("an NMI waits for no IF", "[svm]") {
    Fixture f;
    f.regs.rflags = 2;
    SECTION("behind an exception, a physical interrupt ends the run at once") {
        CHECK(f.guest.inject(Event::exception(EXCEPTION_UD), f.regs));
        CHECK(f.guest.request_window(Event::Type::nmi) == GuestVmcb::Window::at_once);
        f.run(ExitCode::intr);
        CHECK(f.inject_nmi());
    }
    SECTION("behind another NMI there is no hurry") {
        CHECK(f.inject_nmi());
        CHECK(f.guest.request_window(Event::Type::nmi) == GuestVmcb::Window::exits);
    }
    SECTION("under an STI shadow, the window of interrupts comes as soon") {
        f.regs.rflags = 0x202;
        f.c.interrupt_shadow = 1;
        CHECK(f.guest.request_window(Event::Type::nmi) == GuestVmcb::Window::exits);
        CHECK(f.window_wanted());
    }
}

TEST_CASE("NMI blocking can be set where the VMM did the work", "[svm]") {
    Fixture f;
    CHECK_FALSE(f.guest.nmi_blocking());
    f.guest.set_nmi_blocking(true);
    CHECK(f.guest.nmi_blocking());
    CHECK_FALSE(f.inject_nmi());
    CHECK(f.intercepts(Intercept::iret));
    f.guest.set_nmi_blocking(false);
    CHECK_FALSE(f.intercepts(Intercept::iret));
    CHECK(f.inject_nmi());
}

TEST_CASE("a guest that steps over its own IRET gets its trap", "[svm]") {
    Fixture f;
    f.into_nmi_handler();
    f.regs.rip = 0x2000;
    f.regs.rflags = 2 | RFLAGS_TF;
    f.run(ExitCode::iret);
    const VmExit exit = f.run_to_exception(EXCEPTION_DB, [&] {
        f.s.rip = 0x1234;
        f.s.dr6 |= DR6_BS;
    });
    CHECK(exit.reason == VmExit::Reason::exception);
    CHECK((f.s.dr6 & DR6_BS) != 0);
    CHECK(f.inject_nmi());
}

TEST_CASE("an NMI whose delivery was interrupted blocks nothing and goes in again", "[svm]") {
    Fixture f;
    REQUIRE(f.inject_nmi());
    const VmExit exit =
        f.run(ExitCode::intr, [&] { f.c.exit_int_info = encode_event(Event::non_maskable()); });
    CHECK(exit.interrupted.type == Event::Type::nmi);
    CHECK_FALSE(f.intercepts(Intercept::iret));
    CHECK(f.guest.inject(exit.interrupted, f.regs));
}

TEST_CASE("a new start forgets what was blocked, asked for or on its way", "[svm]") {
    Fixture f;
    f.into_nmi_handler();
    f.guest.request_window(Event::Type::external_interrupt);
    CHECK(f.guest.inject(Event::interrupt(0x31), f.regs));
    CpuState state{};
    f.guest.get_state(state, RegSet::all);
    static_cast<void>(f.guest.set_state(state, RegSet::all));
    CHECK_FALSE(f.window_wanted());
    CHECK(f.going_in() == -1);
    CHECK(f.c.event_injection == 0);
    CHECK(f.inject_nmi());
}
